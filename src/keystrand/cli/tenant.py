"""keystrand tenant"""

from __future__ import annotations

from pathlib import Path

import click

from keystrand.cli.options import config_option, json_option, print_json, site_of
from keystrand.cli.terminal import say

REASON = click.option("--reason", required=True, help="Why; goes into the audit log.")


@click.group()
def command() -> None:
    """Seal, unseal, rotate and erase the keys of tenants. The site must be stopped: its process holds the keyring."""


@command.command("list")
@config_option
@json_option
def show(config_file: Path, as_json: bool) -> None:
    """Tenants, whether they are sealed, and the generation of the key that seals new rows."""
    from keystrand.node.stopped import stopped
    from keystrand.node.tenants import tenant_states

    with stopped(site_of(config_file)) as site:
        states = tenant_states(site.sealer)
    for state in states:
        facts = {"tenant": state.tenant, "sealed": state.sealed, "generation": state.generation}
        if as_json:
            print_json(facts)
        else:
            click.echo(f"{state.tenant}: {'sealed' if state.sealed else f'generation {state.generation}'}")


@command.command("seal")
@click.argument("tenant")
@config_option
@REASON
def seal(tenant: str, config_file: Path, reason: str) -> None:
    """Keep the keys of TENANT out of memory at every start, until it is unsealed; its keys are refused, others are not."""
    from keystrand.node.stopped import stopped
    from keystrand.node.tenants import require_tenant

    with stopped(site_of(config_file)) as site:
        require_tenant(site.sealer, tenant)
        site.record("tenant.sealed", tenant=tenant, reason=reason)
        site.sealer.seal_tenant(tenant)


@command.command("unseal")
@click.argument("tenant")
@config_option
@REASON
def unseal(tenant: str, config_file: Path, reason: str) -> None:
    """Use the keys of TENANT again."""
    from keystrand.node.stopped import stopped
    from keystrand.node.tenants import require_tenant

    with stopped(site_of(config_file)) as site:
        require_tenant(site.sealer, tenant)
        site.record("tenant.unsealed", tenant=tenant, reason=reason)
        site.sealer.unseal_tenant(tenant)


@command.command("rotate")
@click.argument("tenant")
@config_option
@REASON
def rotate(tenant: str, config_file: Path, reason: str) -> None:
    """Seal new rows of TENANT under a fresh key; older rows still open. Prints the new generation."""
    from keystrand.node.stopped import stopped
    from keystrand.node.tenants import require_tenant

    with stopped(site_of(config_file)) as site:
        require_tenant(site.sealer, tenant)
        site.record("tenant.rotated", tenant=tenant, reason=reason)
        click.echo(site.sealer.rotate_tenant(tenant))


@command.command("erase")
@click.argument("tenant")
@config_option
@REASON
@click.option("--confirm", required=True, help="TENANT once more: what is erased stays unreadable.")
def erase(tenant: str, config_file: Path, reason: str, confirm: str) -> None:
    """Make everything of TENANT in the store unreadable for good (cryptographic erase, NIST SP 800-88)."""
    from keystrand.node.stopped import stopped
    from keystrand.node.tenants import require_tenant

    if confirm != tenant:
        raise click.UsageError(f"--confirm {confirm} is not {tenant}")
    config = site_of(config_file)
    with stopped(config) as site:
        require_tenant(site.sealer, tenant)
        site.record("tenant.erased", tenant=tenant, reason=reason)
        site.sealer.erase_tenant(tenant)
    say(f"copies of {config.keyring_file} and escrowed shares still open it: destroy those too")
    if tenant in config.tenants:
        say(f"[tenants.{tenant}] is still in {config_file}: the next start gives it a fresh key")
