"""keystrand network"""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from keystrand.cli import exits
from keystrand.cli.admin_client import REASON, Order, admin_options, propose_or_tell
from keystrand.cli.maintain import command as maintain
from keystrand.cli.maintain import instant
from keystrand.cli.network_depends import command as depends
from keystrand.cli.options import READABLE, json_option, print_json, site_of
from keystrand.cli.tables import moment, show_table
from keystrand.cli.terminal import complain, say
from keystrand.core.errors import BadRequest

if TYPE_CHECKING:
    from keystrand.config.schema import SiteConfig
    from keystrand.plan.claims import Ground

NETWORK: Final = click.argument("network_file", metavar="NETWORK", type=READABLE)
PQC: Final = "pqc"


@click.group()
def command() -> None:
    """Describe a network of trusted nodes, and say whom its keys trust.

    NETWORK is the network's file, the same at all its sites; see docs/guides/networks.md.
    """


command.add_command(maintain)
command.add_command(depends)


@command.command("check")
@NETWORK
def check(network_file: Path) -> int:
    """Tell every fault of NETWORK with its line; exit status 1 where there is one."""
    from keystrand.config.load import load_network, network_faults
    from keystrand.relay.documents import DUE_DAYS, lapsed

    faults = network_faults(network_file)
    for fault in faults:
        complain(str(fault), fault.hint)
    if faults:
        return exits.REFUSED
    network = load_network(network_file)
    atlas, today = network.atlas(), datetime.now(UTC).date()  # the day that counts at every site
    for site, missing in lapsed(atlas, today).items():
        complain(f"{site} is documented no more: {', '.join(missing)}", "links that do not accept this go another way")
    for site, facts in atlas.sites.items():
        if facts.lapses_within(today, DUE_DAYS):
            say(f"{site} is documented until {facts.until} only: have it inspected, or its sign-off renewed")
    say(
        f"network {network.name}: {len(network.sites)} sites, {len(network.hops)} hops, {len(network.links)} relayed links"
    )
    return exits.OK


@command.command("routes")
@NETWORK
@click.argument("one")
@click.argument("other")
@click.option("--paths", type=click.IntRange(1, 16), default=1, show_default=True, help="Routes that share no site.")
@json_option
def routes(network_file: Path, one: str, other: str, paths: int, as_json: bool) -> int:
    """Print the routes between two sites, were every hop up; exit status 1 where there are fewer than --paths."""
    from keystrand.config.load import load_network
    from keystrand.core.errors import BadRequest
    from keystrand.relay.atlas import RelayedLink, Terms

    atlas = load_network(network_file).atlas()
    for site in (one, other):
        if site not in atlas.sites:
            raise BadRequest(f"{site} is not a site of this network", hint=f"one of {', '.join(atlas.sites)}")
    wanted = RelayedLink(
        name="asked", ends=(one, other), terms=Terms(paths=paths, relays_max=62, accept_undocumented=True)
    )
    found = atlas.static_routes(wanted)
    for route in found:
        print_json(list(route)) if as_json else click.echo(" > ".join(route))
    if len(found) < paths:
        say(f"{len(found)} of {paths}: there are no more routes that share no site")
        return exits.REFUSED
    return exits.OK


@command.command("trust")
@NETWORK
@click.option("--redacted", is_flag=True, help="For publication: owners by number, no facilities, no references.")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print Markdown, with the sites as a table.")
@json_option
def trust(network_file: Path, redacted: bool, as_markdown: bool, as_json: bool) -> int:
    """Print who sees which keys in clear, who runs those sites, what shows that they are guarded, and what is missing.

    Exit status 1 where words of the file (an owner's name, say) claim what this topology does not bear out.
    """
    from keystrand.config.load import load_network
    from keystrand.plan.claims import offences
    from keystrand.relay.statement import document, markdown, plain_words

    network = load_network(network_file)
    statement = document(network.atlas(), network.name, datetime.now(UTC).date(), redacted=redacted)
    width = min(100, max(60, shutil.get_terminal_size((100, 24)).columns))
    text = markdown(statement) if as_markdown else plain_words(statement, width)
    print_json(statement) if as_json else click.echo(text, nl=False)
    overclaimed = offences(text, _ground(statement["pairs"], statement["crossings"]))
    for offence in overclaimed:
        complain(f"this statement claims too much: {offence}")
    return exits.REFUSED if overclaimed else exits.OK


