"""The initiator's side of a key: reserve, agree with the peer, release. What stays ambiguous is burnt.

ask ─ allocate, durable ─▶ Reserve ─▶ peer durable ─▶ Reserved ─ audit and state durable ─▶ keys leave
                              └ no answer in time, or Refused ─▶ bits burnt, Void until the peer confirms
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence, Set
from contextlib import suppress
from dataclasses import replace
from typing import Protocol

import msgspec

from keystrand.core.clock import new_key_ids, new_uuid
from keystrand.core.errors import (
    KeystrandError,
    KeyUnavailable,
    PeerUnavailable,
    QuotaExceeded,
    StrandUnavailable,
    Unavailable,
)
from keystrand.core.key import Key, Segment
from keystrand.core.policy import Pair
from keystrand.core.pool import Account, Copy, OpenRequest
from keystrand.core.protection import Protection, Strand, strands_for
from keystrand.core.secret import Secret
from keystrand.core.states import Step
from keystrand.kme.ask import Ask
from keystrand.kme.delivery import Delivery, spelt
from keystrand.kme.draws import Draws
from keystrand.kme.fallback import Fallbacks
from keystrand.kme.pool import BATCH_MAX, Pool
from keystrand.kme.quota import Quotas
from keystrand.kme.register import Register
from keystrand.kme.share import Shares
from keystrand.kme.site import Refuse, Reply, Site
from keystrand.kme.stock import Batch, Shelf, Stock, Waiter
from keystrand.kme.strands import Strands
from keystrand.wire.peer import Refused, Reserve, Reserved, Void, Voided, WireKey

SPARE_FACTOR = 8  # a link has bits to spare for keys ahead of demand when it could serve so many such batches


def weave(
    site: Site, message: Reserve, pieces: Sequence[Secret | None], strand: Secret | None, sites: tuple[str, str]
) -> list[Secret]:
    """The material of the keys of a Reserve, in their order: the same at both ends.

    Bound into each: its ID, the SAEs, `sites` (initiator's, responder's), the strand epoch. pieces: link bits of each key.
    """
    context = [text.encode() for text in (message.initiator, *message.responders, *sites, message.strand_id)]
    names = [key.key_id.encode() for key in message.keys]
    return site.combiner.combine_each(names, pieces, strand, context=context, size_bytes=message.size_bits // 8)


def _void(requests: list[OpenRequest]) -> Void:
    kept = tuple(key_id for request in requests for key_id in request.key_ids[: request.released])
    return Void(request_ids=tuple(request.request_id for request in requests), kept=kept)


def _left_of(batch: Batch) -> Reserve:
    if len(batch.keys) == len(batch.message.keys):
        return batch.message
    return msgspec.structs.replace(batch.message, keys=tuple(wire for _, wire in batch.keys))


Meant = Callable[[str, Reserve], bool]  # of a peer and what is left of a request to it


class OnTheWay(Protocol):
    """Whoever has keys that were not released yet, beside the ordinary requests."""

    def count_where(self, is_meant: Meant) -> int: ...
    def give_up_where(self, is_meant: Meant, reason: str) -> int: ...  # burns them; how many


class Reservations:
    """All requests of this site's SAEs that are on their way."""

    def __init__(self, site: Site, pool: Pool, strands: Strands, register: Register) -> None:
        self.site = site
        self.pool = pool
        self.strands = strands
        self.register = register
        draws = Draws(site)
        self.quotas = Quotas(site, draws)
        self.shares = Shares(site, draws)
        pool.reserved_bits = self.shares.reserved_bits
        self.fallbacks = Fallbacks(site)
        self.stock = Stock()
        self._pending: dict[str, Batch] = {}
        self.others: list[OnTheWay] = []  # who else has keys on their way

    # ask -----------------------------------------------------------------------------------------------------------

    def open(self, ticket: object, ask: Ask, *, stocked: bool = False) -> None:
        """Hand out keys that were agreed ahead, or reserve and tell the peer. Raises Unavailable; changes nothing then.

        stocked: whether the peer is there, so that what it agreed to still holds.
        """
        if len(self._pending) + self.stock.waiting >= self.site.limits.pending_requests_max:
            raise Unavailable("too many requests are waiting for the peer KME")
        self.quotas.check(ask)
        shelf = self.stock.shelf(ask)
        if stocked and shelf.spare >= ask.number:
            shelf.wait(Waiter(ticket, ask))
            self._serve(shelf)
        else:
            self._reserve(ticket, ask)
        self.quotas.spend(ask)
        shelf.note(ask.number, self.site.clock.monotonic_s())
        if stocked and (missing := shelf.missing(self.site.limits)):
            # a failure ahead of demand must not undo what was just released: memory could not follow
            with suppress(Unavailable), self.site.store.savepoint():
                self._restock(ask, missing)

    def _serve(self, shelf: Shelf) -> None:
        """Let keys go to those who wait for them, if they are there."""
        for waiter in shelf.served():
            keys = [key for batch, share in shelf.pick(waiter.ask.number) for key in self._release(batch, share)]
            self.site.outbox.append(Reply(waiter.ticket, keys))

    def _restock(self, ask: Ask, number: int) -> None:
        """Agree on `number` keys ahead of demand, at the level that the policy wants, from a link with bits to spare."""
        ahead = replace(ask, number=min(number, self.site.limits.keys_per_request_max))
        chosen = strands_for(ask.required)
        if not chosen <= {Strand.QKD, Strand.PQC} or (Strand.PQC in chosen and not self.strands.usable(ask.peer)):
            return
        if Strand.QKD in chosen and not self.shares.allows(ahead, self._have_bits(ask.peer)):
            return
        wanted_bits = SPARE_FACTOR * ahead.bits if Strand.QKD in chosen else 0
        if any(self.pool.owned_bits(link) >= wanted_bits for link in self.site.links_to(ask.peer)):
            link = self._link_for(ahead) if Strand.QKD in chosen else ""
            self._reserve_from(None, ahead, ask.required, link)
            self.stock.shelf(ask).coming += ahead.number

    def _reserve(self, ticket: object, ask: Ask) -> None:
        self._reserve_from(ticket, ask, *self._level_for(ask))

    def _reserve_from(self, ticket: object | None, ask: Ask, level: Protection, link: str) -> None:
        chosen = strands_for(level)
        parts = self._allocate(ask, chosen, link)
        epoch = self.strands.current(ask.peer) if Strand.PQC in chosen else None
        message = self._message(
            ask, chosen, link, [segments for segments, _ in parts], epoch.strand_id if epoch else ""
        )
        woven = self.weave(message, [piece for _, piece in parts], epoch.secret if epoch else None, ask.peer)
        keys = deque(
            (Key(key_id=wire.key_id, material=material, strands=chosen), wire)
            for wire, material in zip(message.keys, woven, strict=True)
        )
        self.site.store.add_request(
            OpenRequest(
                request_id=message.request_id,
                peer=ask.peer,
                link=link,
                bits=ask.bits if link else 0,
                op=message.op,
                created_s=self.site.clock.now_s(),
                holder=self.site.incarnation,
                key_ids=tuple(key.key_id for key in message.keys) if ticket is None else (),
            )
        )
        if epoch:
            epoch.keys += ask.number
        now_s = self.site.clock.monotonic_s()
        limits = self.site.limits
        self._pending[message.request_id] = Batch(
            ticket, ask, message, keys, now_s, now_s + limits.peer_reply_timeout_s, now_s + limits.peer_retry_s
        )
        self.site.send(ask.peer, message)

    def _level_for(self, ask: Ask) -> tuple[Protection, str]:
        """The level to serve and the link to serve it from: the required one, or a waived lower one if that fails."""
        problem: Unavailable | None = None
        for level in sorted((p for p in Protection if ask.floor <= p <= ask.required), reverse=True):
            try:
                link = self._source_for(ask, level)
            except QuotaExceeded:
                raise  # the bits are there, but not for this SAE: nothing is missing
            except Unavailable as error:
                problem = problem or error
                continue
            if level < ask.required:
                self.site.note(
                    "downgrade.waived",
                    initiator=ask.initiator,
                    responder=ask.responders[0],
                    required=ask.required.label,
                    served=level.label,
                )
            return level, link
        assert problem is not None
        return self._fall_back(ask, problem)

    def _source_for(self, ask: Ask, level: Protection) -> str:
        """The link that keys of this level come from, or "" where they need none. Raises Unavailable."""
        chosen = strands_for(level)
        if not chosen or Strand.CLASSICAL in chosen:
            raise StrandUnavailable(f"this KME makes no keys of level {level.label}")
        if Strand.PQC in chosen:
            self.strands.current(ask.peer)
        return self._link_for(ask) if Strand.QKD in chosen else ""

    def _fall_back(self, ask: Ask, problem: Unavailable) -> tuple[Protection, str]:
        """What the rule allows when it fails open. Raises `problem` where it fails closed, or has nothing either."""
        level = self.fallbacks.level_for(ask)
        if level is None:
            raise problem
        try:
            link = self._source_for(ask, level)
        except Unavailable:
            raise problem from None
        self.fallbacks.use(ask, level, problem)
        return level, link

    def _have_bits(self, peer: str) -> int:
        return sum(self.pool.owned_bits(link) for link in self.site.links_to(peer))

    def _link_for(self, ask: Ask) -> str:
        """The link with the most bits of our own; asks the peer to lend when they do not suffice."""
        links = sorted(self.site.links_to(ask.peer), key=lambda link: (-self.pool.owned_bits(link), link))
        if not links:
            raise KeyUnavailable(f"no QKD link to {ask.peer}")
        have_bits = self.pool.owned_bits(links[0])
        if have_bits < ask.bits:
            raise KeyUnavailable(
                f"{ask.peer}: asked for {ask.bits} bits, {have_bits} at hand",
                hint="ask for fewer or smaller keys, or see `keystrand status` for the refill rate",
            )
        self.shares.check(ask, self._have_bits(ask.peer))
        return links[0]

    def _allocate(
        self, ask: Ask, chosen: frozenset[Strand], link: str
    ) -> list[tuple[tuple[Segment, ...], Secret | None]]:
        if Strand.QKD not in chosen:
            return [((), None)] * ask.number
        have_bits = self._have_bits(ask.peer)
        parts = self.pool.allocate(link, ask.number, ask.size_bits)
        self.shares.spend(ask, have_bits)
        return [(segments, piece) for segments, piece in parts]

    def _message(
        self, ask: Ask, chosen: frozenset[Strand], link: str, plan: list[tuple[Segment, ...]], strand_id: str
    ) -> Reserve:
        record, now_s = self.site.store.peer(ask.peer), self.site.clock.now_s()
        self.site.store.put_peer(replace(record, op_sent=record.op_sent + 1))
        return Reserve(
            request_id=new_uuid(self.site.entropy),
            op=record.op_sent + 1,
            epoch=self.site.store.epoch(),
            link=link,
            initiator=ask.initiator,
            responders=ask.responders,
            size_bits=ask.size_bits,
            strands=tuple(sorted(chosen)),
            strand_id=strand_id,
            ttl_s=self.site.limits.key_ttl_s,
            keys=tuple(
                WireKey(key_id, tuple((s.block_id, s.offset_bits, s.length_bits) for s in segments))
                for key_id, segments in zip(new_key_ids(self.site.entropy, now_s, len(plan)), plan, strict=True)
            ),
        )

    def weave(
        self, message: Reserve, pieces: Sequence[Secret | None], strand: Secret | None, peer: str
    ) -> list[Secret]:
        """The material of the keys that we ask `peer` for, in their order."""
        return weave(self.site, message, pieces, strand, (self.site.name, peer))

    # the peer answers ----------------------------------------------------------------------------------------------

    def hear_reserved(self, peer: str, message: Reserved) -> None:
        """Both ends have it: record it, and only then let the keys go. A late answer to a burnt request does nothing."""
        batch = self._pending.get(message.request_id)
        if batch is None or batch.ask.peer != peer:
            return
        request = self.site.store.request(message.request_id)
        if request is None or request.void:
            return
        del self._pending[message.request_id]
        if batch.ticket is None:
            self._serve(self.stock.put(batch, self.site.clock.monotonic_s()))
        else:
            self.site.outbox.append(Reply(batch.ticket, self._release(batch, len(batch.keys))))

    def _release(self, batch: Batch, number: int) -> list[Key]:
        """The next `number` keys of a batch, their state and audit changed in this transaction (invariants I4, I5)."""
        ask, store = batch.ask, self.site.store
        request = store.request(batch.message.request_id)
        assert request is not None
        bits = number * ask.size_bits if request.bits else 0
        if bits:
            store.move_bits(request.link, Account.RESERVED, Account.DELIVERED, bits)
        if number < len(batch.keys):
            store.put_request(replace(request, bits=request.bits - bits, released=request.released + number))
        else:
            store.drop_request(request.request_id)
        leaving = [batch.keys.popleft() for _ in range(number)]
        wires = [wire for _, wire in leaving]
        self.enter(request.peer, batch.message, wires)
        self._record_delivery(batch, wires)
        keys = [key for key, _ in leaving]
        for recipient in [r for r in ask.responders if self.site.policy.site_of[r] == self.site.name]:
            self._keep_local_copies(batch, keys, recipient)
        return keys

    def enter(self, peer: str, message: Reserve, keys: list[WireKey]) -> None:
        """Put keys of a request that the peer has agreed to into the register."""
        self.register.enter(
            keys,
            initiator=message.initiator,
            responders=message.responders,
            peer=peer,
            link=message.link,
            size_bits=message.size_bits,
            strands=frozenset(Strand(name) for name in message.strands),
        )

    def _record_delivery(self, batch: Batch, keys: Sequence[WireKey]) -> None:
        ask, message = batch.ask, batch.message
        Delivery(
            key_ids=[key.key_id for key in keys],
            recipient=ask.initiator,
            initiator=ask.initiator,
            responders=ask.responders,
            peer=ask.peer,
            link=message.link,
            size_bits=ask.size_bits,
            strands=batch.strands,
            request_id=message.request_id,
            segments=spelt(keys),
        ).tell(self.site)

    def _keep_local_copies(self, batch: Batch, keys: Sequence[Key], recipient: str) -> None:
        ask, now_s = batch.ask, self.site.clock.now_s()
        alike = Copy(
            key_id="",
            tenant=ask.tenant,
            recipient=recipient,
            initiator=ask.initiator,
            peer=self.site.name,  # marks that the link's bits are accounted for already
            link=batch.message.link,
            request_id=batch.message.request_id,
            length_bits=ask.size_bits,
            strands=batch.strands,
            segments=(),
            step=Step.READY,
            reserved_s=now_s,
            expires_s=now_s + min(self.site.limits.key_ttl_s, self.register.terms(ask.initiator, ask.responders)[2]),
        )
        self.site.store.add_copies(alike, [(key.key_id, (), key.material) for key in keys])

    def hear_refused(self, peer: str, message: Refused) -> None:
        batch = self._pending.get(message.request_id)
        if batch is None or batch.ask.peer != peer:
            return
        if message.reason == "strand":
            self.strands.forget(peer)
            self.strands.renew(peer)
        self._give_up(message.request_id, f"refused: {message.reason}")

    def hear_voided(self, peer: str, message: Voided) -> None:
        for request_id in message.request_ids[:BATCH_MAX]:
            request = self.site.store.request(request_id)
            if request is not None and request.void and request.peer == peer:
                self.site.store.drop_request(request_id)

    # giving up -----------------------------------------------------------------------------------------------------

    def _give_up(self, request_id: str, reason: str) -> None:
        """Burn: the peer may or may not have set the keys aside, so these bits are never used again."""
        request = self.site.store.request(request_id)
        if request is not None and not request.void:
            self.burn(request, reason)
            self.site.send(request.peer, _void([request]))
        batch = self._pending.pop(request_id, None)
        if batch is None:
            return
        if batch.ticket is None:
            self.stock.shelf(batch.ask).coming -= len(batch.keys)
            self._turn_away(reason)
        else:
            self._refuse(batch.ticket, batch.ask, reason)
        batch.wipe()

    def _refuse(self, ticket: object, ask: Ask, reason: str) -> None:
        error: KeystrandError = PeerUnavailable(
            f"{ask.peer} did not agree to the key ({reason}); its bits are burnt",
            hint="repeat the request; if it persists, see `keystrand status`",
        )
        self.site.outbox.append(Refuse(ticket, error))

    def _turn_away(self, reason: str) -> None:
        """Refuse those who wait for keys that will not come."""
        for waiter in self.stock.unserved():
            self._refuse(waiter.ticket, waiter.ask, reason)

    def _give_up_stock(self, batches: list[Batch], reason: str) -> None:
        for batch in batches:
            batch.wipe()
            self._give_up(batch.message.request_id, reason)
        self._turn_away(reason)

    def count_where(self, is_meant: Meant) -> int:
        """How many keys `give_up_where` would burn."""
        pending = sum(len(b.keys) for b in self._pending.values() if is_meant(b.ask.peer, b.message))
        shelved = self.stock.count(lambda batch: is_meant(batch.ask.peer, _left_of(batch)))
        return pending + shelved + sum(other.count_where(is_meant) for other in self.others)

    def give_up_where(self, is_meant: Meant, reason: str) -> int:
        """Burn keys that were not released yet, on their way or on a shelf; how many. `is_meant` gets the peer and what
        is left of a request; whole requests go."""
        count = sum(other.give_up_where(is_meant, reason) for other in self.others)
        for request_id, batch in list(self._pending.items()):
            if is_meant(batch.ask.peer, batch.message):
                count += len(batch.keys)
                self._give_up(request_id, reason)
        shelved = self.stock.where(lambda batch: is_meant(batch.ask.peer, _left_of(batch)))
        count += sum(len(batch.keys) for batch in shelved)
        self._give_up_stock(shelved, reason)
        return count

    def burn(self, request: OpenRequest, reason: str) -> None:
        if request.bits:
            self.site.store.move_bits(request.link, Account.RESERVED, Account.BURNT, request.bits)
        self.site.store.put_request(replace(request, void=True, bits=0))
        self.site.note("key.burnt", request_id=request.request_id, link=request.link, bits=request.bits, reason=reason)

    def tick(self) -> int:
        """Repeat what was not answered, give up what is overdue."""
        now_s = self.site.clock.monotonic_s()
        overdue = [request_id for request_id, p in self._pending.items() if now_s >= p.deadline_s]
        for request_id in overdue:
            self._give_up(request_id, "no answer in time")
        for batch in self._pending.values():
            if now_s >= batch.repeat_s:
                batch.repeat_s = now_s + self.site.limits.peer_retry_s
                self.site.send(batch.ask.peer, batch.message)
        idle = self.stock.idle(now_s - self.site.limits.stock_idle_s)
        self._give_up_stock(idle, "not drawn")
        return len(overdue) + len(idle)

    def repeat_voids(self, peer: str) -> None:
        void = [r for r in self.site.store.requests() if r.void and r.peer == peer]
        if void:
            self.site.send(peer, _void(void[:BATCH_MAX]))

    def rejudge(self, pairs: Set[Pair], judge: Callable[[Batch], Ask | None]) -> None:
        """The rules of these pairs changed: what was made ahead is burnt, what is on its way goes on if `judge` says how."""

        def is_touched(batch: Batch) -> bool:
            return any((batch.ask.initiator, responder) in pairs for responder in batch.ask.responders)

        for request_id, batch in list(self._pending.items()):
            if is_touched(batch):
                ask = judge(batch) if batch.ticket is not None else None
                if ask is None:
                    self._give_up(request_id, "policy changed")
                else:
                    batch.ask = ask
        self._give_up_stock(self.stock.where(is_touched), "policy changed")

    def abandon(self, peer: str, reason: str) -> None:
        """Give up everything towards one peer."""
        for request_id in [i for i, p in self._pending.items() if p.ask.peer == peer]:
            self._give_up(request_id, reason)
        self._give_up_stock(self.stock.of_peer(peer), reason)
