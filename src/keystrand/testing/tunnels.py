"""Both ends of a tunnel in one process, with real channels and a folder for a KME: for tests of connectors."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from keystrand.core.limits import Limits
from keystrand.core.protection import Protection
from keystrand.core.secret import Secret
from keystrand.crypto import pki
from keystrand.lab.wires import Side
from keystrand.net.tls import TlsContexts, TlsFiles, TlsPolicy
from keystrand.testing.keyfolder import KeyFolder
from keystrand.testing.patience import until
from keystrand.testing.sinks import Ears
from keystrand.transport.tunnel.channel import Channel
from keystrand.transport.tunnel.contract import Connector, Generation, Place, Role
from keystrand.transport.tunnel.runner import KeySource, Runner, Terms
from keystrand.transport.tunnel.usage import KeyUses

SAES: dict[Role, str] = {"initiator": "sae-a", "responder": "sae-b"}
ROLES: tuple[Role, Role] = ("responder", "initiator")
SIDE: dict[Role, Side] = {"initiator": "a", "responder": "b"}  # of lab.wires


def place_of(folder: Path, role: Role, tunnel: str = "t") -> Place:
    other: Role = "responder" if role == "initiator" else "initiator"
    return Place(tunnel=tunnel, role=role, sae=SAES[role], peer_sae=SAES[other], state_dir=folder / role)


def generation(number: int, material: bytes = b"") -> Generation:
    key = Secret(material or secrets.token_bytes(32))
    return Generation(number=number, key_id=f"key-{number}", material=key, protection=Protection.HYBRID)


async def prepare(ends: Mapping[Role, Connector], number: int) -> None:
    key = generation(number)
    for role in ROLES:
        await ends[role].prepare(key)


async def bring_up(ends: Mapping[Role, Connector], number: int) -> None:
    """The steps of an agreement, by hand, up to the one that retires the key before."""
    await prepare(ends, number)
    await ends["initiator"].activate(number)
    await ends["responder"].confirm(number)


@dataclass
class TunnelPair:
    """Starts and stops either end; `runners` and `heard` by role."""

    folder: Path
    terms: Terms
    opening: Callable[[Place], Connector]
    kind: str = "test"
    sources: dict[Role, KeySource] = field(default_factory=dict)
    uses: dict[Role, KeyUses] = field(default_factory=dict)
    runners: dict[Role, Runner] = field(default_factory=dict)
    heard: dict[Role, Ears] = field(default_factory=dict)
    port: int = 0
    _tasks: dict[Role, asyncio.Task[None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        ca, _ = pki.create_ca(self.folder / "pki", "tunnels")
        for role, sae in SAES.items():
            pki.issue(self.folder / "pki", kind="sae", name=sae, hosts=("127.0.0.1",))
            self.sources.setdefault(role, KeyFolder(self.folder, sae))
            self.heard[role] = Ears()
        self._ca = ca

    def _contexts(self, sae: str) -> TlsContexts:
        pair = self.folder / "pki" / f"sae-{sae}.pem", self.folder / "pki" / f"sae-{sae}.key"
        return TlsContexts(TlsFiles(*pair, self._ca), TlsPolicy())

    async def start(self, role: Role) -> Runner:
        place = place_of(self.folder, role)
        runner = Runner(
            place=place,
            kind=self.kind,
            terms=self.terms,
            connector=self.opening(place),
            keys=self.sources[role],
            sink=self.heard[role],
            uses=self.uses.get(role),
        )
        channel = Channel(
            tunnel=place.tunnel,
            role=role,
            address=("127.0.0.1", self.port),
            contexts=self._contexts(place.sae),
            expect=("sae", place.peer_sae),
            listener=runner,
            limits=Limits(),
        )
        runner.channel = channel
        self.runners[role] = runner
        self._tasks[role] = asyncio.create_task(runner.run())
        while role == "responder" and not channel.port:
            await asyncio.sleep(0.01)
            if self._tasks[role].done():
                await self._tasks[role]
        self.port = channel.port or self.port
        return runner

    async def stop(self, role: Role) -> None:
        task = self._tasks.pop(role)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[TunnelPair]:
        try:
            for role in ROLES:
                await self.start(role)
            yield self
        finally:
            for role in list(self._tasks):
                await self.stop(role)

    async def until(self, condition: Callable[[TunnelPair], bool]) -> None:
        """Raises AssertionError with the state of both ends, and what ended one of them."""

        def holds() -> bool:
            for task in self._tasks.values():
                if task.done():
                    task.result()
            return condition(self)

        await until(holds, told=lambda: {role: runner.status() for role, runner in self.runners.items()})

    async def rotated(self, rotations: int) -> None:
        """Until both ends have seen so many rotations."""
        await self.until(lambda pair: all(heard.count("tunnel.rotated") >= rotations for heard in pair.heard.values()))
