"""Planned maintenance of a network in virtual time: filled beforehand, drained without a loss, switched off, back in use."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from keystrand.relay.atlas import Atlas, RelayedLink, SiteFacts, Terms
from keystrand.relay.maintenance import MARGIN, Check
from keystrand.testing.clock import EPOCH_S
from keystrand.testing.network.post import Post
from keystrand.testing.network.world import LIMITS, Network, Rhythm
from keystrand.wire.relay import Window

BUSY = Rhythm(hop_block_s=5.0, key_s=2.0)
EXPECTED_BPS = 300.0  # more than the SAE draws: 256 bits every two seconds on average
WINDOW_S = 600.0


def network(*hops: tuple[str, str], seed: int = 1) -> Network:
    """a and d, who draw keys over whatever lies between."""
    sites = {name: SiteFacts(name=name) for name in sorted({site for hop in hops for site in hop})}
    terms = Terms(accept_undocumented=True)
    link = RelayedLink(name="a-d", ends=("a", "d"), terms=terms, expected_bps=EXPECTED_BPS)
    limits = replace(LIMITS, block_ttl_s=86_400.0)
    return Network(seed, Atlas(sites, hops, {"a-d": link}), rhythm=BUSY, limits=limits)


def planned(world: Network, site: str, neighbour: str = "", *, lead_s: float = 60.0) -> Post:
    begins_s = int(EPOCH_S + world.clock.monotonic_s() + lead_s)
    world.posts[site].windows = (Window("w", neighbour, begins_s, begins_s + int(WINDOW_S), draining=False),)
    return world.posts[site]


def drain(post: Post) -> None:
    post.windows = (msgspec.structs.replace(post.windows[0], draining=True),)


def checks(post: Post) -> dict[tuple[str, str], Check]:
    assert post.relay is not None
    return {(check.link, check.site): check for check in post.relay.maintenance.checks(post.windows[0])}


def is_drained(post: Post) -> bool:
    return bool(post.told["maintenance.drained", ""])


@pytest.mark.proves("R102")
def test_a_pool_is_filled_for_the_window_of_the_only_relay_and_no_draw_fails_in_it() -> None:
    """The check is short at first, then suffices; the relay is off for the whole window, and every key still comes."""
    world = network(("a", "b"), ("b", "d"))
    world.begin()
    world.schedule.run_until(120.0)
    post = planned(world, "b", lead_s=500.0)
    world.schedule.run_until(125.0)
    (short,) = checks(post).values()
    assert short.needed_bits == pytest.approx(MARGIN * EXPECTED_BPS * WINDOW_S, rel=0.02)
    assert short.short_bits > 0, "it must be filled first"
    assert short.fill_s > 0
    world.schedule.run_until(600.0)
    (filled,) = checks(post).values()
    assert filled.is_ready, filled
    drain(post)
    world.schedule.run_until(630.0)
    assert is_drained(post)
    lost, refused = world.posts["a"].told["relay.block_lost", ""], world.tally.refused
    assert lost == 0, "nothing under way was lost"
    post.sitting.stop()
    post.stop()
    world.schedule.run_until(630.0 + WINDOW_S)
    assert world.tally.refused == refused, "no draw failed in the window"
    assert world.posts["a"].told["relay.block_lost", ""] == lost
    post.windows = ()
    world.boot("b")
    world.schedule.run_until(world.clock.monotonic_s() + 30.0)
    relay = world.posts["a"].relay
    assert relay is not None
    assert relay.sender.routes(relay.atlas.links["a-d"]) == [("a", "b", "d")], "back in use"
    assert world.judge.violations == []


@pytest.mark.proves("R102")
def test_with_another_way_nothing_has_to_be_filled_and_blocks_go_around() -> None:
    world = network(("a", "b"), ("b", "d"), ("a", "c"), ("c", "d"))
    world.begin()
    world.schedule.run_until(120.0)
    post = planned(world, "b")
    world.schedule.run_until(125.0)
    (check,) = checks(post).values()
    assert check.is_ready
    assert check.needed_bits == 0
    drain(post)
    world.schedule.run_until(145.0)
    assert is_drained(post)
    seen, made = post.told["relay.saw", "whole"], world.tally.blocks["a-d"]
    world.schedule.run_until(400.0)
    assert post.told["relay.saw", "whole"] == seen, "no share comes by"
    assert world.tally.blocks["a-d"] > made
    assert world.posts["a"].told["relay.block_lost", ""] == 0
    assert world.judge.violations == []


def test_of_a_hop_both_ends_and_every_origin_are_asked() -> None:
    world = network(("a", "b"), ("b", "d"), ("a", "c"), ("c", "d"))
    world.begin()
    world.schedule.run_until(120.0)
    post = planned(world, "b", neighbour="d")
    world.schedule.run_until(125.0)
    told = checks(post)
    assert set(told) == {("a-d", "a"), ("hop b – d", "b"), ("hop b – d", "d")}
    assert all(check.is_ready for check in told.values())
    drain(post)
    world.schedule.run_until(145.0)
    assert is_drained(post)
    relay = world.posts["a"].relay
    assert relay is not None
    assert relay.sender.routes(relay.atlas.links["a-d"]) == [("a", "c", "d")]


def test_who_does_not_answer_is_short() -> None:
    world = network(("a", "b"), ("b", "d"))
    world.begin()
    world.schedule.run_until(60.0)
    world.posts["a"].sitting.stop()
    world.posts["a"].stop()
    post = planned(world, "b")
    world.schedule.run_until(65.0)
    (check,) = checks(post).values()
    assert (check.site, check.is_ready) == ("", False)
    assert "nobody answers" in check.words()


def test_a_window_that_is_over_closes_nothing_even_where_its_site_forgot_it() -> None:
    world = network(("a", "b"), ("b", "d"))
    world.begin()
    world.schedule.run_until(120.0)
    post = planned(world, "b")
    drain(post)
    world.schedule.run_until(150.0)
    relay = world.posts["a"].relay
    assert relay is not None
    assert relay.sender.routes(relay.atlas.links["a-d"]) == []
    world.schedule.run_until(200.0 + WINDOW_S)
    assert relay.sender.routes(relay.atlas.links["a-d"]) == [("a", "b", "d")]
