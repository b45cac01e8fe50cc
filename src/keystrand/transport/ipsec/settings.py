"""`[tunnel.NAME.ipsec]`"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from keystrand.transport.tunnel.faults import address_faults

_NAMESPACE: Final = r"^[a-zA-Z0-9_.-]{1,14}$"
_IDENTITY: Final = r"^[^\x00-\x1f]{1,200}$"


class IpsecSettings(msgspec.Struct, frozen=True, kw_only=True):
    """IPsec by strongSwan. Every IKE_SA has the key of its generation mixed in as a PPK (RFC 8784)."""

    local_address: Annotated[str, Meta(description="own address on the network between the ends")]
    remote_address: Annotated[str, Meta(description="the other end's address; not inside remote_networks")]
    local_id: Annotated[str, Meta(description="own IKE identity, as in the certificate", pattern=_IDENTITY)]
    remote_id: Annotated[str, Meta(description="the other end's IKE identity", pattern=_IDENTITY)]
    local_networks: Annotated[
        tuple[str, ...],
        Meta(description="networks behind this end: what is sent from there is protected", min_length=1),
    ]
    remote_networks: Annotated[
        tuple[str, ...],
        Meta(description="networks behind the other end: nothing goes there but through the tunnel", min_length=1),
    ]
    certificate: Annotated[Path | None, Meta(description="own certificate (PEM); with private_key and trust")] = None
    private_key: Annotated[Path | None, Meta(description="its private key (PEM, mode 600)")] = None
    trust: Annotated[Path | None, Meta(description="CA that signed the other end's certificate (PEM)")] = None
    psk_file: Annotated[
        Path | None,
        Meta(
            description="file with a secret that both ends share, instead of certificates (mode 600, 16 bytes or more)"
        ),
    ] = None
    socket: Annotated[Path, Meta(description="the daemon's vici socket")] = Path("/var/run/charon.vici")
    proposals: Annotated[
        tuple[str, ...],
        Meta(
            description="IKE suites, as strongSwan writes them; empty: AES-256-GCM, with ML-KEM-768 where there is any"
        ),
    ] = ()
    esp_proposals: Annotated[tuple[str, ...], Meta(description="ESP suites; empty: AES-256-GCM")] = ()
    ml_kem: Annotated[
        Literal["offered", "required"],
        Meta(
            description="offered: ML-KEM-768 beside the elliptic curve (RFC 9370) where both daemons have it; "
            "required: no tunnel without"
        ),
    ] = "offered"
    ike_rekey_s: Annotated[int, Meta(description="age of an IKE_SA at which it rekeys itself", ge=60)] = 14_400
    child_rekey_s: Annotated[int, Meta(description="age of a CHILD_SA at which it rekeys itself", ge=60)] = 3_600
    dpd_s: Annotated[int, Meta(description="silence after which the other end is asked for a sign of life", ge=1)] = 10
    namespace: Annotated[
        Annotated[str, Meta(pattern=_NAMESPACE)] | None, Meta(description="network namespace in which the daemon runs")
    ] = None


def faults_of(settings: IpsecSettings) -> list[tuple[str, str]]:
    """(field, what is wrong)"""
    found = [*_authentication_faults(settings)]
    network, address = ipaddress.ip_network, ipaddress.ip_address
    found += address_faults(
        settings, local_networks=network, remote_networks=network, local_address=address, remote_address=address
    )
    if not found:
        peer = ipaddress.ip_address(settings.remote_address)
        inside = [network for network in settings.remote_networks if peer in ipaddress.ip_network(network)]
        found += [("remote_address", f"{peer} lies inside {network}") for network in inside]
    if settings.ml_kem == "required" and not all("mlkem" in suite for suite in settings.proposals):
        found.append(("proposals", "ml_kem is required, and one of these goes without"))
    return found


def _authentication_faults(settings: IpsecSettings) -> list[tuple[str, str]]:
    certified = (settings.certificate, settings.private_key, settings.trust)
    if settings.psk_file is not None:
        both = [("psk_file", "give either this or a certificate")] if any(certified) else []
        return both + _file_fault("psk_file", settings.psk_file, secret=True, least_bytes=16)
    if not all(certified):
        return [("certificate", "give certificate, private_key and trust, or psk_file")]
    found: list[tuple[str, str]] = []
    for field, file in zip(("certificate", "private_key", "trust"), certified, strict=True):
        assert file is not None
        found += _file_fault(field, file, secret=field == "private_key")
    return found


def _file_fault(field: str, file: Path, *, secret: bool, least_bytes: int = 1) -> list[tuple[str, str]]:
    try:
        length_bytes = len(file.read_bytes().strip())
        loose = secret and file.stat().st_mode & 0o077
    except OSError as error:
        return [(field, f"{file}: {error.strerror}")]
    if loose:
        return [(field, f"{file}: others may read or change this secret")]
    if length_bytes < least_bytes:
        return [(field, f"{file}: {length_bytes} bytes are too few")]
    return []
