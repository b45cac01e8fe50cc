"""Cascade between two ends that share nothing but messages: what it corrects, what it counts, what it refuses."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keystrand.core.errors import PeerFault
from keystrand.qkd.distill import verify
from keystrand.qkd.distill.reconcile import FRAME_BITS_MAX, HEADER_BYTES, TOPS, Corrector, Layout, Oracle

SEED = bytes(range(32))


def pair(n, qber, *, estimate=None, rng_seed=1):
    rng = np.random.default_rng(rng_seed)
    sent = rng.integers(0, 2, n, dtype=np.uint8)
    received = sent ^ (rng.random(n) < qber).astype(np.uint8)
    how = {"qber_estimate": qber if estimate is None else estimate, "seed": SEED}
    return sent, received, Oracle(sent, **how), Corrector(received, **how)


def converse(corrector, oracle):
    """Run to the end; returns the number of parities seen on the wire, derived from the queries alone."""
    layout, seen = oracle._layout, 0
    while (query := corrector.ask()) is not None:
        body = query[HEADER_BYTES:]
        asked = layout.tops_asked(body[0]) * layout.frames if query[4] == TOPS else None
        seen += len(body) // layout.address_type.itemsize if asked is None else asked
        corrector.hear(oracle.answer(query))
    return seen


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 3000), st.floats(0, 0.11), st.floats(0, 0.5), st.integers(0, 2**32))
def test_leak_is_every_parity_sent_and_a_mismatch_never_survives_verification(n, qber, estimate, rng_seed):
    sent, received, oracle, corrector = pair(n, qber, estimate=estimate, rng_seed=rng_seed)
    seen = converse(corrector, oracle)
    assert corrector.leak_bits == oracle.leak_bits == seen
    fits = verify.tag(corrector.corrected, seed=SEED) == verify.tag(sent, seed=SEED)
    assert fits == np.array_equal(corrector.corrected, sent)
    assert corrector.errors == np.count_nonzero(corrector.corrected != received)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 1000, FRAME_BITS_MAX, FRAME_BITS_MAX + 1, 65 * 1000])
def test_any_length_is_corrected_after_verification(n):
    sent, received, oracle, corrector = pair(n, 0.03)
    converse(corrector, oracle)
    for _ in range(8):
        if verify.tag(corrector.corrected, seed=SEED) == verify.tag(sent, seed=SEED):
            break
        corrector.extend()
        converse(corrector, oracle)
    assert np.array_equal(corrector.corrected, sent)
    assert corrector.errors == np.count_nonzero(sent != received)


def test_disclosure_stays_near_the_shannon_limit():
    sent, received, oracle, corrector = pair(4 * FRAME_BITS_MAX, 0.02)
    converse(corrector, oracle)
    q = np.count_nonzero(sent != received) / sent.size
    shannon_bits = sent.size * -(q * np.log2(q) + (1 - q) * np.log2(1 - q))
    assert corrector.leak_bits / shannon_bits < 1.08


def test_equal_ends_disclose_only_the_top_blocks():
    sent, _, oracle, corrector = pair(5000, 0.0, estimate=0.02)
    converse(corrector, oracle)
    layout = Layout.plan(5000, 0.02)
    assert corrector.leak_bits == sum(layout.tops_asked(step) for step in range(10))
    assert corrector.errors == 0
    assert np.array_equal(corrector.corrected, sent)


def test_extra_passes_are_counted_and_catch_what_was_left():
    # An estimate far too low leaves errors behind on purpose.
    sent, _, oracle, corrector = pair(20_000, 0.05, estimate=0.0001)
    converse(corrector, oracle)
    before, left = corrector.leak_bits, np.count_nonzero(corrector.corrected != sent)
    assert left > 0
    assert verify.tag(corrector.corrected, seed=SEED) != verify.tag(sent, seed=SEED)
    corrector.extend(20)
    seen = converse(corrector, oracle)
    assert np.count_nonzero(corrector.corrected != sent) < left
    assert corrector.leak_bits == oracle.leak_bits == before + seen


def test_extra_passes_come_to_an_end():
    *_, corrector = pair(100, 0.02)
    corrector.extend(54)
    with pytest.raises(PeerFault, match="converge"):
        corrector.extend(1)


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=64), st.booleans(), st.booleans())
def test_malformed_queries_are_the_peers_fault(garbage, fits, begun):
    *_, oracle, corrector = pair(300, 0.02)
    first = corrector.ask()
    if begun:
        oracle.answer(first)
    before = oracle.leak_bits
    query = first[:4] + garbage if fits else garbage
    try:
        answer = oracle.answer(query)
    except PeerFault:
        assert oracle.leak_bits == before
    else:  # it happened to be a query that one may ask: then it was counted
        assert 8 * len(answer) >= oracle.leak_bits - before > 8 * (len(answer) - 1)


@pytest.mark.parametrize("answer", [b"", b"\0", bytes(200), b"\xff" * 1000])
def test_answers_of_the_wrong_length_are_the_peers_fault(answer):
    *_, corrector = pair(3000, 0.02)
    corrector.ask()
    with pytest.raises(PeerFault, match="does not fit"):
        corrector.hear(answer)


def test_an_answer_without_a_query_is_the_peers_fault():
    *_, corrector = pair(3000, 0.02)
    with pytest.raises(PeerFault, match="without a query"):
        corrector.hear(b"\0")


def test_ends_with_different_figures_notice_at_once():
    *_, oracle, _ = pair(3000, 0.02)
    *_, corrector = pair(3000, 0.05)
    with pytest.raises(PeerFault, match="does not fit this block"):
        oracle.answer(corrector.ask())


def test_passes_out_of_order_are_the_peers_fault():
    *_, oracle, corrector = pair(3000, 0.02)
    query = corrector.ask()
    oracle.answer(query)
    with pytest.raises(PeerFault, match="out of order"):
        oracle.answer(query)


def test_asking_without_end_is_cut_off():
    *_, oracle, corrector = pair(300, 0.02)
    query = corrector.ask()
    oracle.answer(query)
    greedy = query[:4] + b"\1" + (1).to_bytes(4, "little") * 10_000
    with pytest.raises(PeerFault, match="more than the block holds"):
        oracle.answer(greedy)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32))
def test_lies_end_in_refusal_or_in_a_tag_that_does_not_fit(lie_seed):
    sent, _, oracle, corrector = pair(400, 0.03)
    rng = np.random.default_rng(lie_seed)
    try:
        while (query := corrector.ask()) is not None:
            answer = bytearray(oracle.answer(query))
            answer[0] ^= 0x80 * int(rng.random() < 0.2)
            corrector.hear(bytes(answer))
    except PeerFault:
        return
    fits = verify.tag(corrector.corrected, seed=SEED) == verify.tag(sent, seed=SEED)
    assert fits == np.array_equal(corrector.corrected, sent)


@pytest.mark.parametrize(("n", "estimate"), [(0, 0.02), (10, -0.1), (10, 0.6), (10, float("nan"))])
def test_impossible_layouts_are_refused(n, estimate):
    with pytest.raises(ValueError, match=r"length_bits|qber_estimate"):
        Layout.plan(n, estimate)
