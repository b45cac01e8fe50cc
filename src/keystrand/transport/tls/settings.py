"""`[tunnel.NAME.tls]`"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

_NAMESPACE: Final = r"^[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,63}$"
_ADDRESS: Final = r"^(\[[0-9a-fA-F:.]+\]|[a-zA-Z0-9_.-]+):[0-9]{1,5}$"
Place = Annotated[str, Meta(pattern=_ADDRESS)]


class TlsSettings(msgspec.Struct, frozen=True, kw_only=True):
    """A TCP service through TLS 1.3 under keys of the network. The initiator takes the applications' connections and leads
    them through; the responder ends TLS and connects to the service. So applications are where `role = "initiator"` is."""

    listen: Annotated[
        Place,
        Meta(description="host:port; the initiator takes plain connections of applications here, the responder TLS"),
    ]
    connect: Annotated[
        Place,
        Meta(description="host:port; of the responder's listen at the initiator, of the service at the responder"),
    ]
    drain_s: Annotated[
        float,
        Meta(
            description="connections under a key that was replaced are closed after so many seconds (TLS 1.3 has no "
            "renegotiation, so a connection keeps its key); below hold_s of the tunnel",
            ge=0,
        ),
    ] = 300.0
    connections_max: Annotated[int, Meta(description="more at once are refused", ge=1, le=100_000)] = 1000
    namespace: Annotated[
        Annotated[str, Meta(pattern=_NAMESPACE)] | None, Meta(description="network namespace that the proxy runs in")
    ] = None


def host_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


def faults_of(settings: TlsSettings) -> list[tuple[str, str]]:
    """(field, what is wrong)"""
    found: list[tuple[str, str]] = []
    for field in ("listen", "connect"):
        port = host_port(getattr(settings, field))[1]
        if not 0 < port <= 65_535:
            found.append((field, f"{port} is not a port"))
    return found
