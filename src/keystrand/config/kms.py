"""`[kms.NAME]`: an enterprise key manager that takes keys of this site and hears what becomes of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta

from keystrand.config.dial import Dial, check_dial
from keystrand.config.faults import named
from keystrand.config.reading import Fault

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
        yield from named(name, where)
        yield from check_dial(kms, where)
