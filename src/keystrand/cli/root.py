"""keystrand root"""

from __future__ import annotations

import click

from keystrand.cli.admin_client import Order, order_options, propose_or_tell
from keystrand.cli.options import site_of
from keystrand.cli.terminal import say


@click.group()
def command() -> None:
    """Exchange the root key of a site, which wraps the keys of its tenants."""


@command.command("rotate")
@order_options()
@click.option("--key-label", default="", help="In an HSM: label of the next root key, made there unless it is there.")
def rotate(order: Order, key_label: str) -> None:
    """Wrap the tenants' keys by another root key; no row is touched.

    Under a passphrase, lay the next one beside the present one first, in a file with `.next` after its name, mode 600; it is
    moved into its place. With --as NAME the site that runs is asked, and others must approve; without it the site must be
    stopped. Older copies of the keyring and older backups still need the old root: keep it as long as you keep those.
    """
    from keystrand.node.roots import check_rotation, finish_rotation, moved_keyring, next_root
    from keystrand.node.stopped import stopped

    if order.is_for_running:
        with order.client() as client:
            propose_or_tell(client.post("/root/rotate", {"key_label": key_label, "reason": order.reason}))
        return
    config = site_of(order.config_file)
    check_rotation(config, key_label)
    with stopped(config) as site:
        root = next_root(config, key_label)
        moved = moved_keyring(config, site.sealer, root)
        site.record("root.rotated", key_label=key_label, reason=order.reason)
        site.sealer.tenants.adopt(moved)
    finish_rotation(config)
    say("the site is under its next root key")
