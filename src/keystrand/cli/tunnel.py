"""keystrand tunnel"""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from keystrand.cli.options import config_option, json_option, print_json, site_of
from keystrand.cli.terminal import amount, say
from keystrand.core.errors import ConfigError

if TYPE_CHECKING:
    from keystrand.config.schema import SiteConfig
    from keystrand.config.tunnels import Tunnel

STALE_S: Final = 5.0
ELSEWHERE: Final = {
    "export": "keystrand.cli.tunnel_export",
    "run": "keystrand.cli.tunnel_run",
    "sentinel": "keystrand.cli.tunnel_sentinel",
}


class TunnelGroup(click.Group):
    """Loads the verbs that live in modules of their own when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *filter(_is_there, ELSEWHERE)])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in ELSEWHERE or not _is_there(cmd_name):
            return super().get_command(ctx, cmd_name)
        found = importlib.import_module(ELSEWHERE[cmd_name]).command
        assert isinstance(found, click.Command)
        return found


def _is_there(verb: str) -> bool:
    return importlib.util.find_spec(ELSEWHERE[verb]) is not None


@click.group(cls=TunnelGroup)
def command() -> None:
    """Run and watch tunnels under keys of this site."""


def tunnel_of(config: SiteConfig, name: str, config_file: Path) -> Tunnel:
    """Raises ConfigError that names those which are there."""
    if name not in config.tunnel:
        there = ", ".join(config.tunnel) or "none"
        raise ConfigError(f"no tunnel {name}", path=str(config_file), hint=f"add [tunnel.{name}]; there are: {there}")
    return config.tunnel[name]


@command.command("list")
@config_option
@json_option
def list_(config_file: Path, as_json: bool) -> None:
    """Show every tunnel of this site: state, protection, age of the key, what went wrong last."""
    config = site_of(config_file)
    for name in config.tunnel:
        status = status_of(config, name)
        print_json(status) if as_json else click.echo(_words(status, config.tunnel[name].fallback_s))
    if not config.tunnel and not as_json:
        say("no tunnel is configured")


def status_of(config: SiteConfig, name: str) -> dict[str, Any]:
    """What its process wrote last; `state` is "not running" where that is too old."""
    import msgspec

    from keystrand.config.tunnels import place_of

    tunnel, place = config.tunnel[name], place_of(config, name)
    bare = {"tunnel": name, "kind": tunnel.kind, "role": place.role, "peer_sae": tunnel.peer_sae}
    try:
        status: dict[str, Any] = msgspec.json.decode((place.state_dir / "status.json").read_bytes(), type=dict)
    except (OSError, msgspec.MsgspecError):
        return {**bare, "state": "not running"}
    if abs(time.time() - status.get("at_s", 0.0)) > STALE_S:
        last = {"last_seen_at_s": status.get("at_s"), "last_state": status.get("state")}
        return {**bare, "state": "not running", **last}
    return status


def _words(status: dict[str, Any], fallback_s: float) -> str:
    now_s = time.time()
    lines = [f"{status['tunnel']}  {status['kind']}, {status['role']}, with {status['peer_sae']}: {status['state']}"]
    if status.get("generation"):
        lines.append(
            f"  key {status['generation']} ({status['protection'] or 'of an earlier run'}), {_age(status['key_age_s'])} old, "
            f"next in {_age(status['next_rotation_s'])}, oldest key with traffic {_age(status['exposure_s'])} old"
            + (f", {amount(status['bytes_under_key'])} under it" if status["bytes_under_key"] is not None else "")
        )
    if "rotations_total" in status:
        fresh = status.get("rotations_fresh_total", 0)
        lines.append(
            f"  {status['rotations_total']} rotations ({fresh} with fresh entropy), {status['rekey_missed_total']} missed, "
            f"blocked {status['blocks_total']} times; other end {'connected' if status['connected'] else 'NOT connected'}"
        )
    if status.get("fallback_s"):
        for_s = status["fallback_s"]
        lines.append(
            f"  IN FALLBACK for {_age(for_s)}, below the protection that is required; blocked in {_age(fallback_s - for_s)}"
        )
    if status.get("last_seen_at_s"):
        ago = _age(now_s - status["last_seen_at_s"])
        lines.append(f"  its connector was last heard of {ago} ago, and the tunnel was {status['last_state']} then")
    if status.get("last_failure"):
        ago = f" {_age(now_s - status['last_failure_at_s'])} ago" if status.get("last_failure_at_s") else ""
        lines.append(f"  last failure{ago}: {status['last_failure']}")
    return "\n".join(lines)


def _age(span_s: float | None) -> str:
    return "–" if span_s is None else f"{span_s:.0f} s"


@command.command("kinds")
def kinds() -> None:
    """List the kinds of tunnels that are installed, one a line."""
    from keystrand.transport.tunnel.kinds import names

    for name in names():
        click.echo(name)
