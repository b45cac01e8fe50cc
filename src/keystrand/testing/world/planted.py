"""Bugs planted in the service, one at a time, to see that the judges find them: a check that never fails proves nothing.

Each class is the real service with one mistake of a kind that key managers have really made.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import msgspec

from keystrand.core.key import Key
from keystrand.core.policy import Policy
from keystrand.core.pool import Account, OpenRequest
from keystrand.core.protection import Protection
from keystrand.core.register import KeyRecord
from keystrand.core.secret import Secret
from keystrand.core.states import Move, State
from keystrand.kme.jobs import Jobs
from keystrand.kme.service import Kme
from keystrand.kme.site import Site
from keystrand.kme.stock import Batch
from keystrand.wire.peer import Announce, Borrow, Changed, Heard, Known, Message, Reserve, Reserved, Void, WireKey


class Planted(Kme):
    """The real service, and what `plant` changes of it."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.plant()

    def plant(self) -> None:
        """Change nothing: a bug says here what it changes."""


class ReleaseBeforeAudit(Planted):
    """The keys leave as soon as the peer has answered; the record follows with the next message."""

    def plant(self) -> None:
        self._late: list[tuple[Batch, Sequence[WireKey]]] = []
        self._record = self.reservations._record_delivery
        self.reservations._record_delivery = lambda *args: self._late.append(args)  # type: ignore[method-assign]

    def receive(self, peer: str, message: Message) -> None:
        late, self._late = self._late, []
        for args in late:
            self._record(*args)
        super().receive(peer, message)


class SkippedAgreement(Kme):
    """The keys leave at once, whether or not the peer has them: F7 of the field."""

    def get_key(self, *args, **options) -> None:  # type: ignore[no-untyped-def]
        super().get_key(*args, **options)
        waiting = self.reservations._pending
        for request_id, pending in list(waiting.items()):
            self.reservations.hear_reserved(pending.ask.peer, Reserved(request_id=request_id))


class ReuseOnRetry(Planted):
    """A request that was given up returns its keys to the shelf for the next one."""

    def plant(self) -> None:
        self._shelf: list[Batch] = []
        give_up = self.reservations._give_up

        def keep(request_id: str, reason: str) -> None:
            if (pending := self.reservations._pending.get(request_id)) is not None:
                copies = deque((replace(key, material=Secret(key.material.reveal())), at) for key, at in pending.keys)
                self._shelf.append(replace(pending, keys=copies))
            give_up(request_id, reason)

        self.reservations._give_up = keep  # type: ignore[method-assign]

    def get_key(self, *args, **options) -> None:  # type: ignore[no-untyped-def]
        before = set(self.reservations._pending)
        super().get_key(*args, **options)
        for request_id in set(self.reservations._pending) - before:
            fresh = self.reservations._pending[request_id]
            fits = [
                p for p in self._shelf if p.ask.size_bits == fresh.ask.size_bits and p.ask.number == fresh.ask.number
            ]
            if fits:
                fresh.keys = deque(
                    (replace(new, material=old.material), at)
                    for (new, at), (old, _) in zip(fresh.keys, fits[0].keys, strict=True)
                )


class WholeVoid(Planted):
    """A request that is given up takes along the keys of it that have left."""

    def plant(self) -> None:
        hear = self._hearers[Void]
        self._hearers[Void] = lambda peer, message: hear(peer, Void(request_ids=message.request_ids))


class StockTwice(Planted):
    """A key made ahead of demand stays on its shelf."""

    def plant(self) -> None:
        release = self.reservations._release

        def keep(batch: Batch, number: int) -> list[Key]:
            if batch.ticket is not None or len(batch.keys) == number:
                return release(batch, number)
            first = batch.keys[0]
            keys = release(batch, number)
            batch.keys[0] = (replace(first[0], material=Secret(first[0].material.reveal())), first[1])
            return keys

        self.reservations._release = keep  # type: ignore[method-assign]


