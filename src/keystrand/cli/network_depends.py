"""keystrand network depends"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from keystrand.cli import exits
from keystrand.cli.options import config_option, json_option, print_json, site_of
from keystrand.cli.tables import show_table
from keystrand.cli.terminal import say

if TYPE_CHECKING:
    from keystrand.config.depends import Dependence, Feed


@click.command("depends")
@click.argument("name", metavar="[LINK|SITE]", default="")
@config_option
@json_option
def command(name: str, config_file: Path, as_json: bool) -> int:
    """Print which tunnels, gateways and pairs of SAEs live on a link, a relay or a peer of this site; on all, by default.

    Reads the configuration, so it tells what depends on LINK or SITE before it is switched off. A running site tells the same
    whenever a path changes, as the events path.changed and path.lost.
    """
    from keystrand.config.depends import dependence

    found = dependence(site_of(config_file))
    feeds = found.over(name) if name else found.feeds
    if as_json:
        print_json([_plain(found, feed) for feed in feeds])
        return exits.OK
    rows = [
        (feed.link, feed.peer, one.kind, one.name, one.need, one.without, one.service)
        for feed in feeds
        for one in found.drawing((feed,))
    ]
    show_table(("link", "peer", "is for", "name", "needs", "without", "service"), rows)
    for feed in feeds:
        if feed.relayed:
            say(f"{feed.link} goes {'; '.join(' > '.join(route) for route in feed.routes) or 'no way'}")
        left = [link for link in found.others(feed) if link not in {one.link for one in feeds}]
        say(f"without {feed.link}, {feed.peer} is fed by {', '.join(left) or 'nothing'}")
    return exits.OK


def _plain(found: Dependence, feed: Feed) -> dict[str, object]:
    import msgspec

    return {
        **msgspec.to_builtins(feed),
        "relays": feed.relays,
        "others": found.others(feed),
        "dependents": msgspec.to_builtins(found.drawing((feed,))),
    }
