"""keystrand admin"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from keystrand.cli.options import config_option, json_option, site_of
from keystrand.cli.tables import show_list
from keystrand.cli.terminal import say
from keystrand.core.errors import ConfigError

ROLES = ("viewer", "operator", "security-officer", "auditor", "tenant-administrator", "custodian")


@click.group()
def command() -> None:
    """Say who may administer a site. Each person has a certificate and a role; nobody has two duties.

    What is dangerous needs two people, so invite two security officers at least.
    """


@command.command("invite")
@click.argument("name")
@click.option("--role", type=click.Choice(ROLES), required=True, help="What the person may do.")
@click.option(
    "--tenant", "tenants", multiple=True, help="Tenant whose keys the grant reaches; repeated.  [default: all]"
)
@click.option(
    "--sae", "saes", multiple=True, help="And of these, only keys that this SAE holds; repeated.  [default: all]"
)
@config_option
def invite(name: str, role: str, tenants: tuple[str, ...], saes: tuple[str, ...], config_file: Path) -> None:
    """Issue a certificate for NAME and write the grant into the site's file; prints the paths of certificate and key.

    The first invitation opens the administration listener, on loopback, with the next start; later ones take effect with a
    SIGHUP as well.
    """
    from keystrand.config.inviting import invite_admin
    from keystrand.govern.roles import Role

    for path in invite_admin(config_file, name, Role(role), tenants=tenants, saes=saes):
        click.echo(path)
    say(
        f"{name} is {role} from the next start of the site on, or its next SIGHUP where it has a listener; "
        f"then for example: keystrand {_example(role)} --as {name}"
    )


def _example(role: str) -> str:
    return {"viewer": "jobs list", "operator": "jobs list", "custodian": "escrow releases"}.get(role, "keys list")


@command.command("remove")
@click.argument("name")
@config_option
def remove(name: str, config_file: Path) -> None:
    """Take NAME out of every grant of the site's file; prints where certificate and key were set aside.

    A site that runs takes it up with SIGHUP. The certificate stays good for a connection, which may then do nothing: revoke
    it with `keystrand pki revoke` as well.
    """
    from keystrand.config.inviting import remove_admin

    for path in remove_admin(config_file, name):
        click.echo(path)
    say(f"{name} may do nothing from the next start of the site on, or its next SIGHUP: kill -HUP PID")


@command.command("list")
@config_option
@json_option
def show(config_file: Path, as_json: bool) -> None:
    """List who may do what, and until when their certificates are good."""
    config = site_of(config_file)
    if config.admin is None:
        raise ConfigError("nobody administers this site", path=str(config_file), hint="keystrand admin invite NAME")
    found: list[dict[str, Any]] = [
        {
            "name": name,
            "role": grant.role.value,
            "tenants": sorted(grant.tenants),
            "saes": sorted(grant.saes),
            "certificate_until": _until(config.tls.trust.parent / f"admin-{name}.pem"),
        }
        for name, grants in sorted(config.admin.by_name().items())
        for grant in grants
    ]
    show_list(found, ("name", "role", "tenants", "SAEs", "certificate until"), _row, as_json=as_json)


def _row(one: dict[str, Any]) -> tuple[object, ...]:
    return one["name"], one["role"], _of(one["tenants"]), _of(one["saes"]), one["certificate_until"] or "not here"


def _of(names: list[str]) -> str:
    return "all" if names == ["*"] else ", ".join(names) or "-"


def _until(certificate: Path) -> str:
    from keystrand.crypto import pki

    if not certificate.is_file():
        return ""
    return time.strftime("%Y-%m-%d", pki.load_certificate(certificate).not_valid_after_utc.utctimetuple())
