"""keystrand plan feasibility"""

from __future__ import annotations

from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import click

from keystrand.cli.options import json_option, print_json
from keystrand.cli.plan_equipment import cell, own_equipment
from keystrand.cli.plan_estate import ESTATE, LINK, chosen, estate_of, finding_rows, tally
from keystrand.cli.plan_figures import interval
from keystrand.cli.tables import show_table, span
from keystrand.cli.terminal import say
from keystrand.plan.fact import scaled

if TYPE_CHECKING:
    from collections.abc import Iterable

    from keystrand.plan.feasibility import Feasibility

WIDTH = 98
HEADINGS = ("link", "km", "loss dB", "key bit/s", "need", "relays", "pad", "store", "kept", "basis", "verdict")


@click.command()
@ESTATE
@LINK
@click.option("--published", is_flag=True, help="Show instead which published links lie inside the ranges.")
@json_option
def command(estate_file: Path, links: tuple[str, ...], published: bool, as_json: bool) -> None:
    """Say whether QKD can feed each link: loss, key rate at least and at most, relays, stores and the one-time pad.

    A verdict is yes only where the worst case is enough. Key is end to end with the fewest relays; kept is the mean time
    that a key lies in a store of the size for the stated outage.
    """
    if published:
        _published(as_json)
        return
    from keystrand.plan.feasibility import feasible

    estate = estate_of(estate_file)
    own = own_equipment(estate)
    found = [feasible(estate, name, own) for name in chosen(estate, links)]
    if as_json:
        for each in found:
            print_json(told(each))
        return
    show_table(HEADINGS, [_row(each) for each in found])
    for reasons, names in _alike(found).items():
        told_of = f"{', '.join(names)}: {'; '.join(reasons)}"
        say(fill(told_of, WIDTH, subsequent_indent="  ", break_on_hyphens=False))
    tally(finding for each in found for finding in each.findings)


def _alike(found: Iterable[Feasibility]) -> dict[tuple[str, ...], list[str]]:
    """Links by what stands in their way: many have the same."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for each in found:
        if each.reasons:
            alike.setdefault(each.reasons, []).append(each.link)
    return alike


def _row(each: Feasibility) -> tuple[object, ...]:
    store = each.store
    return (
        each.link,
        cell(each.path.km),
        cell(each.loss_db.span if each.loss_db else None),
        cell(each.skr_bps.span if each.skr_bps else None),
        scaled(each.wanted_bps),
        "-" if each.relays is None else each.relays,
        _pad(each),
        "-" if store is None else f"{scaled(store.size_bits)}bit",
        "-" if store is None else span(store.exposure_s),
        each.skr_bps.basis if each.skr_bps else "-",
        each.verdict,
    )


def _pad(each: Feasibility) -> str:
    """Whether a one-time pad is possible, and how many times more key it would need."""
    if each.demand.otp.high <= 0:
        return "-"
    return each.otp if each.otp_shortfall is None else f"{each.otp} {each.otp_shortfall:.2g}x"


def told(each: Feasibility) -> dict[str, Any]:
    """Everything, for machines."""
    from keystrand.plan.buffer import EXPOSURE_MEANS
    from keystrand.plan.demand import tunnels_fed

    store = each.store
    return {
        "link": each.link,
        "verdict": each.verdict,
        "quantum_path": each.path.quantum_path,
        "loss_db": interval(each.loss_db),
        "loss_found_by": each.path.rung,
        "loss_basis": each.loss_db.basis if each.loss_db else None,
        "devices": each.chosen,
        "skr_bps": interval(each.skr_bps),
        "skr_alone_bps": interval(each.alone_bps),
        "skr_basis": each.skr_bps.basis if each.skr_bps else None,
        "plob_bps": each.plob_bps,
        "hops": each.hops,
        "relays": each.relays,
        "relay_sites": each.sites,
        "wanted_bps": each.wanted_bps,
        "demand_bps": interval(each.demand.total),
        "spent_over_all_hops_bps": each.demand.spent_bps(each.hops or 1).high,
        "rekey_s": each.demand.rekey_s,
        "tunnels_fed": tunnels_fed(each.skr_bps.span.low, each.demand.rekey_s) if each.skr_bps else None,
        "margin": each.margin,
        "shortfall": each.shortfall,
        "one_time_pad": each.otp,
        "one_time_pad_shortfall": each.otp_shortfall,
        "raman": each.raman,
        "store_bits": store.size_bits if store else None,
        "store_lasts_s": store.outage_s if store else None,
        "store_fills_s": store.fills_s if store else None,
        "exposure_s": store.exposure_s if store else None,
        "exposure_means": EXPOSURE_MEANS,
        "starvation_at_most": store.starvation if store else None,
        "reasons": each.reasons,
        "findings": finding_rows(each.findings),
    }


def _published(as_json: bool) -> None:
    from keystrand.plan.published import held, inside

    links = held()
    if as_json:
        for each in links:
            print_json(
                {
                    "link": each.link.name,
                    "role": each.link.role,
                    "setting": each.link.setting,
                    "standing": each.link.standing,
                    "source": each.link.source,
                    "loss_inside": each.loss_inside,
                    "rate_inside": each.rate_inside,
                }
            )
        return
    show_table(
        ("link", "role", "setting", "dB", "by km", "bit/s", "by dB or km"),
        [
            (
                each.link.name,
                each.link.role,
                each.link.setting,
                each.link.loss_db or "-",
                cell(each.loss_db) if each.loss_db else "-",
                scaled(each.link.skr_bps),
                cell(each.skr_bps),
            )
            for each in links
        ],
    )
    for setting in ("field", "laboratory"):
        out = [each for each in links if each.link.role == "held-out" and each.link.setting == setting]
        loss, rate = inside(each.loss_inside for each in out), inside(each.rate_inside for each in out)
        say(f"held out, {setting}: {loss[0]} of {loss[1]} losses and {rate[0]} of {rate[1]} rates lie inside")
