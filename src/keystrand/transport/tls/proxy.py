"""The proxy of one end: connections of applications through TLS 1.3, each under the generation in use when it began.

The initiator's end takes plain connections and leads each over a TLS connection of its own; the responder's end terminates
TLS and connects to the service. Keys come and go by the steps of the agreement; a connection keeps the key it began with.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

from OpenSSL import SSL

from keystrand.core.errors import ConfigError, KeystrandError, NotPermitted, Unavailable
from keystrand.core.events import Scalar
from keystrand.core.limits import Limits
from keystrand.core.secret import Secret
from keystrand.net.gate import Gate
from keystrand.net.tls import TlsPeer
from keystrand.net.tls_transport import Refusal, accepting, connect_tls
from keystrand.transport.tls.psk import PROBE, RELAY, PskClient, PskServer, peer_of
from keystrand.transport.tls.relay import Leg, join
from keystrand.transport.tunnel.contract import Health, Role

USE_S: Final = 5.0  # for a handshake under a fresh key, or until the other end has made one
DIAL_S: Final = 10.0
LINGER_S: Final = 2.0  # for handshakes on their way under the key before
PROBE_S: Final = 5.0  # a link that nobody used for so long is tried
HEALTH_S: Final = 3.0
PROBES_MAX: Final = 16  # a full proxy must still be able to change its key


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """What a proxy is told once. drain_s: for connections under a key that was replaced."""

    role: Role
    listen: tuple[str, int]
    connect: tuple[str, int]
    peer_sae: str
    drain_s: float
    connections_max: int


@dataclass(eq=False, slots=True)
class Key:
    """One generation."""

    number: int
    identity: bytes
    psk: Secret = field(repr=False)
    client: PskClient | None = None  # of the initiator
    used: asyncio.Event = field(default_factory=asyncio.Event)
    bytes_done: int = 0


@dataclass(eq=False, slots=True)
class Relay:
    """One connection of an application. Not joined yet: its second leg has no transport."""

    key: Key
    legs: tuple[Leg, Leg]

    @property
    def bytes_passed(self) -> int:
        return sum(leg.bytes_read for leg in self.legs)

    def cut(self) -> None:
        for leg in self.legs:
            leg.cut()


class Proxy:
    """Steps as a Connector has them; all in one event loop."""

    def __init__(self, way: Way) -> None:
        self.way = way
        self._limits = Limits()
        self._keys: dict[int, Key] = {}
        self._current = 0
        self._open = asyncio.Event()  # traffic may pass
        self._relays: set[Relay] = set()
        self._waiting: set[object] = set()  # accepted, not relays yet
        places = way.connections_max + PROBES_MAX
        self._gate = Gate(connections_max=places, per_holder_max=places)
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: asyncio.Server | None = None
        self._server = PskServer(self._find) if way.role == "responder" else None
        self._well_s, self._failure = 0.0, ""
        self.refused_total = 0
        self.relays_total = 0

    # steps -----------------------------------------------------------------------------------------------------------

    async def prepare(self, number: int, identity: bytes, psk: Secret) -> None:
        if number != self._current:
            client = PskClient(identity, psk) if self._server is None else None
            self._keys[number] = Key(number, identity, psk, client)
        if self._server is not None:
            await self._listen()  # applications' connections wait until a key is in use

    async def activate(self, number: int) -> None:
        """A handshake proves that the other end has the key; then new connections begin under it."""
        key = self._key(number)
        await self._probe(key)
        self._begin(key)
        await self._listen()

    async def confirm(self, number: int) -> None:
        key = self._key(number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(USE_S):
                await key.used.wait()
        if not key.used.is_set():
            raise Unavailable(f"no handshake under generation {number} within {USE_S:g} s")
        self._begin(key)

    def _begin(self, key: Key) -> None:
        if self._keys.get(key.number) is not key:
            raise Unavailable(f"generation {key.number} was given up in between")
        self._current = key.number
        self._open.set()

    async def retire(self, number: int) -> None:
        loop = asyncio.get_running_loop()
        for key in [key for key in self._keys.values() if key.number < number]:
            loop.call_later(LINGER_S, self._forget, key)
            loop.call_later(self.way.drain_s, self._cut, key)

    async def drop(self, number: int) -> None:
        if number in self._keys and number != self._current:
            key = self._keys[number]
            self._forget(key)
            self._cut(key)

    async def block(self) -> None:
        self._open.clear()
        self._current = 0
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        for task in self._tasks:
            task.cancel()
        for key in list(self._keys.values()):
            self._forget(key)
        for relay in list(self._relays):
            relay.cut()

    async def health(self) -> Health:
        key = self._keys.get(self._current)
        if key is None:
            return Health(up=False, number=0, facts=self._facts())
        if self.way.role == "initiator" and time.monotonic() - self._well_s > PROBE_S:
            with contextlib.suppress(KeystrandError, TimeoutError):
                async with asyncio.timeout(HEALTH_S):
                    await self._probe(key)
        well = self.way.role == "responder" or time.monotonic() - self._well_s <= PROBE_S + HEALTH_S
        up = well and self._listener is not None and self._listener.is_serving()
        return Health(up=up, number=self._current, bytes_used=self._bytes_of(key), facts=self._facts())

    def _facts(self) -> dict[str, str | int | float]:
        draining = [relay for relay in self._relays if relay.key.number != self._current]
        facts: dict[str, str | int | float] = {
            "connections": len(self._relays),
            "draining": len(draining),
            "oldest_generation": min((relay.key.number for relay in self._relays), default=self._current),
            "connections_total": self.relays_total,
            "refused_total": self.refused_total,
            "suite": "TLS_AES_256_GCM_SHA384, X25519MLKEM768, external PSK",
        }
        return facts | ({"problem": self._failure} if self._failure else {})

    # keys ------------------------------------------------------------------------------------------------------------

    def _key(self, number: int) -> Key:
        if number not in self._keys:
            raise Unavailable(f"generation {number} is not prepared here")
        return self._keys[number]

    def _find(self, identity: bytes) -> Secret | None:
        return next((key.psk for key in self._keys.values() if key.identity == identity), None)

    def _forget(self, key: Key) -> None:
        key.psk.wipe()
        if self._keys.get(key.number) is key:
            del self._keys[key.number]

    def _cut(self, key: Key) -> None:
        for relay in [relay for relay in self._relays if relay.key is key]:
            relay.cut()

    def _bytes_of(self, key: Key) -> int:
        return key.bytes_done + sum(relay.bytes_passed for relay in self._relays if relay.key is key)

    # connections -----------------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        if self._listener is not None:
            return
        host, port = self.way.listen
        factory = self._accept_tls if self._server is not None else self._accept_plain
        try:
            self._listener = await asyncio.get_running_loop().create_server(factory, host, port, backlog=1024)
        except OSError as error:
            raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}", hint="choose another port") from None

    @property
    def port(self) -> int:
        """Where it listens; 0 before it does."""
        return self._listener.sockets[0].getsockname()[1] if self._listener is not None else 0

    def _is_full(self) -> bool:
        full = len(self._relays) + len(self._waiting) >= self.way.connections_max
        self.refused_total += full
        return full

    def _accept_plain(self) -> asyncio.Protocol:
        return Leg(lambda leg: leg.cut() if self._is_full() else self._run(self._lead(leg), leg))

    def _accept_tls(self) -> asyncio.BaseProtocol:
        assert self._server is not None
        acceptance = Acceptance(self._server, self.way.peer_sae, self._refused)
        leg = Leg(lambda leg: self._run(self._take(leg, acceptance), leg))
        made = accepting(acceptance, self._limits, leg, self._gate)
        self.refused_total += isinstance(made, Refusal)
        return made

    def _refused(self, reason: str) -> None:
        self.refused_total += 1
        self._failure = reason[:200]

    def _run(self, work: Coroutine[Any, Any, None], leg: Leg) -> None:
        """Until done, or `leg` is lost, or all is blocked; what is not joined by then is cut."""
        task = asyncio.get_running_loop().create_task(self._guarded(work, leg))
        self._tasks.add(task)
        self._waiting.add(task)
        leg.lost.add_done_callback(lambda _: task.cancel())
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(self._waiting.discard)

    async def _guarded(self, work: Coroutine[Any, Any, None], leg: Leg) -> None:
        try:
            await work
        except (KeystrandError, OSError, TimeoutError) as problem:
            self.refused_total += 1
            self._failure = (str(problem) or "timed out")[:200]
        finally:
            if leg.other is None:
                leg.cut()

    async def _lead(self, leg: Leg) -> None:
        """Of the initiator: an application's connection goes over a TLS connection of its own."""
        key = self._key(self._current)
        out = Leg()
        try:
            await self._dial_tls(key, RELAY, out)
        except NotPermitted:
            if key.number == self._current:
                raise
            key, out = self._key(self._current), Leg()  # it was replaced just now
            await self._dial_tls(key, RELAY, out)
        self._join(Relay(key, (leg, out)))

    async def _take(self, leg: Leg, acceptance: Acceptance) -> None:
        """Of the responder: TLS stands; a probe has done its work with that."""
        key = next((key for key in self._keys.values() if key.identity == acceptance.identity), None)
        assert leg.transport is not None
        if key is None:
            raise NotPermitted("the key was retired within the handshake")
        key.used.set()
        if acceptance.is_probe:
            leg.other = leg  # nothing to cut
            leg.transport.close()
            return
        out = Leg()
        async with asyncio.timeout(DIAL_S):
            await self._open.wait()
            await asyncio.get_running_loop().create_connection(lambda: out, *self.way.connect)
        self._join(Relay(key, (leg, out)))

    def _join(self, relay: Relay) -> None:
        one, two = relay.legs
        if not self._open.is_set() or relay.key.psk.matches(_WIPED) or one.lost.done():
            relay.cut()
            raise Unavailable("the key ended before the connection stood")
        self._relays.add(relay)
        self.relays_total += 1
        for leg in relay.legs:
            leg.lost.add_done_callback(lambda _: self._ended(relay))
        join(one, two)

    def _ended(self, relay: Relay) -> None:
        if relay in self._relays and all(leg.lost.done() for leg in relay.legs):
            self._relays.discard(relay)
            relay.key.bytes_done += relay.bytes_passed

    async def _probe(self, key: Key) -> None:
        """The other end closes once it has seen the whole handshake."""
        leg = Leg()
        await self._dial_tls(key, PROBE, leg)
        assert leg.transport is not None
        leg.transport.resume_reading()
        try:
            async with asyncio.timeout(USE_S):
                await leg.lost
        except TimeoutError:
            raise Unavailable("the other end does not answer within TLS") from None
        finally:
            leg.transport.close()

    async def _dial_tls(self, key: Key, purpose: bytes, leg: Leg) -> None:
        host, port = self.way.connect
        assert key.client is not None
        dialler = Dialler(key.client, purpose)
        try:
            async with asyncio.timeout(USE_S):
                await connect_tls(host, port, dialler, leg, expect=("sae", self.way.peer_sae), limits=self._limits)
        except TimeoutError:
            raise Unavailable(f"{host}:{port} made no handshake within {USE_S:g} s") from None
        self._well_s, self._failure = time.monotonic(), ""


