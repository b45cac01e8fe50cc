"""keystrand plan vendors"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import click

from keystrand.cli import exits
from keystrand.cli.options import READABLE, json_option, print_json
from keystrand.cli.plan_equipment import whole_of
from keystrand.cli.plan_estate import chosen, estate_of, finding_rows
from keystrand.cli.plan_figures import numbers
from keystrand.cli.tables import show_table
from keystrand.cli.terminal import say

if TYPE_CHECKING:
    from keystrand.plan.answers import Answers
    from keystrand.plan.estate import Estate
    from keystrand.plan.vendors import Assessment

HEADINGS = ("product", "eligible", "score", "likely", "first in", "unknown", "exit cost")
SHOWN = 3


@click.command()
@click.argument("answers_file", metavar="ANSWERS", type=READABLE)
@click.option("--estate", "estate_file", default=None, type=READABLE, help="Check each product against its links.")
@click.option("--link", "links", multiple=True, help="Of the estate; may be repeated.  [default: those with QKD]")
@click.option("--matrix", is_flag=True, help="Every criterion of every product, with the level of its evidence.")
@click.option("--draws", default=10_000, show_default=True, type=click.IntRange(100, 1_000_000), help="Of weights.")
@click.option(
    "--seed", default=1, show_default=True, type=click.IntRange(0), help="The same seed gives the same figures."
)
@json_option
def command(
    answers_file: Path,
    estate_file: Path | None,
    links: tuple[str, ...],
    matrix: bool,
    draws: int,
    seed: int,
    as_json: bool,
) -> int:
    """Weigh what vendors answered by the evidence for it, and say what would change who comes first.

    ANSWERS is a file of products, answers and evidence; see docs/guides/vendors.md. A SCORE is 0 to 4, as an interval: what is
    unknown is neither 0 nor left out. FIRST IN is the share of draws of weights and unknowns that put the product first.
    Knocked out is what leaves a question of security or exit unanswered, however good the rest.
    """
    from keystrand.config.load import load_answers
    from keystrand.config.vendors import probes_of
    from keystrand.plan.finding import blocking
    from keystrand.plan.vendors import assess

    answers = load_answers(answers_file)
    estate = None if estate_file is None else estate_of(estate_file)
    served = [] if estate is None else _links(estate, links)
    probes = probes_of(answers, answers_file.absolute().parent)
    found = [assess(answers, name, estate=estate, links=served, probes=probes) for name in answers.products]
    if as_json:
        for told in _told(answers, found, draws, seed):
            print_json(told)
    else:
        _show(answers, found, draws, seed, matrix=matrix)
    return exits.REFUSED if any(blocking(each.findings) for each in found) else exits.OK


def _links(estate: Estate, links: tuple[str, ...]) -> list[str]:
    """Those asked for, or those that are to have QKD; of an estate without any, all."""

    if links:
        return chosen(estate, links)
    return [outcome.name for outcome in whole_of(estate).pilots] or list(estate.links)


def _show(answers: Answers, found: Sequence[Assessment], draws: int, seed: int, *, matrix: bool) -> None:
    from keystrand.plan.acceptability import acceptability, missing_evidence, ranked, reversals
    from keystrand.plan.answers import SCORE_MAX
    from keystrand.plan.vendors import weights_of

    weights = weights_of(answers)
    first = acceptability([each for each in found if each.is_eligible], weights, draws=draws, seed=seed)
    order = ranked(found, weights)
    show_table(HEADINGS, [_row(each, weights, first) for each in (*order, *(a for a in found if not a.is_eligible))])
    say(
        f"assumed: scores are a reviewer's; {draws:,} draws (seed {seed}); evidence halves in {answers.half_life_days:g} days"
    )
    for each in found:
        if not each.is_eligible:
            _say_lines(f"{each.product} is knocked out: {'; '.join(each.knocked_out)}")
    for turn in reversals(found, weights)[:SHOWN]:
        say(
            f"{turn.winner} comes first if the weight of {turn.criterion} goes from {turn.weight:g} to {turn.becomes:.3g}"
        )
    for wish in missing_evidence(found, weights)[:SHOWN]:
        gain = f"{wish.gain:.2f} of {SCORE_MAX:g} beyond a tie"
        _say_lines(f"evidence that could change who is first ({gain}): {wish.product}, {wish.criterion}: {wish.asks}")
    if matrix:
        _show_matrix(found)
    _show_fits(found)
    _show_findings(found)


def _row(each: Assessment, weights: Mapping[str, float], first: dict[str, tuple[float, ...]]) -> tuple[object, ...]:
    from keystrand.cli.plan_cost import money

    span = each.score(weights)
    unknown = sum(mark.score is None for mark in each.marks)
    share = f"{first[each.product][0]:.0%}" if each.product in first else "-"
    exit_cost = "unknown" if each.exit_cost is None else money(each.exit_cost.span)
    eligible = "yes" if each.is_eligible else "knocked out"
    score = f"{span.low:.2f}-{span.high:.2f}"
    return each.product, eligible, score, f"{span.likely:.2f}", share, f"{unknown} of {len(each.marks)}", exit_cost


def _show_matrix(found: Sequence[Assessment]) -> None:
    say("\npoints of 0 to 4, and level of evidence: 0 no answer, 1 claim, 2 document, 3 shown, 4 proven")
    rows = [
        (mark.criterion.name, *(_cell(each.marks[at]) for each in found), mark.criterion.group)
        for at, mark in enumerate(found[0].marks)
    ]
    show_table(("criterion", *(each.product[:14] for each in found), "group"), rows)


def _cell(mark: Any) -> str:
    points = mark.points
    value = f"{points.low:.1f}" if points.low == points.high else f"{points.low:.1f}-{points.high:.1f}"
    return f"{value} /{mark.rank}"


def _show_fits(found: Sequence[Assessment]) -> None:
    rows = [(each.product, fit.link, fit.answer, fit.why) for each in found for fit in each.fits]
    if rows:
        say("\nagainst the links of the estate")
        show_table(("product", "link", "serves", "why"), rows)


def _show_findings(found: Sequence[Assessment]) -> None:
    from keystrand.plan.finding import Severity, by_weight

    for each in found:
        worst = [f for f in by_weight(each.findings) if f.severity is Severity.BLOCKING]
        for finding in worst:
            _say_lines(f"blocking  {finding.requirement}  {finding.place}: {finding.says}")
        rest = len(each.findings) - len(worst)
        if rest:
            say(f"{each.product}: {rest} more findings; --json has them")


def _say_lines(text: str) -> None:
    for line in wrap(text, 98, subsequent_indent="  "):
        say(line)


def _told(answers: Answers, found: Sequence[Assessment], draws: int, seed: int) -> Iterator[dict[str, Any]]:
    from keystrand.plan.acceptability import acceptability, missing_evidence, reversals
    from keystrand.plan.vendors import weights_of

    weights = weights_of(answers)
    shares = acceptability([each for each in found if each.is_eligible], weights, draws=draws, seed=seed)
    for each in found:
        yield {
            "product": each.product,
            "eligible": each.is_eligible,
            "knocked_out": each.knocked_out,
            "score": numbers(each.score(weights)),
            "basis": "assumed",
            "ranks": shares.get(each.product),
            "exit_cost": None if each.exit_cost is None else numbers(each.exit_cost.span),
            "marks": [
                {
                    "criterion": mark.criterion.name,
                    "group": mark.criterion.group,
                    "requirement": mark.criterion.requirement,
                    "weight": weights[mark.criterion.name],
                    "score": None if mark.score is None else numbers(mark.score),
                    "evidence_level": mark.rank,
                    "evidence_weight": mark.weight_of_evidence,
                    "points": numbers(mark.points),
                    "why": mark.why,
                }
                for mark in each.marks
            ],
            "fits": [{"link": fit.link, "answer": fit.answer, "why": fit.why} for fit in each.fits],
            "findings": finding_rows(each.findings),
        }
    yield {
        "evaluation": answers.name,
        "seed": seed,
        "draws": draws,
        "reversals": reversals(found, weights),
        "missing_evidence": missing_evidence(found, weights),
    }
