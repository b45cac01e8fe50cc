"""Cost: ranges from the user's tariffs, what is missing by name, and PQC beside QKD."""

from __future__ import annotations

import math
from datetime import date

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystrand.plan.cost import (
    SUGGESTED,
    Bill,
    Costs,
    bill_of,
    cost,
    hardware_findings,
    leased_km,
    per_point,
)
from keystrand.plan.estate import Control, Estate, FailurePolicy, Link, Medium, Segment
from keystrand.plan.fact import Basis, Span, Stated, Unknown, figure
from keystrand.plan.finding import Finding
from keystrand.plan.montecarlo import Trial
from keystrand.plan.pattern import Layer, Pattern
from keystrand.plan.residual import Build
from keystrand.plan.tariffs import Tariffs

TARIFFS = Tariffs(
    qkd_pair=(180_000.0, 250_000.0),
    relay_site=(10_000.0, 30_000.0),
    kms=20_000.0,
    hsm=10_000.0,
    encryptor=5_000.0,
    fibre_km_per_year=(500.0, 1500.0),
    relay_site_per_year=2_000.0,
    support_share_per_year=(0.1, 0.2),
    staff_per_year=40_000.0,
    pqc_endpoint=(1_000.0, 5_000.0),
    hardening_endpoint=500.0,
    years=5.0,
)
LEASED = Segment(medium=Medium.DARK_FIBRE, control=Control.CONTRACTED, length_km=(20.0, 22.0))
OWN = Segment(medium=Medium.DARK_FIBRE, control=Control.OWNED)
LINK = Link(ends=("a", "b"), tunnels=2, segments=(LEASED, OWN))


def estate(tariffs: Tariffs = TARIFFS, currency: str = "EUR") -> Estate:
    return Estate(name="e", planned=date(2026, 11, 28), currency=currency, tariffs=tariffs, links={"l": LINK})


def bill(pattern: Pattern, hops: int | None, link: Link = LINK) -> Bill:
    found = bill_of(link, pattern, hops)
    assert isinstance(found, Bill)
    return found


def costs(pattern: Pattern, hops: int | None = None, tariffs: Tariffs = TARIFFS) -> Costs:
    found = cost(estate(tariffs), bill(pattern, hops))
    assert isinstance(found, Costs)
    return found


@pytest.mark.proves("R123")
def test_a_qkd_link_by_hand() -> None:
    """Two hops: 2 pairs, 1 relay, 3 key managers and HSMs, 4 tunnel ends, 21 km of leased fibre."""
    found = costs(Pattern.PQC_QKD, 2)
    assert [layer.layer for layer in found.layers] == [Layer.HARDENED, Layer.PQC, Layer.QKD_REFRESH]
    hardening, pqc, qkd = found.layers
    assert hardening.total == Span.point(1_000)
    assert pqc.total == Span(2_000, 6_000, 10_000)
    hardware = 2 * 215_000 + 3 * 30_000 + 4 * 5_000
    assert qkd.once.likely == hardware + 20_000
    assert qkd.per_year.likely == pytest.approx(21 * 1_000 + 2_000 + 0.15 * hardware + 40_000)
    assert qkd.total.likely == pytest.approx(qkd.once.likely + 5 * qkd.per_year.likely)
    assert qkd.total.low < qkd.total.likely < qkd.total.high
    assert found.per_link_year.likely == pytest.approx(found.total.likely / 5)
    assert qkd.basis is Basis.ASSUMED


def test_several_sources_are_paid_for_on_every_path() -> None:
    one, two = costs(Pattern.PQC_QKD, 1).layers[-1], costs(Pattern.PQC_QKD_MULTI, 1).layers[-1]
    pairs = [next(i.count.likely for i in layer.items if i.tariff == "qkd_pair") for layer in (one, two)]
    assert pairs == [1, 2]


@pytest.mark.proves("R123")
@pytest.mark.parametrize("missing", [name for name in TARIFFS.__struct_fields__ if name != "years"])
def test_a_missing_tariff_is_named_and_nothing_is_printed(missing: str) -> None:
    found = cost(estate(msgspec.structs.replace(TARIFFS, **{missing: None})), bill(Pattern.PQC_QKD, 2))
    assert isinstance(found, Unknown)
    assert [reason.split(" ")[0] for reason in found.reasons] == [f"tariffs.{missing}"]


