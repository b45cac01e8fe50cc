"""Chunks of key streams on their way between two KMEs: reserved ahead, agreed with the peer, kept for the SAE that will ask.

A chunk is a key like any other. What differs: its ID follows from the stream and its place in it, so that both ends name it
without a word; and once the peer has it, the initiator's copy waits in the store instead of leaving at once. Until then its
bits stay reserved in the ledger, so that what is never asked for is burnt or expires by the books.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID

import msgspec

from keystrand.core.errors import Unavailable
from keystrand.core.key import Segment
from keystrand.core.labels import LABELS
from keystrand.core.pool import Copy, OpenRequest
from keystrand.core.protection import Strand, strands_for
from keystrand.core.secret import Secret
from keystrand.core.states import Step
from keystrand.kme.ask import Ask
from keystrand.kme.pool import BATCH_MAX
from keystrand.kme.reservation import Meant, Reservations
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


@dataclass(slots=True)
class Flight:
    """A request on its way, its chunks in memory until the peer answers. A crash forgets it; recovery burns its bits."""

    ask: ChunkAsk
    message: Reserve
    materials: list[Secret] = field(repr=False)
    deadline_s: float
    repeat_s: float


class Chunks:
    """The requests of all streams. `settled` hears the outcome of each; nothing here answers an SAE."""

    def __init__(
        self, site: Site, reservations: Reservations, strands: Strands, settled: Callable[[Outcome], None]
    ) -> None:
        self.site = site
        self.reservations = reservations
        self.strands = strands
        self._settled = settled
        self._flights: dict[str, Flight] = {}
        reservations.others.append(self)

    def reserve(self, ask: ChunkAsk) -> None:
        """Reserve and tell the peer. Raises Unavailable when there is nothing to reserve; changes nothing then."""
        ordinary, quotas = self.reservations, self.reservations.quotas  # an SAE has one quota, however it draws
        if len(self._flights) >= BATCH_MAX:
            raise Unavailable("too many streams are waiting for the peer KME")
        quotas.check(ask)
        level, link = ordinary._level_for(ask)
        chosen = strands_for(level)
        parts = ordinary._allocate(ask, chosen, link)
        epoch = self.strands.current(ask.peer) if Strand.PQC in chosen else None
        plan = [segments for segments, _ in parts]
        message = self._message(ask, chosen, link, plan, epoch.strand_id if epoch else "")
        secret = epoch.secret if epoch else None
        materials = ordinary.weave(message, [piece for _, piece in parts], secret, ask.peer)
        self._send(ask, message, materials)
        quotas.spend(ask)
        if epoch:
            epoch.keys += ask.number

    def _message(
        self, ask: ChunkAsk, chosen: frozenset[Strand], link: str, plan: list[tuple[Segment, ...]], strand_id: str
    ) -> Reserve:
        """An ordinary request, but for the names of the keys and how long they live."""
        message = self.reservations._message(ask, chosen, link, plan, strand_id)
        keys = tuple(WireKey(key_id, key.segments) for key_id, key in zip(ask.key_ids(), message.keys, strict=True))
        return msgspec.structs.replace(message, keys=keys, ttl_s=ask.ttl_s)

    def _send(self, ask: ChunkAsk, message: Reserve, materials: list[Secret]) -> None:
        request = OpenRequest(
            request_id=message.request_id,
            peer=ask.peer,
            link=message.link,
            bits=ask.bits if message.link else 0,
            op=message.op,
            created_s=self.site.clock.now_s(),
            holder=self.site.incarnation,
        )
        self.site.store.add_request(request)
        now_s, limits = self.site.clock.monotonic_s(), self.site.limits
        deadline_s, repeat_s = now_s + limits.peer_reply_timeout_s, now_s + limits.peer_retry_s
        self._flights[message.request_id] = Flight(ask, message, materials, deadline_s, repeat_s)
        self.site.send(ask.peer, message)

    # the peer answers ----------------------------------------------------------------------------------------------

    def hear_reserved(self, peer: str, message: Reserved) -> None:
        """Both ends have the chunks: the initiator's copies wait for it (invariant I3)."""
        flight = self._flights.get(message.request_id)
        if flight is None or flight.ask.peer != peer:
            return
        request = self.site.store.request(message.request_id)
        if request is None or request.void:
            return
        strands = frozenset(Strand(name) for name in flight.message.strands)
        keys = [
            (wire.key_id, tuple(Segment(*parts) for parts in wire.segments), material)
            for wire, material in zip(flight.message.keys, flight.materials, strict=True)
        ]
        self.site.store.add_copies(self._alike(flight.ask, strands, request), keys)
        for material in flight.materials:
            material.wipe()
        self.reservations.enter(request.peer, flight.message, list(flight.message.keys))
        self.site.store.drop_request(request.request_id)
        del self._flights[message.request_id]
        self._settled(Outcome(flight.ask, agreed=True))

    def _alike(self, ask: ChunkAsk, strands: frozenset[Strand], request: OpenRequest) -> Copy:
        now_s = self.site.clock.now_s()
        return Copy(
            key_id="",
            recipient=ask.initiator,
            initiator=ask.initiator,
            peer=ask.peer,
            link=request.link,
            request_id=request.request_id,
            length_bits=ask.size_bits,
            strands=strands,
            segments=(),
            step=Step.READY,
            reserved_s=now_s,
            expires_s=now_s + ask.ttl_s,
            tenant=ask.tenant,
        )

    def hear_refused(self, peer: str, message: Refused) -> None:
        flight = self._flights.get(message.request_id)
        if flight is None or flight.ask.peer != peer:
            return
        if message.reason == "strand":
            self.strands.forget(peer)
            self.strands.renew(peer)
        self._end(message.request_id, f"refused: {message.reason}", repeatable=message.reason in REPEATABLE)

    # giving up -----------------------------------------------------------------------------------------------------

    def _end(self, request_id: str, reason: str, *, repeatable: bool) -> None:
        """Burn. Unless the peer refused, it may have handed out its copies: those places are never filled again."""
        request = self.site.store.request(request_id)
        if request is not None and not request.void:
            self.reservations.burn(request, reason)
            self.site.send(request.peer, Void(request_ids=(request_id,)))
        flight = self._flights.pop(request_id)
        for material in flight.materials:
            material.wipe()
        self._settled(Outcome(flight.ask, agreed=False, repeatable=repeatable))

    def give_up(self, reason: str, *, ksid: str = "", peer: str = "") -> None:
        """Burn what is on its way for one stream, or towards one peer."""
        for request_id, flight in list(self._flights.items()):
            if flight.ask.ksid == ksid or flight.ask.peer == peer:
                self._end(request_id, reason, repeatable=False)

    def count_where(self, is_meant: Meant) -> int:
        """As of Reservations."""
        return sum(len(self._flights[request_id].materials) for request_id in self._meant(is_meant))

    def _meant(self, is_meant: Meant) -> list[str]:
        return [i for i, flight in self._flights.items() if is_meant(flight.ask.peer, flight.message)]

    def give_up_where(self, is_meant: Meant, reason: str) -> int:
        """As of Reservations."""
        meant = self._meant(is_meant)
        count = sum(len(self._flights[request_id].materials) for request_id in meant)
        for request_id in meant:
            self._end(request_id, reason, repeatable=False)
        return count

    def on_their_way(self, ksid: str) -> bool:
        return any(flight.ask.ksid == ksid for flight in self._flights.values())

    def tick(self) -> None:
        """Repeat what was not answered, give up what is overdue."""
        now_s = self.site.clock.monotonic_s()
        for request_id in [i for i, flight in self._flights.items() if now_s >= flight.deadline_s]:
            self._end(request_id, "no answer in time", repeatable=False)
        for flight in self._flights.values():
            if now_s >= flight.repeat_s:
                flight.repeat_s = now_s + self.site.limits.peer_retry_s
                self.site.send(flight.ask.peer, flight.message)
