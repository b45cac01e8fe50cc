"""A tunnel of any kind between two real sites on this machine: under load, with the quantum link pulled, without a key manager.

Sites, key managers, QKD modules (whose photons are simulated) and the two tunnel ends are separate programs; the daemons
stand in two network namespaces. Everything that is reported was counted on the packets.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from keystrand.core.errors import ConfigError, KeyUnavailable, Unavailable
from keystrand.core.protection import Protection
from keystrand.lab import behaviour
from keystrand.lab.load import MARK
from keystrand.lab.pair import SITES
from keystrand.lab.stage import stage_of
from keystrand.lab.tunnel_sites import Drill, TunnelSites
from keystrand.lab.wires import Load, LoadReport, Wires
from keystrand.transport.tunnel.kinds import find
from keystrand.transport.tunnel.runner import KeySource

READY_S: Final = 120.0
AGAIN_S: Final = 60.0
QUIET_S: Final = 2.0  # how long is looked for packets once the tunnel is blocked
EMPTY_S: Final = 2.0  # a pool that gives nothing for so long is empty


@dataclass
class TunnelLab:
    """One run of one kind. `facts` fills up as things are seen. drawing: the keys of a site, by its file."""

    kind: str
    folder: Path
    say: Callable[[str], None]
    drawing: Callable[[Path], AbstractContextManager[KeySource]]
    rotate_s: float = 2.0
    seconds: float = 30.0
    packets_per_s: int = 1000
    on_exhaustion: str = "fail-closed"
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._sites = TunnelSites(self.kind, self.folder, self.drill)
        self._wires, self._way = Wires(), ""

    @property
    def drill(self) -> Drill:
        hold_s = max(3 * self.rotate_s, 4.0)
        falls_back = self.on_exhaustion.startswith("fallback")
        return Drill(
            rotate_s=self.rotate_s,
            hold_s=hold_s,
            on_exhaustion=self.on_exhaustion,
            fallback_s=2 * hold_s if falls_back else 0.0,
        )

    def run(self) -> bool:
        """True when no packet was lost in rotation, none passed without a key, and traffic came back with the keys."""
        kind = find(self.kind)
        if self.folder.exists() and any(self.folder.iterdir()):
            raise ConfigError(f"{self.folder} is not empty", hint="choose another --dir")
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._wires:
            stage = stage_of(kind, self._wires, self.folder / "stage")
            self._way = stage.way
            self.facts |= {"kind": self.kind, "note": stage.note, "photons": "simulated", "rotate_s": self.rotate_s}
            self.facts["on_exhaustion"] = self.on_exhaustion
            try:
                self.say(f"founding sites {' and '.join(SITES)}, and a {self.kind} tunnel between two namespaces")
                self._sites.start(stage)
                self._sites.join()
                self._come_up()
                self._rotate()
                self._pull_the_link()
                self._lose_the_key_manager()
            finally:
                self._sites.stop()
        return self._proven()

    def _proven(self) -> bool:
        facts = self.facts
        rotated = facts["rotations"] >= 0.5 * self.seconds / self.rotate_s and facts["missed"] == 0
        outages = [facts["link_pulled"], facts["outage"]]
        stopped = all(part["packets_passed_when_blocked"] == part["frames_in_clear"] == 0 for part in outages)
        back = all(part["recovery"]["load"]["lost"] == 0 for part in outages)
        fell_back = facts["link_pulled"].get("fallback", {"load": {"lost": 0}})["load"]["lost"] == 0
        return bool(rotated and stopped and back and fell_back and facts["load"]["lost"] == 0)

    def _load(self, seconds: float) -> Load:
        return self._wires.load(packets_per_s=self.packets_per_s, seconds=seconds, via=self._way)

    def _come_up(self) -> None:
        began_s = time.monotonic()
        self._sites.wait("up", READY_S)
        self.say(f"up after {time.monotonic() - began_s:.1f} s, most of it for the first keys of the simulated link")

    # the three parts -------------------------------------------------------------------------------------------------

    def _rotate(self) -> None:
        self.say(f"{self.packets_per_s} packets a second for {self.seconds:g} s, a fresh key every {self.rotate_s:g} s")
        before = {site: len(self._sites.events(site, "tunnel.rotated")) for site in SITES}
        missed = {site: len(self._sites.events(site, "tunnel.missed")) for site in SITES}
        load = self._load(self.seconds)
        time.sleep(self.seconds)
        report = load.wait(30.0)
        rotated = {site: self._sites.events(site, "tunnel.rotated")[before[site] :] for site in SITES}
        both = set.intersection(*({(e["number"], e["key_id"]) for e in rotated[site]} for site in SITES))
        took_ms = [event["took_ms"] for event in rotated[SITES[0]]]
        self.facts |= {
            "rotations": len(both),
            "missed": sum(len(self._sites.events(site, "tunnel.missed")) - missed[site] for site in SITES),
            "rotation_took_ms_median": round(statistics.median(took_ms), 1) if took_ms else None,
            "rotation_took_ms_max": max(took_ms, default=None),
            "load": _facts(report),
        }
        self.say(f"{len(both)} rotations, each seen at both ends: {_words(report)}")

    def _pull_the_link(self) -> None:
        """No quantum key arrives any more, and what is stored is used up: what the policy says then comes to pass."""
        pulled_s = time.time()
        for site in SITES:
            self._sites.programs.end(f"{site}-module")
        drawn = self._drain()
        self.say(f"the quantum link is pulled, and another application has drawn what was stored: {drawn} keys")
        facts: dict[str, Any] = {"keys_drained": drawn}
        self.facts["link_pulled"] = facts
        facts["pool_empty_after_s"] = round(time.time() - EMPTY_S - pulled_s, 2)
        gone_s = time.monotonic()
        if self.drill.fallback_s:
            facts |= {"fallback": self._fall_back()}
        facts |= self._stop(self._load(self.drill.hold_s + self.drill.fallback_s + 60.0), gone_s)
        facts["alarms"] = {site: self._sites.alarms(site) for site in SITES}
        for site in SITES:
            self._sites.start_module(site)
        facts |= {"recovery": self._come_back("the quantum link is back", READY_S)}
        facts["tunnels"] = {site: behaviour.of_tunnel(self._sites.events(site), pulled_s) for site in SITES}

    def _drain(self) -> int:
        """Draw keys as long as there are any with quantum bits; how many there were."""
        drawn, empty_s, size_bits = 0, 0.0, 1024
        with self.drawing(self._sites.file("alpha")) as keys:
            while not empty_s or time.monotonic() - empty_s < EMPTY_S:
                try:
                    key = keys.fresh("gateway-bravo", size_bits)
                except (KeyUnavailable, Unavailable):
                    key = None
                if key is not None and key.protection >= Protection.QKD:
                    drawn, empty_s = drawn + 1, 0.0
                else:
                    empty_s, size_bits = empty_s or time.monotonic(), 256
                    time.sleep(0.1)
        return drawn

    def _fall_back(self) -> dict[str, Any]:
        load = self._load(self.drill.hold_s + 60.0)
        self._sites.wait("fallback", self.drill.hold_s + 30.0)
        until_s = time.monotonic() + self.drill.fallback_s / 2  # a lower key comes, or the last one stays
        while (status := self._sites.status("alpha")).get("protection") == "hybrid" and time.monotonic() < until_s:
            time.sleep(0.1)
        time.sleep(QUIET_S / 2)
        report = load.stop()
        self.say(f"in fallback under a {status['protection']} key, loudly: {_words(report)}")
        return {"protection": status["protection"], "load": _facts(report)}

    def _lose_the_key_manager(self) -> None:
        """Without its key manager the tunnel goes on under the last key until that is too old; then nothing passes."""
        load = self._load(self.drill.hold_s + self.drill.fallback_s + 60.0)
        time.sleep(0.5)
        self._sites.programs.end("alpha-kme")
        self.say(f"the key manager of alpha is stopped; a key may carry traffic for {self.drill.hold_s:g} s")
        facts = self.facts["outage"] = self._stop(load, time.monotonic())
        self._sites.start_kme("alpha")
        facts["recovery"] = self._come_back("the key manager is back", AGAIN_S)

    def _stop(self, load: Load, gone_s: float) -> dict[str, Any]:
        """Wait until nothing passes, and look for what passes all the same."""
        longest_s = self.drill.hold_s + self.drill.fallback_s
        self._sites.wait("blocked", longest_s + 30.0)
        clear = self._wires.capture("a", QUIET_S, MARK)
        report = load.stop()
        late = self._load(QUIET_S).wait(30.0)
        went_on_s = round(max(0.0, report.last_at_s - gone_s), 2)
        words = f"{late.received} packets" if late.received else "no packet"
        self.say(f"blocked after {went_on_s} s of {longest_s:g} s: {words} passed, {clear} frames in clear")
        return {
            "hold_s": self.drill.hold_s,
            "fallback_s": self.drill.fallback_s,
            "traffic_went_on_for_s": went_on_s,
            "packets_passed_when_blocked": late.received,
            "frames_in_clear": clear,
        }

    def _come_back(self, what: str, timeout_s: float) -> dict[str, Any]:
        began_s = time.monotonic()
        self._sites.wait("up", timeout_s)
        back_s = time.monotonic() - began_s
        report = self._load(3.0).wait(30.0)
        self.say(f"{what}: up again after {back_s:.1f} s; {_words(report)}")
        return {"seconds": round(back_s, 2), "load": _facts(report)}


def _facts(report: LoadReport) -> dict[str, Any]:
    return {name: value for name, value in asdict(report).items() if name not in ("last_at_s", "gaps")}


def _words(report: LoadReport) -> str:
    return (
        f"{report.lost} of {report.sent} packets lost, longest gap {report.longest_gap_ms:.1f} ms, "
        f"one way {report.latency_p50_ms:.2f} ms (median), {report.latency_p99_ms:.2f} ms (99 %)"
    )