def _ground(pairs: list[dict[str, Any]], crossings: list[dict[str, Any]]) -> Ground:
    """What the ways of a network permit to be said of all its pairs together."""
    from keystrand.plan.claims import Ground

    relayed = [pair for pair in pairs if any(len(route) > 2 for route in pair["routes"])]
    carried = [crossing for crossing in crossings if crossing["in_clear_at"]]
    split = not carried and all(pair["parts_needed"] > 1 for pair in relayed)
    return Ground(relay_free=not relayed and not carried, split=split)


@command.command("compromise")
@click.argument("site")
@click.option("--from", "since", default=None, help="Keys made, or of bits that came, from this moment on (ISO 8601).")
@click.option("--to", "until", default=None, help="And before this one.  [default: now]")
@click.option("--revoke", is_flag=True, help="Declare these keys compromised; others must approve it.")
@click.option("--reason", default="", help="Why; goes into the audit log.")
@admin_options
@json_option
def compromise(
    site: str,
    since: str | None,
    until: str | None,
    revoke: bool,
    reason: str,
    order: Order,
    as_json: bool,
) -> int:
    """What SITE could have seen of this site's keys, as a relay or as the other end; with --revoke, take them back.

    Asks the running site, so each of its peers has to be asked as well.
    """
    if revoke and not reason:
        raise click.UsageError("say why: --reason")
    scope: dict[str, Any] = {"relay": site}
    scope |= {field: instant(text) for field, text in (("since_s", since), ("until_s", until)) if text}
    with order.client() as client:
        groups = client.get("/tally", scope)["groups"]
        told = client.post("/lifecycle/trials", scope | {"change": "compromise"})
        if not groups and not told["quarantined"]:
            _require_known(site_of(order.config_file), site)
        _show_exposure(groups, told, site, as_json=as_json)
        if revoke and (groups or told["quarantined"]):
            done = client.post("/lifecycle/compromise", scope | {"reason": reason})
            print_json(done) if as_json else click.echo(done["proposal_id"])
            say(
                f"proposed; {done['needed']} other(s) must approve it: keystrand approvals approve {done['proposal_id']}"
            )
    return exits.OK


@command.command("bar")
@click.argument("site")
@REASON
@admin_options
def bar(site: str, reason: str, order: Order) -> None:
    """Let no block of links that begin at this site go over SITE, or to it. `compromise --revoke` does so too."""
    with order.client() as client:
        barred = client.post(f"/network/{site}/bar", {"reason": reason})["barred"]
    say(f"barred: {', '.join(barred)}")


@command.command("admit")
@click.argument("site")
@REASON
@admin_options
def admit(site: str, reason: str, order: Order) -> None:
    """Propose to let SITE relay again; others must approve it."""
    with order.client() as client:
        propose_or_tell(client.post(f"/network/{site}/admit", {"reason": reason}))


def _require_known(config: SiteConfig, site: str) -> None:
    """A name that was misspelt has seen nothing, too. Raises BadRequest."""
    known = sorted({*config.peers, *(config.network.sites if config.network is not None else ())})
    if site not in known:
        raise BadRequest(f"this site knows no {site}, now or before", hint=f"it knows {', '.join(known) or 'nobody'}")


def _show_exposure(groups: list[dict[str, Any]], told: dict[str, Any], site: str, *, as_json: bool) -> None:
    """By link: what the site can have, and what ML-KEM still keeps from it."""
    if as_json:
        print_json({"site": site, "groups": groups, "quarantined": told["quarantined"], "consumers": told["consumers"]})
        return
    rows = [
        (
            group["link"] or "-",
            group["peer"],
            group["keys"],
            group["used_bytes"],
            f"{moment(group['first_s'])[5:-4]} to {moment(group['last_s'])[5:-4]}",
            _kept(group, site),
        )
        for group in groups
    ]
    show_table(("link", "peer", "keys", "bytes used", "made", "what is between"), rows)
    consumers = sorted({(use["sae"], use["consumer"]) for use in told["consumers"]})
    if consumers:
        show_table(("SAE", "used for"), consumers)
    if told["quarantined"]:
        say(f"{len(told['quarantined'])} blocks in the pools are in doubt too")


def _kept(group: dict[str, Any], site: str) -> str:
    from keystrand.core.register import CARRIED, WOVEN

    if group["link"].startswith(WOVEN):
        return "ML-KEM of the two ends, signed"
    if group["link"].startswith(CARRIED):
        return "nothing: it carried them"
    if group["peer"] == site:
        return "nothing: it is the other end"
    return "ML-KEM of the end sites" if PQC in group["strands"] else "nothing"
