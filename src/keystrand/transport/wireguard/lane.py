"""An interface, made and unmade: by the kernel, or by a wireguard-go of its own. And the routes into it."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from keystrand.core.errors import Unavailable
from keystrand.transport.tunnel.command import run
from keystrand.transport.tunnel.routes import Routes
from keystrand.transport.wireguard.door import SOCKETS, Door, ToolDoor, UapiDoor
from keystrand.transport.wireguard.settings import WireGuardSettings

READY_S: Final = 5.0
LOOK_S: Final = 0.01
QUEUE: Final = "4000"  # packets that wait while a program in user space does not get the processor
Plane = Literal["kernel", "wireguard-go"]


@dataclass(frozen=True, slots=True)
class Lane:
    """One interface of one tunnel."""

    name: str
    plane: Plane
    settings: WireGuardSettings

    @property
    def namespace(self) -> str:
        return self.settings.namespace or ""

    @property
    def door(self) -> Door:
        if self.plane == "wireguard-go":
            return UapiDoor(self.name)
        return ToolDoor(self.name, self.namespace)

    async def make(self) -> None:
        """There afterwards, up, without peers. Raises Unavailable."""
        if not await self.exists():
            if self.plane == "kernel":
                await self._run("ip", "link", "add", self.name, "type", "wireguard")
            else:
                await self._start_program()
        await self._run("ip", "link", "set", self.name, "mtu", str(self.settings.mtu), "txqueuelen", QUEUE, "up")
        await self._admit_early_packets()

    async def _admit_early_packets(self) -> None:
        """The other end may send over this lane while our routes still lead into the one before.

        A strict check of the reverse path would drop that. The loose one (2, the higher of this and of `all` counts) lets
        it pass, yet only on an interface with an address of its own; without one the check is switched off here.
        """
        source = self.settings.source
        if source is not None:
            await self._run("ip", "address", "replace", f"{source}/{128 if ':' in source else 32}", "dev", self.name)
        mode = 2 if source is not None else 0
        await self._run("sysctl", "-qw", f"net/ipv4/conf/{self.name}/rp_filter={mode}")

    async def _start_program(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._socket.unlink()  # left over by one that was killed
        await run("wireguard-go", self.name, namespace=self.namespace, stays=True)  # it outlives us
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_S):
                while not self._socket.exists():
                    await asyncio.sleep(LOOK_S)
            return
        raise Unavailable(f"wireguard-go {self.name} does not get ready")

    async def unmake(self) -> None:
        """Gone afterwards, with every key that it had."""
        with contextlib.suppress(Unavailable):
            await self._run("ip", "link", "delete", self.name)
        with contextlib.suppress(FileNotFoundError):
            self._socket.unlink()

    async def exists(self) -> bool:
        """Is it there, and does it answer?"""
        try:
            await self._run("ip", "link", "show", "dev", self.name)
            await self.door.state()
        except Unavailable:
            return False
        return True

    @property
    def _socket(self) -> Path:
        return SOCKETS / f"{self.name}.sock"

    async def _run(self, *command: str) -> str:
        return await run(*command, namespace=self.namespace)


async def plane_of(settings: WireGuardSettings) -> Plane:
    """Who handles the packets here. Raises Unavailable where nobody can."""
    if settings.plane != "auto":
        return settings.plane
    probe = f"{settings.interface[:10]}try"
    try:
        await run("ip", "link", "add", probe, "type", "wireguard", namespace=settings.namespace or "")
    except Unavailable:
        if shutil.which("wireguard-go") is None:
            hint = "load the kernel module wireguard, or apt-get install wireguard-go"
            raise Unavailable("neither the kernel nor a program has WireGuard here", hint=hint) from None
        return "wireguard-go"
    await run("ip", "link", "delete", probe, namespace=settings.namespace or "")
    return "kernel"


def routes_of(settings: WireGuardSettings) -> Routes:
    """From the allowed networks into whichever interface is in use."""
    return Routes(networks=settings.allowed_ips, source=settings.source, namespace=settings.namespace or "")