class StockOfYesterday(Planted):
    """Keys made ahead of demand are handed out although the peer has begun a new epoch, dropped them and said so."""

    def plant(self) -> None:
        self.reservations.stock.of_peer = lambda peer: []  # type: ignore[method-assign]
        self.lifecycle._drop_unknown = lambda key_ids, peer, reason: None  # type: ignore[method-assign]


class RepeatedDelivery(Planted):
    """A copy stays after it was handed out (F8 of the field)."""

    def plant(self) -> None:
        finish = self.pickups.finish
        self.pickups.finish = lambda copies, move: [] if move is Move.DELIVER else finish(copies, move)  # type: ignore[method-assign]


class AnyRecipient(Kme):
    """Whoever names a key ID gets the key (F4 of the field)."""

    def get_key_with_ids(self, caller: str, other: str, key_ids: tuple[str, ...]) -> list[Key]:
        copies = self.site.store.copies(key_ids[0])
        return super().get_key_with_ids(copies[0].recipient if copies else caller, other, key_ids)


class PartialDelivery(Kme):
    """Missing keys are left out of the answer instead of failing the whole."""

    def get_key_with_ids(self, caller: str, other: str, key_ids: tuple[str, ...]) -> list[Key]:
        known = tuple(key_id for key_id in key_ids if self.site.store.copies(key_id)) or key_ids
        return super().get_key_with_ids(caller, other, known)


class ForgottenBurn(Kme):
    """Recovery forgets the requests that were on their way, and their bits."""

    def recover(self) -> None:
        for request in self.site.store.requests():
            self.site.store.drop_request(request.request_id)


class ReturnedBits(Planted):
    """A refused request counts its bits as available again, although they are gone."""

    def plant(self) -> None:
        self.reservations.burn = self._unburn  # type: ignore[method-assign]

    def _unburn(self, request: OpenRequest, reason: str) -> None:
        if request.bits:
            self.site.store.move_bits(request.link, Account.RESERVED, Account.AVAILABLE, request.bits)
        self.site.store.put_request(replace(request, void=True, bits=0))


class BothOwn(Planted):
    """Lending leaves the lender the owner until the borrower has answered."""

    def plant(self) -> None:
        self._hearers[Borrow] = self._lend_and_keep

    def _lend_and_keep(self, peer: str, message: Borrow) -> None:
        before = {b.block_id: b for b in self.site.store.free_blocks(message.link, self.site.name, 256)}
        self.pool.hear_borrow(peer, message)
        for block_id, term in self.site.store.lends(peer):
            if block_id in before:
                self.site.store.put_block(replace(before[block_id], term=term))


class BlindConfirmation(Planted):
    """Digests are not compared: any announced block is confirmed."""

    def plant(self) -> None:
        self._hearers[Known] = self._believe
        self._hearers[Announce] = self._agree

    def _believe(self, peer: str, message: Known) -> None:
        self.pool.confirm(message.link, message.sequence)

    def _agree(self, peer: str, message: Announce) -> None:
        if self.site.store.blocks(link=message.link, sequence=message.sequence):
            self.pool.confirm(message.link, message.sequence)
            self.site.send(peer, Known(link=message.link, sequence=message.sequence, verdict="match"))


class NoNewEpoch(Kme):
    """A restored backup goes on where it was."""

    def begin_epoch(self) -> None:
        self.recover()


class LongLived(Kme):
    """Copies are handed out long after they should have expired."""

    def receive(self, peer: str, message: Message) -> None:
        if isinstance(message, Reserve):
            message = msgspec.structs.replace(message, ttl_s=9 * message.ttl_s)
        super().receive(peer, message)


