"""`[tunnel.NAME.wireguard]`"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from keystrand.core.errors import ConfigError
from keystrand.transport.tunnel.faults import address_fault, address_faults
from keystrand.transport.wireguard.door import key_of

LANES: Final = 4  # interfaces that dual lanes take turns on; two at most are up at a time, three after a lost word
_NAME: Final = r"^[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,13}$"
_NAMESPACE: Final = r"^[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,63}$"


class WireGuardSettings(msgspec.Struct, frozen=True, kw_only=True):
    """WireGuard. The key of each generation is the pre-shared key of the handshake."""

    interface: Annotated[
        str, Meta(description="name of the interface; with dual lanes a digit is added", pattern=_NAME)
    ]
    private_key: Annotated[Path, Meta(description="file with the own private key, as of `wg genkey` (mode 600)")]
    peer_public_key: Annotated[str, Meta(description="the other end's public key, as of `wg pubkey`")]
    allowed_ips: Annotated[
        tuple[str, ...],
        Meta(description="networks behind the other end: what is sent there goes through", min_length=1),
    ]
    listen_port: Annotated[int, Meta(description="UDP port; with dual lanes the first of four", ge=1, le=65_532)] = (
        51_820
    )
    endpoint: Annotated[
        str | None, Meta(description="IP address and first port of the other end, such as 192.0.2.1:51820")
    ] = None
    source: Annotated[str | None, Meta(description="own address that traffic into the tunnel comes from")] = None
    lanes: Annotated[
        Literal["dual", "natural"],
        Meta(
            description="dual: a fresh interface for each key, then the routes change over: in use within milliseconds, "
            "without loss; natural: one interface, the key takes effect with WireGuard's own next handshake, up to 2 min"
        ),
    ] = "dual"
    mtu: Annotated[int, Meta(description="of the interface", ge=1280, le=65_535)] = 1420
    keepalive_s: Annotated[int, Meta(description="empty packets at this interval keep the way open", ge=1, le=60)] = 25
    namespace: Annotated[
        Annotated[str, Meta(pattern=_NAMESPACE)] | None, Meta(description="network namespace of interfaces and routes")
    ] = None
    plane: Annotated[
        Literal["auto", "kernel", "wireguard-go"],
        Meta(description="who handles the packets; auto: the kernel where it can, else the program wireguard-go"),
    ] = "auto"


def faults_of(settings: WireGuardSettings) -> list[tuple[str, str]]:
    """(field, what is wrong)"""
    found: list[tuple[str, str]] = []
    try:
        key_of(settings.peer_public_key)
    except ConfigError as error:
        found.append(("peer_public_key", str(error)))
    try:
        key_of(settings.private_key.read_text())
    except (OSError, UnicodeDecodeError, ConfigError) as error:
        found.append(("private_key", f"{settings.private_key}: {getattr(error, 'strerror', None) or error}"))
    else:
        if settings.private_key.stat().st_mode & 0o077:
            found.append(("private_key", f"{settings.private_key}: others may read or change this secret"))
    found += address_faults(settings, allowed_ips=ipaddress.ip_network, source=ipaddress.ip_address)
    if settings.endpoint is not None:
        host, colon, port = settings.endpoint.rpartition(":")
        found += address_fault("endpoint", host.removeprefix("[").removesuffix("]"), ipaddress.ip_address)
        if not colon or not port.isdecimal() or not 0 < int(port) <= 65_532:
            found.append(("endpoint", f"{settings.endpoint!r} is not ADDRESS:PORT"))
    return found
