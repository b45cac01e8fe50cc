"""keystrand tunnel"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from keystrand.cli.options import config_option, json_option, print_json, site_of
from keystrand.cli.terminal import amount, say
from keystrand.core.errors import ConfigError

if TYPE_CHECKING:
    from keystrand.config.schema import SiteConfig
    from keystrand.config.tunnels import Tunnel
    from keystrand.net.tls import TlsContexts
    from keystrand.transport.tunnel.runner import Runner

KEY_REQUEST_S: Final = 5.0
STALE_S: Final = 5.0
ELSEWHERE: Final = {"export": "keystrand.cli.tunnel_export"}


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


@command.command("run")
@click.argument("name")
@config_option
def run(name: str, config_file: Path) -> None:
    """Run this end of tunnel NAME until told to stop (SIGTERM, Ctrl-C); the tunnel itself then stays as it is.

    It needs the rights to steer the daemon (CAP_NET_ADMIN for most); the key manager does not.
    """
    from keystrand.cli.loop import run_until_stopped
    from keystrand.cli.sae_client import client_of
    from keystrand.config.reading import spell
    from keystrand.config.tunnels import kind_faults, place_of
    from keystrand.observe.logs import LogSink, configure_logs
    from keystrand.transport.keys import Etsi014Keys
    from keystrand.transport.tunnel.record import alone
    from keystrand.transport.tunnel.runner import Runner

    config = site_of(config_file)
    tunnel = tunnel_of(config, name, config_file)
    for fault in kind_faults(tunnel, ("tunnel", name)):
        raise ConfigError(f"{spell(fault.where)} {fault.message}", path=str(config_file), hint=fault.hint or None)
    place = place_of(config, name)
    configure_logs(level=config.log.level, form=config.log.format)
    with (
        alone(place.state_dir / "lock"),
        client_of(config, tunnel.sae, timeout_s=KEY_REQUEST_S) as client,
    ):
        keys = Etsi014Keys(client)
        runner = Runner(
            place=place,
            kind=tunnel.kind,
            terms=tunnel.terms(),
            connector=tunnel.found_kind().open(place, tunnel.settings),
            keys=keys,
            uses=keys,
            sink=LogSink(config.site.name),
        )
        _join(runner, config, tunnel)
        say(f"tunnel {name}: {tunnel.kind}, {place.role}, {tunnel.sae} to {tunnel.peer_sae}")
        run_until_stopped(runner.run())


def _join(runner: Runner, config: SiteConfig, tunnel: Tunnel) -> None:
    """The channel to the other end, whose SAE the other site's CA vouches for."""
    from keystrand.transport.tunnel.channel import Channel

    runner.channel = Channel(
        tunnel=runner.place.tunnel,
        role=runner.place.role,
        address=(tunnel.address.host, tunnel.address.port),
        contexts=_contexts(config, tunnel.sae),
        expect=("sae" if config.tls.identity == "san-uri" else None, tunnel.peer_sae),
        listener=runner,
        limits=config.limits,
    )


def _contexts(config: SiteConfig, sae: str) -> TlsContexts:
    from keystrand.cli.sae_client import certificate_of
    from keystrand.net.tls import TlsContexts, TlsFiles, TlsPolicy

    tls = config.peer_tls
    policy = TlsPolicy(minimum=tls.minimum, require_pqc_group=tls.require_pqc_group)
    return TlsContexts(TlsFiles(*certificate_of(config, sae), tls.trust, tls.revoked), policy, rule=tls.identity)


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
        print_json(status) if as_json else click.echo(_words(status))
    if not config.tunnel and not as_json:
        say("no tunnel is configured")


def status_of(config: SiteConfig, name: str) -> dict[str, Any]:
    """What its process wrote last; `state` is "not running" where that is too old."""
    import time

    import msgspec

    from keystrand.config.tunnels import place_of

    tunnel, place = config.tunnel[name], place_of(config, name)
    bare = {"tunnel": name, "kind": tunnel.kind, "role": place.role, "peer_sae": tunnel.peer_sae}
    try:
        status: dict[str, Any] = msgspec.json.decode((place.state_dir / "status.json").read_bytes(), type=dict)
    except (OSError, msgspec.MsgspecError):
        return {**bare, "state": "not running"}
    if abs(time.time() - status.get("at_s", 0.0)) > STALE_S:
        return {**bare, "state": "not running", "last_seen_at_s": status.get("at_s")}
    return status


def _words(status: dict[str, Any]) -> str:
    lines = [f"{status['tunnel']}  {status['kind']}, {status['role']}, with {status['peer_sae']}: {status['state']}"]
    if status.get("generation"):
        lines.append(
            f"  key {status['generation']} ({status['protection'] or 'of an earlier run'}), {_age(status['key_age_s'])} old, "
            f"next in {_age(status['next_rotation_s'])}, oldest key with traffic {_age(status['exposure_s'])} old"
            + (f", {amount(status['bytes_under_key'])} under it" if status["bytes_under_key"] is not None else "")
        )
    if "rotations_total" in status:
        lines.append(
            f"  {status['rotations_total']} rotations, {status['rekey_missed_total']} missed, "
            f"blocked {status['blocks_total']} times; other end {'connected' if status['connected'] else 'NOT connected'}"
        )
    if status.get("last_failure"):
        lines.append(f"  last failure: {status['last_failure']}")
    return "\n".join(lines)


def _age(span_s: float | None) -> str:
    return "–" if span_s is None else f"{span_s:.0f} s"


@command.command("kinds")
def kinds() -> None:
    """List the kinds of tunnels that are installed, one a line."""
    from keystrand.transport.tunnel.kinds import names

    for name in names():
        click.echo(name)
