"""Managed objects in memory behind the KMIP edge: right by construction, for tests of the edge and of its clients."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from keystrand.api.kmip import Criteria, KeyRecord, RevocationOrder
from keystrand.core.clock import Clock, SystemClock
from keystrand.core.errors import UnknownKey
from keystrand.core.identity import Identity
from keystrand.core.secret import Secret
from keystrand.core.states import Change, State, advance

UNKNOWN = "no such key"


@dataclass(slots=True)
class _Held:
    owner: str
    record: KeyRecord
    material: Secret = field(repr=False)


@dataclass(slots=True)
class MemoryObjects:
    """Keys by ID, each with one owner."""

    clock: Clock = field(default_factory=SystemClock)
    held: dict[str, _Held] = field(default_factory=dict)
    orders: list[tuple[str, RevocationOrder]] = field(default_factory=list)

    def put(self, owner: str, record: KeyRecord, material: bytes) -> None:
        self.held[record.key_id] = _Held(owner, record, Secret(material))

    async def locate(self, caller: Identity, criteria: Criteria, /) -> list[str]:
        mine = [held.record for held in self.held.values() if held.owner == caller.name]
        fitting = sorted(filter(criteria.fits, mine), key=lambda record: -record.created_s)
        return [record.key_id for record in fitting[criteria.offset :][: criteria.maximum]]

    async def record(self, caller: Identity, key_id: str, /) -> KeyRecord:
        return self._of(caller, key_id).record

    async def get(self, caller: Identity, key_id: str, /) -> Secret:
        held = self._of(caller, key_id)
        if held.record.state is State.DESTROYED:
            raise UnknownKey(UNKNOWN)
        return Secret(held.material.reveal())

    async def activate(self, caller: Identity, key_id: str, /) -> None:
        self._advance(self._of(caller, key_id), Change.ACTIVATE)

    async def revoke(self, caller: Identity, key_id: str, order: RevocationOrder, /) -> None:
        self._advance(self._of(caller, key_id), order.change)
        self.orders.append((key_id, order))

    async def destroy(self, caller: Identity, key_id: str, /) -> None:
        held = self._of(caller, key_id)
        self._advance(held, Change.DESTROY)
        held.material.wipe()

    def _of(self, caller: Identity, key_id: str) -> _Held:
        held = self.held.get(key_id)
        if held is None or held.owner != caller.name:
            raise UnknownKey(UNKNOWN)
        return held

    def _advance(self, held: _Held, change: Change) -> None:
        state, now_s = advance(held.record.state, change), self.clock.now_s()
        match change:
            case Change.ACTIVATE:
                held.record = replace(held.record, state=state, activated_s=now_s)
            case Change.DEACTIVATE:
                held.record = replace(held.record, state=state, deactivated_s=now_s)
            case Change.COMPROMISE:
                held.record = replace(held.record, state=state, compromised_s=now_s)
            case Change.DESTROY:
                held.record = replace(held.record, state=state, destroyed_s=now_s)