class MissingStrand(Planted):
    """Without ML-KEM the key is made of the quantum bits alone, and nobody is told (a silent downgrade)."""

    def plant(self) -> None:
        rules = {pair: replace(rule, require=Protection.QKD) for pair, rule in self.site.policy.rules.items()}
        self._lax, self._strict = Policy(rules, self.site.policy.site_of), self.site.policy

    def get_key(self, *args, **options) -> None:  # type: ignore[no-untyped-def]
        missing = self.strands.age_s(self.site.links[0].peer) is None
        self.site.policy = self._lax if missing else self._strict
        super().get_key(*args, **options)

    def receive(self, peer: str, message: Message) -> None:
        self.site.policy = self._lax
        super().receive(peer, message)


class WrongRecord(Planted):
    """Each delivery is recorded twice."""

    def plant(self) -> None:
        record = self.reservations._record_delivery

        def twice(*args: object) -> None:
            record(*args)  # type: ignore[arg-type]
            record(*args)  # type: ignore[arg-type]

        self.reservations._record_delivery = twice  # type: ignore[method-assign,assignment]


class RevokedOnPaper(Planted):
    """Revoking a key changes its record; the copy that waits is handed out all the same (L1 of the field)."""

    def plant(self) -> None:
        settle = self.lifecycle._settle

        def forget(record: KeyRecord) -> None:
            if record.state in (State.ACTIVE, State.SUSPENDED):
                settle(record)

        self.lifecycle._settle = forget  # type: ignore[method-assign]


class SuspendedOnPaper(Planted):
    """Suspending a key does not keep its copies back."""

    def plant(self) -> None:
        settle = self.lifecycle._settle

        def forget(record: KeyRecord) -> None:
            if record.state is not State.SUSPENDED:
                settle(record)

        self.lifecycle._settle = forget  # type: ignore[method-assign]


class ShelvesForgotten(Planted):
    """Keys made ahead of demand, and those on their way, do not hear that their bits are compromised."""

    def plant(self) -> None:
        self.reservations.give_up_where = lambda is_meant, reason: 0  # type: ignore[method-assign]


class SaidOnce(Planted):
    """The peer is told of a change once, and never again."""

    def plant(self) -> None:
        self.register.tell = self.site.send  # type: ignore[method-assign]


class LastWordWins(Kme):
    """What the peer said last holds, even if it was overtaken on its way or says less than is known here."""

    def receive(self, peer: str, message: Message) -> None:
        if not isinstance(message, Changed):
            super().receive(peer, message)
            return
        for key_id, its, ours in message.keys:
            if (record := self.site.store.register.get(key_id)) is not None:
                record = record._replace(state=State(message.state), turn=ours, peer_turn=its)
                self.site.store.register.put(record)
                self.lifecycle._settle(record)
        self.site.send(peer, Heard(notice_id=message.notice_id))


class ForgottenByBackup(Planted):
    """A peer that went back to an old state is not told again what happened to keys since."""

    def plant(self) -> None:
        self.register.resync = lambda peer: None  # type: ignore[method-assign]


class OverLongKeys(Planted):
    """A copy waits for its recipient beyond the cryptoperiod of its key."""

    def plant(self) -> None:
        enter = self.register.enter
        self.register.enter = lambda *args, **facts: 10.0 + enter(*args, **facts)  # type: ignore[method-assign]
        self.lifecycle.expire = lambda: 0  # type: ignore[method-assign]
        self.jobs = Jobs(self.site, self.attempt, self._tasks())


PLANTED: Final[tuple[type[Kme], ...]] = (
    ReleaseBeforeAudit,
    SkippedAgreement,
    ReuseOnRetry,
    StockTwice,
    WholeVoid,
    StockOfYesterday,
    RepeatedDelivery,
    AnyRecipient,
    PartialDelivery,
    ForgottenBurn,
    ReturnedBits,
    BothOwn,
    BlindConfirmation,
    NoNewEpoch,
    MissingStrand,
    WrongRecord,
    LongLived,
    RevokedOnPaper,
    SuspendedOnPaper,
    ShelvesForgotten,
    SaidOnce,
    LastWordWins,
    ForgottenByBackup,
    OverLongKeys,
)