def test_what_is_not_bought_needs_no_price() -> None:
    bare = Tariffs(pqc_endpoint=1.0, hardening_endpoint=1.0)
    assert isinstance(cost(estate(bare), bill(Pattern.PQC, None)), Costs)
    no_relay = msgspec.structs.replace(TARIFFS, relay_site=None, relay_site_per_year=None)
    assert isinstance(cost(estate(no_relay), bill(Pattern.PQC_QKD, 1)), Costs)


def test_the_published_price_is_a_hint_and_no_default() -> None:
    found = cost(estate(Tariffs(pqc_endpoint=1.0, hardening_endpoint=1.0)), bill(Pattern.PQC_QKD, 1))
    assert isinstance(found, Unknown)
    assert SUGGESTED["qkd_pair"] in found.reasons[0]
    assert "EUR 180,000 to 250,000" in found.reasons[0]
    assert Tariffs().qkd_pair is None


def test_no_currency_hops_or_length_is_unknown_by_name() -> None:
    assert cost(estate(currency=""), bill(Pattern.PQC, None)) == Unknown(("currency",))
    vague = Link(ends=("a", "b"), segments=(Segment(medium=Medium.DARK_FIBRE),))
    found = bill_of(vague, Pattern.PQC_QKD, None)
    assert found == Unknown(("how many hops of QKD it takes: its feasibility is unknown", "segments.0.length_km"))
    assert leased_km(LINK) == Span(20.0, 21.0, 22.0)


def test_a_key_manager_serves_all_links_of_its_site() -> None:
    other = Link(ends=("b", "c"), tunnels=1)
    both = bill(Pattern.PQC_QKD, 1) + bill(Pattern.PQC_QKD, 1, other)
    assert both.sites == ("a", "b", "c")
    assert (both.links, both.pairs, both.tunnel_ends, both.endpoints) == (2, 2, 6, 4)


@given(st.floats(0.1, 10.0), st.sampled_from([n for n in TARIFFS.__struct_fields__ if n != "years"]))
def test_dearer_is_never_cheaper(factor: float, name: str) -> None:
    span = figure(getattr(TARIFFS, name)).span
    dearer = msgspec.structs.replace(TARIFFS, **{name: (span.low * (1 + factor), span.high * (1 + factor))})
    before, after = costs(Pattern.PQC_QKD, 2).total, costs(Pattern.PQC_QKD, 2, dearer).total
    assert after.low > before.low
    assert after.high > before.high


@pytest.mark.proves("R125")
def test_cost_of_a_point_removed_by_pqc_beside_qkd() -> None:
    """PQC removes most for little; what QKD adds on top costs orders of magnitude more for each point."""
    trial = Trial(estate(), 1000)
    horizon, starved = figure((10.0, 20.0)), figure((0.0, 0.02))
    rungs = [
        Build(pattern=Pattern.CLASSICAL),
        Build(pattern=Pattern.PQC),
        Build(pattern=Pattern.PQC_QKD, on_exhaustion=FailurePolicy.CLOSED),
    ]
    _, pqc, qkd = costs(Pattern.PQC_QKD, 1).layers
    by_pqc = per_point(pqc.total, trial.removed(horizon, starved, rungs[0], rungs[1]))
    by_qkd = per_point(qkd.total, trial.removed(horizon, starved, rungs[1], rungs[2]))
    assert by_pqc.low < by_pqc.likely < by_pqc.high < math.inf
    assert by_qkd.low > 100 * by_pqc.high


def test_nothing_removed_for_money_is_infinitely_dear() -> None:
    assert per_point(Span(1.0, 2.0, 3.0), Span(-0.1, 0.0, 0.1)) == Span(0.1, math.inf, math.inf)


@pytest.mark.proves("R011")
def test_quantum_hardware_before_governance_is_flagged_with_its_share() -> None:
    open_question = Finding(("governance",), "who answers for keys?", "R104")
    found = hardware_findings(costs(Pattern.PQC_QKD, 2), [open_question])
    assert len(found) == 1
    assert "of the money" in found[0].says
    assert "1 questions" in found[0].says
    assert "who answers for keys?" in found[0].hint
    assert hardware_findings(costs(Pattern.PQC_QKD, 2), []) == ()
    assert hardware_findings(costs(Pattern.PQC), [open_question]) == ()
    assert costs(Pattern.PQC_QKD, 2).hardware_share == pytest.approx(560_000 / 1_287_000)


def test_a_measured_price_keeps_its_basis() -> None:
    quoted = Stated(likely=1_500.0, basis=Basis.MEASURED, source="offer 12")
    tariffs = msgspec.structs.replace(TARIFFS, pqc_endpoint=quoted)
    assert costs(Pattern.PQC, tariffs=tariffs).layers[1].basis is Basis.MEASURED
