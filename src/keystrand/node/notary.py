"""Checkpoints of the site's audit log, countersigned by its neighbours; and the site's own service as their witness."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Final

from keystrand.core.clock import Clock
from keystrand.core.errors import KeystrandError, StoreUnavailable
from keystrand.core.events import Event, Sink
from keystrand.core.limits import Limits
from keystrand.crypto.sign import Signer, Verifier
from keystrand.kme.service import Kme
from keystrand.node.engine import Engine
from keystrand.observe.audit import AuditLog, AuditStore, Witness
from keystrand.observe.gauges import AuditGauge
from keystrand.wire.peer import Checkpoint, Cosignature, Message

ANSWERS_MAX: Final = 16


class Notary:
    """Signs, sends, cosigns. neighbours: site -> the key that verifies its log and its cosignatures."""

    def __init__(
        self,
        site: str,
        store: AuditStore,
        engine: Engine,
        signer: Signer,
        neighbours: Mapping[str, Verifier],
        clock: Clock,
        limits: Limits,
        sink: Sink,
        leads: Callable[[], bool] = lambda: True,
    ) -> None:
        self._engine = engine
        self._signer = signer
        self._neighbours = neighbours
        self._clock = clock
        self._limits = limits
        self._sink = sink
        self._leads = leads  # whether this is the process of the site that signs, asked in a transaction
        self._log = AuditLog(store, clock, site)
        self._witness = Witness(store, clock, signer)
        self._first: dict[str, int] = dict.fromkeys(neighbours, 0)  # records that each neighbour has verified
        self._due = False
        self._signed_s = clock.monotonic_s()
        self._tasks: dict[asyncio.Task[None], str] = {}  # what neighbours said and is being answered, with who said it
        self.send: Callable[[str, Message], None] = lambda peer, message: None  # set once the lines stand
        self.gauge = AuditGauge()

    async def run(self) -> None:
        """A checkpoint whenever there are enough new records or enough time has passed."""
        while True:
            with suppress(StoreUnavailable):  # of a database that is away; the engine tells, and waits for it
                await self._look()
            await asyncio.sleep(min(0.5, self._limits.checkpoint_s))

    async def _look(self) -> None:
        size = self._log.head().size
        self.gauge = replace(self.gauge, size=size)
        new = size - self.gauge.last_checkpoint_size
        overdue = self._clock.monotonic_s() - self._signed_s >= self._limits.checkpoint_s
        if self._due or new >= self._limits.checkpoint_records or (overdue and new > 0):
            await self.checkpoint()

    async def checkpoint(self) -> None:
        """Sign the head as it is now and ask every neighbour for its cosignature."""
        self._due = False
        self._signed_s = self._clock.monotonic_s()
        try:
            head = await self._engine.call(lambda kme: self._sign())
            if head is None:
                return
            for peer, first in list(self._first.items()):
                self.send(peer, await self._engine.call(partial(self._message, first)))
        except KeystrandError as error:
            self._emit("audit.failed", reason=str(error))
            return
        self.gauge = replace(self.gauge, last_checkpoint_size=head)
        self._emit("audit.checkpoint", size=head)

    def _message(self, first: int, kme: Kme) -> Checkpoint:
        return self._log.message(self._signer, first)

    def _sign(self) -> int | None:
        if not self._leads():
            return None
        self._log.checkpoint(self._signer)
        return self._log.head().size

    def hear(self, peer: str, message: Checkpoint | Cosignature, answer: Callable[[Message], None]) -> None:
        """From the peer lines; the work is done in a task, and `answer` goes back the way that the message came.

        What comes while ANSWERS_MAX of that neighbour's are under way is dropped: its next checkpoint holds the same.
        """
        if sum(name == peer for name in self._tasks.values()) >= ANSWERS_MAX:
            return
        task = asyncio.create_task(
            self._cosign(peer, message, answer) if isinstance(message, Checkpoint) else self._accept(peer, message)
        )
        self._tasks[task] = peer
        task.add_done_callback(self._tasks.pop)

    async def _cosign(self, peer: str, message: Checkpoint, answer: Callable[[Message], None]) -> None:
        try:
            verifier = self._neighbours[peer]
            answer(await self._engine.call(lambda kme: self._witness.answer(message, verifier, peer)))
        except KeystrandError as error:
            self._emit("audit.failed", reason=f"cannot cosign for {peer}: {error}")

    async def _accept(self, peer: str, message: Cosignature) -> None:
        if message.problem and message.size < self._log.head().size and self._first[peer] != message.size:
            self._first[peer] = message.size  # the witness says from where it wants to see the records
            self._due = True
            return
        try:
            size = await self._engine.call(lambda kme: self._log.accept(message, self._neighbours[peer]))
        except KeystrandError as error:
            self._emit("audit.failed", reason=str(error))
            return
        self._first[peer] = size
        self.gauge = replace(self.gauge, cosigned_size=size, cosigned_at_s=self._clock.now_s())
        self._emit("audit.cosigned", size=size, peer=peer)

    def _emit(self, kind: str, **fields: str | int) -> None:
        self._sink.emit(Event(kind, self._clock.now_s(), fields))
