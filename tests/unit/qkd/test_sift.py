"""Sifting: both ends cut the same blocks and count the same, whatever the trains, with two intensities and with three."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keystrand.core.errors import PeerFault
from keystrand.core.secret import Secret
from keystrand.qkd.choices import ChoiceStream
from keystrand.qkd.distill.sift import Sifted, SiftedBuffer, announce, conclude, match
from keystrand.qkd.kernels import sift as kernel
from keystrand.qkd.optics import Clicks
from keystrand.qkd.profile import Source

THREE = Source(p_mu=0.4, p_vacuum=0.2)


def drawn(size, levels, rng):
    bases = (rng.random(size) < 0.2).astype(np.uint8)
    errors = (rng.random(size) < 0.1).astype(np.uint8) * bases
    bits, kinds = rng.integers(0, 2, size, dtype=np.uint8), rng.integers(0, levels, size, dtype=np.uint8)
    return bits, bases, kinds, errors


def textbook_cut(clicks, size, levels):
    """The first `size` clicks of the key basis, counts by intensity, and what is left."""
    bits, kinds = [], []
    key, test, wrong = [0] * levels, [0] * levels, [0] * levels
    for used, (bit, basis, kind, error) in enumerate(clicks):
        if len(bits) == size:
            return bits, kinds, key, test, wrong, clicks[used:]
        if basis:
            test[kind] += 1
            wrong[kind] += int(error)
        else:
            bits.append(int(bit))
            kinds.append(int(kind))
            key[kind] += 1
    return bits, kinds, key, test, wrong, []


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 3), st.lists(st.integers(0, 400), min_size=1, max_size=6), st.data())
def test_blocks_equal_their_textbook_twin(seed, levels, sizes, data):
    rng = np.random.default_rng(seed)
    buffer, clicks = SiftedBuffer(levels), []
    for number, size in enumerate(sizes):
        part = drawn(size, levels, rng)
        buffer.add(Sifted.of(*part), 1000 * (number + 1))
        clicks += zip(*part, strict=True)
    assert buffer.key_bits == sum(not basis for _, basis, _, _ in clicks)
    ends = [0]
    while buffer.key_bits:
        size = data.draw(st.integers(1, buffer.key_bits))
        bits, kinds, key, test, wrong, clicks = textbook_cut(clicks, size, levels)
        raw = buffer.cut(size)
        weak, vacuum = (np.unpackbits(kind.view(np.uint8), bitorder="little") for kind in raw.kinds)
        assert (raw.bits.tolist(), (weak + 2 * vacuum)[:size].tolist()) == (bits, kinds)
        assert not (weak[size:] | vacuum[size:]).any()
        assert (raw.key, raw.test, raw.test_errors) == (tuple(key), tuple(test), tuple(wrong))
        flipped = rng.random(size) < 0.3
        by_level = tuple(int(np.count_nonzero(flipped & (np.array(kinds) == level))) for level in range(levels))
        assert raw.errors(raw.bits ^ flipped) == by_level
        ends.append(buffer.end_pulse)
    assert ends == sorted(ends)
    assert ends[-1] <= 1000 * len(sizes)


@pytest.mark.parametrize("source", [Source(), THREE], ids=["one decoy", "vacuum and weak decoy"])
def test_both_ends_sift_alike(source):
    rng = np.random.default_rng(3)
    stream = ChoiceStream(Secret(bytes(range(32))), source)
    indices = np.sort(rng.choice(100_000, 5_000, replace=False)).astype(np.int64)
    sent = stream.at(indices)
    bases = rng.integers(0, 2, indices.size, dtype=np.uint8)
    bits = np.where(bases == sent.bases, sent.bits, rng.integers(0, 2, indices.size)).astype(np.uint8)
    clicks = Clicks(indices, bases, bits)
    answer, alice = match(announce(0, 100_000, clicks), stream)
    bob = conclude(clicks, answer, levels=len(source.intensities))
    for row in (kernel.WEAK, kernel.VACUUM, kernel.BASES):
        assert alice.streams[row].tolist() == bob.streams[row].tolist()
    rows = [np.unpackbits(row.view(np.uint8), count=bob.size, bitorder="little") for row in bob.streams]
    kinds = rows[kernel.WEAK] + 2 * rows[kernel.VACUUM]
    assert set(kinds.tolist()) == set(range(len(source.intensities)))
    assert kinds.tolist() == sent.intensities[bases == sent.bases].tolist()
    assert not rows[kernel.ERRORS].any()
    assert rows[kernel.BITS].tolist() == sent.bits[bases == sent.bases].tolist()
    assert alice.streams[kernel.BITS].tolist() == bob.streams[kernel.BITS].tolist()


def test_intensities_that_cannot_be_are_refused():
    indices = np.arange(16, dtype=np.int64)
    clicks = Clicks(indices, np.zeros(16, np.uint8), np.zeros(16, np.uint8))
    answer, _ = match(announce(0, 16, clicks), ChoiceStream(Secret(bytes(32)), THREE))
    count = sum(byte.bit_count() for byte in answer.matches)
    width = -(-count // 8)
    whole = (0xFFFF << 8 * width - count & 0xFFFF).to_bytes(2, "big")[-width:]
    for wrong in (b"", bytes(width), bytes(width) + whole):  # missing, of two intensities only, vacuum but no decoy
        broken = type(answer)(first=answer.first, matches=answer.matches, intensities=wrong, test_bits=answer.test_bits)
        with pytest.raises(PeerFault, match="intensities"):
            conclude(clicks, broken, levels=3)
