"""Cascade between two ends that share nothing but messages: what it corrects, what it counts, what it refuses."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.qkd.twins import textbook_cascade

from keystrand.core.errors import PeerFault
from keystrand.qkd.distill import cascade, verify
from keystrand.qkd.distill.cascade import FRAME_BITS_MAX, STEP, SWEEP, TOPS, Corrector, Layout, Oracle

SEED = bytes(range(32))


def pair(n, qber, *, estimate=None, rng_seed=1):
    rng = np.random.default_rng(rng_seed)
    sent = rng.integers(0, 2, n, dtype=np.uint8)
    received = sent ^ (rng.random(n) < qber).astype(np.uint8)
    how = {"qber_estimate": qber if estimate is None else estimate, "seed": SEED}
    return sent, received, Oracle(sent, **how), Corrector(received, **how)


def converse(corrector, oracle):
    """Run to the end; returns the most parities that the answers on the wire can hold, and the fewest."""
    most = least = 0
    while (query := corrector.ask()) is not None:
        answer = oracle.answer(query)
        most, least = most + 8 * len(answer), least + 8 * len(answer) - 7
        corrector.hear(answer)
    return most, least


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 3000), st.floats(0, 0.11), st.floats(0, 0.5), st.integers(0, 2**32))
def test_leak_is_every_parity_sent_and_a_mismatch_never_survives_verification(n, qber, estimate, rng_seed):
    sent, received, oracle, corrector = pair(n, qber, estimate=estimate, rng_seed=rng_seed)
    most, least = converse(corrector, oracle)
    assert least <= corrector.leak_bits == oracle.leak_bits <= most
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
    assert corrector.leak_bits == sum(layout.blocks_asked(step) for step in range(layout.passes))
    assert corrector.errors == 0
    assert np.array_equal(corrector.corrected, sent)


def test_extra_passes_are_counted_and_catch_what_was_left():
    sent, _, oracle, corrector = pair(20_000, 0.05)
    corrector._planned = 1  # leaves errors behind on purpose
    converse(corrector, oracle)
    before, left = corrector.leak_bits, np.count_nonzero(corrector.corrected != sent)
    assert left > 0
    assert verify.tag(corrector.corrected, seed=SEED) != verify.tag(sent, seed=SEED)
    corrector.extend(20)
    seen = converse(corrector, oracle)
    assert np.count_nonzero(corrector.corrected != sent) < left
    assert corrector.leak_bits == oracle.leak_bits > before
    assert seen[1] <= corrector.leak_bits - before <= seen[0]


def test_extra_passes_come_to_an_end():
    *_, corrector = pair(100, 0.02)
    corrector.extend(49)
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
    oracle._leak_bits_max = oracle.leak_bits
    with pytest.raises(PeerFault, match="more than the block holds"):
        oracle.answer(query[:4] + bytes([TOPS, 1, 1]))


@pytest.mark.parametrize(
    "body",
    [
        bytes([SWEEP]),  # no pass
        bytes([SWEEP, 1, 1]) + b"\1" + bytes(7),  # a pass that has not begun
        bytes([SWEEP, 0, 1]) + b"\1",  # a mask that is cut off
        bytes([SWEEP, 0, 0]),  # no block
        bytes([SWEEP, 0, 1]) + bytes(8),  # a block that is odd in no frame
        bytes([SWEEP, 0, 1]) + b"\2" + bytes(7),  # a frame that does not exist
        bytes([SWEEP, 0, 0xFF, 0xFF]) + (b"\1" + bytes(7)) * 16,  # more blocks than there are
        bytes([STEP]),  # no sweep under way
        bytes([STEP, 0]),
        bytes([9]),
    ],
)
def test_sweeps_that_cannot_be_are_the_peers_fault(body):
    *_, oracle, corrector = pair(300, 0.02)
    query = corrector.ask()
    oracle.answer(query)
    before = oracle.leak_bits
    with pytest.raises(PeerFault):
        oracle.answer(query[:4] + body)
    assert oracle.leak_bits == before


def test_turns_that_are_too_short_or_too_long_are_the_peers_fault():
    for change in (lambda query: query[:-1], lambda query: query + b"\0", lambda query: query + bytes(100)):
        *_, oracle, corrector = pair(3000, 0.05)
        query = b""
        while len(query) < 5 or query[4] != STEP:
            query = corrector.ask()
            if query[4] != STEP:
                corrector.hear(oracle.answer(query))
        with pytest.raises(PeerFault, match=r"turns|goes on"):
            oracle.answer(change(query))


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 700), st.sampled_from([5, 16, 33, 64]), st.floats(0, 0.2), st.integers(0, 2**32))
def test_cascade_equals_its_textbook_twin(n, frame_bits, qber, rng_seed):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cascade, "FRAME_BITS_MAX", frame_bits)
        sent, received, oracle, corrector = pair(n, qber, rng_seed=rng_seed)
        converse(corrector, oracle)
        corrected, leak_bits = textbook_cascade(sent, received, Layout.plan(n, qber), SEED)
    assert corrector.corrected.tolist() == corrected
    assert corrector.leak_bits == leak_bits


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32))
def test_lies_end_in_refusal_or_in_a_tag_that_does_not_fit(lie_seed):
    sent, _, oracle, corrector = pair(400, 0.03)
    rng = np.random.default_rng(lie_seed)
    try:
        while (query := corrector.ask()) is not None:
            answer = bytearray(oracle.answer(query))
            answer[0] ^= int(rng.random() < 0.2)
            corrector.hear(bytes(answer))
    except PeerFault:
        return
    fits = verify.tag(corrector.corrected, seed=SEED) == verify.tag(sent, seed=SEED)
    assert fits == np.array_equal(corrector.corrected, sent)


@pytest.mark.parametrize(("n", "estimate"), [(0, 0.02), (10, -0.1), (10, 0.6), (10, float("nan"))])
def test_impossible_layouts_are_refused(n, estimate):
    with pytest.raises(ValueError, match=r"length_bits|qber_estimate"):
        Layout.plan(n, estimate)
