"""keystrand tunnel run"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from keystrand.cli.options import config_option, site_of
from keystrand.cli.terminal import say
from keystrand.core.errors import ConfigError

if TYPE_CHECKING:
    from keystrand.config.schema import SiteConfig
    from keystrand.config.tunnels import Tunnel
    from keystrand.net.http_client import SyncHttpClient
    from keystrand.net.tls import TlsContexts
    from keystrand.transport.tunnel.reports import TunnelReports
    from keystrand.transport.tunnel.runner import Runner

KEY_REQUEST_S: Final = 5.0


@click.command("run")
@click.argument("names", nargs=-1)
@config_option
def command(names: tuple[str, ...], config_file: Path) -> None:
    """Run this end of tunnels NAMES (of all, without any) until told to stop by SIGTERM or Ctrl-C.

    The tunnels then stay as they are, until their keys are too old. It needs the rights to steer the daemons (CAP_NET_ADMIN
    for most); the key manager does not.
    """
    from keystrand.cli.loop import run_until_stopped
    from keystrand.cli.tunnel import tunnel_of
    from keystrand.observe.logs import configure_logs
    from keystrand.transport.tunnel.crew import Crew

    config = site_of(config_file)
    for name in (names := names or tuple(config.tunnel)):
        _check(tunnel_of(config, name, config_file), name, config_file)
    if not names:
        raise ConfigError("no tunnel is configured", path=str(config_file), hint="add a table [tunnel.NAME]")
    log = config.log
    configure_logs(level=log.level, form=log.format, collector=log.collector, program="keystrand-tunnel")
    with contextlib.ExitStack() as held:
        reports = reports_of(config, names, held)
        makings = [_making(config, name, reports[config.tunnel[name].sae], held) for name in names]
        crew = Crew(makings, _sentinel_words(names, config_file))
        for name in names:
            tunnel = config.tunnel[name]
            say(f"tunnel {name}: {tunnel.kind}, {tunnel.plays}, {tunnel.sae} to {tunnel.peer_sae}")
        run_until_stopped(crew.run())


def _check(tunnel: Tunnel, name: str, config_file: Path) -> None:
    from keystrand.config.reading import spell
    from keystrand.config.tunnels import kind_faults

    for fault in kind_faults(tunnel, ("tunnel", name)):
        raise ConfigError(f"{spell(fault.where)} {fault.message}", path=str(config_file), hint=fault.hint or None)


def _sentinel_words(names: tuple[str, ...], config_file: Path) -> list[str]:
    return ["tunnel", "sentinel", *names, "--config", str(config_file.absolute())]


def reports_of(config: SiteConfig, names: Sequence[str], held: contextlib.ExitStack) -> dict[str, TunnelReports]:
    """To the KME, for each SAE that draws keys for tunnels `names`, as long as `held` is open."""
    from keystrand.cli.sae_client import client_of
    from keystrand.transport.tunnel.reports import TunnelReports

    found: dict[str, TunnelReports] = {}
    for sae in dict.fromkeys(config.tunnel[name].sae for name in names):
        found[sae] = TunnelReports(held.enter_context(client_of(config, sae, timeout_s=KEY_REQUEST_S)))
        held.callback(found[sae].close)
    return found


def _making(config: SiteConfig, name: str, reports: TunnelReports, held: contextlib.ExitStack) -> Callable[[], Runner]:
    """Alone with this tunnel end, as long as `held` is open."""
    from keystrand.cli.sae_client import client_of
    from keystrand.config.tunnels import place_of
    from keystrand.transport.tunnel.record import alone

    tunnel = config.tunnel[name]
    held.enter_context(alone(place_of(config, name).state_dir / "lock"))
    client = held.enter_context(client_of(config, tunnel.sae, timeout_s=KEY_REQUEST_S))
    return partial(_runner_of, config, name, client, reports)


def _runner_of(config: SiteConfig, name: str, client: SyncHttpClient, reports: TunnelReports) -> Runner:
    from keystrand.config.tunnels import place_of
    from keystrand.observe.logs import LogSink
    from keystrand.transport.keys import Etsi014Keys
    from keystrand.transport.tunnel.runner import Runner

    tunnel, place, keys = config.tunnel[name], place_of(config, name), Etsi014Keys(client)
    runner = Runner(
        place=place,
        kind=tunnel.kind,
        terms=tunnel.terms(),
        connector=tunnel.found_kind().open(place, tunnel.settings),
        keys=keys,
        uses=keys,
        reports=reports,
        sink=LogSink(config.site.name),
    )
    _join(runner, config, tunnel)
    return runner


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
