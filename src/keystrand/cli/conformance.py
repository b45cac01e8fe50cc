"""keystrand conformance"""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from keystrand.cli import exits
from keystrand.cli.options import FILE, config_option, json_option, print_json, site_of

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
@click.option("--third", default="", help="Second SAE of the responder's site, for keys with several recipients.")
@click.option("--stranger", default="", help="SAE of the initiator's site that no rule names.")
@config_option
@click.option(
    "--peer-config",
    "peer_file",
    type=FILE,
    required=True,
    help="The other site's file.",
)
@json_option
def etsi014(
    initiator_kme: str,
    responder_kme: str,
    initiator: str,
    responder: str,
    third: str,
    stranger: str,
    config_file: Path,
    peer_file: Path,
    as_json: bool,
) -> int:
    """Run the conformance cases of ETSI GS QKD 014 V1.1.1 against a pair of KMEs. Draws some dozens of keys."""
    first, second = (initiator_kme, config_file), (responder_kme, peer_file)
    import asyncio

    report = asyncio.run(
        _run(
            {"initiator": (*first, initiator), "responder": (*second, responder)}
            | ({"third": (*second, third)} if third else {})
            | ({"stranger": (*first, stranger)} if stranger else {})
        )
    )
    _print(report, as_json=as_json)
    return exits.OK if report.conforms else exits.REFUSED


async def _run(seats: dict[str, tuple[str, Path, str]]) -> Report:
    """seats: part in the play -> address of its KME, file of its site, SAE."""
    from keystrand.testing.conformance import Target, run

    async with AsyncExitStack() as stack:
        callers = {part: await stack.enter_async_context(_client(*seat)) for part, seat in seats.items()}
        names = {f"{part}_id": seat[2] for part, seat in seats.items()}
        return await run(Target(**names, **callers))  # type: ignore[arg-type]


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
        print_json(outcome)
