"""Two QKD modules over loopback sockets, each with a small KME that takes its blocks."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from keystrand.config.module import Channel, Module, ModuleConfig, OwnKme
from keystrand.config.schema import Tls
from keystrand.config.values import Address
from keystrand.lab.ports import free_base_port
from keystrand.net.frames import FrameStream, connect_plain_frames, serve_plain_frames
from keystrand.node.meeting import Frames
from keystrand.node.module import run_module
from keystrand.qkd.optics_attacks import Attack, InterceptResend, TrojanHorse
from keystrand.qkd.profile import Distillation, Fibre
from keystrand.qkd.session import Receiver
from keystrand.testing.sinks import Ears
from keystrand.wire import device

LINK = "east"
FRAME_BYTES_MAX = 4_194_304


class TakingKme:
    """The KME's end of the device interface: takes every block once and says so."""

    def __init__(self) -> None:
        self.blocks: dict[int, str] = {}
        self.reports: list[device.LinkReport] = []
        self.willing = asyncio.Event()
        self.willing.set()
        self.port = 0

    async def serve(self, stream: FrameStream) -> None:
        hello = device.decode(await stream.read())
        assert isinstance(hello, device.ModuleHello)
        expected = max(self.blocks, default=-1) + 1
        stream.write(device.encode(device.ModuleWelcome(next_sequence=expected)))
        while True:
            message = device.decode(await stream.read())
            if isinstance(message, device.LinkReport):
                self.reports.append(message)
            elif isinstance(message, device.BlockReady):
                await self.willing.wait()
                assert message.sequence not in self.blocks, "a number was used twice"
                assert 8 * len(message.material) == message.secret_bits <= message.bound_bits
                self.blocks[message.sequence] = hashlib.sha256(message.material).hexdigest()
                stream.write(device.encode(device.BlockAck(sequence=message.sequence)))

    async def connect(self) -> Frames:
        return await connect_plain_frames("127.0.0.1", self.port, frame_bytes_max=FRAME_BYTES_MAX)


