"""Cards of other sites on the command line: who brings one has to say that its fingerprint was compared."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import click

from keystrand.cli.options import READABLE
from keystrand.cli.terminal import say
from keystrand.core.errors import NotPermitted

if TYPE_CHECKING:
    from keystrand.config.founding import SiteCard

CARD: Final = click.argument("card_file", metavar="CARD", type=READABLE)
FINGERPRINT: Final = click.option(
    "--fingerprint", default=None, help="Of CARD, as its owner read it out. Asked for on a terminal if left out."
)


def compare(card: SiteCard, told: str | None) -> None:
    """The fingerprint that the owner read out must be that of the card. Raises NotPermitted."""
    if told is None:
        if not sys.stdin.isatty():
            raise NotPermitted(
                "this card is not confirmed", hint="state --fingerprint, as its owner read it out to you"
            )
        say(f"card of site {card.name}; fingerprint: {card.fingerprint}")
        click.confirm("Does its owner read out the same?", abort=True, err=True)
    elif "".join(told.split()).lower() != "".join(card.fingerprint.split()):
        raise NotPermitted(
            "the fingerprint does not fit this card", hint="it may have been swapped on its way; get it again"
        )
