"""What a site shows of its network: its ways, hops that are away or closed, and sites whose documents lapsed."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import date

from keystrand.console.terminal import render_status
from keystrand.node.network_gauge import network_gauge
from keystrand.observe.alarms import alarms_of
from keystrand.observe.feed import Feed
from keystrand.observe.gauges import Gauges, LinkGauge, NetworkGauge
from keystrand.relay.atlas import Atlas, Evidence, RelayedLink, SiteFacts, Terms
from keystrand.relay.linkstate import LinkState
from keystrand.relay.relay import Relay
from keystrand.testing.clock import SeededEntropy, VirtualClock
from keystrand.testing.network.post import sign_as, verify
from keystrand.wire.relay import Span, Window

PROOF = Evidence(what="inspection", reference="1", dated=date(2020, 1, 1))


def facts(name: str, expires: date | None = None) -> SiteFacts:
    proof = replace(PROOF, expires=expires)
    return SiteFacts(name=name, owner="o", facility="f", jurisdiction="CH", evidence=(proof,), signed_off_by="s")


def seen(*away: str, windows: tuple[Window, ...] = (), barred: str = "", paths: int = 2) -> NetworkGauge:
    """a – b – d and a – c – d as `a` sees them: hops in `away` are told by nobody; windows are those of c."""
    terms = Terms(paths=paths, accept_undocumented=True)
    sites = {name: facts(name) for name in "ad"}
    sites |= {"b": SiteFacts(name="b", owner="o"), "c": facts("c", date(2020, 1, 2))}
    link = RelayedLink(name="a-d", ends=("a", "d"), terms=terms)
    atlas = Atlas(sites, (("a", "b"), ("b", "d"), ("a", "c"), ("c", "d")), {"a-d": link})
    clock = VirtualClock()
    state = LinkState("a", atlas, clock, sign_as("a"), verify)
    for name in atlas.sites:
        other = state if name == "a" else LinkState(name, atlas, clock, sign_as(name), verify)
        near = [one for one in atlas.neighbours(name) if "".join(sorted(name + one)) not in away]
        bits = 1000 if name == "a" else 500
        advert = other.own({one: Span(one, bits, 100) for one in near}, windows if name == "c" else ())
        assert advert is not None
        state.hear(advert)
    state.barred = frozenset(barred)
    relay = Relay("a", atlas, state, clock=clock, entropy=SeededEntropy(1))
    return network_gauge(relay, "square", {"a-d": tuple(relay.sender.routes(link, spare=0))})


def test_a_network_that_is_whole() -> None:
    gauge = seen()
    (way,) = gauge.ways
    assert sorted(way.routes) == [("a", "b", "d"), ("a", "c", "d")]
    assert {(hop.state, hop.used, hop.bits) for hop in gauge.hops} == {("up", True, 500)}
    assert {place.site: place.state for place in gauge.places} == dict.fromkeys("abcd", "up")


def test_what_lapsed_is_told_apart_from_what_was_never_there() -> None:
    told = {place.site: (place.missing, place.lapsed) for place in seen().places if place.missing}
    assert told["c"] == (("evidence (expired)",), True)
    assert told["b"] == (("facility", "jurisdiction", "sign-off", "evidence"), False)
    assert [alarm.name for alarm in alarms_of(Gauges(network=seen()), 0.0, (), 0.0)] == ["relay.documents_lapsed"]


def test_a_site_none_of_whose_hops_is_told_is_away_and_the_link_has_no_way() -> None:
    gauge = seen("ab", "bd")
    assert {place.site: place.state for place in gauge.places} == {"a": "up", "b": "away", "c": "up", "d": "up"}
    assert [hop.state for hop in gauge.hops if "b" in (hop.one, hop.other)] == ["away", "away"]
    (way,) = gauge.ways
    assert way.routes == ()
    link = LinkGauge(link="a-d", peer="d", state="starting")
    names = [alarm.name for alarm in alarms_of(Gauges(network=gauge, links=(link,)), 0.0, (), 0.0)]
    assert names == ["relay.documents_lapsed", "route"], "and that the link brings nothing is not told a second time"


def test_maintenance_and_bars_close_hops() -> None:
    window = Window("w", "", 0, 2**40, draining=True)
    resting, shut = seen(windows=(window,), paths=1), seen(barred="c", paths=1)
    assert [place.state for place in resting.places if place.site == "c"] == ["maintenance"]
    assert [place.state for place in shut.places if place.site == "c"] == ["barred"]
    for gauge in (resting, shut):
        assert {hop.state for hop in gauge.hops if "c" in (hop.one, hop.other)} == {"closed"}
        assert gauge.ways[0].routes == (("a", "b", "d"),)
    gone, shut = seen(windows=(window,)), seen(barred="c")
    assert [(gauge.ways[0].routes, gauge.ways[0].planned) for gauge in (gone, shut)] == [((), True), ((), False)]
    told = [[alarm.name for alarm in alarms_of(Gauges(network=gauge), 0.0, (), 0.0)] for gauge in (gone, shut)]
    assert ["route" in names for names in told] == [False, True], "nobody is called for what was planned"


def test_the_status_tells_ways_and_what_is_not_as_it_should_be() -> None:
    feed = Feed("a")
    assert "NETWORK" not in render_status(feed.snapshot())
    feed.update(Gauges(network=seen("bd", paths=1)))
    text = render_status(feed.snapshot())
    assert feed.snapshot()["network"] == asdict(seen("bd", paths=1))
    for line in (
        "NETWORK square   4 sites, 4 hops",
        "  a-d, a to d   1 of 1 ways",
        "    a > c > d",
        "  hop b – d is away",
        "  c is not documented: evidence (expired)",
    ):
        assert line in text.splitlines()
