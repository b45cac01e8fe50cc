"""Two ends with real channels over a tunnel in memory."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from keystrand.core.errors import KeyUnavailable, NotPermitted, Unavailable
from keystrand.core.key import Key
from keystrand.core.protection import Protection, Strand
from keystrand.core.states import State
from keystrand.testing.keyfolder import KeyFolder
from keystrand.testing.memoryconnector import Air, MemoryConnector
from keystrand.testing.tunnels import SAES, TunnelPair, place_of
from keystrand.transport.tunnel import runner as runner_module
from keystrand.transport.tunnel.agreement import Pace
from keystrand.transport.tunnel.contract import Health
from keystrand.transport.tunnel.guard import Fallback, Guard
from keystrand.transport.tunnel.record import Record, alone, read_record
from keystrand.transport.tunnel.runner import Runner, Terms
from keystrand.wire.keyuse import KeyStand, UseReport

PACE = Pace(rotate_s=0.3, hold_s=5.0, repeat_s=0.2, give_up_s=3.0, retry_s=0.1)
TERMS = Terms(require=Protection.HYBRID, pace=PACE)


def pair_of(folder: Path, air: Air, terms: Terms = TERMS) -> TunnelPair:
    return TunnelPair(folder, terms, lambda place: MemoryConnector(air, place))


class Weak(KeyFolder):
    """Gives keys without QKD while `weak`, and none while `empty`."""

    weak = False
    empty = False

    def fresh(self, responder: str, size_bits: int) -> Key:
        if self.empty:
            raise KeyUnavailable("no key")
        return self._judged(super().fresh(responder, size_bits))

    def pick_up(self, initiator: str, key_id: str) -> Key:
        return self._judged(super().pick_up(initiator, key_id))

    def _judged(self, key: Key) -> Key:
        return replace(key, strands=frozenset({Strand.PQC})) if self.weak else key


async def test_both_ends_rotate_in_step_and_tell_no_secret(tmp_path: Path) -> None:
    air = Air()
    async with pair_of(tmp_path, air).running() as pair:
        await pair.rotated(3)
        assert air.passes()
        await pair.until(lambda p: all(len(secrets) == 1 for secrets in air.secrets.values()))
        status = pair.runners["initiator"].status()
        assert status["state"] == "up"
        assert status["protection"] == "hybrid"
        assert 0 <= status["key_age_s"] <= status["exposure_s"] < 2.0
        assert pair.runners["responder"].record.highest >= 3
    secret = next(iter(air.secrets["initiator"].values()))
    files = [tmp_path.joinpath(role, name).read_bytes() for role in SAES for name in ("record.json", "status.json")]
    assert not any(secret in content or secret.hex().encode() in content for content in files)
    assert json.loads((tmp_path / "initiator" / "status.json").read_bytes())["state"] == "stopped"


async def test_i7_numbers_do_not_repeat_over_restarts_and_traffic_flows_meanwhile(tmp_path: Path) -> None:
    air = Air()
    patient = replace(TERMS, pace=replace(PACE, hold_s=60.0))  # a busy machine takes seconds for a restart
    async with pair_of(tmp_path, air, patient).running() as pair:
        await pair.rotated(2)
        for role in ("initiator", "responder"):
            before = read_record(tmp_path / role / "record.json").highest
            await pair.stop(role)
            assert air.passes(), "the tunnel outlives the process that steers it"
            await pair.start(role)
            seen = pair.heard[role].count("tunnel.rotated")
            await pair.until(lambda p, role=role, seen=seen: p.heard[role].count("tunnel.rotated") > seen + 1)
            assert air.passes()
            assert read_record(tmp_path / role / "record.json").highest > before
            assert pair.heard[role].count("tunnel.blocked") <= 1, "only before the very first key"


async def test_without_keys_traffic_stops_in_time_and_comes_back(tmp_path: Path) -> None:
    air = Air()
    pair = pair_of(tmp_path, air, replace(TERMS, pace=replace(PACE, hold_s=1.5)))
    source = Weak(tmp_path, SAES["initiator"])
    pair.sources["initiator"] = source
    async with pair.running():
        await pair.rotated(2)
        source.empty = True
        began_s = asyncio.get_running_loop().time()
        await pair.until(lambda p: not air.passes())
        assert asyncio.get_running_loop().time() - began_s < 10
        await pair.until(lambda p: len(air.blocked) == 2)
        await pair.until(lambda p: p.runners["initiator"].status()["state"] == "blocked")
        said = next(event for event in reversed(pair.heard["initiator"].events) if event.kind == "tunnel.blocked")
        assert str(said.fields["reason"]).startswith("no key is young enough to carry traffic; ")
        assert "young enough" not in pair.runners["initiator"].status()["last_failure"], (
            "why no key came, not what followed"
        )
        source.empty = False
        await pair.until(lambda p: air.passes())
        await pair.until(lambda p: p.runners["initiator"].status()["state"] == "up")
        assert pair.heard["initiator"].count("tunnel.missed") > 0


class Register:
    """Says what became of a key; `gone`: keys that were revoked."""

    def __init__(self) -> None:
        self.reports: list[tuple[str, UseReport]] = []
        self.gone: set[str] = set()

    def note_use(self, key_id: str, report: UseReport) -> KeyStand:
        self.reports.append((key_id, report))
        return KeyStand(state=State.COMPROMISED if key_id in self.gone else State.ACTIVE)


@pytest.mark.proves("R044", "R051")
async def test_L1_a_tunnel_tells_what_carries_it_and_leaves_a_revoked_key_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "USE_S", 0.05)
    air, register = Air(), Register()
    pair = pair_of(tmp_path, air, replace(TERMS, pace=replace(PACE, rotate_s=600.0, hold_s=700.0)))
    pair.uses["initiator"] = register
    async with pair.running():
        await pair.until(lambda p: bool(register.reports))
        key_id, report = register.reports[0]
        assert (report.consumer, report.uses) == ("tunnel t", 1)
        assert key_id == pair.runners["initiator"].status()["key_id"]
        rotations = pair.heard["initiator"].count("tunnel.rotated")
        await asyncio.sleep(0.3)
        assert pair.heard["initiator"].count("tunnel.rotated") == rotations, "an active key stays"
        register.gone.add(key_id)
        await pair.until(lambda p: p.runners["initiator"].status()["key_id"] not in ("", key_id))
        assert pair.runners["initiator"].status()["last_failure"] == "the key is compromised"
        await asyncio.sleep(0.3)
        assert pair.heard["initiator"].count("tunnel.rotated") == rotations + 1, "once, not again and again"
        assert sum(report.uses for used, report in register.reports if used == key_id) == 1


async def test_a_key_below_the_required_protection_is_refused_at_either_end(tmp_path: Path) -> None:
    for role in ("initiator", "responder"):
        air, folder = Air(), tmp_path / f"weak-{role}"
        pair = pair_of(folder, air)
        source = Weak(folder, SAES[role])  # type: ignore[index]
        source.weak = True
        pair.sources[role] = source  # type: ignore[index]
        async with pair.running():
            await pair.until(lambda p, role=role: p.heard["initiator"].count("tunnel.missed") >= 2)
            assert not air.passes()
            assert all(heard.count("tunnel.rotated") == 0 for heard in pair.heard.values())
            assert "requires hybrid" in pair.runners[role].status()["last_failure"]  # type: ignore[index]


async def test_the_fallback_is_loud_and_ends(tmp_path: Path) -> None:
    air = Air()
    terms = replace(TERMS, pace=replace(PACE, hold_s=1.0), fallback=Fallback(protection=Protection.PQC, for_s=2.0))
    pair = pair_of(tmp_path, air, terms)
    for role, sae in SAES.items():
        pair.sources[role] = Weak(tmp_path, sae)
    async with pair.running():
        await pair.rotated(1)
        for source in pair.sources.values():
            assert isinstance(source, Weak)
            source.weak = True
        await pair.until(lambda p: all(heard.count("tunnel.fallback") for heard in p.heard.values()))
        await pair.until(lambda p: p.runners["responder"].status()["protection"] == "pqc")
        assert air.passes()
        assert pair.runners["responder"].status()["state"] == "fallback"
        assert pair.runners["responder"].status()["fallback_s"] > 0
        assert pair.runners["responder"].counts.rotations_fresh_total < pair.runners["responder"].counts.rotations_total
        await pair.until(lambda p: len(air.blocked) == 2)
        for source in pair.sources.values():
            source.weak = False  # type: ignore[attr-defined]
        await pair.until(lambda p: air.passes())
        await pair.until(lambda p: p.runners["initiator"].status()["state"] == "up")
        await pair.until(lambda p: p.heard["initiator"].count("tunnel.restored") >= 1)


async def test_a_fallback_under_the_last_key_is_as_loud(tmp_path: Path) -> None:
    air = Air()
    terms = replace(TERMS, pace=replace(PACE, hold_s=1.0), fallback=Fallback(protection=Protection.PQC, for_s=1.5))
    pair = pair_of(tmp_path, air, terms)
    source = Weak(tmp_path, SAES["initiator"])
    pair.sources["initiator"] = source
    async with pair.running():
        await pair.rotated(1)
        source.empty = True
        await pair.until(lambda p: all(heard.count("tunnel.fallback") for heard in p.heard.values()))
        assert air.passes()
        status = pair.runners["initiator"].status()
        assert (status["state"], status["protection"]) == ("fallback", "hybrid")
        await pair.until(lambda p: len(air.blocked) == 2)
        source.empty = False
        await pair.until(lambda p: all(heard.count("tunnel.restored") for heard in p.heard.values()))
        assert air.passes()


async def test_a_daemon_that_was_restarted_gets_a_fresh_key(tmp_path: Path) -> None:
    air = Air()
    async with pair_of(tmp_path, air, replace(TERMS, pace=replace(PACE, rotate_s=60.0))).running() as pair:
        await pair.rotated(1)
        for role in ("initiator", "responder"):
            air.restart(role)
            await pair.until(lambda p: air.passes())


async def test_bytes_under_the_key_bring_the_next_one(tmp_path: Path) -> None:
    air = Air()
    terms = replace(TERMS, pace=replace(PACE, rotate_s=60.0), rotate_bytes=5000)
    async with pair_of(tmp_path, air, terms).running() as pair:
        await pair.rotated(1)
        air.bytes_passed = 5000
        await pair.until(lambda p: p.heard["initiator"].count("tunnel.rotated") >= 2)


async def test_a_fault_of_a_connector_costs_a_rotation_not_the_tunnel(tmp_path: Path) -> None:
    air = Air()
    async with pair_of(tmp_path, air).running() as pair:
        await pair.rotated(1)
        connector = pair.runners["responder"].connector
        right = connector.prepare

        async def wrong(generation: object) -> None:
            raise ZeroDivisionError("a bug")

        connector.prepare = wrong  # type: ignore[method-assign,assignment]
        await pair.until(lambda p: p.heard["responder"].count("tunnel.missed") >= 1)
        assert air.passes()
        connector.prepare = right  # type: ignore[method-assign]
        await pair.rotated(2)


async def test_a_step_that_takes_long_does_not_put_off_the_end_of_traffic(tmp_path: Path) -> None:
    air = Air()
    terms = replace(TERMS, pace=replace(PACE, hold_s=1.5))
    async with pair_of(tmp_path, air, terms).running() as pair:
        await pair.rotated(1)
        connector = pair.runners["initiator"].connector
        right = connector.activate
        connector.activate = lambda number: asyncio.sleep(600.0)  # type: ignore[method-assign]
        await pair.until(lambda p: "initiator" in air.blocked)
        assert pair.heard["initiator"].count("tunnel.missed") >= 1
        connector.activate = right  # type: ignore[method-assign]
        await pair.until(lambda p: air.passes())


async def test_a_number_that_cannot_be_kept_is_told_to_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    air = Air()
    async with pair_of(tmp_path, air).running() as pair:
        await pair.rotated(1)

        def full(*_: object, **__: object) -> None:
            raise Unavailable("disk full")

        with monkeypatch.context() as patch:
            patch.setattr("keystrand.transport.tunnel.runner.replace_file", full)
            highest = [0, pair.runners["responder"].end.highest]
            while highest[-1] != highest[-2]:  # what was under way when the disk filled up
                assert len(highest) < 10, "it goes on"
                await asyncio.sleep(1.0)
                highest.append(pair.runners["responder"].end.highest)
            assert air.passes()
        await pair.rotated(pair.heard["initiator"].count("tunnel.rotated") + 2)


def test_a_tunnel_end_runs_once_only(tmp_path: Path) -> None:
    with alone(tmp_path / "lock"), pytest.raises(Unavailable, match="runs already"), alone(tmp_path / "lock"):
        pass
    with alone(tmp_path / "lock"):
        pass


def test_a_damaged_record_is_refused(tmp_path: Path) -> None:
    air, place = Air(), place_of(tmp_path, "initiator")
    place.state_dir.mkdir()
    (place.state_dir / "record.json").write_text("{")
    with pytest.raises(Exception, match=r"record.json: cannot be read"):
        Runner(place=place, kind="m", terms=TERMS, connector=MemoryConnector(air, place), keys=None, sink=None)  # type: ignore[arg-type]
    assert read_record(tmp_path / "none") == Record()


def test_the_guard_takes_less_only_after_the_hold_and_only_for_its_time() -> None:
    fallback = Fallback(protection=Protection.PQC, for_s=50.0)
    guard = Guard(require=Protection.HYBRID, hold_s=100.0, fallback=fallback, good_s=0.0)
    guard.check(Protection.HYBRID, 0.0)
    for now_s, protection in ((99.0, Protection.PQC), (120.0, Protection.CLASSICAL), (150.0, Protection.PQC)):
        with pytest.raises(NotPermitted):
            guard.check(protection, now_s)
    guard.check(Protection.PQC, 100.0)
    guard.took(Protection.PQC, 100.0)
    assert guard.below
    assert guard.hold_from(100.0) == 50.0, "less does not put off the end"
    guard.took(Protection.HYBRID, 120.0)
    assert guard.hold_from(120.0) == 150.0
    strict = Guard(require=Protection.HYBRID, hold_s=100.0, fallback=None, good_s=0.0)
    with pytest.raises(NotPermitted):
        strict.check(Protection.QKD, 1e9)
    assert strict.hold_from(7.0) == 100.0


async def test_a_daemon_whose_packet_numbers_run_out_gets_a_fresh_key_before_its_time(tmp_path: Path) -> None:
    class Counting(MemoryConnector):
        worn = 1  # the generation whose numbers run out

        async def health(self) -> Health:
            found = await super().health()
            return replace(found, due=found.number == self.worn)

    air = Air()
    slow = replace(TERMS, pace=replace(PACE, rotate_s=60.0, hold_s=90.0))
    pair = TunnelPair(tmp_path, slow, lambda place: Counting(air, place))
    async with pair.running():
        await pair.rotated(2)  # long before the clock would have asked for it
        assert air.passes()
        assert pair.heard["initiator"].count("tunnel.missed") == 0


async def test_without_its_peer_an_end_stops_in_time_and_goes_on_when_it_is_back(tmp_path: Path) -> None:
    class Slow(MemoryConnector):
        async def block(self) -> None:
            await asyncio.sleep(0.2)  # as a daemon takes
            await super().block()

    for gone in ("initiator", "responder"):
        air, folder = Air(), tmp_path / gone
        terms = replace(TERMS, pace=replace(PACE, hold_s=3.0))
        pair = TunnelPair(folder, terms, lambda place, air=air: Slow(air, place))
        async with pair.running():
            await pair.rotated(1)
            await pair.stop(gone)  # type: ignore[arg-type]
            assert air.passes(), "traffic under the key in use goes on"
            left = "responder" if gone == "initiator" else "initiator"
            await pair.until(lambda p, left=left: p.runners[left].end.blocked)
            assert not air.passes(), "who says that it is blocked has carried that out"
            await pair.start(gone)  # type: ignore[arg-type]
            await pair.until(lambda p, air=air: air.passes())
