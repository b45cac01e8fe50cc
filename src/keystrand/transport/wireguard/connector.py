"""WireGuard as a connector: dual lanes (make before break), or one interface that waits for its natural handshake.

The responder takes a key first; it never begins a handshake under it. The initiator's first handshake is what proves that
both have the same. Who sends where is decided by routes, so an interface that is going still delivers what is on its way.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Final

from keystrand.core.errors import Unavailable
from keystrand.core.secret import Secret
from keystrand.transport.tunnel.contract import Connector, Generation, Health, Place
from keystrand.transport.tunnel.derive import derive
from keystrand.transport.tunnel.kinds import Kind
from keystrand.transport.tunnel.wear import CipherLimit
from keystrand.transport.wireguard.door import Door, Peer, PeerState, key_of
from keystrand.transport.wireguard.lane import Lane, Plane, plane_of, routes_of
from keystrand.transport.wireguard.settings import LANES, WireGuardSettings, faults_of

NAME: Final = "wireguard"
SUITE: Final = "Noise_IKpsk2 X25519 ChaCha20-Poly1305 BLAKE2s"  # the only one there is
HANDSHAKE_S: Final = 7.0  # WireGuard tries again after 5 s
REKEY_S: Final = 120.0  # WireGuard's Rekey-After-Time
NATURAL_S: Final = 200.0  # it begins anew after 120 s and gives up after 180 s
SESSION_S: Final = 180.0
LINGER_S: Final = 1.0  # for packets on their way under the key before
LOOK_S: Final = 0.002
SLOW_LOOK_S: Final = 0.1


class WireGuard(Connector):
    """What both ways have in common."""

    def __init__(self, place: Place, settings: WireGuardSettings) -> None:
        self._place, self._settings = place, settings
        self._peer_key = key_of(settings.peer_public_key)
        self._plane: Plane | None = None
        self._routes = routes_of(settings)

    async def _lane(self, name: str) -> Lane:
        if self._plane is None:
            self._plane = await plane_of(self._settings)
        return Lane(name, self._plane, self._settings)

    async def _prepare_lane(self, lane: Lane, port: int) -> Door:
        await lane.make()
        own = Secret(key_of(self._settings.private_key.read_text()))
        try:
            await lane.door.set_own(own, port)
        finally:
            own.wipe()
        return lane.door

    def _peer(self, psk: Secret, *, offset: int = 0, keepalive_s: int = 0) -> Peer:
        return Peer(
            public_key=self._peer_key,
            psk=psk,
            endpoint=_shifted(self._settings.endpoint, offset),
            allowed_ips=self._settings.allowed_ips,
            keepalive_s=keepalive_s,
        )

    async def _wait(self, door: Door, after_s: float, timeout_s: float) -> None:
        """Until a handshake was made after this Unix time. Raises Unavailable."""
        pause_s = LOOK_S
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while True:
                    state = await door.state()
                    if state is not None and state.handshake_s > after_s:
                        return
                    await asyncio.sleep(pause_s)
                    pause_s = min(1.2 * pause_s, SLOW_LOOK_S)
        hint = "is UDP let through, and do both ends name each other's keys and endpoints?"
        raise Unavailable(f"no handshake under the new key within {timeout_s:g} s", hint=hint)

    async def _knock(self, door: Door) -> None:
        """Begin a handshake at once: switching this on sends an empty packet."""
        await door.set_peer(Peer(public_key=self._peer_key, keepalive_s=self._settings.keepalive_s), anew=False)

    async def close(self) -> None:
        """The tunnel stays."""


class DualLanes(WireGuard):
    """A fresh interface for each key; `LANES` names and ports take turns."""

    def __init__(self, place: Place, settings: WireGuardSettings) -> None:
        super().__init__(place, settings)
        self._numbers: dict[int, int] = {}  # place of the lane: generation that it was prepared for
        self._going: dict[int, asyncio.Task[None]] = {}
        self._ahead: dict[int, asyncio.Task[None]] = {}  # lanes that are made before their key comes

    async def _at(self, number: int) -> Lane:
        return await self._lane(f"{self._settings.interface}{number % LANES}")

    async def prepare(self, generation: Generation) -> None:
        turn = generation.number % LANES
        lane = await self._at(turn)
        if turn in await self._busy() and self._numbers.get(turn) != generation.number:
            raise Unavailable(f"{lane.name} still carries traffic: the next number will do")
        if not await self._is_ahead(turn):
            await self._end_going(turn)
            await self._prepare_lane(lane, self._settings.listen_port + turn)
        door, psk = lane.door, derive(generation, self._place, kind=NAME)
        try:
            await door.set_peer(self._peer(psk, offset=turn), anew=True)
        finally:
            psk.wipe()
        self._numbers[turn] = generation.number

    async def _make_ahead(self, turn: int) -> None:
        """What takes long, to start a program and to address its interface, is over when the key comes."""
        if (going := self._going.get(turn)) is not None:
            await asyncio.wait([going])
        await self._prepare_lane(await self._at(turn), self._settings.listen_port + turn)

    def _forget_ahead(self, *, but: int | None = None) -> None:
        for turn in set(self._ahead) - {but}:
            self._ahead.pop(turn).cancel()

    async def _is_ahead(self, turn: int) -> bool:
        """Is there a lane that was made ahead, and still as it was made: without peers?"""
        task = self._ahead.pop(turn, None)
        if task is None:
            return False
        await asyncio.wait([task])
        if task.cancelled() or task.exception() is not None:
            return False
        try:
            return await (await self._at(turn)).door.state() is None
        except Unavailable:
            return False

    async def _busy(self) -> set[int]:
        """Lanes that this end sends over, or the other one may: it made the newest handshake there."""
        busy, newest_s = set[int](), 0.0
        sending = await self._routes.led()
        for turn in range(LANES):
            lane = await self._at(turn)
            if lane.name == sending:
                busy.add(turn)
        shaken = {turn: await self._handshake_s(turn) for turn in self._numbers if turn not in self._going}
        newest_s = max(shaken.values(), default=0.0)
        return busy | {turn for turn, at_s in shaken.items() if at_s and at_s == newest_s}

    async def _handshake_s(self, turn: int) -> float:
        with contextlib.suppress(Unavailable):
            if (state := await (await self._at(turn)).door.state()) is not None:
                return state.handshake_s
        return 0.0

    async def activate(self, number: int) -> None:
        lane = await self._at(number)
        await self._knock(lane.door)
        await self._follow(lane, number)

    async def confirm(self, number: int) -> None:
        await self._follow(await self._at(number), number)

    async def _follow(self, lane: Lane, number: int) -> None:
        await self._wait(lane.door, 0.0, HANDSHAKE_S)
        await self._routes.lead(lane.name)
        self._numbers[number % LANES] = number

    async def retire(self, number: int) -> None:
        following = (number + 1) % LANES
        self._forget_ahead(but=following)
        for turn in set(range(LANES)) - {number % LANES} - set(self._going) - set(self._ahead):
            self._numbers.pop(turn, None)
            lane = await self._at(turn)
            if await lane.exists():
                self._going[turn] = asyncio.get_running_loop().create_task(self._go(turn, lane))
        if following not in self._ahead:
            self._ahead[following] = asyncio.get_running_loop().create_task(self._make_ahead(following))

    async def _go(self, turn: int, lane: Lane) -> None:
        await asyncio.sleep(LINGER_S)
        await lane.unmake()
        self._going.pop(turn, None)

    async def _end_going(self, turn: int) -> None:
        """Its time is over now."""
        if (task := self._going.pop(turn, None)) is not None:
            task.cancel()
        await (await self._at(turn)).unmake()

    async def drop(self, number: int) -> None:
        turn = number % LANES
        if self._numbers.get(turn) == number and (await self._at(turn)).name != await self._routes.led():
            del self._numbers[turn]
            await self._end_going(turn)

    async def block(self) -> None:
        await self._routes.lead(None)
        self._forget_ahead()
        for turn in range(LANES):
            await self._end_going(turn)
        self._numbers.clear()

    async def health(self) -> Health:
        name = await self._routes.led()
        turn = int(name[-1]) if name.removeprefix(self._settings.interface).isdecimal() else None
        if turn is None:
            return Health(up=False, number=0)
        try:
            state = await (await self._at(turn)).door.state()
        except Unavailable as problem:
            return Health(up=False, number=0, facts={"problem": str(problem)})
        return _health(state, self._numbers.get(turn), name)

    async def close(self) -> None:
        leaving = [*self._going, *self._ahead]
        self._forget_ahead()
        for turn in leaving:
            await self._end_going(turn)


class NaturalHandshake(WireGuard):
    """One interface; a key that is set takes effect with the next handshake, and the session lives on until then."""

    def __init__(self, place: Place, settings: WireGuardSettings) -> None:
        super().__init__(place, settings)
        self._keys: dict[int, Secret] = {}
        self._set_s: dict[int, float] = {}
        self._number: int | None = None
        self._bytes_before = 0

    async def _door(self) -> Door:
        return (await self._lane(self._settings.interface)).door

    async def prepare(self, generation: Generation) -> None:
        lane = await self._lane(self._settings.interface)
        if not await lane.exists():
            await self._prepare_lane(lane, self._settings.listen_port)
        self._keys[generation.number] = derive(generation, self._place, kind=NAME)
        if self._place.role == "responder":
            await self._set(generation.number)

    async def _set(self, number: int, keepalive_s: int = 0) -> None:
        door = await self._door()
        fresh = await door.state() is None
        self._set_s[number] = time.time()
        await door.set_peer(self._peer(self._keys[number], keepalive_s=0 if fresh else keepalive_s), anew=fresh)
        if keepalive_s:
            await self._knock(door)

    async def activate(self, number: int) -> None:
        await self._set(number, self._settings.keepalive_s)
        await self._follow(number, NATURAL_S)

    async def confirm(self, number: int) -> None:
        await self._follow(number, HANDSHAKE_S)

    async def _follow(self, number: int, timeout_s: float) -> None:
        door = await self._door()
        await self._wait(door, self._set_s.get(number, 0.0), timeout_s)
        await self._routes.lead(self._settings.interface)
        state = await door.state()
        self._number, self._bytes_before = number, state.rx_bytes + state.tx_bytes if state else 0

    async def retire(self, number: int) -> None:
        for old in [n for n in self._keys if n < number]:
            self._keys.pop(old).wipe()
            self._set_s.pop(old, None)

    async def drop(self, number: int) -> None:
        """The key before comes back, so that the next handshake is made under it again."""
        if (key := self._keys.pop(number, None)) is not None:
            key.wipe()
        if self._set_s.pop(number, None) is not None and self._number in self._keys:
            keepalive_s = self._settings.keepalive_s if self._place.role == "initiator" else 0
            door = await self._door()
            await door.set_peer(self._peer(self._keys[self._number], keepalive_s=keepalive_s), anew=False)

    async def block(self) -> None:
        await self._routes.lead(None)
        lane = await self._lane(self._settings.interface)
        if await lane.exists():
            await lane.door.remove_peers()
        self._number = None

    async def health(self) -> Health:
        lane = await self._lane(self._settings.interface)
        if await self._routes.led() != lane.name:
            return Health(up=False, number=0)
        try:
            state = await lane.door.state()
        except Unavailable as problem:
            return Health(up=False, number=0, facts={"problem": str(problem)})
        return _health(state, self._number, lane.name, self._bytes_before)


def _health(state: PeerState | None, number: int | None, interface: str, bytes_before: int = 0) -> Health:
    if state is None or not state.handshake_s:
        return Health(up=False, number=0, facts={"interface": interface})
    age_s = max(0.0, time.time() - state.handshake_s)
    facts: dict[str, str | int | float] = {
        "interface": interface,
        "suite": SUITE,
        "handshake_age_s": round(age_s, 1),
        "endpoint": state.endpoint,
        "rx_bytes": state.rx_bytes,
        "tx_bytes": state.tx_bytes,
    }
    used_bytes = max(0, state.rx_bytes + state.tx_bytes - bytes_before)
    return Health(up=age_s < SESSION_S, number=number, bytes_used=used_bytes, facts=facts)


def _shifted(endpoint: str | None, offset: int) -> str | None:
    if endpoint is None:
        return None
    host, _, port = endpoint.rpartition(":")
    return f"{host}:{int(port) + offset}"


def _open(place: Place, settings: WireGuardSettings) -> Connector:
    return (DualLanes if settings.lanes == "dual" else NaturalHandshake)(place, settings)


KIND = Kind(
    name=NAME,
    settings=WireGuardSettings,
    open=_open,
    faults=faults_of,
    waits_s=lambda settings: REKEY_S if settings.lanes == "natural" else 0.0,
    limit=lambda settings: CipherLimit(
        packets=2.0**60, source="WireGuard's own limit for a session (Rekey-After-Messages)", mode="chacha20-poly1305"
    ),
    stage="keystrand.lab.wireguard:stage",
)
