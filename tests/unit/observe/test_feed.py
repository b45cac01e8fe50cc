"""The feed: bounded whatever comes, and a reader with a cursor misses nothing."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keystrand.core.errors import Unavailable
from keystrand.core.events import KINDS, Event
from keystrand.observe.alarms import alarms_of
from keystrand.observe.feed import READING_SHARE, AuditGauge, Feed, Gauges, History, LinkGauge, PeerGauge

LINK = LinkGauge(link="ab", peer="bravo", state="up", qber=0.02, skr_bps=9000.0, ledger={"ingested": 8, "available": 8})


class SteppedClock:
    def __init__(self) -> None:
        self.now = 1000.0

    def now_s(self) -> float:
        return self.now

    def monotonic_s(self) -> float:
        return self.now


def block(sequence: int, qber: float = 0.02) -> Event:
    return Event("link.block", float(sequence), {"link": "ab", "sequence": sequence, "qber": qber, "skr_bps": 9000.0})


def test_a_snapshot_is_json_and_says_where_every_bit_is() -> None:
    feed = Feed("alpha")
    feed.update(Gauges(links=(LINK,), peers=(PeerGauge(peer="bravo", up=True, since_s=970.0, group="X25519MLKEM768"),)))
    plain = json.loads(json.dumps(feed.snapshot()))
    assert plain["links"][0]["ledger"] == {
        "ingested": 8, "available": 8, "reserved": 0, "delivered": 0, "burnt": 0, "expired": 0, "quarantined": 0
    }  # fmt: skip
    assert plain["peers"][0]["group"] == "X25519MLKEM768"
    assert plain["alarms"] == []


def test_an_empty_feed_has_the_same_shape() -> None:
    filled = Feed()
    filled.update(Gauges(links=(LINK,)))
    assert Feed().snapshot().keys() == filled.snapshot().keys()


@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.booleans()), max_size=25))
def test_a_reader_with_a_cursor_sees_every_point_that_is_kept_exactly_once(rounds: list[tuple[int, bool]]) -> None:
    """Bursts of blocks between reads, some longer than the history: the reader is then told to start over."""
    feed, cursor, sequence, seen = Feed(history=History(blocks=8)), 0, 0, []
    for burst, read in rounds:
        for _ in range(burst):
            feed.emit(block(sequence))
            sequence += 1
        if read:
            message = feed.snapshot(cursor)
            news = [point[0] for point in message["series"].get("ab", {"blocks": []})["blocks"]]
            seen = news if message["full"] else seen + news
            cursor = message["cursor"]
    message = feed.snapshot(cursor)
    news = [point[0] for point in message["series"].get("ab", {"blocks": []})["blocks"]]
    seen = news if message["full"] else seen + news
    kept = [float(number) for number in range(max(0, sequence - 8), sequence)]
    assert seen[-len(kept) :] == kept if kept else not seen
    assert len(seen) == len(set(seen))


def test_nothing_grows_without_bound() -> None:
    bounds = History(blocks=5, events=6, deliveries=4, transfers=3, rotations=2, pairs=7, links=2, alerts=3)
    feed = Feed(history=bounds)
    for number in range(200):
        feed.emit(Event("key.delivered", 0.0, {"initiator": f"sae-{number}", "responder": "b", "protection": "qkd"}))
        feed.emit(Event("transfer.rotated", 0.0, {"transfer_id": str(number // 50), "key_id": str(number)}))
        feed.emit(Event("link.block", 0.0, {"link": f"link-{number}", "qber": 0.01}))
        feed.emit(Event("audit.failed", 0.0))
    shot = feed.snapshot()
    assert shot["deliveries"]["total"] == 200
    assert len(shot["deliveries"]["recent"]) == 4
    assert len(shot["deliveries"]["pairs"]) == 7
    assert [len(transfer["rotated"]) for transfer in shot["transfers"]] == [2, 2, 2]
    assert len(shot["series"]) == 2
    assert len(shot["events"]) == 6


def test_a_transfer_is_told_in_one_record() -> None:
    feed = Feed()
    about = {"transfer_id": "t1", "bytes_total": 100}
    feed.emit(Event("transfer.started", 1.0, about))
    feed.emit(Event("transfer.rotated", 2.0, {"transfer_id": "t1", "key_id": "k1", "bytes_done": 40}))
    feed.emit(Event("transfer.failed", 3.0, {"transfer_id": "t1", "bytes_done": 60}))
    (transfer,) = feed.snapshot()["transfers"]
    assert (transfer["state"], transfer["bytes_done"], transfer["bytes_total"]) == ("failed", 60, 100)
    assert transfer["rotated"] == [{"at_s": 2.0, "key_id": "k1", "bytes_done": 40}]


def test_transfers_of_two_saes_under_one_name_are_two() -> None:
    feed = Feed()
    for sae, done in (("mallory", 1), ("gateway-alpha", 7), ("mallory", 2)):
        feed.emit(Event("transfer.progress", 1.0, {"transfer_id": "t1", "sae": sae, "bytes_done": done}))
    told = {transfer["sae"]: transfer["bytes_done"] for transfer in feed.snapshot()["transfers"]}
    assert told == {"mallory": 2, "gateway-alpha": 7}


def test_a_snapshot_once_taken_does_not_change() -> None:
    feed = Feed()
    feed.emit(Event("transfer.rotated", 1.0, {"transfer_id": "t1", "key_id": "k1"}))
    before = feed.snapshot()
    spoken = json.dumps(before)
    feed.emit(Event("transfer.rotated", 2.0, {"transfer_id": "t1", "key_id": "k2"}))
    feed.emit(Event("peer.up", 2.0, {"peer": "bravo"}))
    assert json.dumps(before) == spoken


def test_gauges_stand_in_until_a_block_is_heard() -> None:
    feed = Feed()
    feed.update(Gauges(links=(LINK,)))
    assert len(feed.snapshot()["series"]["ab"]["blocks"]) == 1
    feed.emit(block(7, qber=0.031))
    feed.update(Gauges(links=(LINK,)))
    assert feed.snapshot()["series"]["ab"]["blocks"] == [[7.0, 0.031, 9000.0]]


@pytest.mark.proves("R090")
def test_figures_that_stop_coming_raise_an_alarm() -> None:
    clock = SteppedClock()
    feed = Feed(clock=clock)
    feed.update(Gauges(links=(LINK,)))
    assert feed.snapshot()["alarms"] == []
    clock.now += 60
    assert [alarm["name"] for alarm in feed.snapshot()["alarms"]] == ["stale"]
    assert feed.age_s == 60


def test_alerts_of_one_kind_about_two_sites_are_two() -> None:
    """Three relays whose documents lapsed are three calls to make, and each says what it is in words."""
    lapsed = [
        Event("relay.documents_lapsed", 1.0, {"site": site, "missing": "evidence (expired)", "closed": ""})
        for site in ("b", "c")
    ]
    found = alarms_of(None, 0.0, [*lapsed, *lapsed], 2.0)
    assert [alarm.about for alarm in found] == ["b", "c"]
    assert found[0].text == (
        "a relay site is documented no more (relay.documents_lapsed, 00:00:01 UTC); missing evidence (expired)"
    )


@pytest.mark.proves("R090")
@pytest.mark.parametrize(
    ("gauges", "name"),
    [
        (Gauges(links=(replace(LINK, state="down"),)), "link"),
        (Gauges(links=(replace(LINK, qber=0.09),)), "qber"),
        (Gauges(links=(replace(LINK, time_to_empty_s=100.0),)), "drain"),
        (Gauges(links=(replace(LINK, auth_key_bits=10),)), "auth"),
        (Gauges(links=(replace(LINK, ledger={"ingested": 8, "available": 7}),)), "ledger"),
        (Gauges(peers=(PeerGauge(peer="bravo", up=False, since_s=970.0),)), "peer"),
        (Gauges(waivers_active=1), "waiver"),
        (Gauges(cert_expiry_s=86_400.0), "cert"),
        (Gauges(audit=AuditGauge(size=9, cosigned_size=5, cosigned_at_s=100.0)), "cosign"),
    ],
)
def test_every_alarm_fires_alone(gauges: Gauges, name: str) -> None:
    assert [alarm.name for alarm in alarms_of(gauges, 1000.0, (), 1000.0)] == [name]


@pytest.mark.parametrize(("kind", "who"), [("pool.low", "link"), ("strand.missing", "peer"), ("draw.abnormal", "sae")])
def test_a_warning_of_the_key_service_is_an_alarm_for_ten_minutes(kind: str, who: str) -> None:
    clock = SteppedClock()
    feed = Feed(clock=clock)
    for name in ("one", "two", "one"):
        feed.emit(Event(kind, clock.now, {who: name}))
    told = [(alarm["severity"], alarm["name"], alarm["about"]) for alarm in feed.snapshot()["alarms"]]
    assert told == [("warning", kind, "one"), ("warning", kind, "two")]
    clock.now += 601
    assert feed.snapshot()["alarms"] == []


def test_a_strand_that_comes_ends_the_alarm() -> None:
    missing = Event("strand.missing", 0.0, {"peer": "bravo"})
    peer = PeerGauge(peer="bravo", up=True, since_s=970.0)
    assert [a.name for a in alarms_of(Gauges(peers=(peer,)), 0.0, [missing], 0.0)] == ["strand.missing"]
    assert alarms_of(Gauges(peers=(replace(peer, strand_age_s=0.1),)), 0.0, [missing], 0.0) == []


def test_a_pool_that_fills_ends_the_alarm() -> None:
    low = Event("pool.low", 0.0, {"link": "ab", "bits": 1, "enough_bits": 100})
    assert [a.name for a in alarms_of(Gauges(links=(replace(LINK, owned_free_bits=99),)), 0.0, [low], 0.0)] == [
        "pool.low"
    ]
    assert alarms_of(Gauges(links=(replace(LINK, owned_free_bits=100),)), 0.0, [low], 0.0) == []


def test_guessing_saes_push_out_no_alert() -> None:
    clock = SteppedClock()
    feed = Feed(clock=clock)
    feed.emit(Event("audit.failed", clock.now, {"reason": "disk full"}))
    for number in range(500):
        feed.emit(Event("draw.abnormal", clock.now, {"sae": f"sae-{number}"}))
        feed.emit(Event("tunnel.unblocked", clock.now, {"sae": "mallory", "tunnel": f"t{number}", "state": "blocked"}))
    names = [alarm["name"] for alarm in feed.snapshot()["alarms"]]
    assert "audit.failed" in names
    assert len([name for name in names if name != "tunnel-blocked"]) <= 1 + History().warnings


def test_T11_an_sae_that_reports_tunnels_without_end_hides_no_tunnel_of_another() -> None:
    feed = Feed("alpha", clock=SteppedClock(), history=History(tunnels=4))
    report = {"state": "blocked", "reason": "no key"}
    feed.emit(Event("tunnel.status", 0.0, {"sae": "bank", "tunnel": "vault", **report}))
    for number in range(50):
        feed.emit(Event("tunnel.status", 0.0, {"sae": "mallory", "tunnel": f"t{number}", **report}))
    feed.emit(Event("tunnel.status", 0.0, {"sae": "clinic", "tunnel": "ward", **report}))
    shown = [(tunnel["sae"], tunnel["tunnel"]) for tunnel in feed.snapshot()["tunnels"]]
    assert shown == [("bank", "vault"), ("mallory", "t48"), ("mallory", "t49"), ("clinic", "ward")]


def test_an_alert_event_is_an_alarm_for_ten_minutes() -> None:
    clock = SteppedClock()
    feed = Feed(clock=clock)
    feed.emit(Event("audit.failed", clock.now, {"reason": "disk full"}))
    (alarm,) = feed.snapshot()["alarms"]
    assert alarm["severity"] == "alert"
    assert "disk full" in alarm["text"]
    clock.now += 601
    assert feed.snapshot()["alarms"] == []


async def test_a_stream_begins_with_everything_and_goes_on_with_news() -> None:
    feed = Feed()
    feed.emit(block(1))
    stream = feed.subscribe(interval_s=0.01)
    first = await anext(stream)
    assert (first["full"], len(first["series"]["ab"]["blocks"])) == (True, 1)
    feed.emit(block(2))
    second = await anext(stream)
    assert (second["full"], [p[0] for p in second["series"]["ab"]["blocks"]]) == (False, [2.0])
    feed.close()
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_streams_are_counted_and_a_closed_one_frees_its_place() -> None:
    feed = Feed(history=History(readers_max=1))
    first = feed.subscribe(interval_s=0.01)
    await anext(first)
    with pytest.raises(Unavailable, match="live streams"):
        await anext(feed.subscribe())
    await first.aclose()
    await asyncio.wait_for(anext(feed.subscribe(interval_s=0.01)), 60)


def test_threads_emit_while_another_reads() -> None:
    feed = Feed(history=History(blocks=50))

    def emit() -> None:
        for number in range(400):
            feed.emit(block(number))

    threads = [threading.Thread(target=emit) for _ in range(3)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        json.dumps(feed.snapshot())
    assert feed.snapshot()["cursor"] == 1200


SCALAR = st.one_of(st.text(max_size=9), st.integers(-9, 9), st.floats(allow_nan=False), st.booleans())
NAMES = st.sampled_from(["link", "qber", "skr_bps", "transfer_id", "state", "rotations", "initiator", "bytes_done"])


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.sampled_from(sorted(KINDS)), st.dictionaries(NAMES, SCALAR))
def test_no_event_breaks_the_feed(kind: str, fields: dict[str, str | int | float | bool]) -> None:
    feed = Feed()
    feed.emit(Event(kind, 1.0, fields))
    json.dumps(feed.snapshot())


async def test_a_dear_snapshot_comes_more_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    feed, plain, began_s = Feed(), Feed.snapshot, []

    def slow(self: Feed, since: int = 0) -> dict[str, Any]:
        began_s.append(time.perf_counter())
        time.sleep(0.004)
        return plain(self, since)

    monkeypatch.setattr(Feed, "snapshot", slow)
    stream = feed.subscribe(interval_s=0.01)
    for number in range(2):
        feed.emit(block(number))
        await asyncio.wait_for(anext(stream), 60)
    assert began_s[1] - began_s[0] >= 0.004 / READING_SHARE
    await stream.aclose()