class Link:
    """Both modules of a link as tasks, and their KMEs."""

    def __init__(self, directory: Path, ports: tuple[int, int]) -> None:
        (directory / "start.key").write_bytes(bytes(range(256)) * 4)
        self.kmes = {"transmitter": TakingKme(), "receiver": TakingKme()}
        self.sinks = {"transmitter": Ears(), "receiver": Ears()}
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.attack: Attack | None = None
        self._directory, self._ports = directory, ports

    def config(self, role: str) -> ModuleConfig:
        def channel(port: int) -> Channel:
            address = Address(f"127.0.0.1:{port}")
            return Channel(listen=address) if role == "receiver" else Channel(connect=address)

        nowhere = Path("unused.pem")
        return ModuleConfig(
            module=Module(
                link=LINK,
                role=role,  # type: ignore[arg-type]
                module_id=f"module-{role}",
                state_dir=self._directory / role,
                start_key_file=self._directory / "start.key",
            ),
            classical=channel(self._ports[0]),
            quantum=channel(self._ports[1]),
            kme=OwnKme(address=Address("127.0.0.1:1"), kme_id="kme"),
            tls=Tls(certificate=nowhere, private_key=nowhere, trust=nowhere),
            fibre=Fibre(length_km=5, insertion_loss_db=1),
            distillation=Distillation(block_sifted_bits=120_000, eps_sec=1e-9),
        )

    def start(self, role: str) -> None:
        self.tasks[role] = asyncio.create_task(
            run_module(
                self.config(role),
                sink=self.sinks[role],
                connect_kme=self.kmes[role].connect,
                disturbances=lambda: () if self.attack is None else (self.attack,),
            )
        )

    async def kill(self, role: str) -> None:
        self.tasks[role].cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.tasks[role]

    async def until(self, holds: Callable[[], bool], timeout_s: float = 150.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not holds():
            for task in self.tasks.values():
                if task.done() and not task.cancelled():
                    task.result()
            assert time.monotonic() < deadline, "it did not happen in time"
            await asyncio.sleep(0.05)

    @property
    def common(self) -> set[int]:
        return set(self.kmes["transmitter"].blocks) & set(self.kmes["receiver"].blocks)

    def check(self) -> None:
        """I2: whatever both have is equal."""
        ours, theirs = self.kmes["transmitter"].blocks, self.kmes["receiver"].blocks
        assert all(ours[n] == theirs[n] for n in self.common)


@pytest.fixture
async def link(tmp_path):
    base = free_base_port(2)
    link = Link(tmp_path, (base, base + 1))
    servers = [
        await serve_plain_frames(("127.0.0.1", 0), k.serve, frame_bytes_max=FRAME_BYTES_MAX) for k in link.kmes.values()
    ]
    for kme, server in zip(link.kmes.values(), servers, strict=True):
        kme.port = server.port
    yield link
    for role in list(link.tasks):
        await link.kill(role)
    for server in servers:
        await server.close()


@pytest.mark.proves("R024")
async def test_I2_a_pair_delivers_equal_blocks(link):
    for role in link.kmes:
        link.start(role)
    await link.until(lambda: len(link.common) >= 3)
    link.check()
    await link.until(lambda: any(r.state == "running" and r.skr_bps > 0 for r in link.kmes["receiver"].reports))


@pytest.mark.proves("R101")
@pytest.mark.parametrize("victim", ["transmitter", "receiver"])
async def test_I1_killing_and_restarting_one_end_never_uses_a_number_twice(link, victim):
    for role in link.kmes:
        link.start(role)
    await link.until(lambda: len(link.common) >= 1)
    await link.kill(victim)
    before = max(link.common)
    link.start(victim)
    await link.until(lambda: max(link.common) > before + 1)
    link.check()


async def test_a_run_that_fell_leaves_nothing_behind(link):
    """Blocks in work when a run broke off do not stay in the memory of the end that lives on."""
    for role in link.kmes:
        link.start(role)
    gc.disable()
    try:
        await link.until(lambda: len(link.common) >= 1)
        await link.kill("transmitter")
        before = max(link.common)
        link.start("transmitter")
        await link.until(lambda: max(link.common) > before)
        assert sum(isinstance(each, Receiver) for each in gc.get_objects()) <= 1
    finally:
        gc.enable()


@pytest.mark.proves("R025")
async def test_an_eavesdropper_stops_the_blocks_and_raises_an_alarm(link):
    link.attack = InterceptResend(1.0)
    for role in link.kmes:
        link.start(role)
    alarms = link.sinks["receiver"].events
    await link.until(lambda: any(e.kind == "link.block_rejected" and e.fields["reason"] == "qber" for e in alarms))
    assert link.kmes["receiver"].blocks == link.kmes["transmitter"].blocks == {}
    await link.until(lambda: any(r.blocks_rejected for r in link.kmes["receiver"].reports))
    refused = [e.fields["qber"] for e in alarms if e.kind == "link.block_rejected" and e.fields["reason"] == "qber"]
    assert min(refused) > 0.11, "the error rate for which it was refused, not that of a run which has none yet"
    assert all(r.qber > 0.11 for r in link.kmes["receiver"].reports if r.blocks_rejected)
    link.attack = None
    await link.until(lambda: len(link.common) >= 1)
    link.check()


async def test_a_KME_that_does_not_take_blocks_turns_the_light_off(link, monkeypatch):
    monkeypatch.setattr("keystrand.node.outbox.BLOCKS_MAX", 2)
    for role in link.kmes:
        link.start(role)
    await link.until(lambda: len(link.common) >= 1)
    link.kmes["receiver"].willing.clear()
    counts = [len(link.kmes["transmitter"].blocks)]
    for _ in range(20):  # what was in the works still comes, on a busy machine over some seconds; then nothing does
        await asyncio.sleep(3)
        counts.append(len(link.kmes["transmitter"].blocks))
        if counts[-1] == counts[-2] and len(counts) > 2:
            break
    assert counts[-1] == counts[-2]
    link.kmes["receiver"].willing.set()
    await link.until(lambda: len(link.common) > counts[-1])
    link.check()


@pytest.mark.proves("R025", "R099")
async def test_what_the_key_does_not_show_stops_the_blocks_too(link):
    """Light that shines into the transmitter changes nothing in the key; the monitor sees it on the meter."""
    for role in link.kmes:
        link.start(role)
    await link.until(lambda: any(e.kind == "link.normal" for e in link.sinks["transmitter"].events), 120.0)
    link.attack = TrojanHorse(0.05)
    alarms = link.sinks["transmitter"].events
    await link.until(lambda: any(e.kind == "link.attack" and e.fields["cause"] == "trojan" for e in alarms))
    held = link.common
    await asyncio.sleep(3)
    assert link.common == held, "a block of an attacked link came to both ends"
    assert any(e.kind == "link.block_rejected" and e.fields["reason"] == "monitor" for e in alarms)
