"""The rule of the ledger that every store keeps: bits enter as ingested, then only move between accounts."""

from __future__ import annotations

from keystrand.core.errors import IllegalTransition
from keystrand.core.pool import Account


def check_move(link: str, source: Account, target: Account, have: int, bits: int) -> None:
    """Raises IllegalTransition for a move of `bits` out of `source`, which holds `have`, that no ledger allows."""
    if bits < 0 or target is Account.INGESTED or source is target:
        raise IllegalTransition(f"{link}: {bits} bits from {source.value} to {target.value}")
    if source is not Account.INGESTED and have < bits:
        raise IllegalTransition(f"{link}: {bits} bits out of {source.value}, which holds {have}")
