"""Real strongSwan between two namespaces, under keys that change: what is lost, what is refused, what stops."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec
import pytest

from keystrand.core.errors import Unavailable
from keystrand.core.key import Key
from keystrand.core.protection import Protection
from keystrand.core.secret import Secret
from keystrand.lab import ipsec as lab
from keystrand.lab.load import MARK
from keystrand.lab.stage import Stage
from keystrand.lab.wires import SIDES, Side, Wires, why_not
from keystrand.testing.daemon_conformance import DAEMON_CHECKS, DaemonCheck, DaemonRig
from keystrand.testing.keyfolder import KeyFolder
from keystrand.testing.patience import PATIENCE_S
from keystrand.testing.tunnels import SAES, SIDE, TunnelPair, bring_up, generation, place_of
from keystrand.transport.ipsec import connector
from keystrand.transport.ipsec.barrier import Barrier
from keystrand.transport.ipsec.connector import KIND, Ipsec
from keystrand.transport.ipsec.settings import IpsecSettings
from keystrand.transport.ipsec.vici import Vici, texts
from keystrand.transport.tunnel.agreement import Pace
from keystrand.transport.tunnel.contract import Connector, Place, Role
from keystrand.transport.tunnel.runner import Terms

REASON = why_not() or lab.why_not()
pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON)

PACE = Pace(rotate_s=1.0, hold_s=8.0, repeat_s=0.3, give_up_s=5.0, retry_s=0.3)
TERMS = Terms(require=Protection.HYBRID, pace=PACE)


def opening(staged: Stage, place: Place) -> Connector:
    return KIND.open(place, staged.settings(KIND, SIDE[place.role]))


def pair_of(folder: Path, wires: Wires, terms: Terms = TERMS) -> TunnelPair:
    staged = lab.stage(wires, folder)
    return TunnelPair(folder, terms, lambda place: opening(staged, place))


def ends_of(folder: Path, wires: Wires) -> dict[Role, Ipsec]:
    staged = lab.stage(wires, folder)
    return {role: Ipsec(place_of(folder, role), staged.settings(KIND, side)) for role, side in SIDE.items()}


async def change_to(ends: dict[Role, Ipsec], number: int) -> None:
    await bring_up(ends, number)
    for end in ends.values():
        await end.retire(number)


async def reaches(wires: Wires, wait_s: float = 10.0) -> bool:
    return await asyncio.to_thread(wires.reaches, "a", wait_s=wait_s)


def with_a_way_around(wires: Wires) -> None:
    for side, other in lab.OTHERS.items():
        wires.run(side, "ip", "route", "add", "default", "via", wires.outer[other])
    assert wires.reaches("a"), "in clear, before there is a tunnel"


@pytest.mark.proves("R017", "R028", "R081")
async def test_twenty_rotations_under_load_lose_no_packet_from_the_initiator_and_few_towards_it(
    wires: Wires, tmp_path: Path
) -> None:
    """The responder's daemon sends over a new CHILD_SA some 0.3 ms before the initiator's can read it: at 500 packets a second
    that is a packet in six rotations or so. The other direction has no such moment.
    """
    patient = replace(PACE, rotate_s=0.3, hold_s=PATIENCE_S, give_up_s=PATIENCE_S)
    async with pair_of(tmp_path, wires, replace(TERMS, pace=patient)).running() as pair:
        await pair.rotated(1)
        loads = [wires.load(packets_per_s=500, seconds=PATIENCE_S, to=side) for side in SIDES]
        clear = await asyncio.to_thread(wires.capture, "b", 2.0, MARK)
        await pair.rotated(1 + 20)
        reports = [await asyncio.to_thread(load.stop) for load in loads]
        rotations = pair.heard["responder"].count("tunnel.rotated") - 1
        assert all(report.sent >= 1000 for report in reports)
        towards_initiator, towards_responder = (report.lost for report in reports)
        assert towards_responder == 0, reports
        assert towards_initiator <= rotations, reports
        assert clear == 0, "packets in clear on the wire"
        assert all(heard.count("tunnel.missed") == 0 for heard in pair.heard.values())
        assert all(str(runner.health.facts["suite"]).endswith("/PPK") for runner in pair.runners.values())


class Liar(KeyFolder):
    """Hands the responder other bits than the initiator has, while told to."""

    lying = False

    def pick_up(self, initiator: str, key_id: str) -> Key:
        key = super().pick_up(initiator, key_id)
        return replace(key, material=Secret(os.urandom(32))) if self.lying else key


async def test_a_wrong_key_at_one_end_never_comes_into_use_and_traffic_stays_on_the_key_before(
    wires: Wires, tmp_path: Path
) -> None:
    terms = replace(TERMS, pace=replace(PACE, rotate_s=0.5, hold_s=0.0))
    pair = pair_of(tmp_path, wires, terms)
    liar = Liar(tmp_path, SAES["responder"])
    pair.sources["responder"] = liar
    async with pair.running():
        await pair.rotated(2)
        liar.lying = True
        await pair.until(lambda p: p.heard["initiator"].count("tunnel.missed") >= 1)
        before = pair.runners["initiator"].end.current
        load = wires.load(seconds=2.0)
        await pair.until(lambda p: p.heard["initiator"].count("tunnel.missed") >= 2)
        assert (await asyncio.to_thread(load.wait, PATIENCE_S)).lost == 0
        assert pair.runners["initiator"].end.current == before
        liar.lying = False
        seen = pair.heard["responder"].count("tunnel.rotated")
        await pair.rotated(seen + 1)
        assert await reaches(wires)


async def test_the_daemon_holds_no_key_once_it_is_in_use_and_keeps_what_others_loaded(
    wires: Wires, tmp_path: Path
) -> None:
    ends = ends_of(tmp_path, wires)
    daemon = Vici(lab.socket_of(wires, "a"))
    theirs = {"id": "keystrand/other/7", "type": "PPK", "data": b"x" * 32, "owners": ["them@example"]}
    await daemon.call("load-shared", theirs)
    await daemon.call("load-conn", {"keystrand-t-of-others-3": {"version": "2", "remote_addrs": ["192.0.2.9"]}})
    await change_to(ends, 1)
    await change_to(ends, 2)
    assert texts(await daemon.call("get-shared"), "keys") == ["keystrand/other/7"]
    conns = texts(await daemon.call("get-conns"), "conns")
    assert conns == ["keystrand-t-of-others-3", "keystrand-t-2"]
    await ends["initiator"].prepare(generation(3))
    assert "keystrand/t/3" in texts(await daemon.call("get-shared"), "keys")
    await ends["initiator"].drop(3)
    assert texts(await daemon.call("get-shared"), "keys") == ["keystrand/other/7"]
    assert await reaches(wires)
    for end in ends.values():
        await end.close()
    health = await ends["initiator"].health()
    assert (health.up, health.number, health.facts["ike_sas"]) == (True, 2, 1)


async def test_an_end_without_the_key_is_refused_and_every_step_may_be_repeated(
    wires: Wires, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connector, "SEEN_S", 0.3)
    ends = ends_of(tmp_path, wires)
    await ends["initiator"].prepare(generation(1))
    with pytest.raises(Unavailable, match="no IKE_SA under the new key"):
        await ends["initiator"].activate(1)
    with pytest.raises(Unavailable, match="within"):
        await ends["responder"].confirm(1)
    await change_to(ends, 2)
    for end in ends.values():
        await end.drop(1)
        await end.retire(2)
    await ends["initiator"].activate(2)
    await ends["responder"].confirm(2)
    health = await ends["initiator"].health()
    assert (health.number, health.facts["ike_sas"]) == (2, 1)
    for _ in range(2):
        await ends["initiator"].block()
        assert not await reaches(wires, 0.3)
    assert (await ends["initiator"].health()).up is False


async def test_ends_may_know_each_other_by_a_shared_secret_which_alone_opens_nothing(
    wires: Wires, tmp_path: Path
) -> None:
    staged = lab.stage(wires, tmp_path)
    psk = tmp_path / "psk"
    psk.touch(0o600)
    psk.write_bytes(os.urandom(32).hex().encode())
    ends: dict[Role, Ipsec] = {}
    for role, side in SIDE.items():
        settings: IpsecSettings = staged.settings(KIND, side)
        named = msgspec.structs.replace(settings, psk_file=psk, certificate=None, private_key=None, trust=None)
        ends[role] = Ipsec(place_of(tmp_path, role), named)
    await change_to(ends, 1)
    assert await reaches(wires)
    for role, material in (("responder", b"a"), ("initiator", b"b")):
        await ends[role].prepare(generation(2, material * 32))  # type: ignore[index]
    with pytest.raises(Unavailable, match="no IKE_SA under the new key: received AUTHENTICATION_FAILED"):
        await ends["initiator"].activate(2)


async def test_where_the_kernel_does_esp_a_policy_of_its_own_stops_what_no_sa_takes(wires: Wires) -> None:
    with_a_way_around(wires)
    barrier = Barrier((f"{wires.inner['b']}/32",), wires.names["a"])
    for _ in range(2):
        await barrier.stand("kernel")
        assert not await reaches(wires, 0.3)
    wires.run("a", "ip", "xfrm", "policy", "flush")
    assert await reaches(wires), "it was the policy"
    other = Barrier(("10.2.0.0/16",), wires.names["a"])
    assert not await barrier.blocked()
    await barrier.block()
    assert not await reaches(wires, 0.3)
    assert (await barrier.blocked(), await other.blocked()) == (True, False)
    await barrier.lift()
    await barrier.lift()
    assert not await barrier.blocked()
    assert await reaches(wires)


@pytest.mark.proves("R021")
@pytest.mark.parametrize("check", DAEMON_CHECKS, ids=lambda check: check.__name__)
async def test_whatever_happens(check: DaemonCheck, wires: Wires, tmp_path: Path) -> None:
    staged = lab.stage(wires, tmp_path)

    def kill(side: Side) -> Callable[[], object]:
        (pid,) = wires.host("ip", "netns", "pids", wires.names[side]).split()
        os.kill(int(pid), signal.SIGKILL)
        return lambda: lab.start(wires, side, tmp_path)

    await check(DaemonRig(wires, tmp_path, partial(opening, staged), kill))
