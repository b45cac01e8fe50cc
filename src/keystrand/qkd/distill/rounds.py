"""What both schemes of reconciliation hold a block, a query and an answer to."""

from __future__ import annotations

from typing import Final

from keystrand.core.errors import PeerFault

HEADER_BYTES: Final = 5  # of a query: the layout's fingerprint, and one byte that says what is asked


def check_block(length_bits: int, qber_estimate: float) -> None:
    """Raises ValueError for an empty input or an estimate outside 0 .. 0.5."""
    if length_bits < 1:
        raise ValueError(f"length_bits={length_bits}: nothing to reconcile")
    if not 0.0 <= qber_estimate <= 0.5:
        raise ValueError(f"qber_estimate={qber_estimate} is outside 0 .. 0.5")


def opened(query: bytes, fingerprint: bytes) -> tuple[int, bytes]:
    """What is asked, and the rest. Raises PeerFault for a query about another layout."""
    if len(query) < HEADER_BYTES or query[:4] != fingerprint:
        raise PeerFault("reconciliation query does not fit this block")
    return query[4], query[HEADER_BYTES:]


def check_answer(answer: bytes, count_bits: int) -> None:
    """Raises PeerFault unless it holds so many bits, and there was a query for them."""
    if count_bits == 0:
        raise PeerFault("reconciliation answer without a query")
    if len(answer) != -(-count_bits // 8) or (count_bits % 8 and answer[-1] >> count_bits % 8):
        raise PeerFault("reconciliation answer does not fit the query")
