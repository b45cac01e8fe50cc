"""A TCP service behind both ends of a tunnel, on loopback: for connectors that carry TCP."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from keystrand.core.errors import Unavailable
from keystrand.lab.ports import free_base_port
from keystrand.testing.tunnels import place_of
from keystrand.transport.tls.control import Order, tell
from keystrand.transport.tunnel.contract import Connector, Place, Role
from keystrand.transport.tunnel.kinds import Kind

HERE = "127.0.0.1"
ROLES: tuple[Role, Role] = ("responder", "initiator")


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Gives back what it gets; at the end, how much that was."""
    count = 0
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            count += len(data)
            writer.write(data)
            await writer.drain()
        writer.write(f" {count}".encode())
        await writer.drain()
        writer.close()


class Rig:
    """Both connectors as fresh processes would open them, an echo service behind the responder's."""

    def __init__(self, kind: Kind, folder: Path, service: int, **settings: object) -> None:
        self.kind, self.folder, self.settings = kind, folder, settings
        self.base = free_base_port(2)
        self.service = service

    def open(self, role: Role) -> Connector:
        return self.at(place_of(self.folder, role))

    def at(self, place: Place) -> Connector:
        entry, between = self.base, self.base + 1
        ways = {"initiator": (entry, between), "responder": (between, self.service)}
        listen, connect = ways[place.role]
        table = {"listen": f"{HERE}:{listen}", "connect": f"{HERE}:{connect}", **self.settings}
        return self.kind.open(place, msgspec.convert(table, self.kind.settings, dec_hook=lambda kind, raw: kind(raw)))

    async def passes(self) -> bool:
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(10.0):
                reader, writer = await asyncio.open_connection(HERE, self.base)
                writer.write(b"to and fro")
                there = await reader.read(100) == b"to and fro"
                writer.close()
                return there
        return False


def socket_of(rig: Rig, role: Role) -> Path:
    """Where a proxy takes orders."""
    return place_of(rig.folder, role).state_dir / "proxy.sock"


@contextlib.asynccontextmanager
async def serving(kind: Kind, folder: Path) -> AsyncIterator[Rig]:
    """With the echo service; ends the daemons."""
    async with await asyncio.start_server(echo, HERE, 0) as service:
        rig = Rig(kind, folder, service.sockets[0].getsockname()[1])
        try:
            yield rig
        finally:
            for role in ROLES:
                with contextlib.suppress(Unavailable):
                    await rig.open(role).block()
                with contextlib.suppress(Unavailable):  # both ends are ended, whatever the test has left
                    await tell(socket_of(rig, role), Order(verb="stop"))
