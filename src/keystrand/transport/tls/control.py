"""How a connector steers a proxy that runs as a process of its own: one JSON object a line over a Unix socket.

The socket lies in the tunnel's own folder (mode 700), so that nobody else speaks here. The proxy outlives its connectors.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import msgspec

from keystrand.core.errors import KeystrandError, Unavailable
from keystrand.core.events import Event, Scalar, Sink
from keystrand.core.secret import Secret
from keystrand.transport.tls.proxy import Proxy, Way
from keystrand.transport.tunnel.contract import Health

LINE_BYTES_MAX: Final = 1 << 16
ANSWER_S: Final = 12.0


class Order(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One step of a connector, or `health`, `way`, `stop`. psk, identity: hex."""

    verb: str
    number: int = 0
    identity: str = ""
    psk: str = ""

    def __repr__(self) -> str:
        return f"<Order {self.verb} {self.number}>"


class ProxyAbsent(Unavailable):
    """No process listens: nothing passes. One that does not answer is another matter."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    problem: str = ""
    hint: str | None = None
    health: dict[str, Any] | None = None
    way: dict[str, Any] | None = None


@contextlib.contextmanager
def short_path(socket: Path) -> Iterator[str]:
    """A path of the same socket that is short enough for the system (108 bytes)."""
    folder = os.open(socket.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{socket.name}"
    finally:
        os.close(folder)


class ControlServer:
    """Answers orders until one says stop."""

    def __init__(self, proxy: Proxy, socket: Path, sink: Sink, tunnel: str = "") -> None:
        """sink: is told of each change; tunnel: its name there."""
        self._proxy, self._socket, self._sink, self._tunnel = proxy, socket, sink, tunnel
        self._stopped = asyncio.Event()
        self._steps = asyncio.Lock()

    async def run(self) -> None:
        """Raises Unavailable where the socket cannot be made."""
        with short_path(self._socket) as path:
            try:
                server = await asyncio.start_unix_server(self._serve, path, limit=LINE_BYTES_MAX)
                self._socket.chmod(0o600)
            except OSError as error:
                raise Unavailable(f"{self._socket} cannot be made: {error.strerror}") from None
        way = self._proxy.way
        here, there = (f"{host}:{port}" for host, port in (way.listen, way.connect))
        self._emit("proxy.up", role=way.role, listen=here, connect=there, peer_sae=way.peer_sae)
        try:
            await self._stopped.wait()
        finally:
            server.close()
            await self._proxy.block()
            self._emit("proxy.down")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                answer = await self._answer(line)
                writer.write(msgspec.json.encode(answer) + b"\n")
                await writer.drain()
        except (OSError, ValueError):  # gone, or a line without end
            pass
        finally:
            writer.close()

    async def _answer(self, line: bytes) -> Answer:
        try:
            order = msgspec.json.decode(line, type=Order)
            return await self._obey(order)
        except KeystrandError as problem:
            return Answer(problem=str(problem), hint=problem.hint)
        except (msgspec.MsgspecError, ValueError):
            return Answer(problem="an order that cannot be read")

    async def _obey(self, order: Order) -> Answer:
        proxy, number = self._proxy, order.number
        match order.verb:
            case "health":
                return Answer(health=asdict(await proxy.health()))
            case "way":
                return Answer(way=asdict(proxy.way))
            case "stop":
                self._stopped.set()
                return Answer()
            case "prepare":
                psk = Secret(bytes.fromhex(order.psk))
                async with self._steps:
                    await proxy.prepare(number, bytes.fromhex(order.identity), psk)
                return Answer()
            case "block":  # never waits for a step that takes long
                await proxy.block()
                self._emit("proxy.blocked")
                return Answer()
        steps = {step.__name__: step for step in (proxy.activate, proxy.confirm, proxy.retire, proxy.drop)}
        if order.verb not in steps:
            return Answer(problem=f"unknown order {order.verb[:20]!r}")
        async with self._steps:
            await steps[order.verb](number)
        self._emit("proxy.step", step=order.verb, number=number)
        return Answer()

    def _emit(self, kind: str, **fields: Scalar) -> None:
        self._sink.emit(Event(kind, time.time(), {"tunnel": self._tunnel, **fields}))


async def tell(socket: Path, order: Order) -> Answer:
    """Raises ProxyAbsent, or Unavailable with the proxy's complaint."""
    try:
        async with asyncio.timeout(ANSWER_S):
            with short_path(socket) as path:
                reader, writer = await asyncio.open_unix_connection(path, limit=LINE_BYTES_MAX)
            try:
                writer.write(msgspec.json.encode(order) + b"\n")
                answer = msgspec.json.decode(await reader.readline(), type=Answer)
            finally:
                writer.close()
    except (FileNotFoundError, ConnectionRefusedError):
        raise ProxyAbsent("no proxy is running") from None
    except (OSError, TimeoutError, ValueError, msgspec.MsgspecError) as error:
        raise Unavailable(f"the proxy does not answer: {str(error) or 'timed out'}") from None
    if answer.problem:
        raise Unavailable(answer.problem, hint=answer.hint)
    return answer


def health_of(answer: Answer) -> Health:
    assert answer.health is not None
    return Health(**answer.health)


def is_of(answer: Answer, way: Way) -> bool:
    """Does the proxy go the way that we want?"""
    return bool(answer.way == msgspec.json.decode(msgspec.json.encode(asdict(way))))
