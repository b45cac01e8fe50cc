"""LDPC reconciliation: the decoder against its plain twin, the codes against their promises, the ends against each other."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.qkd.pair import SMALL, Pair, Side

from keystrand.core.errors import PeerFault
from keystrand.qkd.distill import codes, reconcile
from keystrand.qkd.distill.estimate import binary_entropy
from keystrand.qkd.distill.ldpc import EXTEND, REVEAL_BITS, SYNDROME, Corrector, Layout, Oracle
from keystrand.qkd.kernels import kernel, ldpc
from keystrand.qkd.profile import Detector, Fibre, LinkProfile, Scheme, Source

SEED = bytes(range(32))


@kernel
def visit_once(llr, sent, var, begin, end, odd, hold):
    ldpc.visit(llr, sent, var, begin, end, odd, hold)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 30), st.integers(0, 2**32))
def test_a_check_equals_its_plain_twin(degree, rng_seed):
    rng = np.random.default_rng(rng_seed)
    llr = rng.integers(-ldpc.TOP, ldpc.TOP + 1, (degree + 5, 64)).astype(np.int8)
    sent = rng.integers(-ldpc.CLIP, ldpc.CLIP + 1, (degree, 64)).astype(np.int8)
    var, odd = rng.permutation(degree + 5).astype(np.int32)[:degree], rng.integers(0, 2**64, dtype=np.uint64)
    twin_llr, twin_sent, hold = llr.copy(), sent.copy(), np.zeros((degree, 64), np.int8)
    visit_once(llr, sent, var, 0, degree, odd, hold)
    ldpc._visit(twin_llr, twin_sent, var, 0, degree, odd, hold)
    assert np.array_equal(llr, twin_llr)
    assert np.array_equal(sent, twin_sent)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32))
def test_syndromes_and_their_comparison_follow_the_definition(rng_seed):
    rng = np.random.default_rng(rng_seed)
    matrix = rng.random((6, 20)) < 0.3
    first = np.concatenate([[0], np.cumsum(matrix.sum(axis=1))]).astype(np.int32)
    var = np.nonzero(matrix)[1].astype(np.int32)
    words, told = rng.integers(0, 2**64, 20, dtype=np.uint64), np.zeros(6, np.uint64)
    ldpc.syndrome(words, first, var, told)
    assert told.tolist() == [np.bitwise_xor.reduce(words[row]) for row in matrix]
    assert ldpc.unlike(words, first, var, told) == 0
    told[3] ^= np.uint64(5)
    assert ldpc.unlike(words, first, var, told) == 5


@pytest.mark.parametrize("index", range(len(codes.sizes())))
def test_no_two_checks_share_two_bits_and_no_two_punctured_bits_a_check(index):
    table = json.loads(codes.FILE.read_text())
    lift, shifts = table["lift"], {}
    for row, column, shift in table["codes"][index]["edges"]:
        assert (row, column) not in shifts
        shifts[row, column] = shift
    for a in range(table["codes"][index]["rows"]):
        for b in range(a):
            shared = [c for c in range(table["columns"]) if (a, c) in shifts and (b, c) in shifts]
            differences = [(shifts[a, c] - shifts[b, c]) % lift for c in shared]
            assert len(differences) == len(set(differences)), "four edges close a cycle"
    code = codes.load(index)
    is_punctured = np.zeros(code.bits, np.int64)
    is_punctured[code.punctured] = 1
    assert np.add.reduceat(is_punctured[code.var], code.first[:-1]).max() == 1


def pair(n, qber, *, estimate=None, rng_seed=1):
    rng = np.random.default_rng(rng_seed)
    sent = rng.integers(0, 2, n, dtype=np.uint8)
    received = sent ^ (rng.random(n) < qber).astype(np.uint8)
    how = {"qber_estimate": qber if estimate is None else estimate, "seed": SEED}
    private = rng.bytes(Layout.plan(n, how["qber_estimate"]).private_bytes())
    return sent, received, Oracle(sent, private=private, **how), Corrector(received, **how)


def converse(corrector, oracle):
    """Run to the end; returns the number of bits that the answers on the wire hold, rounded up to bytes."""
    told = []
    while (query := corrector.ask()) is not None:
        answer = oracle.answer(query)
        told.append(8 * len(answer))
        corrector.hear(answer)
    return told


@pytest.mark.parametrize(("n", "qber"), [(1, 0.02), (1000, 0.05), (150_000, 0.02), (65 * 63_000, 0.03)])
def test_any_length_is_corrected_and_every_bit_counted(n, qber):
    sent, received, oracle, corrector = pair(n, qber)
    told = converse(corrector, oracle)
    assert np.array_equal(corrector.corrected, sent)
    assert corrector.errors == np.count_nonzero(sent != received)
    layout = Layout.plan(n, qber)
    hidden = layout.frames * layout.punctured
    assert corrector.leak_bits == oracle.leak_bits
    assert sum(told) - 7 * len(told) <= corrector.leak_bits + hidden <= sum(told)
    assert corrector.round_trips == len(told)


def test_one_round_trip_is_enough_where_there_are_few_errors():
    sent, _, oracle, corrector = pair(200_000, 0.015, estimate=0.02)
    assert len(converse(corrector, oracle)) == 1
    assert np.array_equal(corrector.corrected, sent)


@pytest.mark.parametrize("qber", [0.03, 0.05])
def test_a_quarter_above_the_Shannon_limit_is_enough_for_one_round_trip(qber):
    n = 16 * 65_536
    sent, _, oracle, corrector = pair(n, qber)
    assert len(converse(corrector, oracle)) == 1
    assert np.array_equal(corrector.corrected, sent)
    assert corrector.leak_bits < 1.25 * binary_entropy(qber) * n


def test_an_estimate_that_is_too_low_costs_extensions_not_the_block():
    sent, _, oracle, corrector = pair(100_000, 0.03, estimate=0.024)
    assert len(converse(corrector, oracle)) > 1
    assert np.array_equal(corrector.corrected, sent)
    before = corrector.leak_bits
    corrector.extend()  # as after a tag that does not fit: every frame tells more
    converse(corrector, oracle)
    assert corrector.leak_bits == oracle.leak_bits == before + Layout.plan(100_000, 0.024).frames * REVEAL_BITS


def test_punctured_bits_never_leave_their_secret_in_the_syndrome():
    """For every syndrome and every payload there is a choice of private bits: it tells checks minus punctured bits."""
    layout = Layout.plan(60_000, 0.02)
    code = codes.load(layout.code)
    assert layout.punctured > 0
    rows = np.repeat(np.arange(code.checks), np.diff(code.first))
    hit = rows[np.isin(code.var, layout.hidden)]
    assert len(hit) == len(set(hit)), "columns of punctured bits are disjoint, so they are independent"


@pytest.mark.parametrize(
    "body",
    [b"", bytes([9]), bytes([SYNDROME, 0]), bytes([EXTEND]), bytes([EXTEND]) + bytes(8), bytes([EXTEND]) + b"\xff" * 8],
)
def test_malformed_queries_are_the_peers_fault(body):
    *_, oracle, corrector = pair(1000, 0.02)
    query = corrector.ask()
    oracle.answer(query)
    before = oracle.leak_bits
    with pytest.raises(PeerFault):
        oracle.answer(query[:4] + body)
    with pytest.raises(PeerFault):
        oracle.answer(query)
    assert oracle.leak_bits == before


@pytest.mark.parametrize("answer", [b"", b"\0", bytes(200)])
def test_answers_of_the_wrong_length_are_the_peers_fault(answer):
    *_, corrector = pair(1000, 0.02)
    with pytest.raises(PeerFault, match="without a query"):
        corrector.hear(answer)
    corrector.ask()
    with pytest.raises(PeerFault, match="does not fit"):
        corrector.hear(answer)


def test_a_link_distils_equal_blocks_with_either_scheme():
    rules = replace(SMALL.distillation, reconciler=Scheme.LDPC)
    alice, bob = Side(), Side()
    pair_ = Pair(alice, bob, profile=replace(SMALL, distillation=rules))
    assert pair_.receiver.scheme is Scheme.LDPC
    pair_.run(blocks=1)
    assert alice.blocks[0].material.matches(bob.blocks[0].material)
    assert alice.blocks[0].provenance == bob.blocks[0].provenance


def test_the_scheme_follows_the_delay():
    fast = LinkProfile(
        source=Source(clock_hz=1e9),
        fibre=Fibre(length_km=300, attenuation_db_per_km=0.01),
        detector=Detector(efficiency=0.8, dead_time_s=1e-9),
    )
    assert reconcile.choose(LinkProfile()) is Scheme.CASCADE
    assert reconcile.choose(fast) is Scheme.LDPC
    rules = replace(fast.distillation, reconciler=Scheme.CASCADE)
    assert reconcile.choose(replace(fast, distillation=rules)) is Scheme.CASCADE
