"""Two sites on this machine with a tunnel between them: key managers and tunnel ends as programs of their own."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from keystrand.config.founding import append
from keystrand.config.load import load_site
from keystrand.lab.pair import SITES, Pair, found_pair
from keystrand.lab.ports import free_base_port
from keystrand.lab.processes import DemoFault, Programs, read_status
from keystrand.lab.stage import Stage
from keystrand.lab.wires import Side

TUNNEL: Final = "lab"
SIDE: Final[dict[str, Side]] = {"alpha": "a", "bravo": "b"}
LOOK_S: Final = 0.1

_TABLE: Final = """
[tunnel.{name}]
kind = "{kind}"
peer = "{peer}"
sae = "gateway-{site}"
peer_sae = "gateway-{peer}"
{verb} = "127.0.0.1:{port}"
rotate_s = {rotate_s}
hold_s = {hold_s}
on_exhaustion = "{on_exhaustion}"
fallback_s = {fallback_s}
start = "apart"

[tunnel.{name}.{kind}]
{settings}
"""
_CLOSED: Final = 'on_exhaustion = "closed"\n'
_OPEN: Final = """on_exhaustion = "open"
[policy.fallback]
protection = "{protection}"
keys = 100000
for_s = {for_s}
rest_s = 0.0
approved_by = ["lab"]
reason = "a drill"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drill:
    """What both ends are told. fallback_s: 0 with fail-closed."""

    rotate_s: float
    hold_s: float
    on_exhaustion: str = "fail-closed"
    fallback_s: float = 0.0


@dataclass
class TunnelSites:
    """Both sites. with_modules: QKD modules, whose photons are simulated; else somebody else feeds the key managers."""

    kind: str
    folder: Path
    drill: Drill
    with_modules: bool = True
    pair: Pair | None = None
    programs: Programs = field(init=False)

    def __post_init__(self) -> None:
        self.programs = Programs(self.folder)

    def start(self, stage: Stage) -> Pair:
        """Everything but the tunnel ends, which come with `join`."""
        self.pair = pair = found_pair(self.folder / "sites", length_km=5.0)
        port = free_base_port(1)
        for site, peer in (SITES, SITES[::-1]):
            file = pair.site_files[site]
            if self.drill.fallback_s:
                file.write_text(file.read_text().replace(_CLOSED, self._open()))
            append(file, self._table(stage, site, peer, port))
        for site in SITES:
            self.start_kme(site)
            self.start_module(site)
        return pair

    def join(self) -> None:
        for site in SITES:
            self.programs.start(f"{site}-tunnel", "tunnel", "run", TUNNEL, "--config", str(self.file(site)))

    def stop(self) -> None:
        self.programs.stop()

    def _open(self) -> str:
        protection = self.drill.on_exhaustion.partition(":")[2]
        return _OPEN.format(protection=protection, for_s=self.drill.hold_s + self.drill.fallback_s)

    def _table(self, stage: Stage, site: str, peer: str, port: int) -> str:
        return _TABLE.format(
            name=TUNNEL,
            kind=self.kind,
            site=site,
            peer=peer,
            verb="connect" if site < peer else "listen",
            port=port,
            rotate_s=float(self.drill.rotate_s),
            hold_s=float(self.drill.hold_s),
            on_exhaustion=self.drill.on_exhaustion,
            fallback_s=float(self.drill.fallback_s),
            settings=stage.tables[SIDE[site]],
        )

    # programs --------------------------------------------------------------------------------------------------------

    def file(self, site: str) -> Path:
        assert self.pair is not None
        return self.pair.site_files[site]

    def start_kme(self, site: str) -> None:
        self.programs.start(f"{site}-kme", "serve", str(self.file(site)))

    def start_module(self, site: str) -> None:
        assert self.pair is not None
        if self.with_modules:
            self.programs.start(f"{site}-module", "module", str(self.pair.module_files[site]))

    # what they say ---------------------------------------------------------------------------------------------------

    def status(self, site: str) -> dict[str, Any]:
        file = self.file(site).parent / "state" / "tunnels" / TUNNEL / "status.json"
        try:
            status: dict[str, Any] = msgspec.json.decode(file.read_bytes(), type=dict)
        except (OSError, msgspec.MsgspecError):
            return {}
        return status

    def look(self) -> dict[str, dict[str, Any]]:
        """The status of both ends. Raises DemoFault when a program has ended."""
        self.programs.check()
        return {site: self.status(site) for site in SITES}

    def events(self, site: str, kind: str = "") -> list[dict[str, Any]]:
        """What the tunnel end of `site` has logged of this kind, in order; all of its tunnel's without one."""
        found = []
        for line in (self.folder / f"{site}-tunnel.log").read_text(errors="replace").splitlines():
            if not line.startswith("{"):
                continue
            event = msgspec.json.decode(line, type=dict)
            if event["event"] == kind or (not kind and event["event"].startswith("tunnel.")):
                found.append(event)
        return found

    def alarms(self, site: str) -> list[str]:
        """What the status page of `site` alarms of now, as `severity: about: text`."""
        place = load_site(self.file(site)).status
        shown = read_status(str(place.listen)) if place is not None else None
        if shown is None:
            raise DemoFault(f"the status page of {site} does not answer\n{self.programs.tail(f'{site}-kme')}")
        return [f"{a['severity']}: {a['about']}: {a['text']}" for a in shown["alarms"]]

    def wait(self, state: str, timeout_s: float, *, look: Callable[[], object] = lambda: None) -> None:
        """Until both ends are in this state."""
        until_s = time.monotonic() + timeout_s
        while any(status.get("state") != state for status in self.look().values()):
            look()
            if time.monotonic() > until_s:
                sites = {site: (s.get("state"), s.get("last_failure")) for site, s in self.look().items()}
                raise DemoFault(f"not {state} after {timeout_s:g} s: {sites}\n{self.programs.tail('alpha-tunnel')}")
            time.sleep(LOOK_S)
