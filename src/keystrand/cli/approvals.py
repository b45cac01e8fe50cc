"""keystrand approvals"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from keystrand.cli.admin_client import Order, admin_options, propose_or_tell
from keystrand.cli.options import FILE, json_option, print_json
from keystrand.cli.tables import show_list
from keystrand.cli.terminal import say
from keystrand.core.identity import check_key_id


@click.group()
def command() -> None:
    """Decide on what others propose: changes of the policy, and keys compromised or destroyed by criteria."""


@command.command("list")
@admin_options
@json_option
def list_proposals(order: Order, as_json: bool) -> None:
    """List proposals and where they stand."""
    with order.client() as client:
        proposals = client.get("/approvals")["approvals"]
    show_list(proposals, ("proposal", "stand", "votes", "operation", "by", "reason"), _row, as_json=as_json)


def _row(one: dict[str, Any]) -> tuple[object, ...]:
    votes = f"{len(one['approved_by'])} of {one['needed']}"
    return one["proposal_id"], one["stand"], votes, one["operation"], one["requester"], one["reason"]


@command.command("show")
@click.argument("proposal_id")
@admin_options
def show(proposal_id: str, order: Order) -> None:
    """Show a proposal, word for word, as JSON."""
    with order.client() as client:
        print_json(client.get(f"/approvals/{check_key_id(proposal_id)}"))


@command.command("approve")
@click.argument("proposal_id")
@click.option("--reason", required=True, help="Why; it goes into the audit log.")
@admin_options
def approve(proposal_id: str, reason: str, order: Order) -> None:
    """Approve it; the last approval that is needed carries it out."""
    _decide("approve", proposal_id, reason, order)


@command.command("reject")
@click.argument("proposal_id")
@click.option("--reason", required=True, help="Why; it goes into the audit log.")
@admin_options
def reject(proposal_id: str, reason: str, order: Order) -> None:
    """End a proposal, or take the own one back."""
    _decide("reject", proposal_id, reason, order)


def _decide(verb: str, proposal_id: str, reason: str, order: Order) -> None:
    with order.client() as client:
        done = client.post(f"/approvals/{check_key_id(proposal_id)}/{verb}", {"reason": reason})
    print_json(done)
    say(f"{done['stand']}; approved by {', '.join(done['approved_by']) or 'nobody'}, {done['moved']} moved")


@command.command("policy")
@click.argument("document", type=FILE)
@click.option("--reason", required=True, help="Why; it goes into the audit log.")
@click.option("--emergency", is_flag=True, help="Outside the change windows; two others must approve.")
@click.option("--dry-run", is_flag=True, help="Only tell what would change.")
@admin_options
def policy(document: Path, reason: str, emergency: bool, dry_run: bool, order: Order) -> None:
    """Propose the policy in DOCUMENT: policy_serial, and the sections of site.toml that say who may draw what."""
    text = document.read_text("utf-8")
    with order.client() as client:
        trial = client.post("/policy/trials", {"document": text})
        for one in trial["differences"]:
            click.echo(f"{one['subject']}: {one['field']}: {one['before']} => {one['after']}")
        say(f"{trial['version']}: {trial['pairs_changed']} pairs change")
        if dry_run:
            return
        wish = {"document": text, "reason": reason, "emergency": emergency}
        asked = client.post("/policy/proposals", wish, **{"If-Match": client.etag("/policy")})
    propose_or_tell(asked)
