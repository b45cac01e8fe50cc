"""Plan beside reality: each figure in or out of its range, and what nobody measured or planned says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from keystrand.config.load import load_estate
from keystrand.plan.fact import Basis, Unknown
from keystrand.plan.verify import Measured, Verdict, compared, measured_of, paired
from keystrand.plan.whole import whole

BANK = load_estate(Path(__file__).parents[3] / "examples" / "estates" / "bank.toml")
PLAN = whole(BANK)
LINK = next(outcome for outcome in PLAN.outcomes if outcome.name == "dc-east-west")


def status(**changes: Any) -> dict[str, Any]:
    link = {
        "link": "dc-east-west",
        "peer": "dc-west",
        "simulated": False,
        "skr_bps": 5_000.0,
        "ledger": {"available": 900_000, "reserved": 100_000},
        "drain_bps": 68.0,
        "oldest_block_age_s": 600.0,
        **changes,
    }
    drawn = [
        {"at_s": 1000.0 + 60 * n, "initiator": "a", "responder": "b", "recipient": who, "link": link["link"]}
        for n in range(5)
        for who in ("a", "b")
    ]
    blocks = [[1.0, 0.02, 4_000.0], [2.0, 0.02, 6_000.0], [3.0, None, None]]
    return {
        "site": "dc-east",
        "links": [link],
        "deliveries": {"recent": drawn},
        "series": {"dc-east-west": {"blocks": blocks}},
    }


def test_a_status_is_read_as_figures() -> None:
    (found,) = measured_of(status())
    assert (found.skr_bps, found.stock_bits, found.rotation_s) == (5_000.0, 1_000_000.0, 60.0)
    assert found.basis is Basis.MEASURED
    (found,) = measured_of(status(simulated=True, link="new", skr_bps=None))
    assert (found.basis, found.skr_bps, found.rotation_s) == (Basis.SIMULATED, None, 60.0)


def test_what_is_in_its_range_is_as_planned() -> None:
    (found,) = measured_of(status())
    lines = {line.figure: line for line in compared(LINK, found)}
    assert {figure: line.verdict for figure, line in lines.items()} == dict.fromkeys(
        ("key rate", "time to empty", "exposure window", "rotation"), Verdict.AS_PLANNED
    )


@pytest.mark.parametrize(
    ("figure", "change", "verdict"),
    [
        ("key rate", {"skr_bps": 10.0}, Verdict.BELOW),
        ("key rate", {"skr_bps": 1e6}, Verdict.ABOVE),
        ("time to empty", {"stock_bits": 1000.0}, Verdict.BELOW),
        ("exposure window", {"oldest_s": 1e6}, Verdict.ABOVE),
        ("rotation", {"rotation_s": 600.0}, Verdict.ABOVE),
        ("rotation", {"rotation_s": None}, Verdict.NOT_MEASURED),
        ("time to empty", {"drain_bps": 0.0}, Verdict.NOT_MEASURED),
    ],
)
def test_what_is_out_of_it_has_drifted(figure: str, change: dict[str, float | None], verdict: Verdict) -> None:
    good = {"skr_bps": 5_000.0, "stock_bits": 1e6, "drain_bps": 68.0, "oldest_s": 600.0, "rotation_s": 60.0}
    measured = Measured(site="dc-east", link="x", peer="dc-west", simulated=False, **(good | change))
    line = next(line for line in compared(LINK, measured) if line.figure == figure)
    assert line.verdict is verdict
    assert line.has_drifted == (verdict in (Verdict.ABOVE, Verdict.BELOW))


def test_what_was_not_planned_says_why() -> None:
    served = next(outcome for outcome in PLAN.outcomes if outcome.name == "trading")
    lines = compared(served, Measured(site="s", link="trading", peer="p", simulated=False, skr_bps=1.0))
    assert {line.verdict for line in lines if line.figure != "rotation"} == {Verdict.NOT_PLANNED}
    assert all(line.why for line in lines if line.planned is None)


def test_a_sites_link_is_found_by_name_or_by_its_two_sites_or_not_at_all() -> None:
    def found(site: str, link: str, peer: str) -> object:
        return paired(PLAN.outcomes, Measured(site=site, link=link, peer=peer, simulated=False))

    assert found("anywhere", "dc-east-west", "elsewhere") is LINK
    assert found("dc-west", "fibre-3", "dc-east") is LINK
    assert isinstance(found("dc-west", "fibre-3", "nowhere"), Unknown)
    twice = whole(replace(BANK, links={"one": BANK.links["dc-east-west"], "two": BANK.links["dc-east-west"]}))
    assert isinstance(
        paired(twice.outcomes, Measured(site="dc-east", link="x", peer="dc-west", simulated=False)), Unknown
    )
