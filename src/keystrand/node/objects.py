"""The managed objects that the KMIP edge sees: the register of this site's keys, each shown to the SAEs that share it.

A key is read once, as by ETSI GS QKD 014: Get hands out the caller's waiting copy, in the same transaction as its audit
record. What a client does to a key goes the way of every operator's order, with the SAE as its actor, so that the other
site hears of it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final, TypeVar

from keystrand.api import kmip
from keystrand.api.kmip import Criteria, RevocationOrder
from keystrand.core.errors import KeystrandError, NotPermitted, UnknownKey
from keystrand.core.identity import Identity
from keystrand.core.register import KeyRecord, Scope
from keystrand.core.secret import Secret
from keystrand.core.states import Change, State
from keystrand.kme.ask import require_local
from keystrand.kme.lifecycle import PAGE_MAX, WORDS_MAX
from keystrand.kme.service import Kme
from keystrand.node.engine import Engine
from keystrand.wire import kmip_attributes as attributes

T = TypeVar("T")
UNKNOWN: Final = "no such key"
# The register has no index by SAE, and a search must not stop the site: a page of it at a time, and so many of them.
PAGES_MAX: Final = 256


class EngineObjects:
    """Satisfies api.kmip.ManagedObjects."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def locate(self, caller: Identity, criteria: Criteria, /) -> list[str]:
        """Keys are shown to the SAEs of this site that share them, whether or not their copy still waits here."""
        scope, fitting = scope_of(criteria), list[str]()
        before: tuple[float, str] | None = None
        for _ in range(PAGES_MAX):
            began_s = time.perf_counter()
            records = await self._page(caller.name, scope, before)
            mine = (record for record in records if record.concerns(caller.name))
            fitting += [record.key_id for record in mine if criteria.fits(shown(record))]
            if len(records) < PAGE_MAX or len(fitting) >= criteria.offset + criteria.maximum:
                break
            before = (records[-1].created_s, records[-1].key_id)
            await asyncio.sleep(time.perf_counter() - began_s)  # who searches leaves half of the time to others
        return fitting[criteria.offset :][: criteria.maximum]

    async def _page(self, sae: str, scope: Scope, before: tuple[float, str] | None) -> list[KeyRecord]:
        def look(kme: Kme) -> list[KeyRecord]:
            require_local(kme.site, sae)
            return kme.site.store.register.find(scope, before, PAGE_MAX, newest=True)

        return await self._call("locate", sae, look)

    async def record(self, caller: Identity, key_id: str, /) -> kmip.KeyRecord:
        return shown(await self._call("attributes", caller.name, lambda kme: own(kme, caller.name, key_id)))

    async def get(self, caller: Identity, key_id: str, /) -> Secret:
        """The caller's copy, once. UnknownKey afterwards, and for the SAE that drew the key: it has it already."""

        def fetch(kme: Kme) -> Secret:
            record = own(kme, caller.name, key_id)
            if record.state is not State.ACTIVE or record.initiator == caller.name:
                raise UnknownKey(UNKNOWN)
            (key,) = kme.get_key_with_ids(caller.name, record.initiator, (key_id,))
            return key.material

        return await self._call("get", caller.name, fetch)

    async def activate(self, caller: Identity, key_id: str, /) -> None:
        await self._change(caller.name, key_id, Change.ACTIVATE, "activated by KMIP")

    async def revoke(self, caller: Identity, key_id: str, order: RevocationOrder, /) -> None:
        await self._change(caller.name, key_id, order.change, reason_of(order))

    async def destroy(self, caller: Identity, key_id: str, /) -> None:
        await self._change(caller.name, key_id, Change.DESTROY, "destroyed by KMIP")

    async def _change(self, sae: str, key_id: str, change: Change, reason: str) -> None:
        def order(kme: Kme) -> None:
            own(kme, sae, key_id)
            kme.lifecycle.change(change, Scope(key_ids=(key_id,)), actor=f"sae {sae}", reason=reason)

        await self._call(change.value, sae, order)

    async def _call(self, operation: str, sae: str, do: Callable[[Kme], T]) -> T:
        def note(kme: Kme, error: KeystrandError) -> None:
            kme.note_refusal(f"kmip {operation}", sae, "", error)

        try:
            return await self._engine.call(do, refused=note)
        except NotPermitted:
            raise UnknownKey(UNKNOWN) from None


def own(kme: Kme, sae: str, key_id: str) -> KeyRecord:
    """The record of a key that `sae`, of this site, shares. Raises UnknownKey, the same for keys of others."""
    require_local(kme.site, sae)
    record = kme.site.store.register.get(key_id)
    if record is None or not record.concerns(sae):
        raise UnknownKey(UNKNOWN)
    return record


def shown(record: KeyRecord) -> kmip.KeyRecord:
    """A record as KMIP shows it."""
    tags = dict(tag.partition("=")[::2] for tag in record.tags)
    facts = {
        "initiator": record.initiator,
        "responders": " ".join(record.responders),
        "protection": record.protection.label,
        "link": record.link,
        "peer": record.peer,
    }
    return kmip.KeyRecord(
        key_id=record.key_id,
        length_bits=record.size_bits,
        state=record.state,
        created_s=record.created_s,
        activated_s=record.activated_s,
        deactivated_s=record.changed_s if record.state is State.DEACTIVATED else None,
        compromised_s=record.compromised_s or None,
        destroyed_s=record.changed_s if record.state is State.DESTROYED else None,
        tags={**tags, **{name: value for name, value in facts.items() if value}},
    )


def scope_of(criteria: Criteria) -> Scope:
    """What the register finds by an index; whose keys they are and `Criteria.fits` are for the caller to ask."""
    scope = Scope(key_ids=tuple(sorted(criteria.key_ids)))
    for wanted in criteria.wanted:
        if wanted.name == "Name" and not scope.key_ids:
            scope = replace(scope, key_ids=(attributes.name_of(wanted),))  # a key's name is its ID
    return scope


def reason_of(order: RevocationOrder) -> str:
    """In words for the register and the log: what the client gave as its reason, and since when it says that is so."""
    words = order.code.name.lower().replace("_", " ")
    if order.compromised_s is not None:
        words += f" since {order.compromised_s:.0f}"
    return f"KMIP: {words}: {order.message}"[:WORDS_MAX] if order.message else f"KMIP: {words}"
