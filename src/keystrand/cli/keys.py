"""keystrand keys"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

import click

from keystrand.cli.admin_client import AdminClient, Order, admin_options, propose_or_tell
from keystrand.cli.options import json_option, print_json
from keystrand.cli.tables import moment, show_list, show_table
from keystrand.cli.terminal import say
from keystrand.console.terminal import fit
from keystrand.core.errors import BadRequest

FACT_MAX = 4096
F = TypeVar("F", bound=Callable[..., Any])
_CRITERIA = {
    "tenant": "Keys of this tenant.",
    "sae": "Keys that this SAE holds.",
    "peer": "Keys shared with this site.",
    "link": "Keys from this QKD link.",
    "source": "Keys with bits from this QKD module.",
    "relay": "Keys with bits that this site could have seen.",
}


def criteria(function: F) -> F:
    """The options that say which keys are meant."""
    for name, words in reversed(_CRITERIA.items()):
        function = click.option(f"--{name}", default=None, help=words)(function)
    for name, words in (("until", "made before this Unix time"), ("since", "made from this Unix time on")):
        function = click.option(f"--{name}-s", type=float, default=None, help=f"Keys {words}.")(function)
    return function


@click.group()
def command() -> None:
    """Find keys of a running site and move them through their lives. Their material is never shown.

    Needs an administrator's certificate, see docs/guides/administrators.md. Where criteria instead of key IDs say what to
    compromise or destroy, others must approve it first: `keystrand approvals`.
    """


@command.command("list")
@admin_options
@criteria
@click.option("--state", default=None, help="Keys in this state.")
@click.option("--tag", default=None, help="Keys with this tag, name=value.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="At most so many.")
@json_option
def list_keys(order: Order, limit: int, as_json: bool, **query: Any) -> None:
    """List keys, oldest first."""
    found: list[dict[str, Any]] = []
    cursor = None
    with order.client() as client:
        while len(found) < limit and cursor != "":
            page = client.get("/keys", query | {"limit": min(1000, limit - len(found)), "cursor": cursor})
            found, cursor = found + page["keys"], page["cursor"]
    show_list(found, ("key ID", "state", "made", "link", "pair"), _row, as_json=as_json)
    if cursor:
        say(f"there are more than {limit}; see --limit")


def _row(key: dict[str, Any]) -> tuple[object, ...]:
    pair = f"{key['initiator']} -> {', '.join(key['responders'])}"
    tenant = "" if key["tenant"] == "default" else f"  ({key['tenant']})"
    return key["key_id"], key["state"], moment(key["created_s"])[5:-1], key["link"], pair + tenant


@command.command("show")
@click.argument("key_id")
@admin_options
@json_option
def show(key_id: str, order: Order, as_json: bool) -> None:
    """Show what is known of one key, how much it was used, and by whom."""
    from keystrand.core.identity import check_key_id

    path = f"/keys/{check_key_id(key_id)}"
    with order.client() as client:
        facts = client.get(path) | {k: v for k, v in client.get(f"{path}/use").items() if k.startswith(("use", "rot"))}
        facts["consumers"] = client.get(f"{path}/consumers")["consumers"]
    if as_json:
        print_json(facts)
        return
    for field, value in facts.items():
        if shown := _spelled(field, value):
            click.echo(fit(f"{field.removesuffix('_s').replace('_', ' '):<20}  {shown}", FACT_MAX))


def _spelled(field: str, value: Any) -> str:
    """For people: times as dates; what is not so is left out."""
    if field.endswith("_s"):
        return moment(value) if value else ""
    if field == "destruction_record":
        return str(value) if value >= 0 else ""
    if isinstance(value, list):
        return ", ".join(f"{v['sae']}/{v['consumer']}" if isinstance(v, dict) else str(v) for v in value)
    return str(value)


def _change(verb: str, summary: str) -> None:
    @command.command(verb, help=summary)
    @click.argument("key_ids", metavar="[KEY_ID]...", nargs=-1)
    @click.option("--reason", default="", help="Why; it goes into the audit log.")
    @click.option("--dry-run", is_flag=True, help="Only tell which keys, pairs and consumers it would concern.")
    @admin_options
    @criteria
    @json_option
    def run(
        key_ids: tuple[str, ...],
        reason: str,
        dry_run: bool,
        order: Order,
        as_json: bool,
        **query: Any,
    ) -> None:
        stated = {field: value for field, value in query.items() if value is not None}
        if bool(key_ids) == bool(stated):
            raise BadRequest("name keys by their ID, or by criteria", hint=f"keystrand keys {verb} --help")
        if not reason and not dry_run:
            raise click.UsageError("say why: --reason")
        wish = stated | ({"key_ids": key_ids} if key_ids else {})
        with order.client() as client:
            if dry_run:
                _try(client, wish | {"change": verb}, as_json=as_json)
            else:
                _carry_out(client, f"/lifecycle/{verb}", wish | {"reason": reason}, as_json=as_json)


def _try(client: AdminClient, wish: dict[str, Any], *, as_json: bool) -> None:
    """Whom it would concern, over all pages."""
    pages = [client.post("/lifecycle/trials", wish)]
    while pages[-1]["cursor"]:
        pages.append(client.post("/lifecycle/trials", wish | {"cursor": pages[-1]["cursor"]}))
    if as_json:
        for page in pages:
            print_json(page)
        return
    pairs: Counter[tuple[str, str]] = Counter()
    for page in pages:
        pairs.update({(pair["initiator"], pair["responder"]): pair["keys"] for pair in page["pairs"]})
    consumers = {(use["sae"], use["consumer"]): use for page in pages for use in page["consumers"]}
    keys, first = sum(len(page["key_ids"]) for page in pages), pages[0]
    if keys:
        show_table(("keys", "pair"), [(count, f"{a} -> {b}") for (a, b), count in sorted(pairs.items())])
    if consumers:
        uses = [(sae, consumer, use["key_id"]) for (sae, consumer), use in sorted(consumers.items())]
        show_table(("SAE", "used for", "key ID"), uses)
    say(
        f"{wish['change']} would move {keys} keys, give up {first['given_up']} before they left, and quarantine "
        f"{len(first['quarantined'])} blocks; nothing was changed"
    )


def _carry_out(client: AdminClient, path: str, wish: dict[str, Any], *, as_json: bool) -> None:
    """Page by page, until nothing is left."""
    moved, given_up, cursor = 0, 0, ""
    while True:
        done = client.post(path, wish | {"cursor": cursor})
        if "proposal_id" in done:
            print_json(done) if as_json else propose_or_tell(done)
            return
        for key_id in done["key_ids"]:
            print_json({"key_id": key_id}) if as_json else click.echo(key_id)
        moved, given_up, cursor = moved + len(done["key_ids"]), given_up + done["given_up"], done["cursor"]
        for use in done["consumers"]:
            say(f"{use['key_id']} is used by {use['sae']}: {use['consumer']}")
        if not cursor:
            break
    say(f"{moved} moved, {given_up} given up before they left")


for _verb, _summary in (
    ("suspend", "Nobody fetches these keys until they are resumed."),
    ("resume", "Take a suspension back."),
    ("revoke", "Deactivate keys: nothing new is protected with them."),
    ("compromise", "Declare keys known to others. By criteria, others must approve."),
    ("destroy", "End keys that are deactivated or compromised. By criteria, others must approve."),
):
    _change(_verb, _summary)
