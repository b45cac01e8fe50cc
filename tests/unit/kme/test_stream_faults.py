"""Key streams under stress: quality of service, reading once, closing, expiry, lost messages and crashes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace

import kme_pair
import msgspec
import pytest
from kme_pair import LIMITS
from stream_pair import KSID, QOS, RULES, StreamPair, bits

from keystrand.core.pool import Account
from keystrand.kme.stream import AHEAD_MAX
from keystrand.kme.stream_qos import offer
from keystrand.kme.streaming import StreamingKme
from keystrand.wire.etsi004 import Chunk, Qos, Status
from keystrand.wire.peer import Message, Reserve, Reserved, StreamEnd, StreamHeard


@pytest.fixture(autouse=True)
def _streaming(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kme_pair, "Kme", StreamingKme)


@pytest.fixture
def pair() -> Iterator[StreamPair]:
    pair = filled()
    yield pair
    for side in pair.sides.values():
        side.check()
    assert pair.faults == []


def filled() -> StreamPair:
    pair = StreamPair(rules=RULES)
    pair.connect()
    for sequence in range(2):
        pair.fill(sequence)
    return pair


# quality of service


@pytest.mark.parametrize(
    ("asked", "offered"),
    [
        (Qos(chunk_bytes=8192), Qos(chunk_bytes=512)),
        (Qos(chunk_bytes=1), Qos(chunk_bytes=8)),
        (Qos(ttl_s=10**6), Qos(ttl_s=3600)),
        (Qos(timeout_ms=10**6), Qos(timeout_ms=60_000)),
        (Qos(mimetype="text/xml"), Qos(mimetype="application/json")),
        (Qos(min_bps=5000), Qos(min_bps=900)),
        (Qos(max_bps=10, min_bps=50), Qos(max_bps=50, min_bps=50)),
    ],
)
def test_what_cannot_be_had_is_answered_with_what_can(asked: Qos, offered: Qos) -> None:
    got, is_met = offer(replace(asked, ttl_s=asked.ttl_s or 60), LIMITS, 900)
    assert (got, is_met) == (replace(offered, ttl_s=offered.ttl_s or 60), False)
    assert offer(got, LIMITS, 900) == (got, True), "the counter-proposal is accepted"


def test_no_wish_is_met_and_filled_in() -> None:
    assert offer(Qos(chunk_bytes=0), LIMITS, 0) == (Qos(chunk_bytes=32, ttl_s=3600), True)


def test_rate_beyond_stock_and_inflow_is_not_promised(pair: StreamPair) -> None:
    refused = pair.open("a1", "a1", "b1", replace(QOS, min_bps=10**6))
    assert (refused.status, refused.ksid) == (Status.QOS_NOT_MET, None)
    assert 0 < refused.qos.min_bps < 10**6
    half = replace(QOS, min_bps=refused.qos.min_bps // 2 + 1)
    assert pair.open("a1", "a1", "b1", half).status is Status.PEER_NOT_CONNECTED
    assert pair.open("a1", "a1", "b1", half).status is Status.QOS_NOT_MET, "what is promised is not promised again"


def test_inflow_counts_once_it_is_measured(pair: StreamPair) -> None:
    before_bps = pair.streams("a1").rates.available_bps("bravo")
    for sequence in range(2, 8):
        pair.advance(5.0)
        pair.fill(sequence)
    pair.advance(5.0)
    inflow_bps = pair.streams("a1").rates.available_bps("bravo") - before_bps
    assert inflow_bps > 16_384 / 5 * 0.7


def test_quota_bounds_a_stream(pair: StreamPair) -> None:
    refused = pair.open("a3", "a3", "b3", replace(QOS, min_bps=300))
    assert (refused.status, refused.qos.min_bps) == (Status.QOS_NOT_MET, 256)
    ksid = pair.both("a3", "b3", replace(QOS, min_bps=256))
    read = 0
    while pair.get("a3", ksid, read).status is Status.SUCCESSFUL:
        read += 1
    assert read == 1024 // 256


def test_who_joins_takes_the_size_of_the_stream(pair: StreamPair) -> None:
    opened = pair.open("a1", "a1", "b1", replace(QOS, chunk_bytes=64))
    joined = pair.open("b1", "a1", "b1", replace(QOS, chunk_bytes=32), str(opened.ksid))
    assert (joined.status, joined.qos.chunk_bytes) == (Status.QOS_NOT_MET, 64)
    assert pair.open("b1", "a1", "b1", joined.qos, str(opened.ksid)).status is Status.SUCCESSFUL


def test_more_is_agreed_ahead_where_more_is_asked_for(pair: StreamPair) -> None:
    slow = pair.both()
    assert pair.streams("a1")._streams[slow].agreed == 1
    fast = pair.both("b1", "a1", replace(QOS, min_bps=200))  # 256 bit each: two seconds are two chunks
    assert pair.streams("b1")._streams[fast].agreed == 2


def test_ahead_is_bounded_by_the_slower_reader() -> None:
    pair = StreamPair(rules=RULES)
    pair.connect()
    for sequence in range(8):
        pair.fill(sequence)
    ksid = pair.both()
    read = 0
    while pair.get("a1", ksid, read).status is Status.SUCCESSFUL:
        read += 1
    assert read == AHEAD_MAX
    for index in range(AHEAD_MAX):
        bits(pair.get("b1", ksid, index))
    assert pair.wait("a1", ksid, read).status is Status.SUCCESSFUL


# each chunk once, forward


def test_I1_no_chunk_is_read_twice_nor_backwards(pair: StreamPair) -> None:
    ksid = pair.both()
    for sae in ("a1", "b1"):
        bits(pair.wait(sae, ksid, 3))
        for index in (3, 2, 0):
            again = pair.get(sae, ksid, index)
            assert (again.status, again.material) == (Status.INSUFFICIENT_KEY, None)
        bits(pair.wait(sae, ksid, 4))


def test_skipped_chunks_are_burnt(pair: StreamPair) -> None:
    ksid = pair.both()
    for sae in ("a1", "b1"):
        bits(pair.wait(sae, ksid, 5))
    for side in pair.sides.values():
        assert side.ledger(Account.BURNT) == 5 * 256, "I9"


def test_index_far_ahead_is_refused_at_once(pair: StreamPair) -> None:
    ksid = pair.both()
    before = pair.count(Reserve)
    for index in (AHEAD_MAX, 2**32 - 1):
        assert pair.wait("a1", ksid, index).status is Status.INSUFFICIENT_KEY
    assert pair.count(Reserve) == before


# the end


def test_I9_what_is_left_at_a_close_is_burnt_at_both_ends(pair: StreamPair) -> None:
    ksid = pair.both("a1", "b1", replace(QOS, min_bps=250, chunk_bytes=8))
    bits(pair.wait("a1", ksid, 0))
    bits(pair.wait("b1", ksid, 0))
    agreed = pair.streams("a1")._streams[ksid].agreed
    assert agreed > 2
    pair.close("a1", ksid)
    assert bits(pair.get("b1", ksid, 1)), "the other end may still read what it holds"
    pair.close("b1", ksid)
    for side, delivered in ((pair.alpha, 1), (pair.bravo, 2)):
        assert side.ledger(Account.RESERVED) == 0
        assert side.ledger(Account.DELIVERED) == delivered * 64
        assert side.ledger(Account.BURNT) == (agreed - delivered) * 64
    pair.advance(2.0)
    assert not pair.streams("a1")._streams
    assert not pair.streams("b1")._streams


def test_end_that_was_left_reads_no_new_chunk(pair: StreamPair) -> None:
    ksid = pair.both()
    bits(pair.get("a1", ksid, 0))
    pair.close("b1", ksid)
    index = 1
    while pair.get("a1", ksid, index).status is Status.SUCCESSFUL:
        index += 1
    assert pair.get("a1", ksid, index).status is Status.PEER_NOT_YET_CONNECTED
    assert pair.open("b1", "a1", "b1", QOS, ksid).status is Status.SUCCESSFUL
    assert bits(pair.wait("a1", ksid, index)) == bits(pair.wait("b1", ksid, index))


def test_I6_chunks_expire_with_the_ttl_and_idle_streams_end(pair: StreamPair) -> None:
    ksid = pair.both("a1", "b1", replace(QOS, ttl_s=5))
    pair.advance(4.0)
    bits(pair.get("a1", ksid, 0))
    pair.advance(2.0)
    assert pair.get("b1", ksid, 0).status is not Status.SUCCESSFUL
    pair.advance(20.0)
    assert pair.get("a1", ksid, 1).status is Status.NO_QKD_CONNECTION
    for side in pair.sides.values():
        assert side.ledger(Account.RESERVED) == 0
    assert not pair.streams("a1")._streams


def test_stream_that_the_policy_permits_no_more_is_closed(pair: StreamPair) -> None:
    ksid = pair.both()
    bits(pair.get("a1", ksid, 0))
    site = pair.alpha.kme.site
    rules = {names: rule for names, rule in site.policy.rules.items() if set(names) != {"a1", "b1"}}
    site.policy = replace(site.policy, rules=rules)
    pair.advance(1.0)
    assert pair.get("a1", ksid, 1).status is Status.NO_QKD_CONNECTION
    assert pair.alpha.ledger(Account.RESERVED) == 0
    pair.close("b1", ksid)


# losses and crashes


def losing(*kinds: type[Message], first: int) -> Callable[[Message], bool]:
    left = [first]

    def lose(message: Message) -> bool:
        left[0] -= isinstance(message, kinds)
        return isinstance(message, kinds) and left[0] >= 0

    return lose


def test_words_about_ends_are_repeated_until_heard(pair: StreamPair) -> None:
    pair.lose = losing(StreamEnd, StreamHeard, first=3)
    opened = pair.open("a1", "a1", "b1")
    pair.open("b1", "a1", "b1", QOS, str(opened.ksid))
    pair.advance(6.0)
    assert pair.open("a1", "a1", "b1", QOS, str(opened.ksid)).status is Status.SUCCESSFUL


def test_one_lost_answer_delays_and_no_answer_loses_those_places_only(pair: StreamPair) -> None:
    ksid = pair.both()
    pair.lose = losing(Reserved, first=1)
    assert bits(pair.wait("a1", ksid, 1)) == bits(pair.wait("b1", ksid, 1))
    pair.lose = lambda message: isinstance(message, Reserved)
    at_a = pair.wait("a1", ksid, 4)
    assert at_a.status is Status.INSUFFICIENT_KEY
    pair.lose = lambda message: False
    pair.advance(3.0)
    later = next(n for n in range(5, 40) if pair.wait("a1", ksid, n).status is Status.SUCCESSFUL)
    bits(pair.wait("b1", ksid, later))


def test_places_that_the_peer_refused_are_filled_by_other_bits(pair: StreamPair) -> None:
    ksid = pair.both()
    bits(pair.get("a1", ksid, 0))
    held = pair.streams("a1")._streams[ksid]
    hear, pair.hear = (
        pair.hear,
        lambda sender, receiver, message: hear(  # type: ignore[method-assign]
            sender, receiver, msgspec.structs.replace(message, epoch=99) if isinstance(message, Reserve) else message
        ),
    )
    assert pair.wait("a1", ksid, held.agreed, timeout_s=0).status is not Status.SUCCESSFUL
    wanted = held.wanted - 1
    pair.hear = hear  # type: ignore[method-assign]
    pair.advance(4.0)
    assert bits(pair.wait("a1", ksid, wanted)) == bits(pair.wait("b1", ksid, wanted))


@pytest.mark.parametrize("crashed", ["alpha", "bravo"])
def test_I2_stream_opened_anew_after_a_crash_never_mixes_with_the_old_one(pair: StreamPair, crashed: str) -> None:
    pair.open("a1", "a1", "b1", QOS, KSID)
    pair.open("b1", "a1", "b1", QOS, KSID)
    old = bits(pair.wait("a1", KSID, 0))
    pair.sides[crashed].start()
    pair.connect()
    survivor, lost = ("b1", "a1") if crashed == "alpha" else ("a1", "b1")
    assert pair.get(lost, KSID, 0).status is Status.NO_QKD_CONNECTION
    for sae in (lost, survivor, lost):
        opened = pair.open(sae, "a1", "b1", QOS, KSID)
    assert opened.status is Status.SUCCESSFUL
    at_a, at_b = {}, {}
    for index in range(6):
        for sae, seen in (("a1", at_a), ("b1", at_b)):
            chunk = pair.wait(sae, KSID, index)
            if chunk.status is Status.SUCCESSFUL:
                seen[index] = bits(chunk)
    if crashed == "alpha":
        assert old not in at_b.values(), "a new instance"
    else:
        at_a[0] = old
    assert len(at_a.keys() & at_b.keys()) >= 4
    assert all(at_a[index] == at_b[index] for index in at_a.keys() & at_b.keys())


def test_new_epoch_of_the_peer_gives_up_what_is_on_its_way(pair: StreamPair) -> None:
    ksid = pair.both()
    pair.lose = lambda message: isinstance(message, Reserve)
    pair.get("a1", ksid, 0)
    pair.bravo.start(restored=True)
    pair.connect()
    pair.lose = lambda message: False
    pair.advance(3.0)
    assert pair.alpha.ledger(Account.AVAILABLE) == 0
    assert all(request.void for request in pair.alpha.store.requests())


WEIGHTS = {"a1": 30, "b1": 30, "tick": 10, "cut": 5, "open": 8, "close": 2, "crash": 2}


@pytest.mark.parametrize("seed", range(60))
def test_I1_I2_I9_whatever_happens_chunks_are_equal_or_absent_and_none_comes_twice(seed: int) -> None:
    pair, rng = filled(), random.Random(seed)
    pair.shake = random.Random(seed)
    seen: dict[str, dict[tuple[str, int], bytes]] = {"a1": {}, "b1": {}}
    for sae in seen:
        pair.open(sae, "a1", "b1", replace(QOS, min_bps=100), KSID)
    for what in rng.choices(list(WEIGHTS), list(WEIGHTS.values()), k=80):
        disturb(pair, rng, what, seen)
    assert any(seen.values()), "it was no idle run"
    common = seen["a1"].keys() & seen["b1"].keys()
    assert all(seen["a1"][name] == seen["b1"][name] for name in common), "I2"
    for chunks in seen.values():
        assert len(set(chunks.values())) == len(chunks), "I1"
    assert pair.faults == []


def disturb(pair: StreamPair, rng: random.Random, what: str, seen: dict[str, dict[tuple[str, int], bytes]]) -> None:
    sae = rng.choice(["a1", "b1"])
    if what in seen:
        read(pair, what, rng.choice([0, 0, 0, 0, 1, 3]), seen[what])
    elif what == "tick":
        pair.advance(rng.choice([0.25, 1.0, 3.0]))
        if rng.random() < 0.3:
            pair.fill(pair.alpha.store.next_sequence(kme_pair.LINK))
    elif what == "cut":
        share = rng.choice([0.0, 0.0, 0.4])
        pair.lose = lambda message: rng.random() < share
    elif what == "open":
        for end in rng.sample(["a1", "b1"], 2):
            pair.open(end, "a1", "b1", replace(QOS, min_bps=100), KSID)
    elif what == "close":
        pair.close(sae, KSID)
    else:
        pair.sides[kme_pair.SITE_OF[sae]].start()
        pair.connect()


def read(pair: StreamPair, sae: str, jump: int, seen: dict[tuple[str, int], bytes]) -> None:
    stream = pair.streams(sae)._streams.get(KSID)
    if stream is None:
        return
    place = stream.next_index + jump
    chunk: Chunk = pair.get(sae, KSID, place)
    if chunk.status is Status.SUCCESSFUL:
        name = (stream.instance, place)
        assert name not in seen, "I1"
        seen[name] = bits(chunk)
