"""keystrand plan cbom"""

from __future__ import annotations

from pathlib import Path

import click

from keystrand.cli import exits
from keystrand.cli.options import FILE
from keystrand.cli.plan_equipment import whole_of
from keystrand.cli.plan_estate import ESTATE, estate_of
from keystrand.cli.plan_place import placed_routes
from keystrand.cli.terminal import complain, say
from keystrand.core.extra import extra


@click.command()
@ESTATE
@click.option("--out", "out", type=FILE, default=None, help="The file to write.  [default: standard output]")
@click.option(
    "--place", "placing", is_flag=True, help="Also place relays for every link that is worth QKD: `plan place`."
)
def command(estate_file: Path, out: Path | None, placing: bool) -> int:
    """Write the estate as a CBOM in CycloneDX 1.7: protocols, certificates, algorithms, QKD links and their trusted nodes.

    What is written has been held against the official schema; a CBOM that does not fit is not written.
    """
    with extra("plan"):
        from keystrand.plan.cbom import cbom, faults

    estate = estate_of(estate_file)
    plan = whole_of(estate)
    text = cbom(estate, plan.patterns, plan.routes | (placed_routes(estate) if placing else {}))
    off = faults(text)
    for fault in off:
        complain(fault)
    if off:
        return exits.REFUSED
    if out is None:
        click.echo(text)
    else:
        out.write_text(text + "\n", "utf-8")
        say(f"written: {out}, valid against CycloneDX 1.7")
    return exits.OK
