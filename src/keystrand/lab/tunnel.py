"""A tunnel of any kind between two real sites on this machine: rotation under load, the key manager gone, its return.

Sites, key managers, QKD modules (whose photons are simulated) and the two tunnel ends are separate programs; the daemons
stand in two network namespaces. Everything that is reported was counted on the packets.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from keystrand.config.founding import append
from keystrand.core.errors import ConfigError
from keystrand.lab.load import MARK
from keystrand.lab.pair import SITES, found_pair, free_base_port
from keystrand.lab.processes import DemoFault, Programs
from keystrand.lab.stage import Stage, stage_of
from keystrand.lab.wires import LoadReport, Side, Wires
from keystrand.transport.tunnel.kinds import find

TUNNEL: Final = "lab"
SIDE: Final[dict[str, Side]] = {"alpha": "a", "bravo": "b"}
READY_S: Final = 120.0
AGAIN_S: Final = 60.0
LOOK_S: Final = 0.1
QUIET_S: Final = 2.0  # how long is looked for packets once the tunnel is blocked

_TABLE: Final = """
[tunnel.{name}]
kind = "{kind}"
peer = "{peer}"
sae = "gateway-{site}"
peer_sae = "gateway-{peer}"
{verb} = "127.0.0.1:{port}"
rotate_s = {rotate_s}
hold_s = {hold_s}
on_exhaustion = "fail-closed"
start = "apart"

