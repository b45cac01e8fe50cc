"""Where the site's QKD modules connect: admission by certificate, intake of blocks, and the state of each link."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from keystrand.core.errors import BadRequest, KeystrandError, NotPermitted, PeerFault
from keystrand.core.events import Event, Scalar, Sink
from keystrand.core.limits import Limits
from keystrand.kme.service import Kme
from keystrand.net.frames import FrameStream
from keystrand.net.tls import TlsPeer
from keystrand.node.engine import Engine
from keystrand.sources.intake import Intake
from keystrand.wire import device as wire
from keystrand.wire.device import BlockAck, BlockReady, LinkReport, ModuleHello, ModuleWelcome

RETRY_S = 1.0
HEALTH = ("normal", "degraded", "attack")  # of a link, by the monitor of its module


@dataclass(slots=True)
class LinkState:
    """What the module last said of its link, and whether it is there."""

    connected: bool = False
    report: LinkReport | None = None
    rejected: int = 0
    simulated: bool = True
    measures: bool = True  # whether its reports state an error rate
    carries: bool = False  # what was last told of it: link.up or link.down

    @property
    def word(self) -> str:
        if not self.connected:
            return "down"
        if self.report is None:
            return "up" if self.carries else "starting"
        return "up" if self.report.state == "running" else self.report.state


def _nothing_more(kme: Kme) -> None:
    """A module's block names no keys."""


async def take_block(
    engine: Engine,
    intake: Intake,
    ready: BlockReady,
    emit: Callable[..., None],
    first: Callable[[Kme], None] = _nothing_more,
) -> str:
    """Why the block is refused for good; empty once it is durable. Waits while the site cannot take it.

    first: what has to be done before it, in the same transaction; its BadRequest refuses the block.
    """

    def take(kme: Kme) -> None:
        first(kme)
        kme.ingest(block)

    try:
        block = intake.admit(ready)
    except BadRequest as error:
        emit("block.refused", link=intake.link, sequence=ready.sequence, reason=str(error))
        return str(error)
    while True:
        try:
            await engine.call(take)
            block.material.wipe()
            return ""
        except KeystrandError as error:
            emit("block.refused", link=intake.link, sequence=ready.sequence, reason=str(error))
            if isinstance(error, BadRequest):
                return str(error)
        await asyncio.sleep(RETRY_S)


class Devices:
    """The device interface of a site. modules: link -> certificate ID of its local module."""

    def __init__(self, modules: Mapping[str, str], engine: Engine, limits: Limits, sink: Sink) -> None:
        self._modules = modules
        self._engine = engine
        self._limits = limits
        self._sink = sink
        self.links = {link: LinkState() for link in modules}

    def allow(self, peer: TlsPeer) -> bool:
        return peer.identity.kind in (None, "module") and peer.identity.name in self._modules.values()

    async def serve(self, stream: FrameStream) -> None:
        """One module, until it goes away."""
        hello = wire.decode(await stream.read())
        link = self._admit(stream, hello)
        state, intake = self.links[link], Intake(link, hello.source, self._limits)  # type: ignore[union-attr]
        if state.connected:
            raise PeerFault(f"a module of {link} is connected already")
        state.connected, state.simulated = True, intake.source.startswith("simulated")
        try:
            sequence = await self._engine.call(lambda kme: kme.site.store.next_sequence(link))
            stream.write(wire.encode(ModuleWelcome(next_sequence=sequence)))
            while True:
                await self._take(stream, state, intake, wire.decode(await stream.read()))
        finally:
            state.connected, state.report = False, None
            self._turn(link, carries=False, reason="its module is gone")

    def _admit(self, stream: FrameStream, hello: object) -> str:
        if not isinstance(hello, ModuleHello) or hello.version != wire.VERSION:
            raise PeerFault("the module did not greet")
        assert stream.peer is not None
        if self._modules.get(hello.link) != stream.peer.identity.name or hello.module_id != stream.peer.identity.name:
            raise NotPermitted(f"{stream.peer.identity.name} is not the module of {hello.link}")
        return hello.link

    async def _take(self, stream: FrameStream, state: LinkState, intake: Intake, message: object) -> None:
        if isinstance(message, LinkReport):
            if message.blocks_rejected > state.rejected and state.report is not None:
                self._emit("link.block_rejected", link=intake.link, reason=message.detail, qber=message.qber)
            before, state.report, state.rejected = state.report, message, message.blocks_rejected
            self._turn(intake.link, carries=message.state == "running", reason=message.detail or message.state)
            if message.health in HEALTH and (before is None or before.health != message.health):
                facts: dict[str, Scalar] = {"cause": message.cause, "confidence": message.confidence}
                self._emit(f"link.{message.health}", link=intake.link, reason=message.detail, **facts)
        elif isinstance(message, BlockReady):
            if state.report is None:  # it has blocks, and never says how the link is
                self._turn(intake.link, carries=True)
            problem = await self._ingest(intake, message)
            stream.write(wire.encode(BlockAck(sequence=message.sequence, problem=problem)))
        else:
            raise PeerFault(f"the module sent {type(message).__name__}")

    def _turn(self, link: str, *, carries: bool, reason: str = "") -> None:
        """Tell once that light makes key, or does not: a module that is there says nothing of the fibre."""
        state = self.links[link]
        if state.carries is not carries:
            state.carries = carries
            self._emit("link.up", link=link) if carries else self._emit("link.down", link=link, reason=reason)

    async def _ingest(self, intake: Intake, ready: BlockReady) -> str:
        """Why the block is refused for good; empty once it is durable. While it cannot be taken, the module waits."""
        problem = await take_block(self._engine, intake, ready, self._emit)
        if not problem:
            self._tell(intake.link, ready)
        return problem

    def _tell(self, link: str, facts: BlockReady) -> None:
        self._emit(
            "link.block",
            link=link,
            sequence=facts.sequence,
            sifted_bits=facts.sifted_bits,
            secret_bits=facts.secret_bits,
            bound_bits=facts.bound_bits,
            leak_ec_bits=facts.leak_ec_bits,
            auth_bits=facts.auth_bits,
            qber=facts.qber,
            qber_test=facts.qber_test,
            eps_sec=facts.eps_sec,
            eps_cor=facts.eps_cor,
            duration_s=facts.duration_s,
            skr_bps=facts.secret_bits / facts.duration_s if facts.duration_s > 0 else 0.0,
        )

    def _emit(self, kind: str, **fields: Scalar) -> None:
        self._sink.emit(Event(kind, self._engine.kme.site.clock.now_s(), fields))
