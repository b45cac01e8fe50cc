"""Key streams between two services in memory: statuses, order, limits, and what losses and crashes leave behind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import kme_pair
import pytest
from stream_pair import KSID, QOS, RULES, StreamPair, bits

from keystrand.core.errors import NotPermitted
from keystrand.kme.chunks import chunk_id
from keystrand.kme.stream import STREAMS_PER_SAE_MAX
from keystrand.kme.streaming import StreamingKme
from keystrand.wire.etsi004 import Status
from keystrand.wire.peer import Reserve, Reserved


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> Iterator[StreamPair]:
    monkeypatch.setattr(kme_pair, "Kme", StreamingKme)
    pair = StreamPair(rules=RULES)
    pair.connect()
    yield pair
    for side in pair.sides.values():
        side.check()
    assert pair.faults == []


@pytest.fixture
def pair(bare: StreamPair) -> StreamPair:
    bare.fill(0)
    bare.fill(1)
    return bare


# the ordinary way


def test_both_ends_read_the_same_chunks_in_order(pair: StreamPair) -> None:
    ksid = pair.both()
    at_a = [bits(pair.wait("a1", ksid, index)) for index in range(12)]
    at_b = [bits(pair.wait("b1", ksid, index)) for index in range(12)]
    assert at_a == at_b, "I2"
    assert len(set(at_a)) == 12
    assert {len(material) for material in at_a} == {32}


def test_either_end_may_read_first(pair: StreamPair) -> None:
    ksid = pair.both()
    at_b = [bits(pair.wait("b1", ksid, index)) for index in range(40)]
    assert [bits(pair.wait("a1", ksid, index)) for index in range(40)] == at_b


def test_key_id_follows_from_stream_instance_and_place() -> None:
    instance = "00000000-0000-4000-8000-000000000001"
    named = {chunk_id(ksid, i, n) for ksid in (KSID, instance) for i in (KSID, instance) for n in (0, 1, 2**32)}
    assert len(named) == 12
    assert chunk_id(KSID, instance, 7) == chunk_id(KSID, instance, 7)
    assert chunk_id(KSID, instance, 7)[14] == "8"


def test_every_chunk_has_one_audit_record_at_each_end(pair: StreamPair) -> None:
    ksid = pair.both()
    for sae in ("a1", "b1"):
        for index in range(3):
            pair.wait(sae, ksid, index)
    for side, sae in ((pair.alpha, "a1"), (pair.bravo, "b1")):
        records = [r.get("fields", r) for r in side.records("key.delivered")]
        assert [(r["recipient"], r["ksid"], r["index"]) for r in records] == [(sae, ksid, n) for n in range(3)], "I5"


def test_metadata_say_how_old_the_chunk_is(pair: StreamPair) -> None:
    ksid = pair.both()
    pair.advance(2.0)
    assert json.loads(pair.get("b1", ksid, 0).metadata) == {"age": 2000, "hops": 0}
    pair.close("b1", ksid)
    pair.open("b1", "a1", "b1", replace(QOS, mimetype=""), ksid)
    assert pair.wait("b1", ksid, 1, 0).status in (Status.SUCCESSFUL, Status.INSUFFICIENT_KEY)


def test_too_little_room_for_metadata_keeps_the_chunk(pair: StreamPair) -> None:
    ksid = pair.both()
    small = pair.get("a1", ksid, 0, room=4)
    assert (small.status, small.material) == (Status.METADATA_SIZE, None)
    assert small.metadata_bytes > 4
    kept = pair.get("a1", ksid, 0, room=small.metadata_bytes)
    assert bits(kept) == bits(pair.get("b1", ksid, 0))


def test_chunks_without_qkd_need_no_link(bare: StreamPair) -> None:
    ksid = bare.both("a2", "b2", replace(QOS, min_bps=10**9))
    assert bits(bare.wait("a2", ksid, 0)) == bits(bare.wait("b2", ksid, 0))


def test_ends_may_name_the_pair_either_way_and_open_at_once(pair: StreamPair) -> None:
    for caller, other in (("a1", "b1"), ("b1", "a1")):  # neither has heard of the other when it opens
        opened = pair.run(caller, lambda s, c=caller, o=other: s.open_connect(c, c, o, QOS, KSID))
        assert opened.status is Status.PEER_NOT_CONNECTED
    pair.pump()
    for caller, other in (("a1", "b1"), ("b1", "a1")):
        assert pair.open(caller, caller, other, QOS, KSID).status is Status.SUCCESSFUL
    assert bits(pair.wait("b1", KSID, 0)) == bits(pair.wait("a1", KSID, 0))


def test_who_may_not_initiate_can_still_be_named_first(pair: StreamPair) -> None:
    opened = pair.open("a1", "a1", "b4", QOS)  # only b4 -> a1 is allowed
    ksid = str(opened.ksid)
    assert pair.open("b4", "a1", "b4", QOS, ksid).status in (Status.SUCCESSFUL, Status.PEER_NOT_CONNECTED)
    assert bits(pair.wait("a1", ksid, 0)) == bits(pair.wait("b4", ksid, 0))


# statuses


def test_one_end_alone_is_told_so(pair: StreamPair) -> None:
    opened = pair.open("a1", "a1", "b1")
    assert opened.status is Status.PEER_NOT_CONNECTED
    assert opened.ksid is not None
    assert pair.get("a1", str(opened.ksid), 0).status is Status.PEER_NOT_YET_CONNECTED
    assert pair.count(Reserve) == 0, "nothing is agreed for a stream that nobody reads"


def test_ksid_of_another_pair_is_in_use(pair: StreamPair) -> None:
    ksid = pair.both()
    assert pair.open("a2", "a2", "b2", QOS, ksid).status is Status.KSID_IN_USE
    assert pair.open("b2", "a2", "b2", QOS, ksid).status is Status.KSID_IN_USE


def test_same_ksid_taken_at_both_sites_at_once_is_refused_by_the_peer(pair: StreamPair) -> None:
    pair.run("a2", lambda s: s.open_connect("a2", "a2", "b2", QOS, KSID))
    pair.run("b1", lambda s: s.open_connect("b1", "a1", "b1", QOS, KSID))
    pair.pump()
    assert pair.get("a2", KSID, 0).status is Status.NO_QKD_CONNECTION
    assert pair.get("b1", KSID, 0).status is Status.NO_QKD_CONNECTION


def test_strangers_learn_nothing_of_a_stream(pair: StreamPair) -> None:
    ksid = pair.both()
    assert pair.get("a2", ksid, 0) == pair.get("a2", KSID, 0)
    pair.close("a2", ksid)
    assert pair.get("a1", ksid, 0).status is Status.SUCCESSFUL


@pytest.mark.parametrize(
    ("caller", "source", "destination", "error"),
    [
        ("a3", "a1", "b1", NotPermitted),
        ("b1", "a1", "a1", NotPermitted),
        ("a1", "a1", "b2", NotPermitted),
        ("a1", "a1", "nobody", NotPermitted),
        ("a1", "a1", "a1", NotPermitted),
    ],
)
def test_who_may_not_open_is_refused(
    pair: StreamPair, caller: str, source: str, destination: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        pair.open(caller, source, destination)


def test_peer_kme_that_is_away_means_no_connection(pair: StreamPair) -> None:
    ksid = pair.both()
    pair.alpha.run(lambda kme: kme.peer_down("bravo"))
    assert pair.open("a1", "a1", "b1").status is Status.NO_QKD_CONNECTION
    assert pair.get("a1", ksid, 0).status is Status.SUCCESSFUL, "what is agreed can be read"
    assert pair.get("a1", ksid, 1).status is Status.NO_QKD_CONNECTION


def test_empty_pool_means_insufficient_key_and_time_brings_it(bare: StreamPair) -> None:
    ksid = bare.both()
    assert bare.wait("a1", ksid, 0, timeout_s=1.0).status is Status.INSUFFICIENT_KEY
    bare.fill(0)
    assert bits(bare.wait("a1", ksid, 0)) == bits(bare.wait("b1", ksid, 0))


def test_peer_that_does_not_answer_means_timeout(pair: StreamPair) -> None:
    ksid = pair.both()
    bits(pair.get("a1", ksid, 0))
    pair.lose = lambda message: isinstance(message, Reserved)
    while (chunk := pair.get("a1", ksid, pair.streams("a1")._streams[ksid].next_index)).status is Status.SUCCESSFUL:
        pass
    assert chunk.status is Status.TIMEOUT


def test_too_many_streams_of_one_SAE_are_refused_and_others_are_not(pair: StreamPair) -> None:
    for _ in range(STREAMS_PER_SAE_MAX):
        assert pair.open("a1", "a1", "b1").status is Status.PEER_NOT_CONNECTED
    assert pair.open("a1", "a1", "b1").status is Status.NO_QKD_CONNECTION
    assert pair.open("a2", "a2", "b2").status is Status.PEER_NOT_CONNECTED