[tunnel.{name}.{kind}]
{settings}
"""


@dataclass
class TunnelLab:
    """One run of one kind. `facts` fills up as things are seen."""

    kind: str
    folder: Path
    say: Callable[[str], None]
    rotate_s: float = 2.0
    seconds: float = 30.0
    packets_per_s: int = 1000
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._programs = Programs(self.folder)
        self._files: dict[str, Path] = {}
        self._took_ms: list[float] = []

    @property
    def hold_s(self) -> float:
        return max(3 * self.rotate_s, 6.0)

    def run(self) -> bool:
        """True when no packet was lost in rotation, none passed without a key, and traffic came back with the keys."""
        kind = find(self.kind)
        if self.folder.exists() and any(self.folder.iterdir()):
            raise ConfigError(f"{self.folder} is not empty", hint="choose another --dir")
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with Wires() as wires:
            stage = stage_of(kind, wires, self.folder / "stage")
            self.facts |= {"kind": self.kind, "note": stage.note, "photons": "simulated", "rotate_s": self.rotate_s}
            try:
                self._start(stage)
                self._rotate(wires)
                self._lose_keys(wires)
                self._get_them_back(wires)
            finally:
                self._programs.stop()
        return self._proven()

    def _proven(self) -> bool:
        facts = self.facts
        rotated = facts["rotations"] >= 0.5 * self.seconds / self.rotate_s and facts["missed"] == 0
        stopped = facts["outage"]["packets_passed_when_blocked"] == facts["outage"]["frames_in_clear"] == 0
        return bool(rotated and stopped and facts["load"]["lost"] == 0 and facts["recovery"]["load"]["lost"] == 0)

    # starting --------------------------------------------------------------------------------------------------------

    def _start(self, stage: Stage) -> None:
        self.say(f"founding sites {' and '.join(SITES)}, and a {self.kind} tunnel between two namespaces")
        pair = found_pair(self.folder / "sites", length_km=5.0)
        self._files = pair.site_files
        port = free_base_port(1)
        for site, peer in (SITES, SITES[::-1]):
            append(self._files[site], self._table(stage, site, peer, port))
        for site in SITES:
            self._programs.start(f"{site}-kme", "serve", str(self._files[site]))
            self._programs.start(f"{site}-module", "module", str(pair.module_files[site]))
        for site in SITES:
            self._programs.start(f"{site}-tunnel", "tunnel", "run", TUNNEL, "--config", str(self._files[site]))
        began_s = time.monotonic()
        self._wait("up", READY_S)
        self.say(f"up after {time.monotonic() - began_s:.1f} s, most of it for the first keys of the simulated link")

    def _table(self, stage: Stage, site: str, peer: str, port: int) -> str:
        return _TABLE.format(
            name=TUNNEL,
            kind=self.kind,
            site=site,
            peer=peer,
            verb="connect" if site < peer else "listen",
            port=port,
            rotate_s=float(self.rotate_s),
            hold_s=float(self.hold_s),
            settings=stage.tables[SIDE[site]],
        )

    def _status(self, site: str) -> dict[str, Any]:
        file = self._files[site].parent / "state" / "tunnels" / TUNNEL / "status.json"
        try:
            status: dict[str, Any] = msgspec.json.decode(file.read_bytes(), type=dict)
        except (OSError, msgspec.MsgspecError):
            return {}
        return status

    def _look(self) -> dict[str, dict[str, Any]]:
        self._programs.check()
        sites = {site: self._status(site) for site in SITES}
        took_ms = sites[SITES[0]].get("rotation_took_ms")
        if took_ms and (not self._took_ms or took_ms != self._took_ms[-1]):
            self._took_ms.append(took_ms)
        return sites

    def _wait(self, state: str, timeout_s: float) -> None:
        """Until both ends are in this state."""
        until_s = time.monotonic() + timeout_s
        while any(status.get("state") != state for status in self._look().values()):
            if time.monotonic() > until_s:
                sites = {site: (s.get("state"), s.get("last_failure")) for site, s in self._look().items()}
                tail = self._programs.tail("alpha-tunnel")
                raise DemoFault(f"not {state} after {timeout_s:g} s: {sites}\n{tail}")
            time.sleep(LOOK_S)

    # the three parts -------------------------------------------------------------------------------------------------

    def _rotate(self, wires: Wires) -> None:
        self.say(f"{self.packets_per_s} packets a second for {self.seconds:g} s, a fresh key every {self.rotate_s:g} s")
        before = self._look()
        load = wires.load(packets_per_s=self.packets_per_s, seconds=self.seconds)
        until_s = time.monotonic() + self.seconds
        self._took_ms.clear()
        while time.monotonic() < until_s:
            self._look()
            time.sleep(LOOK_S)
        report, after = load.wait(30.0), self._look()

        def grown(name: str, site: str = SITES[0]) -> int:
            return int(after[site][name] - before[site][name])

        self.facts |= {
            "rotations": grown("rotations_total"),
            "missed": sum(grown("rekey_missed_total", site) for site in SITES),
            "rotation_took_ms_median": round(statistics.median(self._took_ms), 1) if self._took_ms else None,
            "rotation_took_ms_max": max(self._took_ms, default=None),
            "load": _facts(report),
        }
        self.say(f"{self.facts['rotations']} rotations: {_words(report)}")

    def _lose_keys(self, wires: Wires) -> None:
        """Without its key manager the tunnel goes on under the last key until that is too old; then nothing passes."""
        load = wires.load(packets_per_s=self.packets_per_s, seconds=self.hold_s + 60.0)
        time.sleep(0.5)
        self._programs.end("alpha-kme")
        gone_s = time.monotonic()
        self.say(f"the key manager of alpha is stopped; a key may carry traffic for {self.hold_s:g} s")
        self._wait("blocked", self.hold_s + 30.0)
        clear = wires.capture("a", QUIET_S, MARK)
        report = load.stop()
        late = wires.load(packets_per_s=self.packets_per_s, seconds=QUIET_S).wait(30.0)
        self.facts["outage"] = {
            "hold_s": self.hold_s,
            "traffic_went_on_for_s": round(max(0.0, report.last_at_s - gone_s), 2),
            "packets_passed_when_blocked": late.received,
            "frames_in_clear": clear,
        }
        words = "packets passed" if late.received else "no packet passed"
        self.say(f"blocked after {self.facts['outage']['traffic_went_on_for_s']} s: {words}, {clear} frames in clear")

    def _get_them_back(self, wires: Wires) -> None:
        self._programs.start("alpha-kme", "serve", str(self._files["alpha"]))
        began_s = time.monotonic()
        self._wait("up", AGAIN_S)
        back_s = time.monotonic() - began_s
        report = wires.load(packets_per_s=self.packets_per_s, seconds=3.0).wait(30.0)
        self.facts["recovery"] = {"seconds": round(back_s, 2), "load": _facts(report)}
        self.say(f"the key manager is back: up again after {back_s:.1f} s; {_words(report)}")


def _facts(report: LoadReport) -> dict[str, Any]:
    return {name: value for name, value in asdict(report).items() if name != "last_at_s"}


def _words(report: LoadReport) -> str:
    return (
        f"{report.lost} of {report.sent} packets lost, longest gap {report.longest_gap_ms:.1f} ms, "
        f"one way {report.latency_p50_ms:.2f} ms (median), {report.latency_p99_ms:.2f} ms (99 %)"
    )
