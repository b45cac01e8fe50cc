"""Blocks on their way from a QKD module to its KME: kept until each is acknowledged as durable there."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from keystrand.core.errors import KeystrandError, PeerFault
from keystrand.core.key import Block
from keystrand.node.meeting import Frames
from keystrand.wire import device as wire

RETRY_S = 1.0
REPORT_S = 1.0
BLOCKS_MAX = 16  # unacknowledged: beyond it the light is turned off


class Outbox:
    """The module's end of the device interface. `connect` opens a stream to the KME; `report` says how the link is; `tell`
    hears once that the KME is there, and once why it is not.
    """

    def __init__(
        self,
        hello: wire.ModuleHello,
        connect: Callable[[], Awaitable[Frames]],
        report: Callable[[], wire.LinkReport],
        tell: Callable[[str, str], None],
    ) -> None:
        self._hello = hello
        self._connect = connect
        self._report, self._tell_of = report, tell
        self._said = ""  # of the KME, last
        self._blocks: deque[Block] = deque()
        self._more, self._taken = asyncio.Event(), asyncio.Event()
        self.greeted = asyncio.Event()  # the KME has said which number it expects
        self.next_sequence = 0  # that number, at the last greeting
        self.refused = 0

    @property
    def is_full(self) -> bool:
        return len(self._blocks) >= BLOCKS_MAX

    async def has_room(self) -> None:
        """Wait until the KME has taken enough."""
        while self.is_full:
            self._taken.clear()
            await self._taken.wait()

    def put(self, block: Block) -> None:
        self._blocks.append(block)
        self._more.set()

    async def run(self) -> None:
        """Deliver for ever, over one connection after the other."""
        while True:
            try:
                await self._serve(await self._connect())
            except (KeystrandError, OSError) as error:
                self._say("peer.down", str(error) or type(error).__name__)
            else:
                self._say("peer.down", "it ended the connection")
            await asyncio.sleep(RETRY_S)

    def _say(self, kind: str, reason: str) -> None:
        if kind != self._said:
            self._said = kind
            self._tell_of(kind, reason)

    async def _serve(self, stream: Frames) -> None:
        try:
            await self._greet(stream)
            tasks = [asyncio.ensure_future(work(stream)) for work in (self._hear, self._send, self._tell)]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            await stream.close()

    async def _greet(self, stream: Frames) -> None:
        stream.write(wire.encode(self._hello))
        welcome = wire.decode(await stream.read())
        if not isinstance(welcome, wire.ModuleWelcome):
            raise PeerFault(f"the KME greets with {type(welcome).__name__}")
        self.next_sequence = welcome.next_sequence
        while self._blocks and self._blocks[0].sequence < welcome.next_sequence:
            self._blocks.popleft().material.wipe()
        self._taken.set()
        self.greeted.set()
        self._say("peer.up", "")

    async def _hear(self, stream: Frames) -> None:
        while True:
            ack = wire.decode(await stream.read())
            if not isinstance(ack, wire.BlockAck) or not self._blocks or self._blocks[0].sequence != ack.sequence:
                raise PeerFault("the KME acknowledges what it was not given")
            self._blocks.popleft().material.wipe()
            self._taken.set()
            self.refused += bool(ack.problem)

    async def _send(self, stream: Frames) -> None:
        sent = -1
        while True:
            self._more.clear()
            for block in [b for b in self._blocks if b.sequence > sent]:
                sent = block.sequence
                stream.write(wire.encode(_ready(block)))
                await stream.drain()
            await self._more.wait()

    async def _tell(self, stream: Frames) -> None:
        while True:
            stream.write(wire.encode(self._report()))
            await stream.drain()
            await asyncio.sleep(REPORT_S)


def _ready(block: Block) -> wire.BlockReady:
    facts = block.provenance
    return wire.BlockReady(
        sequence=block.sequence,
        material=block.material.reveal(),
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
    )