_WIPED: Final = Secret(bytes(48))


@dataclass(frozen=True, slots=True)
class Dialler:
    """The connecting end of one connection, for net.tls_transport."""

    client: PskClient
    purpose: bytes

    def client_connection(self, _host: str, /) -> SSL.Connection:
        return self.client.connection(self.purpose)

    def connected(self, connection: SSL.Connection, _host: str, expect: tuple[str | None, str], /) -> TlsPeer:
        return peer_of(connection, expect[1])

    def review(self, connection: SSL.Connection, peer: TlsPeer, /) -> None:
        """Nothing: the key was for this connection, and the proxy itself ends what its key does not carry any more."""


@dataclass(eq=False, slots=True)
class Acceptance:
    """The accepting end of one connection, for net.tls_transport. identity, is_probe: once the handshake is done."""

    server: PskServer
    sae: str
    refused: Callable[[str], None]
    identity: bytes = b""
    is_probe: bool = False

    def server_connection(self) -> SSL.Connection:
        return self.server.connection()

    def accepted(self, connection: SSL.Connection, /) -> TlsPeer:
        self.identity = self.server.identity(connection)
        self.is_probe = connection.get_alpn_proto_negotiated() == PROBE
        return peer_of(connection, self.sae)

    def review(self, connection: SSL.Connection, peer: TlsPeer, /) -> None:
        """Nothing, as Dialler."""

    def emit(self, kind: str, **fields: Scalar) -> None:
        self.refused(str(fields.get("reason", "")))
