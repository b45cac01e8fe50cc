"""A server of somebody else's that this site asks: where it is, the certificate that it knows us by, what its TLS must have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from keystrand.config.faults import private, there
from keystrand.config.lines import Where
from keystrand.config.reading import Fault
from keystrand.config.section import Section
from keystrand.config.values import Address


class Dial(Section, frozen=True, kw_only=True):
    """Base of the tables that name such a server."""

    address: Annotated[Address, Meta(description="host:port of the server")]
    certificate: Annotated[Path, Meta(description="certificate that the server knows this site by, PEM")]
    private_key: Annotated[Path, Meta(description="its private key, PEM (mode 600)")]
    trust: Annotated[Path, Meta(description="CA certificates that may vouch for the server, PEM")]
    name: Annotated[str | None, Meta(description="common name in the server's certificate; left out: its host")] = None
    minimum: Annotated[Literal["1.3", "1.2"], Meta(description="lowest TLS version; many such servers have 1.2")] = (
        "1.3"
    )
    require_pqc_group: Annotated[
        bool,
        Meta(description="refuse a server without ML-KEM; false: what is exchanged can be recorded and read later"),
    ] = True

    @property
    def expect(self) -> tuple[None, str]:
        """Kind and name that its certificate must state."""
        return None, self.name or self.address.host


def check_dial(dial: Dial, where: Where) -> Iterator[Fault]:
    """Files, and TLS that cannot be."""
    yield from there(dial.certificate, (*where, "certificate"))
    yield from private(dial.private_key, (*where, "private_key"))
    yield from there(dial.trust, (*where, "trust"))
    if dial.minimum == "1.2" and dial.require_pqc_group:
        hint = "write require_pqc_group = false and accept that what is exchanged can be recorded and read later"
        yield Fault((*where, "minimum"), "TLS 1.2 has no ML-KEM group, yet require_pqc_group asks for one", hint)
    if dial.address.port == 0 or dial.address.is_wildcard:
        yield Fault((*where, "address"), f"nobody can connect to {dial.address}", "write the server's host and port")
