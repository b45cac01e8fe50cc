"""Rules that every store keeps: bits enter as ingested and then only move; a finished copy has no material."""

from __future__ import annotations

from typing import Final

from keystrand.core.errors import IllegalTransition
from keystrand.core.pool import Account
from keystrand.core.states import Step

LIVING: Final = frozenset({Step.READY, Step.RESERVED, Step.WITHHELD})  # the steps of a copy that still has material


def check_move(link: str, source: Account, target: Account, have: int, bits: int) -> None:
    """Raises IllegalTransition for a move of `bits` out of `source`, which holds `have`, that no ledger allows."""
    if bits < 0 or target is Account.INGESTED or source is target:
        raise IllegalTransition(f"{link}: {bits} bits from {source.value} to {target.value}")
    if source is not Account.INGESTED and have < bits:
        raise IllegalTransition(f"{link}: {bits} bits out of {source.value}, which holds {have}")
