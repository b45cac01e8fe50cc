"""What the KME hears of tunnels, and whom it tells: metrics, alarms, the status page."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from keystrand.api.reports import tunnel_event, tunnel_report
from keystrand.core.errors import BadRequest
from keystrand.core.events import Event, Severity
from keystrand.observe.feed import Feed
from keystrand.observe.metrics import Metrics
from keystrand.testing.clock import VirtualClock
from keystrand.testing.patience import wait_until
from keystrand.transport.tunnel.reports import TunnelReports
from keystrand.wire.tunnelreport import TunnelReport, parse_report, print_report

KEY_ID = "9d1cf7c8-7a9c-4f5e-8d0a-2f4a1f0b6c11"


def report(happened: str = "rotated", state: str = "up", **said: Any) -> TunnelReport:
    fields: dict[str, Any] = {"kind": "wireguard", "peer_sae": "sae-b", "role": "initiator", "key_id": KEY_ID}
    fields |= {"protection": "hybrid", "fresh": True, "number": 3}
    return TunnelReport(happened=happened, state=state, **fields | said)  # type: ignore[arg-type]


def event(happened: str = "rotated", state: str = "up", *, at_s: float = 100.0, **said: Any) -> Event:
    body = print_report(report(happened, state, **said))
    return tunnel_event("sae-a", "west", tunnel_report("west", body), at_s=at_s)


@dataclass
class Answer:
    status: int = 204
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass
class Kme:
    """Takes reports; away while told so."""

    away: bool = False
    heard: list[tuple[str, TunnelReport]] = field(default_factory=list)
    came: threading.Event = field(default_factory=threading.Event)

    def request(self, method: str, path: str, body: bytes | None = None) -> Answer:
        self.came.set()
        if self.away:
            raise OSError("gone")
        assert body is not None
        self.heard.append((path.rpartition("/")[2], parse_report(body)))
        return Answer()


@pytest.fixture
def kme() -> Kme:
    return Kme()


@pytest.fixture
def reports(kme: Kme, monkeypatch: pytest.MonkeyPatch) -> Iterator[TunnelReports]:
    monkeypatch.setattr("keystrand.transport.tunnel.reports.AGAIN_S", 0.02)
    made = TunnelReports(kme)
    yield made
    made.close()


def test_what_happens_while_the_kme_is_away_is_told_later_and_says_how_late(kme: Kme, reports: TunnelReports) -> None:
    kme.away = True
    reports.tell("west", report("fallback", "fallback"))
    for number in range(3):
        reports.tell("west", report("status", number=number))
    assert kme.came.wait(60.0)
    time.sleep(0.05)
    kme.away = False
    wait_until(lambda: len(kme.heard) == 2)
    (_, first), (name, second) = kme.heard
    assert (first.happened, first.state) == ("fallback", "fallback")
    assert first.late_s >= 0.05
    assert (name, second.happened, second.number) == ("west", "status", 2), "of statuses the newest only"


def test_metrics_tell_fresh_rotations_from_derived_ones_and_missed_ones_apart() -> None:
    metrics = Metrics()
    for said in (event(), event(fresh=False, protection="pqc"), event("missed"), event("blocked", "blocked")):
        metrics.emit(said)
    text = metrics.render().decode()
    labels = 'sae="sae-a",tunnel="west"'
    assert f'tunnel_rotations_total{{{labels},entropy="fresh"}} 1' in text
    assert f'tunnel_rotations_total{{{labels},entropy="derived"}} 1' in text
    assert f"rekey_missed_total{{{labels}}} 1" in text
    assert f"tunnel_blocks_total{{{labels}}} 1" in text
    assert f"tunnel_protection_level{{{labels}}} 0" in text, "blocked: nothing is protected, as nothing passes"
    assert f"tunnel_up{{{labels}}} 0" in text
    metrics.emit(event("status", "fallback", fallback_s=12.0, protection="pqc", exposure_s=71.5))
    text = metrics.render().decode()
    assert f"tunnel_fallback_active_seconds{{{labels}}} 12" in text
    assert f"tunnel_exposure_window_seconds{{{labels}}} 71.5" in text
    assert f"tunnel_protection_level{{{labels}}} 2" in text


@pytest.mark.proves("R021")
def test_an_alarm_stands_as_long_as_a_tunnel_is_blocked_or_in_fallback_or_silent() -> None:
    clock = VirtualClock()
    feed = Feed("alpha", clock=clock)

    def alarms() -> list[str]:
        return [alarm["name"] for alarm in feed.snapshot()["alarms"]]

    for state, happened, name in (
        ("blocked", "blocked", "tunnel-blocked"),
        ("fallback", "fallback", "tunnel-fallback"),
        ("down", "down", "tunnel-down"),
    ):
        feed.emit(event(happened, state, at_s=clock.now_s()))
        clock.move_to(clock.monotonic_s() + 5.0)
        assert name in alarms()
    clock.move_to(clock.monotonic_s() + 60.0)
    feed.emit(event("blocked", "blocked", at_s=clock.now_s(), reason="the pool is empty"))
    clock.move_to(clock.monotonic_s() + 60.0)
    told = {alarm["name"]: alarm["text"] for alarm in feed.snapshot()["alarms"]}
    assert told["tunnel-blocked"].endswith("no packet passes (the pool is empty)")
    assert "nothing is heard" in told["tunnel-silent"], "blocked by a sentinel, and still without a connector"
    feed.emit(event("restored", "up", at_s=clock.now_s()))
    assert not [name for name in alarms() if name.startswith("tunnel-")]
    (tunnel,) = feed.snapshot()["tunnels"]
    assert (tunnel["sae"], tunnel["tunnel"], tunnel["state"], tunnel["protection"]) == ("sae-a", "west", "up", "hybrid")
    clock.move_to(clock.monotonic_s() + 60.0)
    assert "tunnel-silent" in alarms()
    feed.emit(event("status", "stopped", at_s=clock.now_s()))
    clock.move_to(clock.monotonic_s() + 60.0)
    assert "tunnel-silent" not in alarms()


def test_a_fallback_is_an_alert_and_a_report_is_dated_when_it_happened() -> None:
    said = event("fallback", "fallback", late_s=30.0)
    assert said.severity is Severity.ALERT
    assert said.at_s == 70.0
    assert said.fields["sae"] == "sae-a"
    assert "material" not in str(said.fields)


@pytest.mark.parametrize(
    "change",
    [{"happened": "fine"}, {"state": "good"}, {"number": -1}, {"reason": "x\ny"}, {"key_age_s": -1.0}, {"more": 1}],
)
def test_what_an_sae_may_not_say_is_refused(change: dict[str, Any]) -> None:
    body = msgspec.json.decode(print_report(report()), type=dict) | change
    with pytest.raises(BadRequest):
        tunnel_report("west", msgspec.json.encode(body))
    with pytest.raises(BadRequest):
        tunnel_report("../west", print_report(report()))
