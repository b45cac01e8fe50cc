"""Chunks of key streams on their way between two KMEs: reserved ahead, agreed with the peer, kept for the SAE that will ask.

A chunk is a key like any other. What differs: its ID follows from the stream and its place in it, so that both ends name it
without a word; and once the peer has it, the initiator's copy waits in the store instead of leaving at once. Until then its
bits stay reserved in the ledger, so that what is never asked for is burnt or expires by the books.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

import msgspec

from keystrand.core.key import Key, Segment
from keystrand.core.labels import LABELS
from keystrand.core.pool import Copy, OpenRequest
from keystrand.core.protection import Strand
from keystrand.core.states import Step
from keystrand.kme.ask import Ask
from keystrand.kme.pool import Pool
from keystrand.kme.quota import Quotas
from keystrand.kme.reservation import Pending, Reservations
from keystrand.kme.site import Site
from keystrand.kme.strands import Strands
from keystrand.wire.peer import Refused, Reserve, Reserved, Void, WireKey

# the peer has made nothing under these refusals and never will, so the same places of a stream may be tried again
REPEATABLE = frozenset({"strand", "epoch", "gone", "owner", "state", "range", "policy", "shape"})


def chunk_id(ksid: str, instance: str, index: int) -> str:
    """The key ID of chunk `index`: a UUID of version 8 (RFC 9562) from a hash of stream, instance and place."""
    digest = hashlib.sha256(LABELS["stream/chunk"] + UUID(ksid).bytes + UUID(instance).bytes + index.to_bytes(8, "big"))
    raw = bytearray(digest.digest()[:16])
    raw[6], raw[8] = 0x80 | raw[6] & 0x0F, 0x80 | raw[8] & 0x3F
    return str(UUID(bytes=bytes(raw)))


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkAsk(Ask):
    """A request for the chunks `first` to `first + number - 1` of a stream."""

    ksid: str
    instance: str
    first: int
    ttl_s: float

    def key_ids(self) -> list[str]:
        return [chunk_id(self.ksid, self.instance, self.first + place) for place in range(self.number)]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a request: agreed, or not; and whether the same places may be tried again."""

    ask: ChunkAsk
    agreed: bool
    repeatable: bool = False


class Chunks(Reservations):
    """The reservations of streams. `settled` hears the outcome of each; nothing here answers an SAE."""

    def __init__(
        self, site: Site, pool: Pool, strands: Strands, quotas: Quotas, settled: Callable[[Outcome], None]
    ) -> None:
        super().__init__(site, pool, strands)
        self.quotas = quotas  # an SAE has one quota, however it draws
        self._settled = settled

    def reserve(self, ask: ChunkAsk) -> None:
        """Raises Unavailable, and has changed nothing then."""
        self.open(None, ask)

    def give_up_stream(self, ksid: str, reason: str) -> None:
        """Burn what is on its way for this stream, and tell the peer."""
        for request_id, pending in list(self._pending.items()):
            if isinstance(pending.ask, ChunkAsk) and pending.ask.ksid == ksid:
                self._give_up(request_id, reason)

    def _message(
        self, ask: Ask, chosen: frozenset[Strand], link: str, plan: list[tuple[Segment, ...]], strand_id: str
    ) -> Reserve:
        assert isinstance(ask, ChunkAsk)
        message = super()._message(ask, chosen, link, plan, strand_id)
        keys = tuple(WireKey(key_id, key.segments) for key_id, key in zip(ask.key_ids(), message.keys, strict=True))
        return msgspec.structs.replace(message, keys=keys, ttl_s=ask.ttl_s)

    # the peer answers ----------------------------------------------------------------------------------------------

    def hear_reserved(self, peer: str, message: Reserved) -> None:
        """Both ends have the chunks: the initiator's copies wait for it (invariant I3)."""
        pending = self._pending.get(message.request_id)
        if pending is None or pending.ask.peer != peer:
            return
        request = self.site.store.request(message.request_id)
        if request is None or request.void:
            return
        ask = pending.ask
        assert isinstance(ask, ChunkAsk)
        for key, wire in zip(pending.keys, pending.message.keys, strict=True):
            self._keep(ask, key, wire, request)
        self.site.store.drop_request(request.request_id)
        del self._pending[message.request_id]
        self._settled(Outcome(ask, agreed=True))

    def _keep(self, ask: ChunkAsk, key: Key, wire: WireKey, request: OpenRequest) -> None:
        now_s = self.site.clock.now_s()
        copy = Copy(
            key_id=key.key_id,
            recipient=ask.initiator,
            initiator=ask.initiator,
            peer=ask.peer,
            link=request.link,
            request_id=request.request_id,
            length_bits=ask.size_bits,
            strands=key.strands,
            segments=tuple(Segment(*parts) for parts in wire.segments),
            step=Step.READY,
            reserved_s=now_s,
            expires_s=now_s + ask.ttl_s,
        )
        self.site.store.add_copy(copy, key.material)
        key.material.wipe()

    def hear_refused(self, peer: str, message: Refused) -> None:
        pending = self._pending.get(message.request_id)
        if pending is None or pending.ask.peer != peer:
            return
        if message.reason == "strand":
            self.strands.forget(peer)
            self.strands.renew(peer)
        self._end(message.request_id, f"refused: {message.reason}", repeatable=message.reason in REPEATABLE)

    # giving up -----------------------------------------------------------------------------------------------------

    def _give_up(self, request_id: str, reason: str) -> None:
        """Burn. The peer may have handed out its copies, so these places of the stream are never filled again."""
        self._end(request_id, reason, repeatable=False)

    def _end(self, request_id: str, reason: str, *, repeatable: bool) -> None:
        request = self.site.store.request(request_id)
        if request is not None and not request.void:
            self.burn(request, reason)
            self.site.send(request.peer, Void(request_ids=(request_id,)))
        pending: Pending | None = self._pending.pop(request_id, None)
        if pending is None:
            return
        for key in pending.keys:
            key.material.wipe()
        assert isinstance(pending.ask, ChunkAsk)
        self._settled(Outcome(pending.ask, agreed=False, repeatable=repeatable))

    def waits_for_peer(self, ksid: str) -> bool:
        """Is a request of this stream on its way?"""
        return any(isinstance(p.ask, ChunkAsk) and p.ask.ksid == ksid for p in self._pending.values())
