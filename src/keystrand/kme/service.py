"""The key management entity of one site: what comes in from SAEs, modules, peers and the clock, and where it goes.

Synchronous and without I/O. Every method runs inside one transaction of the store; effects gather in `site.outbox` and
leave after the commit. A method that raises has changed nothing that the transaction does not take back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from keystrand.core.errors import BadRequest, KeystrandError, PeerFault, QuotaExceeded, UnknownKey
from keystrand.core.key import Block, Key
from keystrand.core.policy import Policy
from keystrand.core.pool import Account, BlockState, PoolStatus
from keystrand.core.protection import Strand, strands_for
from keystrand.core.release import release
from keystrand.kme.aftermath import burn_waiting
from keystrand.kme.ask import allowed_size_bits, check_ask, peer_for, require_local
from keystrand.kme.change import Emergency, record_policy, set_policy
from keystrand.kme.jobs import Jobs, Task
from keystrand.kme.lifecycle import Lifecycle
from keystrand.kme.pickup import UNSPENT, Pickups
from keystrand.kme.pool import BATCH_MAX, Pool
from keystrand.kme.ports import AuditValue
from keystrand.kme.register import KEYS_PER_NOTICE_MAX, Register
from keystrand.kme.reservation import Reservations
from keystrand.kme.site import Effect, Site
from keystrand.kme.strands import Strands
from keystrand.kme.watch import Pace, Watch
from keystrand.wire import peer as wire
from keystrand.wire.peer import Hello, Message, Reserve

T = TypeVar("T")

HELLO_S = 10.0
PROBE_S = 30.0
COLLECT_S = 10.0
FORGET_MAX = 4096  # rows of a kind at a time: some milliseconds


@dataclass(slots=True)
class PeerSession:
    """What we know of a peer since we last heard of it; gone with the process. since_s: Unix time from which `up` is so."""

    since_s: float
    up: bool = False
    met: bool = False  # it has said Hello since it is up, so that we know its epoch
    group: str = ""
    hello_s: float = 0.0
    probe_s: float = 0.0
    repeat_s: float = 0.0
    token: int = 0  # of our last Hello
    op_heard: int = 0  # when we sent it
    echo: int = 0  # token of the peer's last Hello
    process: int = 0  # what it called its start
    release: str = ""  # what it runs


class Kme:
    """One site's key service."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.pool = Pool(site)
        self.strands = Strands(site)
        self.register = Register(site)
        self.reservations = Reservations(site, self.pool, self.strands, self.register)
        self.pickups = Pickups(site, self.pool, self.strands, self.register)
        self.sessions = {peer: PeerSession(site.clock.now_s()) for peer in site.peer_kme_ids}
        self.watch = Watch(site, self.pool, self.strands)
        self.lifecycle = Lifecycle(site, self.pool, self.register, self.reservations, self.pickups)
        self.jobs = Jobs(site, self.attempt, self._tasks())
        self.process = int.from_bytes(site.entropy.bytes(7))  # names this start; what we keep in memory is as old as it
        self._recorded = Pace(site)
        self._hearers: dict[type[Message], Callable[..., None]] = {
            wire.Announce: self.pool.hear_announce,
            wire.Known: self.pool.hear_known,
            wire.Lend: self.pool.hear_lend,
            wire.Lent: self.pool.hear_lent,
            wire.Borrow: self.pool.hear_borrow,
            wire.Probe: self.pool.hear_probe,
            wire.Gone: self.pool.hear_gone,
            wire.Reserved: self.reservations.hear_reserved,
            wire.Refused: self.reservations.hear_refused,
            wire.Voided: self.reservations.hear_voided,
            wire.Void: self.pickups.hear_void,
            wire.Changed: self.lifecycle.hear_changed,
            wire.Quarantined: self.lifecycle.hear_quarantined,
            wire.Heard: self.register.hear_heard,
            wire.StrandOffer: self.strands.hear_offer,
            wire.StrandAnswer: self.strands.hear_answer,
        }

    def attempt(self, operation: Callable[[], T]) -> T:
        """Run one operation of a batch: when it raises, its writes and its effects are taken back, the batch goes on."""
        mark = len(self.site.outbox)
        try:
            with self.site.store.savepoint():
                return operation()
        except KeystrandError:
            del self.site.outbox[mark:]
            raise

    def drain(self) -> list[Effect]:
        """The effects so far; the runner calls this once the transaction is durable (or drops the result if it failed)."""
        effects, self.site.outbox = self.site.outbox, []
        return effects

    # start and restore ---------------------------------------------------------------------------------------------

    def recover(self) -> None:
        """After a start: whatever was on its way when the last run ended is burnt (decision: ambiguous means burnt)."""
        self.burn_abandoned("restart")
        record_policy(self.site, actor="start")

    def burn_abandoned(self, reason: str) -> int:
        """Burn the requests that no living process waits for; how many. What another replica waits for is left to it."""
        living = self.site.living()
        left = [r for r in self.site.store.requests() if not r.void and r.holder not in living]
        for request in left:
            self.reservations.burn(request, reason)
        return len(left)

    def set_policy(self, policy: Policy, *, actor: str, emergency: Emergency | None = None) -> int:
        """Put another policy in force while running; how many pairs it changes. Raises NotPermitted (kme/change.py)."""
        return set_policy(self.site, self.reservations, policy, actor=actor, emergency=emergency)

    def begin_epoch(self) -> None:
        """After a restore from backup: nothing that the backup calls unused may be used (invariant I14)."""
        store = self.site.store
        store.set_epoch(store.epoch() + 1)
        self.recover()
        for link in store.links():
            self._quarantine_link(link, "restore")
        burn_waiting(self.site, self.register)

    def _quarantine_link(self, link: str, reason: str) -> None:
        self.pool.quarantine(link, sorted({block.sequence for block in self.site.store.blocks(link=link)}), reason)

    # the module ----------------------------------------------------------------------------------------------------

    def ingest(self, block: Block) -> None:
        """A block from the link's module. Raises BadRequest or Unavailable; the module is told."""
        self.pool.ingest(block)

    # SAEs ----------------------------------------------------------------------------------------------------------

    def status(self, caller: str, other: str) -> PoolStatus:
        """What `caller` may draw towards `other` (ETSI GS QKD 014 V1.1.1, Get status)."""
        site, limits = self.site, self.site.limits
        require_local(site, caller)
        peer = peer_for(site, caller, other)
        rule = site.policy.rules.get((caller, other))
        size_bits = limits.key_size_bits_default if rule is None else allowed_size_bits((rule,), limits)
        stored = 0
        if rule is not None:
            stored = self._deliverable(peer, size_bits, strands_for(rule.require_at(site.clock.now_s())))
        return PoolStatus(
            source_kme_id=site.kme_id,
            target_kme_id=site.peer_kme_ids[peer],
            initiator=caller,
            responder=other,
            key_size_bits=size_bits,
            stored_keys=stored,
            stored_keys_max=max(stored, min(limits.keys_stored_max, self._capacity(size_bits))),
            keys_per_request_max=limits.keys_per_request_max,
            key_size_bits_max=limits.key_size_bits_max,
            key_size_bits_min=limits.key_size_bits_min,
            additional_recipients_max=limits.additional_recipients_max,
            extension={} if rule is None else {"keystrand_require": rule.require_at(site.clock.now_s()).label},
        )

    def _capacity(self, size_bits: int) -> int:
        return self.site.limits.pool_size_bits_max // size_bits

    def _deliverable(self, peer: str, size_bits: int, strands: frozenset[Strand]) -> int:
        """Keys that Get key would deliver now; an absent PQC strand means none."""
        if Strand.PQC in strands and self.strands.age_s(peer) is None:
            return 0
        if Strand.QKD not in strands:
            return self.site.limits.keys_per_request_max
        links = self.site.links_to(peer)
        return max((self.pool.owned_bits(link) // size_bits for link in links), default=0)

    def get_key(
        self,
        ticket: object,
        caller: str,
        other: str,
        *,
        number: int | None = None,
        size_bits: int | None = None,
        additional: tuple[str, ...] = (),
    ) -> None:
        """Begin a request for new keys; a Reply or Refuse effect for `ticket` follows. Raises when it is refused at once."""
        ask = check_ask(self.site, caller, other, number, size_bits, additional)
        self.site.require_open(ask.tenant)
        record = self.site.store.peer(ask.peer)
        if record.rolled_back:
            raise PeerFault(f"{ask.peer} was rolled back and has not begun a new epoch")
        session = self.sessions[ask.peer]
        self.reservations.open(ticket, ask, stocked=session.up and session.met)

    def get_key_with_ids(self, caller: str, other: str, key_ids: tuple[str, ...]) -> list[Key]:
        """The caller's copies of these keys, all or none, once. The runner releases them after the commit."""
        if not 1 <= len(key_ids) <= self.site.limits.keys_per_request_max:
            raise BadRequest(f"1 to {self.site.limits.keys_per_request_max} key IDs")
        if len(set(key_ids)) != len(key_ids):
            raise BadRequest("a key ID is listed twice")
        return self.pickups.deliver(caller, other, key_ids)

    def note_refusal(self, operation: str, caller: str, other: str, error: KeystrandError) -> None:
        """Record a refusal (in a transaction of its own); a flood from one SAE is counted, not recorded."""
        reason = type(error).__name__
        if self._recorded.keep(caller):
            self.site.record("key.refused", operation=operation, sae=caller, other=other, reason=reason)
            if isinstance(error, UnknownKey):
                self.site.emit("key.unknown_id", sae=caller, other=other)
        self.site.emit("key.refused", sae=caller, other=other, reason=reason)
        if isinstance(error, UnknownKey):
            self.watch.unknown_key(caller)
        elif isinstance(error, QuotaExceeded):
            self.site.emit("quota.denied", sae=caller, other=other)

    def note_told(self, kind: str, caller: str, said: Mapping[str, AuditValue]) -> None:
        """Record what an SAE says of itself, unless it says too much."""
        if self._recorded.keep(caller):
            self.site.record(kind, **said)

    # peers ---------------------------------------------------------------------------------------------------------

    def peer_up(self, peer: str, group: str = "") -> None:
        """A mutually authenticated channel to `peer` stands; group is the TLS key exchange that it negotiated."""
        session = self.sessions[peer]
        if not session.up:
            session.since_s = self.site.clock.now_s()
        session.up, session.met, session.group = True, False, group
        session.hello_s = session.probe_s = session.repeat_s = self.site.clock.monotonic_s()
        self._hello(peer)
        self.pool.repeat(peer)
        self.reservations.repeat_voids(peer)
        self.register.repeat(peer)
        self.strands.renew(peer)
        self.site.emit("peer.up", peer=peer, group=group)

    def peer_down(self, peer: str) -> None:
        session = self.sessions[peer]
        if session.up:
            session.up, session.since_s = False, self.site.clock.now_s()
            self.site.emit("peer.down", peer=peer)

    def _hello(self, peer: str) -> None:
        record, session = self.site.store.peer(peer), self.sessions[peer]
        session.token = int.from_bytes(self.site.entropy.bytes(7))
        session.op_heard = record.op_heard
        self.site.send(
            peer,
            Hello(
                version=wire.VERSION,
                site=self.site.name,
                epoch=self.site.store.epoch(),
                op_sent=record.op_sent,
                token=session.token,
                echo=session.echo,
                process=self.process,
                release=release(),
            ),
        )

    def receive(self, peer: str, message: Message) -> None:
        """A message from a peer whose certificate proved its name. Raises PeerFault when it breaks the protocol."""
        if peer not in self.site.peer_kme_ids:
            raise PeerFault(f"{peer} is not a neighbour of this site")
        if isinstance(message, Hello):
            self._hear_hello(peer, message)
        elif isinstance(message, Reserve):
            self._hear_reserve(peer, message)
        elif (hear := self._hearers.get(type(message))) is not None:
            hear(peer, message)
        else:
            raise PeerFault(f"{peer} sent {type(message).__name__}, which this service does not take")

    def _hear_reserve(self, peer: str, message: Reserve) -> None:
        record = self.site.store.peer(peer)
        if record.rolled_back:
            return
        self.pickups.hear_reserve(peer, message, record.epoch, record.op_heard)
        if message.epoch == record.epoch and message.op > record.op_heard:
            self.site.store.put_peer(replace(record, op_heard=message.op))

    def _hear_hello(self, peer: str, message: Hello) -> None:
        """A peer that has forgotten operations it made was rolled back; a new epoch voids what was shared before it."""
        wire.check_version(message)
        if message.site != peer:
            raise PeerFault(f"{peer} speaks as {message.site}")
        record, session = self.site.store.peer(peer), self.sessions[peer]
        session.echo, session.met = message.token, True
        if session.process not in (0, message.process):
            self.strands.forget(peer)  # it has; what we reserved under the old strand it would refuse
            self.strands.renew(peer)
        session.process, session.release = message.process, message.release
        answers_us = message.echo == session.token and session.token != 0
        forgot = answers_us and message.epoch <= record.epoch and message.op_sent < session.op_heard
        if message.epoch > record.epoch:
            fresh = replace(record, epoch=message.epoch, op_heard=message.op_sent, rolled_back=False)
            self.site.store.put_peer(fresh)
            session.op_heard = message.op_sent  # what was heard before the epoch is no measure of it
            if record.epoch:  # not on the first meeting
                self.reservations.abandon(peer, "epoch")
                self.register.resync(peer)
                for link in self.site.links_to(peer):
                    self._quarantine_link(link, "epoch")
        elif (forgot or (answers_us and message.epoch < record.epoch)) and not record.rolled_back:
            self.site.store.put_peer(replace(record, rolled_back=True))
            self.site.note("peer.rollback", peer=peer, epoch=message.epoch, op=message.op_sent)

    # time ----------------------------------------------------------------------------------------------------------

    def tick(self) -> bool:
        """Housekeeping; call it a few times per second, and sooner again where some is left over, which it says."""
        return self.jobs.tick()

    def _tasks(self) -> tuple[Task, ...]:
        retry_s = self.site.limits.peer_retry_s
        return (
            Task("requests", 0.0, self.reservations.tick),
            Task("copy-expiry", 1.0, self.pickups.expire, BATCH_MAX),
            Task("block-expiry", 1.0, self.pool.expire, BATCH_MAX),
            Task("cryptoperiod", 1.0, self.lifecycle.expire, KEYS_PER_NOTICE_MAX),
            Task("rotation", 1.0, self.lifecycle.rotate, KEYS_PER_NOTICE_MAX),
            Task("collection", COLLECT_S, self.lifecycle.collect, KEYS_PER_NOTICE_MAX),
            Task("watch", 1.0, lambda: self.watch.tick(self._connected())),
            Task("hello", 1.0, lambda: self._each_peer("hello_s", HELLO_S, self._hello)),
            Task("repeat", 0.0, lambda: self._each_peer("repeat_s", retry_s, self._repeat)),
            Task("probe", 1.0, lambda: self._each_peer("probe_s", PROBE_S, self.pool.probe)),
            Task("forgetting", PROBE_S, self._forget_old, FORGET_MAX),
        )

    def _connected(self) -> list[str]:
        return [peer for peer, session in self.sessions.items() if session.up]

    def _each_peer(self, since: str, period_s: float, do: Callable[[str], object]) -> int:
        """For every peer that is up, so often since it came up; no two peers at one moment for good."""
        now_s, done = self.site.clock.monotonic_s(), 0
        for peer in self._connected():
            if now_s - getattr(self.sessions[peer], since) >= period_s:
                setattr(self.sessions[peer], since, now_s)
                do(peer)
                done += 1
        return done

    def _repeat(self, peer: str) -> None:
        """Say again what the peer has not answered, and ask for what we lack."""
        self.pool.repeat(peer)
        self.pool.balance(peer)
        self.reservations.repeat_voids(peer)
        self.register.repeat(peer)
        self.strands.renew(peer)

    def _forget_old(self) -> int:
        store, before_s = self.site.store, self.site.clock.now_s() - 2 * self.site.limits.key_ttl_s
        return store.drop_tombstones_before(before_s, FORGET_MAX) + store.drop_finished_before(before_s, FORGET_MAX)

    # self-check ----------------------------------------------------------------------------------------------------

    def check_ledger(self) -> list[str]:
        """What does not balance (invariant I9), in words; empty when all is well. Reads every row: for tests and doctor."""
        problems = []
        store = self.site.store
        for link in store.links():
            ledger = store.ledger(link)
            held = sum(bits for account, bits in ledger.items() if account is not Account.INGESTED)
            if held != ledger[Account.INGESTED]:
                problems.append(f"{link}: {ledger[Account.INGESTED]} bits came in, {held} are accounted for")
            free = sum(b.free_bits for b in store.blocks(link=link, state=BlockState.CONFIRMED))
            if free != ledger[Account.AVAILABLE]:
                problems.append(f"{link}: {ledger[Account.AVAILABLE]} bits available by the books, {free} by the rows")
            reserved = sum(r.bits for r in store.requests() if r.link == link) + self._set_aside_bits(link)
            if reserved != ledger[Account.RESERVED]:
                problems.append(
                    f"{link}: {ledger[Account.RESERVED]} bits reserved by the books, {reserved} by the rows"
                )
        return problems

    def _set_aside_bits(self, link: str) -> int:
        waiting = {
            copy.key_id: copy.length_bits
            for copy in self.site.store.copies_before(float("inf"), 2**31)
            if copy.link == link and copy.segments and copy.peer != self.site.name and copy.step in UNSPENT
        }
        return sum(waiting.values())
