"""keystrand plan cost"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import click

from keystrand.cli.options import json_option, print_json
from keystrand.cli.plan_estate import ESTATE, LINK, chosen, estate_of, finding_rows
from keystrand.cli.plan_figures import SHORT, numbers, outcomes
from keystrand.cli.tables import show_table
from keystrand.cli.terminal import say
from keystrand.plan.fact import Span, Unknown
from keystrand.plan.pattern import Layer, Pattern

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keystrand.plan.cost import Costs, LayerCost
    from keystrand.plan.estate import Estate
    from keystrand.plan.finding import Finding
    from keystrand.plan.montecarlo import Trial
    from keystrand.plan.outcome import Outcome, Plan

HEADINGS = ("link", "decided", "PQC", "a point", "QKD adds", "a point", "all, a year")


@click.command()
@ESTATE
@LINK
@click.option("--beside", is_flag=True, help="Price QKD too where it was not decided, if it can be counted.")
@json_option
def command(estate_file: Path, links: tuple[str, ...], beside: bool, as_json: bool) -> None:
    """Price what was decided for each link, layer by layer: PQC beside QKD, as ranges from the estate's tariffs.

    A POINT is the price of one percentage point of risk that the layer removes, over the years of the tariffs. Where a tariff
    or a count is missing, nothing is printed but its name. With --link: every line of the calculation.
    """
    from keystrand.plan.montecarlo import Trial
    from keystrand.plan.outcome import Plan

    estate = estate_of(estate_file)
    trial = Trial(estate)
    plan = Plan(estate, tuple(outcomes(estate, chosen(estate, links))))
    found = [_priced(estate, trial, case, beside=beside) for case in plan.outcomes]
    total = plan.costs
    findings = _findings(plan)
    if as_json:
        for each in found:
            print_json(_told(each))
        print_json({"estate": estate.name, **_costs_told(total), "findings": finding_rows(findings)})
        return
    say(f"{estate.currency or 'no currency'} over {estate.tariffs.years:g} years; all tariffs are the estate's own")
    show_table(HEADINGS, [_row(each) for each in found])
    if links:
        for each in found:
            _show_items(each)
    _say_total(total, found, findings)


@dataclass(frozen=True, slots=True)
class Priced:
    """One link: the pattern that is priced, its costs, and money for a point of risk by layer where that can be said."""

    case: Outcome
    pattern: Pattern
    costs: Costs | Unknown
    points: dict[Layer, Span]

    @property
    def decided_per_year(self) -> Span:
        """Of what was decided; a layer that only stands beside it is left out."""
        assert not isinstance(self.costs, Unknown)
        layers = [layer for layer in self.costs.layers if layer.layer in self.case.pattern.layers]
        return sum((layer.total for layer in layers), Span(0.0, 0.0, 0.0)).times(1 / self.costs.years)


def _priced(estate: Estate, trial: Trial, case: Outcome, *, beside: bool) -> Priced:
    from keystrand.plan.cost import bill_of, cost, per_point
    from keystrand.plan.risk import ladder

    more = beside and case.pattern is Pattern.PQC and case.feasibility.hops is not None
    pattern = Pattern.PQC_QKD if more else case.pattern
    bill = bill_of(case.link, pattern, case.feasibility.hops)
    costs = bill if isinstance(bill, Unknown) else cost(estate, bill)
    horizon = case.classified.horizon_years
    if isinstance(costs, Unknown) or horizon is None:
        return Priced(case, pattern, costs, {})
    rungs = ladder(case.build(pattern))
    steps = zip(costs.layers[1:], rungs, rungs[1:], strict=False)
    points = {
        layer.layer: per_point(layer.total, trial.removed(horizon, case.starved, before, after))
        for layer, before, after in steps
    }
    return Priced(case, pattern, costs, points)


def _findings(plan: Plan) -> tuple[Finding, ...]:
    from keystrand.plan.cost import hardware_findings
    from keystrand.plan.finding import blocking
    from keystrand.plan.gates import prerequisites

    asked = {f.place: f for pilot in plan.pilots for f in blocking(prerequisites(plan.estate, pilot.name))}
    budget = plan.budget
    return () if isinstance(budget, Unknown) else hardware_findings(budget, tuple(asked.values()))


def _row(each: Priced) -> tuple[object, ...]:
    head = (each.case.name, SHORT[each.case.pattern])
    if isinstance(each.costs, Unknown):
        return (*head, "unknown", "", "unknown", "", "unknown")
    layers = {layer.layer: layer for layer in each.costs.layers}
    cells = []
    for layer in (Layer.PQC, Layer.QKD_REFRESH):
        cells += [money(layers[layer].total) if layer in layers else "-"]
        cells += [money(each.points[layer]) if layer in each.points else "-"]
    return (*head, *cells, money(each.decided_per_year))


def _show_items(each: Priced) -> None:
    say(f"\n{each.case.name}")
    if not isinstance(each.costs, Unknown):
        lines = [(layer, item) for layer in each.costs.layers for item in layer.items]
        show_table(
            ("layer", "tariff", "count", "price", "in all", "basis"),
            [
                (layer.layer.name.lower(), i.tariff, plain(i.count), money(i.price.span), money(i.total), i.price.basis)
                for layer, i in lines
            ],
        )


def _say_total(total: Costs | Unknown, found: Sequence[Priced], findings: Sequence[Finding]) -> None:
    if isinstance(total, Unknown):
        say("no cost is printed where an input is unknown; state these:")
        for reason in total.reasons:
            say(f"  {reason}")
        return
    say(f"all {len(found)} links together: {money(total.total)}, key managers counted once for each site")
    for finding in findings:
        say(f"{finding.severity}: {finding.says}")
        for line in wrap(finding.hint, 96):
            say(f"  {line}")


def _told(each: Priced) -> dict[str, Any]:
    points = {layer.name.lower(): numbers(span) for layer, span in each.points.items()}
    return {
        "link": each.case.name,
        "decided": each.case.pattern,
        "priced": each.pattern,
        **_costs_told(each.costs),
        "per_percentage_point": points,
    }


def _costs_told(costs: Costs | Unknown) -> dict[str, Any]:
    if isinstance(costs, Unknown):
        return {"unknown": costs.reasons}
    return {
        "currency": costs.currency,
        "years": costs.years,
        "total": numbers(costs.total),
        "per_year": numbers(costs.per_link_year),
        "qkd_hardware_share": costs.hardware_share,
        "layers": [_layer_told(layer) for layer in costs.layers],
    }


def _layer_told(layer: LayerCost) -> dict[str, Any]:
    return {
        "layer": layer.layer,
        "basis": layer.basis,
        "once": numbers(layer.once),
        "per_year": numbers(layer.per_year),
        "items": [
            {"tariff": i.tariff, "count": numbers(i.count), "price": numbers(i.price.span), "total": numbers(i.total)}
            for i in layer.items
        ],
    }


def money(span: Span) -> str:
    """`3.2k-14k`; `1.2k or more` where there is no upper end, and where there is no lower one either nothing is gained."""
    if math.isinf(span.low):
        return "no gain"
    if math.isinf(span.high):
        return f"{_short(span.low)} or more"
    low, high = _short(span.low), _short(span.high)
    return low if low == high else f"{low}-{high}"


def plain(span: Span) -> str:
    low, high = f"{span.low:,.6g}", f"{span.high:,.6g}"
    return low if low == high else f"{low}-{high}"


def _short(value: float) -> str:
    for unit, scale in (("M", 1e6), ("k", 1e3)):
        if value >= scale:
            return f"{value / scale:.3g}{unit}"
    return f"{value:.3g}"
