"""Parts of a block: enough of them give it back, fewer fit any block."""

from __future__ import annotations

from itertools import combinations
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keystrand.core.errors import PeerFault
from keystrand.core.secret import Secret
from keystrand.crypto import field
from keystrand.relay.split import join, split


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=1, max_size=64), st.integers(1, 4), st.integers(0, 3), st.randoms(use_true_random=False))
def test_any_sufficient_parts_give_the_block(material: bytes, needed: int, more: int, rng: Random) -> None:
    count = needed + more
    parts = split(Secret(material), needed, count, entropy=rng.randbytes)
    for chosen in combinations(range(1, count + 1), needed):
        assert join({index: parts[index - 1] for index in chosen}, needed, count).reveal() == material


@settings(max_examples=40, deadline=None)
@given(st.binary(min_size=1, max_size=32), st.data(), st.integers(2, 4), st.randoms(use_true_random=False))
@pytest.mark.proves("R040")
def test_fewer_parts_fit_every_block(material: bytes, data: st.DataObject, needed: int, rng: Random) -> None:
    """For any other block there is one missing part that makes the same parts its own: they say nothing (XOR form)."""
    parts = split(Secret(material), needed, needed, entropy=rng.randbytes)
    hidden = data.draw(st.integers(1, needed))
    other = data.draw(st.binary(min_size=len(material), max_size=len(material)))
    known = [part.reveal() for index, part in enumerate(parts, 1) if index != hidden]
    forged = field.add((*known, other), len(other))
    told = {index: part for index, part in enumerate(parts, 1) if index != hidden}
    assert join(told | {hidden: Secret(forged)}, needed, needed).reveal() == other


def test_too_few_or_uneven_parts_make_nothing() -> None:
    one, two = split(Secret(b"block"), 2, 2, entropy=Random(1).randbytes)
    with pytest.raises(PeerFault):
        join({1: one}, 2, 2)
    with pytest.raises(PeerFault):
        join({1: one, 2: Secret(two.reveal()[:-1])}, 2, 2)
    with pytest.raises(ValueError, match="3 of 2"):
        split(Secret(b"block"), 3, 2, entropy=Random(1).randbytes)


def test_long_strings_are_scaled_as_bytes_are() -> None:
    rng = Random(3)
    values = rng.randbytes(5000)
    for factor in (0, 1, 2, 0x1B, 255):
        assert field.scale(values, factor) == bytes(field.multiply(value, factor) for value in values)
