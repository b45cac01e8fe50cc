"""Keys that were handed to an enterprise key manager are ended there when they are ended here, however long that takes.

A paper per key and manager says what was told there last. It is written in the transaction that notes the export, so a crash
forgets nothing; what the register says now is compared with it whenever a key changes, and now and then. Every step at the
manager may be repeated.

    here                      there
    deactivated               revoked (Cessation of Operation): it still opens what it protects
    compromised               revoked (Key Compromise)
    destroyed, or forgotten   destroyed
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

import msgspec

from keystrand.config.kms import Kms
from keystrand.core.clock import Clock
from keystrand.core.errors import KeystrandError
from keystrand.core.events import Event, Sink
from keystrand.core.states import State
from keystrand.kme.service import Kme
from keystrand.net.tls import TlsContexts, TlsFiles, TlsPolicy
from keystrand.node.beside import Beside
from keystrand.node.engine import Engine
from keystrand.store.sql import SqlStore
from keystrand.transport.kmip import KmipClient
from keystrand.transport.kmip_export import KmsExport
from keystrand.wire.keyuse import UseReport

CONSUMER: Final = "kms "  # and the manager's name: what an export is called in reports of use
PAPER: Final = "export"
PERIOD_S: Final = 60.0
ATTEMPT_S: Final = 10.0
PORTION: Final = 64  # keys told in one run, so that a long list shows its progress
CHANGES: Final = frozenset({"key.deactivated", "key.compromised", "key.destroyed"})
_RANK: Final = {State.DEACTIVATED: 1, State.COMPROMISED: 2, State.DESTROYED: 3}


class Export(msgspec.Struct, frozen=True, kw_only=True):
    """A key at a manager. told: how far it was ended there, as _RANK."""

    key_id: str
    kms: str
    told: int = 0

    @property
    def name(self) -> str:
        return f"{self.key_id} {self.kms}"


def client_of(kms: Kms) -> KmipClient:
    """Connects on first use."""
    policy = TlsPolicy(minimum=kms.minimum, require_pqc_group=kms.require_pqc_group)
    contexts = TlsContexts(TlsFiles(kms.certificate, kms.private_key, kms.trust), policy, rule="cn")
    address = kms.address
    return KmipClient(address.host, address.port, contexts, expect=kms.expect)


class Withdrawals:
    """Satisfies core.events.Sink: it hears of changes. leads: whether this replica does it, asked in a transaction."""

    def __init__(
        self,
        managers: Mapping[str, Kms],
        store: SqlStore,
        clock: Clock,
        sink: Sink,
        *,
        leads: Callable[[], bool] = lambda: True,
        export_of: Callable[[Kms], KmsExport] | None = None,
    ) -> None:
        self._managers = managers
        self._papers = store.papers
        self._clock = clock
        self._leads = leads
        self._export_of = export_of or (lambda kms: KmsExport(client=client_of(kms), deadline_s=ATTEMPT_S))
        self._engine: Engine | None = None
        self.job = Beside("kms-withdrawal", PERIOD_S, self._work, clock, sink)

    def emit(self, event: Event, /) -> None:
        if event.kind in CHANGES:
            self.job.wake()

    def note(self, kme: Kme, key_id: str, report: UseReport) -> None:
        """An SAE says what it uses a key for: an export to a manager that is known here is remembered."""
        kms = report.consumer.removeprefix(CONSUMER)
        if report.consumer.startswith(CONSUMER) and kms in self._managers:
            self._put(Export(key_id=key_id, kms=kms))

    def _put(self, export: Export) -> None:
        self._papers.put(PAPER, export.name, self._clock.now_s(), msgspec.json.encode(export).decode())

    async def run(self, engine: Engine, /) -> None:
        """Until cancelled."""
        self._engine = engine
        await self.job.run()

    async def _work(self) -> int:
        """What has to be told, manager by manager. Raises the last failure once every manager had its turn."""
        assert self._engine is not None
        todo = await self._engine.call(self._due)
        done, failure = 0, None
        for kms in sorted({export.kms for export, _ in todo}):
            part = [(export, rank) for export, rank in todo if export.kms == kms]
            try:
                done += await self._tell_all(self._engine, self._managers[kms], part)
            except KeystrandError as error:
                failure = type(error)(f"{kms}: {error}", hint=error.hint)
        if failure is not None:
            raise failure
        if len(todo) == PORTION:
            self.job.wake()
        return done

    def _due(self, kme: Kme) -> list[tuple[Export, int]]:
        """Exports that are behind, with the rank that they should have."""
        if not self._leads():
            return []
        found: list[tuple[Export, int]] = []
        for kept in self._papers.all(PAPER):
            export = msgspec.json.decode(kept, type=Export)
            record = kme.site.store.register.get(export.key_id)
            rank = _RANK[State.DESTROYED] if record is None else _RANK.get(record.state, 0)
            if rank > export.told and export.kms in self._managers and len(found) < PORTION:
                found.append((export, rank))
        return found

    async def _tell_all(self, engine: Engine, kms: Kms, part: list[tuple[Export, int]]) -> int:
        export = self._export_of(kms)
        try:
            for one, rank in part:
                count = await asyncio.to_thread(_tell, export, one.key_id, rank)
                await engine.call(partial(self._told, one, rank, count))
        finally:
            await asyncio.to_thread(export.client.close)
        return len(part)

    def _told(self, export: Export, rank: int, objects: int, kme: Kme) -> None:
        state = next(state for state, number in _RANK.items() if number == rank)
        kme.site.record("kms.told", key_id=export.key_id, kms=export.kms, state=state.value, objects=objects)
        if state is State.DESTROYED:
            self._papers.drop(PAPER, export.name)
        else:
            self._put(msgspec.structs.replace(export, told=rank))


def _tell(export: KmsExport, key_id: str, rank: int) -> int:
    return export.withdraw(
        key_id,
        compromised=rank == _RANK[State.COMPROMISED],
        destroy=rank == _RANK[State.DESTROYED],
        message="ended by its KME",
    )
