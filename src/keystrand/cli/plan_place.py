"""keystrand plan place"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from keystrand.cli import exits
from keystrand.cli.options import json_option, print_json
from keystrand.cli.plan_equipment import own_equipment
from keystrand.cli.plan_estate import ESTATE, LINK, chosen, estate_of
from keystrand.cli.tables import show_table
from keystrand.cli.terminal import complain, say
from keystrand.plan.fact import scaled

if TYPE_CHECKING:
    from keystrand.plan.estate import Estate
    from keystrand.plan.placement import Placement


@click.command()
@ESTATE
@LINK
@click.option("--untrusted-max", type=click.IntRange(0), help="Relay sites of undocumented trust on one link's paths.")
@click.option("--time-s", default=45.0, show_default=True, type=click.FloatRange(1), help="Of the solver's searches.")
@json_option
def command(estate_file: Path, links: tuple[str, ...], untrusted_max: int | None, time_s: float, as_json: bool) -> None:
    """Place trusted nodes and QKD links so that each link gets its keys, at least cost.

    Without --link: for every link whose worth, horizon and rules speak for QKD. Candidates are the sites with
    `may_relay = "yes"`; hops that are no link of the estate are taken from the map, at their worst rate.
    """
    from keystrand.plan.fact import Unknown
    from keystrand.plan.pilots import decide_all
    from keystrand.plan.place import place
    from keystrand.plan.sites import network

    estate = estate_of(estate_file)
    plan = decide_all(estate, own_equipment(estate))
    names = chosen(estate, links) if links else plan.worthy
    if not names:
        say("no link's worth, horizon and rules speak for QKD: there is nothing to place")
        return
    found = place(network(estate, plan.feasibilities, names, untrusted_max), time_s=time_s)
    if isinstance(found, Unknown):
        one_by_one = "try the links one by one with --link" if len(names) > 1 else "state more sites that may_relay"
        complain(f"cannot be placed: {'; '.join(found.reasons)}", one_by_one)
        raise SystemExit(exits.REFUSED)
    _show(estate, names, found, as_json)


def placed_routes(estate: Estate) -> dict[str, tuple[tuple[str, ...], ...]]:
    """Paths by link, of every link worth QKD; none where nothing can be placed."""
    from keystrand.plan.fact import Unknown
    from keystrand.plan.pilots import decide_all
    from keystrand.plan.place import place
    from keystrand.plan.sites import network

    plan = decide_all(estate, own_equipment(estate))
    found = place(network(estate, plan.feasibilities, plan.worthy)) if plan.worthy else Unknown(())
    return {} if isinstance(found, Unknown) else dict(zip(plan.worthy, found.routes, strict=True))


def _show(estate: Estate, names: list[str], found: Placement, as_json: bool) -> None:
    from keystrand.plan.sites import is_priced

    if as_json:
        print_json(
            {
                "relays": found.relays,
                "pairs": [{"ends": ends, "pairs": count} for ends, count in found.pairs.items()],
                "routes": dict(zip(names, found.routes, strict=True)),
                "cost": found.cost,
                "cost_is_money": is_priced(estate),
                "gap": found.gap,
            }
        )
        return
    routes = zip(names, found.routes, strict=True)
    show_table(("link", "path"), [(name, " - ".join(path)) for name, paths in routes for path in paths])
    cost = (
        f"{scaled(found.cost, 4)} {estate.currency}" if is_priced(estate) else f"{found.cost:g} relays and pairs in all"
    )
    say(f"{len(found.relays)} relays: {', '.join(found.relays) or 'none'}")
    say(f"{sum(found.pairs.values())} QKD pairs on {len(found.pairs)} hops; {cost}")
    say(f"the best possible is at most {found.gap:.1%} cheaper")
