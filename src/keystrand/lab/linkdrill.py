"""A running pair of QKD modules on this machine, and what befalls it: an attack or a fault in the middle, counted at both ends.

Both modules are the programs of a site (`node.module`), each with a monitor of its own and a door where the KME would stand,
which counts the blocks that are handed over. Only the photons, and what is done to them, are simulated.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from keystrand.config.module import Channel, Module, ModuleConfig, OwnKme
from keystrand.config.schema import Tls
from keystrand.config.values import Address
from keystrand.core.events import Event
from keystrand.lab.ports import free_base_port
from keystrand.net.frames import FrameStream, connect_plain_frames, serve_plain_frames
from keystrand.node.meeting import Frames
from keystrand.node.module import run_module
from keystrand.qkd.optics_disturb import Disturbance
from keystrand.qkd.profile import LinkProfile
from keystrand.wire import device

LINK: Final = "drill"
ROLES: Final = ("transmitter", "receiver")
FRAME_BYTES_MAX: Final = 4_194_304
LEARN_S: Final = 180.0
START_KEY_BYTES: Final = 4096
HEALTH: Final = ("link.attack", "link.degraded", "link.normal")


class Door:
    """Where the KME of one end would stand: takes each block, keeps a digest of it, and says so."""

    def __init__(self) -> None:
        self.blocks: dict[int, tuple[str, int, float]] = {}  # sequence -> digest, bits, when
        self.port = 0

    async def serve(self, stream: FrameStream) -> None:
        device.decode(await stream.read())
        stream.write(device.encode(device.ModuleWelcome(next_sequence=max(self.blocks, default=-1) + 1)))
        while True:
            message = device.decode(await stream.read())
            if isinstance(message, device.BlockReady):
                digest = hashlib.sha256(message.material).hexdigest()
                self.blocks[message.sequence] = (digest, 8 * len(message.material), time.monotonic())
                stream.write(device.encode(device.BlockAck(sequence=message.sequence)))

    async def connect(self) -> Frames:
        return await connect_plain_frames("127.0.0.1", self.port, frame_bytes_max=FRAME_BYTES_MAX)


@dataclass
class Ear:
    """Hears the events of one end. `say` gets a line for each that a person wants to know."""

    role: str
    say: Callable[[str], None]
    events: list[tuple[float, Event]] = field(default_factory=list)

    def emit(self, event: Event, /) -> None:
        self.events.append((time.monotonic(), event))
        facts = event.fields
        if event.kind == "link.block":
            self.say(
                f"{self.role:12} block {facts['sequence']:>4}  QBER {facts['qber']:6.2%}  {facts['secret_bits']:>9,} bits"
            )
        elif event.kind in HEALTH:
            self.say(f"{self.role:12} {event.kind.removeprefix('link.').upper()}: {facts['reason'] or 'as usual'}")
        elif event.kind == "link.block_rejected":
            self.say(f"{self.role:12} block rejected ({facts['reason']})")

    def count(self, kind: str, since_s: float = 0.0) -> int:
        return sum(event.kind == kind for at_s, event in self.events if at_s >= since_s)


@dataclass
class LinkDrill:
    """One pair, one disturbance. `facts` fills up as things are seen."""

    profile: LinkProfile
    folder: Path
    say: Callable[[str], None]
    disturbance: Disturbance
    seconds: float = 20.0
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._doors = {role: Door() for role in ROLES}
        self._ears = {role: Ear(role, self.say) for role in ROLES}
        self._acting: tuple[Disturbance, ...] = ()
        self._base = free_base_port(2)

    async def run(self) -> dict[str, Any]:
        """Learn the quiet link, let it befall, take it away again; what was seen."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self.folder / "start.key").write_bytes(secrets.token_bytes(START_KEY_BYTES))
        (self.folder / "start.key").chmod(0o600)
        servers = []
        for door in self._doors.values():
            server = await serve_plain_frames(("127.0.0.1", 0), door.serve, frame_bytes_max=FRAME_BYTES_MAX)
            door.port = server.port
            servers.append(server)
        modules = [asyncio.ensure_future(self._module(role)) for role in ROLES]
        try:
            await self._story()
        finally:
            for module in modules:
                module.cancel()
            await asyncio.gather(*modules, return_exceptions=True)
            for server in servers:
                with contextlib.suppress(OSError):
                    await server.close()
        return self.facts

    async def _story(self) -> None:
        self.say("learning what is usual on this link")
        await self._until(lambda: all(ear.count("link.normal") for ear in self._ears.values()), LEARN_S)
        began_s = time.monotonic()
        self._acting = (self.disturbance,)
        self.say(f"now: {self.facts.get('what', 'the disturbance')}")
        await asyncio.sleep(self.seconds)
        self._acting = ()
        ended_s = time.monotonic()
        self._tell(began_s, ended_s)
        self.say("taken away; waiting for the link to be as usual again")
        with contextlib.suppress(TimeoutError):
            await self._until(lambda: bool(self._common(since_s=ended_s)), LEARN_S)
            self.facts["back_after_s"] = round(time.monotonic() - ended_s, 1)

    def _tell(self, began_s: float, ended_s: float) -> None:
        """What the two monitors made of it, and how much of it became key."""
        found = [
            (at_s, role, event)
            for role, ear in self._ears.items()
            for at_s, event in ear.events
            if began_s <= at_s <= ended_s and event.kind in ("link.attack", "link.degraded")
        ]
        first = min(found, default=None, key=lambda entry: entry[0])
        causes = Counter(str(event.fields["cause"]) for _, _, event in found)
        self.facts |= {
            "seen_by": first[1] if first else "",
            "called": causes.most_common(1)[0][0] if causes else "",
            "health": first[2].kind.removeprefix("link.") if first else "normal",
            "seen_after_s": round(first[0] - began_s, 2) if first else None,
            "blocks_rejected": sum(ear.count("link.block_rejected", began_s) for ear in self._ears.values()),
            "bits_that_became_key_after": sum(
                self._doors["receiver"].blocks[number][1] for number in self._common(since_s=first[0])
            )
            if first and first[2].kind == "link.attack"
            else None,
        }

    def _common(self, *, since_s: float) -> list[int]:
        """Blocks that both ends handed over since then; only those can become keys."""
        ours, theirs = (door.blocks for door in self._doors.values())
        return [n for n in ours.keys() & theirs.keys() if min(ours[n][2], theirs[n][2]) >= since_s]

    async def _until(self, holds: Callable[[], bool], timeout_s: float) -> None:
        async with asyncio.timeout(timeout_s):
            while not holds():
                await asyncio.sleep(0.1)

    async def _module(self, role: str) -> None:
        await run_module(
            self._config(role),
            sink=self._ears[role],
            connect_kme=self._doors[role].connect,
            disturbances=lambda: self._acting,
        )

    def _config(self, role: str) -> ModuleConfig:
        def channel(port: int) -> Channel:
            address = Address(f"127.0.0.1:{port}")
            return Channel(listen=address) if role == "transmitter" else Channel(connect=address)

        nowhere = self.folder / "unused.pem"
        profile = self.profile
        return ModuleConfig(
            module=Module(
                link=LINK,
                role=role,  # type: ignore[arg-type]
                module_id=f"{LINK}-{role}",
                state_dir=self.folder / role,
                start_key_file=self.folder / "start.key",
            ),
            classical=channel(self._base),
            quantum=channel(self._base + 1),
            kme=OwnKme(address=Address("127.0.0.1:1"), kme_id="none"),
            tls=Tls(certificate=nowhere, private_key=nowhere, trust=nowhere),
            source=profile.source,
            fibre=profile.fibre,
            detector=profile.detector,
            distillation=profile.distillation,
            coexistence=profile.coexistence,
        )
