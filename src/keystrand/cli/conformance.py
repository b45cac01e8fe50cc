"""keystrand conformance"""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from keystrand.cli import exits
from keystrand.cli.options import config_option, json_option, print_json, site_of

if TYPE_CHECKING:
    from keystrand.net.http_client import HttpClient
    from keystrand.testing.conformance import Report

NAMED = "HOST:PORT"


@click.group()
def command() -> None:
    """Test any KME against a standard."""


@command.command("etsi014")
@click.argument("initiator_kme", metavar=NAMED)
@click.argument("responder_kme", metavar=NAMED)
@click.option("--initiator", required=True, help="SAE that draws keys at the first KME.")
@click.option("--responder", required=True, help="SAE that picks them up at the second KME.")
@config_option
@click.option(
    "--peer-config",
    "peer_file",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="The other site's file.",
)
@json_option
def etsi014(
    initiator_kme: str,
    responder_kme: str,
    initiator: str,
    responder: str,
    config_file: Path,
    peer_file: Path,
    as_json: bool,
) -> int:
    """Run the conformance cases of ETSI GS QKD 014 V1.1.1 against a pair of KMEs. Draws some dozens of keys."""
    report = asyncio.run(_run((initiator_kme, config_file, initiator), (responder_kme, peer_file, responder)))
    _print(report, as_json=as_json)
    return exits.OK if report.conforms else exits.REFUSED


async def _run(first: tuple[str, Path, str], second: tuple[str, Path, str]) -> Report:
    from keystrand.testing.conformance import Target, run

    async with _client(*first) as one, _client(*second) as other:
        return await run(Target(initiator_id=first[2], responder_id=second[2], initiator=one, responder=other))


def _client(address: str, config_file: Path, sae: str) -> HttpClient:
    from keystrand.cli.sae_client import certificate_of, contexts_of
    from keystrand.config.values import Address
    from keystrand.net.http_client import HttpClient

    config = site_of(config_file)
    try:
        place = Address(address)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    expect = ("kme" if config.tls.identity == "san-uri" else None, config.site.kme_id)
    return HttpClient(place.host, place.port, contexts_of(config, *certificate_of(config, sae)), expect=expect)


def _print(report: Report, *, as_json: bool) -> None:
    from keystrand.testing.conformance import report_table

    if not as_json:
        click.echo(report_table(report))
        return
    for outcome in report.outcomes:
        print_json(asdict(outcome))
