"""What may be put into escrow."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta

from keystrand.config.section import Section

ONE_TIME_PAD: Final = "one-time-pad"


class Escrow(Section, frozen=True, kw_only=True):
    """What may be shared out among custodians. By default no one-time pad: whoever holds it can read what it hides."""

    forbid: Annotated[
        tuple[str, ...],
        Meta(
            description="tags of keys that must not be escrowed, NAME=VALUE, nor the keys of a tenant that has such keys"
        ),
    ] = (f"asset={ONE_TIME_PAD}", f"data_class={ONE_TIME_PAD}")
