"""Both connectors of a tunnel in this process, without key managers: what daemons and steps need by themselves."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from keystrand.core.protection import Protection
from keystrand.core.secret import Secret
from keystrand.lab.stage import Stage, stage_of
from keystrand.lab.wires import Side, Wires
from keystrand.testing.tunnels import place_of
from keystrand.transport.ipsec.connector import Ipsec
from keystrand.transport.macsec.connector import Macsec
from keystrand.transport.tls.connector import TlsConnector
from keystrand.transport.tls.control import Order, tell
from keystrand.transport.tunnel.contract import Connector, Generation, Role
from keystrand.transport.tunnel.kinds import find
from keystrand.transport.wireguard.connector import DualLanes

SIDES: dict[Role, Side] = {"responder": "b", "initiator": "a"}


@dataclass
class Ends:
    """Generations go through their steps as the agreement has them."""

    kind: str
    wires: Wires
    stage: Stage
    folder: Path
    at: dict[Role, Connector] = field(default_factory=dict)
    number: int = 0

    def __post_init__(self) -> None:
        kind = find(self.kind)
        for role, side in SIDES.items():
            self.at[role] = kind.open(place_of(self.folder, role), self.stage.settings(kind, side))

    async def prepare(self) -> None:
        self.number += 1
        material = os.urandom(32)
        for end in self.at.values():
            key_id = f"bench-{self.number}"
            key = Generation(number=self.number, key_id=key_id, material=Secret(material), protection=Protection.HYBRID)
            await end.prepare(key)

    async def use(self) -> None:
        await self.at["initiator"].activate(self.number)
        await self.at["responder"].confirm(self.number)

    async def retire(self) -> None:
        for end in self.at.values():
            await end.retire(self.number)

    async def rotate(self) -> None:
        await self.prepare()
        await self.use()
        await self.retire()

    async def minimum_ms(self) -> float:
        """What the daemon needs for a key that is there already, told in the one way that is fastest for it."""
        await self.prepare()
        initiator, began_s = self.at["initiator"], time.perf_counter()
        if isinstance(initiator, Ipsec):
            await initiator._charon.initiate(self.number)
        elif isinstance(initiator, DualLanes):
            lane = await initiator._at(self.number)
            await initiator._knock(lane.door)
            await initiator._wait(lane.door, 0.0, 5.0)
        elif isinstance(initiator, Macsec):
            assert initiator._coming is not None
            await initiator._coming[1].ask()  # a frame each way under the new SAK, taken by both data planes
        elif isinstance(initiator, TlsConnector):
            await tell(initiator._socket, Order(verb="activate", number=self.number))
        took_ms = 1e3 * (time.perf_counter() - began_s)
        await self.use()
        await self.retire()
        return took_ms


@asynccontextmanager
async def ends(kind: str) -> AsyncIterator[Ends]:
    """In use, under a first key."""
    folder = Path(tempfile.mkdtemp(prefix="ksb"))
    try:
        with Wires() as wires:
            stage = await asyncio.to_thread(stage_of, find(kind), wires, folder / "stage")
            made = Ends(kind, wires, stage, folder)
            await made.rotate()
            try:
                yield made
            finally:
                for end in made.at.values():
                    await end.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
