"""`[kms.NAME]`: an enterprise key manager that takes keys of this site and hears what becomes of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta

from keystrand.config.reading import Fault
from keystrand.config.section import Section
from keystrand.config.values import Address
from keystrand.core.errors import BadRequest, ConfigError
from keystrand.core.identity import check_name

if TYPE_CHECKING:
    from keystrand.config.schema import SiteConfig


class Kms(Section, frozen=True, kw_only=True):
    """A KMIP server. `keystrand key export --to-kms NAME` registers keys there, and the site ends them there when they are
    revoked, compromised or destroyed here. Objects belong to the certificate that registered them, so it is the same one."""

    address: Annotated[Address, Meta(description="host:port of the KMIP server")]
    certificate: Annotated[Path, Meta(description="certificate that the server knows this site by, PEM")]
    private_key: Annotated[Path, Meta(description="its private key, PEM (mode 600)")]
    trust: Annotated[Path, Meta(description="CA certificates that may vouch for the server, PEM")]
    name: Annotated[str | None, Meta(description="common name in the server's certificate; left out: its host")] = None
    minimum: Annotated[Literal["1.3", "1.2"], Meta(description="lowest TLS version; many KMIP servers have 1.2")] = (
        "1.3"
    )
    require_pqc_group: Annotated[
        bool, Meta(description="refuse a server without ML-KEM; false: what it gets can be recorded and read later")
    ] = True
    annotate: Annotated[
        Literal["custom", "application", "none"], Meta(description="how protection and site travel with a key")
    ] = "custom"


def check_kms(config: SiteConfig) -> Iterator[Fault]:
    """Names, files, and TLS that cannot be."""
    from keystrand.config.checks import require_private

    for name, kms in config.kms.items():
        where = ("kms", name)
        try:
            check_name(name)
        except BadRequest as error:
            yield Fault(where, str(error))
        for field in ("certificate", "private_key", "trust"):
            path: Path = getattr(kms, field)
            if not path.is_file():
                yield Fault((*where, field), f"{path}: no such file")
        if kms.private_key.is_file():
            try:
                require_private(kms.private_key)
            except ConfigError as error:
                yield Fault((*where, "private_key"), str(error), error.hint or "")
        if kms.minimum == "1.2" and kms.require_pqc_group:
            hint = "write require_pqc_group = false and accept that keys sent there can be recorded and read later"
            yield Fault((*where, "minimum"), "TLS 1.2 has no ML-KEM group, yet require_pqc_group asks for one", hint)
