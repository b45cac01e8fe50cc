"""keystrand policy"""

from __future__ import annotations

from pathlib import Path

import click

from keystrand.cli.options import config_option, json_option, print_json, site_of
from keystrand.cli.terminal import say


@click.group()
def command() -> None:
    """Say which applications may draw keys. What is not allowed is refused."""


@command.command("allow")
@click.argument("initiator", metavar="FROM")
@click.argument("responder", metavar="TO")
@config_option
@click.option("--quota-bps", default=0.0, help="Sustained draw in key bits per second; 0: no quota.")
@click.option("--quota-burst-bits", default=0, help="Bits that may be drawn at once after a pause.")
def allow(initiator: str, responder: str, config_file: Path, quota_bps: float, quota_burst_bits: int) -> None:
    """Let FROM draw hybrid keys shared with TO. Both sites must allow it.

    The rule fails closed: when keys run out, FROM is refused. Anything below hybrid needs a waiver with a name, a reason
    and an end, and failing open needs a fallback with its limits; write these into the file by hand.
    """
    from keystrand.config.founding import append
    from keystrand.core.identity import check_name

    for name in (initiator, responder):
        check_name(name, what="SAE ID")
    quota = (
        f"quota_bps = {quota_bps!r}\nquota_burst_bits = {quota_burst_bits}\n" if quota_bps or quota_burst_bits else ""
    )
    append(
        config_file,
        f'\n[[policy]]\nfrom = "{initiator}"\nto = "{responder}"\nrequire = "hybrid"\non_exhaustion = "closed"\n{quota}',
    )
    say(
        f"{initiator} may draw keys shared with {responder}; restart the site to take it up, and allow it at the other too"
    )


@command.command("list")
@config_option
@json_option
def show(config_file: Path, as_json: bool) -> None:
    """List who may draw keys shared with whom."""
    for entry in site_of(config_file).policy:
        facts = {
            "from": entry.initiator,
            "to": entry.responder,
            "require": entry.require.label,
            "waived": bool(entry.waiver),
        }
        print_json(facts) if as_json else click.echo("  ".join(str(fact) for fact in list(facts.values())[:3]))
