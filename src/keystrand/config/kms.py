"""`[kms.NAME]`: an enterprise key manager that takes keys of this site and hears what becomes of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta

from keystrand.config.dial import Dial, check_dial
from keystrand.config.reading import Fault
from keystrand.core.errors import BadRequest
from keystrand.core.identity import check_name

if TYPE_CHECKING:
    from keystrand.config.schema import SiteConfig


class Kms(Dial, frozen=True, kw_only=True):
    """A KMIP server. `keystrand key export --to-kms NAME` registers keys there, and the site ends them there when they are
    revoked, compromised or destroyed here. Objects belong to the certificate that registered them, so it is the same one."""

    annotate: Annotated[
        Literal["custom", "application", "none"], Meta(description="how protection and site travel with a key")
    ] = "custom"


def check_kms(config: SiteConfig) -> Iterator[Fault]:
    """Names, files, and TLS that cannot be."""
    for name, kms in config.kms.items():
        where = ("kms", name)
        try:
            check_name(name)
        except BadRequest as error:
            yield Fault(where, str(error))
        yield from check_dial(kms, where)
