"""Placement of relays and hops, against every choice tried by hand."""

from __future__ import annotations

import pytest
from bench.place_networks import cheapest, cost, network

from keystrand.plan.fact import Unknown
from keystrand.plan.place import place
from keystrand.plan.placement import Hop, Network, Placement, Want

CHAIN = (Hop(("a", "m"), 100.0), Hop(("m", "b"), 100.0), Hop(("a", "n"), 100.0), Hop(("n", "b"), 100.0))


@pytest.mark.parametrize("seed", range(1000, 1024))
def test_the_programme_agrees_with_every_choice_tried(seed: int) -> None:
    net = network(seed)
    best, found = cheapest(net), place(net)
    if best is None:
        assert isinstance(found, Unknown)
        return
    assert isinstance(found, Placement)
    assert found.cost == pytest.approx(best)
    assert found.gap == 0.0
    assert cost(net, found.routes) == pytest.approx(found.cost)


def test_relays_are_shared_where_that_is_cheaper() -> None:
    wants = (Want(("a", "b"), 10.0), Want(("b", "a"), 10.0))
    found = place(Network({"m": 1.0, "n": 1.0}, CHAIN, wants))
    assert isinstance(found, Placement)
    assert len(found.relays) == 1
    assert found.cost == 3.0


def test_capacity_is_met_by_more_pairs_side_by_side() -> None:
    found = place(Network({"m": 1.0}, CHAIN, (Want(("a", "b"), 250.0),)))
    assert isinstance(found, Placement)
    assert found.pairs == {("a", "m"): 3, ("m", "b"): 3}


def test_two_paths_have_no_relay_in_common() -> None:
    found = place(Network({"m": 1.0, "n": 5.0}, CHAIN, (Want(("a", "b"), 10.0, paths=2),)))
    assert isinstance(found, Placement)
    assert found.routes == ((("a", "m", "b"), ("a", "n", "b")),)
    alone = place(Network({"m": 1.0}, CHAIN, (Want(("a", "b"), 10.0, paths=2),)))
    assert isinstance(alone, Unknown)


def test_relays_of_others_are_avoided_as_far_as_is_asked() -> None:
    wants = (Want(("a", "b"), 10.0, untrusted_max=0),)
    found = place(Network({"m": 1.0, "n": 9.0}, CHAIN, wants, frozenset({"m"})))
    assert isinstance(found, Placement)
    assert found.relays == ("n",)
    assert isinstance(place(Network({"m": 1.0}, CHAIN, wants, frozenset({"m"}))), Unknown)


def test_a_want_that_asks_for_nothing_is_refused() -> None:
    for ends, bps, paths in ((("a", "a"), 1.0, 1), (("a", "b"), 0.0, 1), (("a", "b"), 1.0, 3)):
        with pytest.raises(ValueError, match="asks for nothing"):
            Want(ends, bps, paths)
