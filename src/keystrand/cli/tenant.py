"""keystrand tenant"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from keystrand.cli.admin_client import Order, order_options, propose_or_tell
from keystrand.cli.options import json_option, site_of
from keystrand.cli.tables import show_list
from keystrand.cli.terminal import say
from keystrand.core.identity import check_name

if TYPE_CHECKING:
    from keystrand.crypto.seal import Sealer

T = TypeVar("T")


@click.group()
def command() -> None:
    """Seal, unseal, rotate and erase the keys of tenants.

    With --as NAME the order goes to the site that runs, where unsealing and erasing need the approval of others. Without it
    the site must be stopped: its process holds the keyring.
    """


@command.command("list")
@order_options(reason=False)
@json_option
def show(order: Order, as_json: bool) -> None:
    """Tenants, whether they are sealed, and the generation of the key that seals new rows."""
    from keystrand.node.stopped import stopped

    if order.is_for_running:
        with order.client() as client:
            found: list[dict[str, Any]] = client.get("/tenants")["tenants"]
    else:
        with stopped(site_of(order.config_file)) as site:
            states = site.sealer.tenants.states()
        found = [{"tenant": s.tenant, "sealed": s.sealed, "generation": s.generation} for s in states]
    show_list(found, ("tenant", "state", "generation"), _row, as_json=as_json)


def _row(one: dict[str, Any]) -> tuple[object, ...]:
    return one["tenant"], "sealed" if one["sealed"] else "open", one["generation"] or "-"


@command.command("seal")
@click.argument("tenant")
@order_options()
def seal(tenant: str, order: Order) -> None:
    """Keep the keys of TENANT out of memory, at every start too, until it is unsealed; its keys are refused, others are not."""
    _carry_out("seal", tenant, order, lambda sealer: sealer.seal_tenant(tenant))


@command.command("unseal")
@click.argument("tenant")
@order_options()
def unseal(tenant: str, order: Order) -> None:
    """Use the keys of TENANT again."""
    _carry_out("unseal", tenant, order, lambda sealer: sealer.unseal_tenant(tenant))


@command.command("rotate")
@click.argument("tenant")
@order_options()
def rotate(tenant: str, order: Order) -> None:
    """Seal new rows of TENANT under a fresh key; older rows still open. Prints the new generation."""
    done = _carry_out("rotate", tenant, order, lambda sealer: sealer.rotate_tenant(tenant))
    click.echo(done["generation"] if isinstance(done, dict) else done)


@command.command("erase")
@click.argument("tenant")
@order_options()
@click.option("--confirm", required=True, help="TENANT once more: what is erased stays unreadable.")
def erase(tenant: str, order: Order, confirm: str) -> None:
    """Make everything of TENANT in the store unreadable for good (cryptographic erase, NIST SP 800-88)."""
    if confirm != tenant:
        raise click.UsageError(f"--confirm {confirm} is not {tenant}")
    _carry_out("erase", tenant, order, lambda sealer: sealer.erase_tenant(tenant))
    config = site_of(order.config_file)
    say(f"copies of {config.keyring_file} and escrowed shares still open it: destroy those too")
    if tenant in config.tenants:
        say(f"[tenants.{tenant}] is still in {order.config_file}: the next start gives it a fresh key")


RECORDED = {"seal": "tenant.sealed", "unseal": "tenant.unsealed", "rotate": "tenant.rotated", "erase": "tenant.erased"}


def _carry_out(verb: str, tenant: str, order: Order, do: Callable[[Sealer], T]) -> T | dict[str, Any]:
    """At the site that runs, as an administrator; else at the stopped one, recorded before it is done."""
    from keystrand.node.stopped import stopped
    from keystrand.node.tenants import require_tenant

    check_name(tenant, what="tenant")
    if order.is_for_running:
        with order.client() as client:
            answer: dict[str, Any] = client.post(f"/tenants/{tenant}/{verb}", {"reason": order.reason})
            return propose_or_tell(answer)
    with stopped(site_of(order.config_file)) as site:
        require_tenant(site.sealer, tenant)
        site.record(RECORDED[verb], tenant=tenant, reason=order.reason)
        return do(site.sealer)
