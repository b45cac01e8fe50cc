"""When the process that steers tunnels is gone, their traffic ends with their keys all the same."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from keystrand.core.errors import Unavailable
from keystrand.core.protection import Protection
from keystrand.testing.memoryconnector import Air, MemoryConnector
from keystrand.testing.patience import PATIENCE_S
from keystrand.testing.sinks import Ears
from keystrand.testing.tunnels import TunnelPair, place_of
from keystrand.transport.tunnel.agreement import Pace
from keystrand.transport.tunnel.guard import Fallback
from keystrand.transport.tunnel.record import Record, alone
from keystrand.transport.tunnel.runner import Terms
from keystrand.transport.tunnel.sentinel import Post, Sentinel
from keystrand.wire.tunnelreport import TunnelReport, parse_report, print_report

PACE = Pace(rotate_s=0.3, hold_s=1.2, repeat_s=0.2, give_up_s=3.0, retry_s=0.1)
TERMS = Terms(require=Protection.HYBRID, pace=PACE)


class Told:
    def __init__(self) -> None:
        self.reports: list[TunnelReport] = []

    def tell(self, tunnel: str, report: TunnelReport) -> None:
        self.reports.append(parse_report(print_report(report)))


def sentinel_of(folder: Path, air: Air, terms: Terms = TERMS) -> tuple[Sentinel, Ears]:
    place, heard = place_of(folder, "initiator"), Ears()
    post = Post(place=place, terms=terms, opening=lambda: MemoryConnector(air, place), reports=Told())
    return Sentinel([post], heard), heard


def told_by(sentinel: Sentinel) -> list[tuple[str, str]]:
    told = sentinel.posts[0].reports
    assert isinstance(told, Told)
    return [(report.happened, report.state) for report in told.reports]


def recorded(folder: Path, **said: float) -> None:
    place = place_of(folder, "initiator")
    place.state_dir.mkdir(parents=True)
    (place.state_dir / "record.json").write_bytes(msgspec.json.encode(Record(**said)))  # type: ignore[arg-type]


@pytest.mark.proves("R053")
async def test_i7_traffic_ends_in_time_although_nobody_steers(tmp_path: Path) -> None:
    air = Air()
    pair = TunnelPair(tmp_path, TERMS, lambda place: MemoryConnector(air, place))
    async with pair.running():
        await pair.rotated(2)
        sentinel, heard = sentinel_of(tmp_path, air)
        for role in ("initiator", "responder"):
            await pair.stop(role)  # type: ignore[arg-type]
        began_s = time.monotonic()
        assert air.passes(), "the tunnel outlives who steers it"
        await asyncio.wait_for(sentinel.stand(), PATIENCE_S)
        assert not air.passes()
        assert time.monotonic() - began_s <= PACE.hold_s + 5.0
        assert heard.count("tunnel.blocked") == 1
        assert told_by(sentinel) == [("blocked", "blocked")], (
            "the site hears of it, and so do metrics and the audit log"
        )
        status = msgspec.json.decode((tmp_path / "initiator" / "status.json").read_bytes())
        assert (status["state"], status["rotations_total"] >= 2) == ("blocked", True)
        assert "the process that steers it is gone" in status["last_failure"]


async def test_who_takes_the_tunnel_over_is_left_alone(tmp_path: Path) -> None:
    air = Air()
    now_s = time.time()
    recorded(tmp_path, highest=1, current=1, used_at_s=now_s - 1.0, good_at_s=now_s - 1.0)
    sentinel, heard = sentinel_of(tmp_path, air)
    with alone(place_of(tmp_path, "initiator").state_dir / "lock"):
        await asyncio.wait_for(sentinel.stand(), PATIENCE_S)
    assert not air.blocked
    assert heard.events == []


async def test_a_fallback_has_its_time_and_a_tunnel_without_key_has_none(tmp_path: Path) -> None:
    now_s = 5000.0
    fallback = Fallback(protection=Protection.PQC, for_s=50.0)
    terms = replace(TERMS, pace=replace(PACE, hold_s=100.0), fallback=fallback)
    recorded(tmp_path / "used", highest=1, current=1, used_at_s=4990.0, good_at_s=4900.0)
    recorded(tmp_path / "fresh")
    posts = [sentinel_of(tmp_path / name, Air(), terms)[0].posts[0] for name in ("used", "fresh")]
    assert [post.end_at_s(now_s) for post in posts] == [5050.0, 5000.0]


async def test_what_cannot_be_stopped_is_said_and_tried_again(tmp_path: Path) -> None:
    air = Air()
    recorded(tmp_path, highest=1, current=1, used_at_s=1.0, good_at_s=1.0)
    sentinel, heard = sentinel_of(tmp_path, air)
    tries = 0

    class Stubborn(MemoryConnector):
        async def block(self) -> None:
            nonlocal tries
            tries += 1
            if tries <= 2:
                raise Unavailable("busy\nvery")
            await super().block()

    place = sentinel.posts[0].place
    sentinel.posts = [replace(sentinel.posts[0], opening=lambda: Stubborn(air, place))]
    await asyncio.wait_for(sentinel.stand(), PATIENCE_S)
    assert [event.kind for event in heard.events] == ["tunnel.unblocked", "tunnel.unblocked", "tunnel.blocked"]
    assert told_by(sentinel) == [("unblocked", "down"), ("blocked", "blocked")]
    assert air.blocked == {"initiator"}


async def test_a_tunnel_whose_folder_is_gone_needs_nobody(tmp_path: Path) -> None:
    sentinel, _ = sentinel_of(tmp_path / "none", Air())
    await asyncio.wait_for(sentinel.stand(), PATIENCE_S)
