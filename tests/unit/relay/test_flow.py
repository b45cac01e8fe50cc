"""The fastest that a relayed link can fill, against the smallest cut of every network."""

from __future__ import annotations

from itertools import chain, combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from keystrand.relay.flow import Rates, fill_bps

SITES = "abcde"
PAIRS = list(combinations(SITES, 2))


def network(rates: dict[tuple[str, str], int]) -> dict[str, dict[str, float]]:
    graph: dict[str, dict[str, float]] = {site: {} for site in SITES}
    for (one, other), rate in rates.items():
        graph[one][other] = graph[other][one] = float(rate)
    return graph


def cut_bps(rates: Rates, cap: float) -> float:
    """The smallest cut between a and e where hops and inner sites let no more than `cap` pass (max flow = min cut)."""
    inner = "bcd"
    best = float("inf")
    for spent in chain.from_iterable(
        combinations(inner, size) for size in range(4)
    ):  # inner sites that are cut themselves
        left = [site for site in inner if site not in spent]
        for side in chain.from_iterable(combinations(left, size) for size in range(len(left) + 1)):
            near = {"a", *side}
            hops = sum(
                min(rate, cap)
                for one in near
                for other, rate in rates[one].items()
                if other not in near and other not in spent
            )
            best = min(best, len(spent) * cap + hops)
    return best


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(PAIRS), st.integers(0, 20), min_size=3), st.integers(1, 3))
def test_no_faster_than_every_cut_lets_it_and_no_slower(drawn: dict[tuple[str, str], int], paths: int) -> None:
    rates = network(drawn)
    found = fill_bps(rates, "a", "e", paths)
    if found > 0:
        assert cut_bps(rates, found) >= paths * found * (1 - 1e-4), "it is reached"
    above = found * 1.01 + 1e-3
    assert cut_bps(rates, above) < paths * above, "and nothing above it is"


def test_two_parts_need_two_ways_and_the_slower_one_counts() -> None:
    rates = network({("a", "b"): 10, ("b", "e"): 10, ("a", "c"): 3, ("c", "e"): 9})
    assert fill_bps(rates, "a", "e", 1) == 13
    assert abs(fill_bps(rates, "a", "e", 2) - 3) < 1e-3
    assert fill_bps(rates, "a", "e", 3) == 0
