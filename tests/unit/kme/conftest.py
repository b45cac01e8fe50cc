"""Two sites that have met and hold two blocks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kme_pair import Pair


@pytest.fixture
def bare() -> Iterator[Pair]:
    """Connected, no blocks yet."""
    pair = Pair()
    pair.connect()
    yield pair
    for side in pair.sides.values():
        side.check()
    assert pair.faults == []


@pytest.fixture
def pair(bare: Pair) -> Pair:
    bare.fill(0)
    bare.fill(1)
    return bare
