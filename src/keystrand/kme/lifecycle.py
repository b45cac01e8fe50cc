"""The life of keys after they were made: found, suspended, resumed, deactivated, compromised, destroyed, and used up.

An operator names a scope; what lies in it moves at this end in one transaction and at the other end by a notice that is
repeated until it is confirmed. From the commit on, nothing in the scope leaves this site any more (invariant I6): copies
that wait are revoked or withheld, keys on their way and on shelves are burnt at both ends, and what is left of blocks that
a compromise casts doubt on is quarantined. A scope of many keys takes several calls, page by page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from keystrand.core.clock import new_uuid
from keystrand.core.errors import BadRequest, IllegalTransition, PeerFault, UnknownKey
from keystrand.core.protection import Strand
from keystrand.core.register import LEVEL, KeyRecord, Origin, Scope, Stage, Tally, Turns, Use, merged
from keystrand.core.states import Change, Move, State, Step, advance, advance_step, sources
from keystrand.kme.ask import require_local
from keystrand.kme.pickup import UNSPENT, Pickups
from keystrand.kme.pool import Pool
from keystrand.kme.register import CLOCK, KEYS_PER_NOTICE_MAX, Register, span_of
from keystrand.kme.reservation import Reservations
from keystrand.kme.site import Link, Site
from keystrand.wire.peer import Changed, Heard, Quarantined, Reserve

PAGE_MAX = 1000  # keys per call: a transaction stays short
CONSUMERS_PER_KEY_MAX = 64
WORDS_MAX = 256  # characters of an actor, a reason, the name of a consumer
USE_FRESH_S = 60.0  # the time of a last use is that exact
ROTATE_AT = 0.9  # of the cryptoperiod: then there is time to rotate before the key is deactivated
BURNING = frozenset({Change.SUSPEND, Change.DEACTIVATE, Change.COMPROMISE})


@dataclass(frozen=True, slots=True)
class Page:
    """Some of the keys that were found, by time of making. cursor: ask with it for the next ones; "" when there are none."""

    records: tuple[KeyRecord, ...]
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class Affected:
    """What an operation moved, or would move: keys as they stand now, and who uses them.

    given_up: keys that were on their way or on a shelf and are burnt. quarantined: (link, sequence) of device blocks.
    cursor: the scope has more keys; call again with it, until it is "".
    """

    records: tuple[KeyRecord, ...]
    uses: tuple[Use, ...]
    given_up: int = 0
    quarantined: tuple[tuple[str, int], ...] = ()
    cursor: str = ""

    @property
    def key_ids(self) -> tuple[str, ...]:
        return tuple(record.key_id for record in self.records)

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """The SAE pairs that share these keys."""
        return tuple(sorted({pair for record in self.records for pair in record.pairs}))


@dataclass(frozen=True, slots=True)
class Destruction:
    """Where the log proves that a key was destroyed here: record `number` of this site's chain names its key ID."""

    key_id: str
    site: str
    number: int
    at_s: float
    actor: str
    reason: str


def cursor_of(record: KeyRecord) -> str:
    return f"{record.created_s!r}/{record.key_id}"


def place_of(cursor: str) -> tuple[float, str] | None:
    """Raises BadRequest for what is no cursor of ours."""
    if not cursor:
        return None
    at_s, _, key_id = cursor.partition("/")
    try:
        return float(at_s), key_id
    except ValueError:
        raise BadRequest("not a cursor of this service") from None


class Lifecycle:
    """Operations on the keys of one site. Each runs inside one transaction of the store."""

    def __init__(
        self, site: Site, pool: Pool, register: Register, reservations: Reservations, pickups: Pickups
    ) -> None:
        self.site = site
        self.pool = pool
        self.register = register
        self.reservations = reservations
        self.pickups = pickups

    # asking --------------------------------------------------------------------------------------------------------

    def get(self, key_id: str) -> KeyRecord:
        """Raises UnknownKey."""
        record = self.site.store.register.get(key_id)
        if record is None:
            raise UnknownKey(f"no key {key_id} is known here")
        return record

    def find(self, scope: Scope, *, cursor: str = "", limit: int = 100) -> Page:
        """Keys in the scope, oldest first, at most `limit` (and never more than PAGE_MAX)."""
        if limit < 1:
            raise BadRequest("limit shall be 1 or more")
        limit = min(limit, PAGE_MAX)
        records = self.site.store.register.find(scope, place_of(cursor), limit)
        return Page(tuple(records), cursor_of(records[-1]) if len(records) == limit else "")

    def tally(self, scope: Scope) -> list[Tally]:
        """Keys in the scope, counted by link and strands."""
        self._check(scope)
        return self.site.store.register.tally(scope)

    def trial(self, change: Change, scope: Scope, *, cursor: str = "") -> Affected:
        """What `change` would do now: the keys that it would move, as they are, and whom that concerns. Changes nothing;
        raises as `change` does."""
        self._check(scope)
        after = place_of(cursor)
        records = self._records_for(change, scope, after)
        for record in records:
            advance(record.state, change)
        given_up = self.reservations.count_where(self._meant(scope)) if _burns(change, scope, after) else 0
        doubtful = self._doubtful(scope) if _casts_doubt(change, scope, after) else {}
        return self._affected(records, scope, records, given_up, doubtful)

    def _affected(
        self,
        shown: Sequence[KeyRecord],
        scope: Scope,
        page: Sequence[KeyRecord],
        given_up: int,
        doubtful: Mapping[Link, Sequence[int]],
    ) -> Affected:
        """shown: the records of `page`, before or after they moved."""
        blocks = tuple((link.name, sequence) for link, sequences in doubtful.items() for sequence in sequences)
        more = not scope.key_ids and len(page) == PAGE_MAX
        return Affected(tuple(shown), self._uses(shown), given_up, blocks, cursor_of(page[-1]) if more else "")

    def _uses(self, records: Iterable[KeyRecord]) -> tuple[Use, ...]:
        return tuple(use for record in records for use in self.site.store.register.uses(record.key_id))

    def destruction(self, key_id: str) -> Destruction:
        """Where the proof is. Raises UnknownKey, and IllegalTransition while the key is not destroyed."""
        record = self.get(key_id)
        if record.state is not State.DESTROYED:
            raise IllegalTransition(f"{key_id} is {record.state.value}, not destroyed")
        return Destruction(key_id, self.site.name, record.destroyed_n, record.changed_s, record.actor, record.reason)

    # what operators do ---------------------------------------------------------------------------------------------

    def suspend(self, scope: Scope, *, actor: str, reason: str, cursor: str = "") -> Affected:
        """Nobody fetches these keys until they are resumed."""
        return self.change(Change.SUSPEND, scope, actor=actor, reason=reason, cursor=cursor)

    def resume(self, scope: Scope, *, actor: str, reason: str, cursor: str = "") -> Affected:
        return self.change(Change.RESUME, scope, actor=actor, reason=reason, cursor=cursor)

    def revoke(self, scope: Scope, *, actor: str, reason: str, cursor: str = "") -> Affected:
        """Deactivate: not used to protect anything new from now on."""
        return self.change(Change.DEACTIVATE, scope, actor=actor, reason=reason, cursor=cursor)

    def compromise(self, scope: Scope, *, actor: str, reason: str, cursor: str = "") -> Affected:
        """Others may know these keys; where the scope speaks of bits, what is left of them is quarantined too."""
        return self.change(Change.COMPROMISE, scope, actor=actor, reason=reason, cursor=cursor)

    def destroy(self, scope: Scope, *, actor: str, reason: str, cursor: str = "") -> Affected:
        """The end of keys that are deactivated or compromised; see `destruction` for the proof."""
        return self.change(Change.DESTROY, scope, actor=actor, reason=reason, cursor=cursor)

    def change(self, change: Change, scope: Scope, *, actor: str, reason: str, cursor: str = "") -> Affected:
        """Raises BadRequest, UnknownKey (of a key ID named), IllegalTransition (of a key ID named); moves nothing then.

        With other criteria than key IDs, keys for which the change is not legal are left as they are.
        """
        self._check(scope)
        _check_words(actor, reason)
        after = place_of(cursor)
        records = self._records_for(change, scope, after)
        for record in records:
            advance(record.state, change)  # before anything is touched: what is in memory cannot be taken back
        burns = _burns(change, scope, after)
        given_up = self.reservations.give_up_where(self._meant(scope), reason) if burns else 0
        doubtful = self._doubtful(scope) if _casts_doubt(change, scope, after) else {}
        for link, sequences in doubtful.items():
            self.pool.quarantine(link.name, sequences, reason)
            self._tell_quarantine(link.peer, link.name, sequences, actor, reason)
        moved = self.register.move(records, change, actor, reason)
        for record in moved:
            self._settle(record)
        self.register.tell_changes(moved)
        return self._affected(moved, scope, records, given_up, doubtful)

    def _check(self, scope: Scope) -> None:
        if scope.is_empty:
            raise BadRequest("say which keys: a scope without any criterion means all of them")
        if scope.key_ids and scope != Scope(key_ids=scope.key_ids):
            raise BadRequest("name keys by their ID, or by other criteria, not both")
        if len(scope.key_ids) > PAGE_MAX or len(set(scope.key_ids)) != len(scope.key_ids):
            raise BadRequest(f"at most {PAGE_MAX} key IDs, each once")

    def _records_for(self, change: Change, scope: Scope, after: tuple[float, str] | None) -> list[KeyRecord]:
        if scope.key_ids:
            return [self.get(key_id) for key_id in scope.key_ids]
        legal = sources(change)
        states = legal & scope.states if scope.states else legal
        if not states:
            raise IllegalTransition(f"{change.value} is not allowed in {', '.join(sorted(scope.states))}")
        return self.site.store.register.find(replace(scope, states=states), after, PAGE_MAX)

    # what follows from it ------------------------------------------------------------------------------------------

    def _settle(self, record: KeyRecord) -> None:
        """Bring the copies that wait here in line with the state of their key."""
        for copy in self.site.store.copies(record.key_id):
            if record.state is State.SUSPENDED and copy.step is Step.READY:
                self.site.store.step_copy(copy.key_id, copy.recipient, advance_step(copy.step, Move.WITHHOLD))
            elif record.state is State.ACTIVE and copy.step is Step.WITHHELD:
                self.site.store.step_copy(copy.key_id, copy.recipient, advance_step(copy.step, Move.RESTORE))
            elif LEVEL[record.state] and copy.step in UNSPENT:
                self.pickups.finish([copy], Move.REVOKE)

    def _meant(self, scope: Scope) -> Callable[[str, Reserve], bool]:
        """What of the scope is not released yet: on its way to the peer, or agreed ahead of demand."""
        anyone = replace(scope, states=frozenset(), key_ids=())
        named = set(scope.key_ids)

        def is_meant(peer: str, message: Reserve) -> bool:
            if named:
                return not named.isdisjoint(key.key_id for key in message.keys)
            return anyone.covers(self._prospect(peer, message), self._origins)

        return is_meant

    def _prospect(self, peer: str, message: Reserve) -> KeyRecord:
        """The record that the keys of a request would have."""
        tenant, tags, _ = self.register.terms(message.initiator, message.responders)
        now_s, strands = self.site.clock.now_s(), frozenset(Strand(name) for name in message.strands)
        facts = ("", message.initiator, message.responders, peer, message.link, *span_of(message.keys), strands)
        return KeyRecord._make(
            (*facts, message.size_bits, tenant, tags, now_s, now_s, now_s, Stage.EXPIRE, now_s, *_DEFAULTS)
        )

    def _origins(self, record: KeyRecord) -> list[Origin]:
        if record.first_sequence < 0:
            return []
        return self.site.store.register.origins(record.link, record.first_sequence, record.last_sequence)

    def _doubtful(self, scope: Scope) -> dict[Link, list[int]]:
        """Blocks that a compromise of the scope casts doubt on."""
        concerned = (link for link in self.site.links if scope.link in (None, link.name))
        return {link: self._doubtful_of(link, scope) for link in concerned if scope.peer in (None, link.peer)}

    def _doubtful_of(self, link: Link, scope: Scope) -> list[int]:
        name = link.name
        came = {block.sequence: block.ingested_s for block in self.site.store.blocks(link=name)}
        if not came:
            return []
        known = {o.sequence: o for o in self.site.store.register.origins(name, min(came), max(came))}
        # of a block whose source is not known, any source is possible
        origins = [known.get(number) or Origin(name, number, scope.source or "", at) for number, at in came.items()]
        return sorted(origin.sequence for origin in origins if scope.covers_block(origin, link.peer))

    def _tell_quarantine(self, peer: str, link: str, sequences: list[int], actor: str, reason: str) -> None:
        for at in range(0, len(sequences), KEYS_PER_NOTICE_MAX):
            part = tuple(sequences[at : at + KEYS_PER_NOTICE_MAX])
            notice_id = new_uuid(self.site.entropy)
            self.register.tell(
                peer, Quarantined(notice_id=notice_id, link=link, sequences=part, actor=actor, reason=reason)
            )

    # what the peer says --------------------------------------------------------------------------------------------

    def hear_changed(self, peer: str, message: Changed) -> None:
        """Merge. Raises PeerFault, and changes nothing, when one of the keys is not shared with that peer."""
        state = _state_of(peer, message)
        # what is ours to the peer is the peer's to us
        keys = [(key_id, (ours, its), self.site.store.register.get(key_id)) for key_id, its, ours in message.keys]
        if any(record is not None and record.peer != peer for _, _, record in keys):
            raise PeerFault(f"{peer} would change keys that are not shared with it")
        aims = [
            (record, *merged(record.state, record.turns, state, turns))
            for _, turns, record in keys
            if record is not None
        ]
        news = [
            (record, aim, turns) for record, aim, turns in aims if _is_news(record, aim, turns, message.compromised)
        ]
        who = f"{message.actor[:WORDS_MAX]}@{peer}"
        reason = message.reason[:WORDS_MAX]
        for record in self.register.bring(news, who, reason, told_by=peer, compromised=message.compromised):
            self._settle(record)
        if state is not State.ACTIVE:
            self._drop_unknown({key_id for key_id, _, record in keys if record is None}, peer, reason)
        self.site.send(peer, Heard(notice_id=message.notice_id))

    def _drop_unknown(self, key_ids: set[str], peer: str, reason: str) -> None:
        """Keys that this site has not released yet: give them up."""
        if key_ids:
            self.reservations.give_up_where(
                lambda to, message: to == peer and not key_ids.isdisjoint(key.key_id for key in message.keys), reason
            )

    def hear_quarantined(self, peer: str, message: Quarantined) -> None:
        if self.site.peer_of(message.link) != peer:
            raise PeerFault(f"{peer} doubts blocks of {message.link}, which is not a link with it")
        sequences = message.sequences[:KEYS_PER_NOTICE_MAX]
        doubtful = set(sequences)
        reason = message.reason[:WORDS_MAX]
        self.reservations.give_up_where(
            lambda _, asked: asked.link == message.link and not doubtful.isdisjoint(_sequences(asked)), reason
        )
        self.pool.quarantine(message.link, sequences, reason)
        self.site.send(peer, Heard(notice_id=message.notice_id))

    # use and time --------------------------------------------------------------------------------------------------

    def note_use(self, caller: str, key_id: str, *, consumer: str, uses: int = 1, used_bytes: int = 0) -> KeyRecord:
        """`consumer` (a tunnel, a file) of SAE `caller` used the key `uses` more times, for so many more bytes.

        The key as it stands: any state but active means to stop using it. Raises UnknownKey, also for keys of others.
        """
        require_local(self.site, caller)
        record = self.site.store.register.get(key_id)
        if record is None or not record.concerns(caller):
            raise UnknownKey(f"no key {key_id} is known here")
        if uses < 0 or used_bytes < 0 or not 1 <= len(consumer) <= WORDS_MAX:
            raise BadRequest(f"uses and bytes shall not be negative, consumer 1 to {WORDS_MAX} characters")
        self._note_consumer(Use(key_id, caller, consumer, self.site.clock.now_s()))
        if not uses and not used_bytes:
            return record
        record = record._replace(uses=record.uses + uses, used_bytes=record.used_bytes + used_bytes)
        if record.stage is Stage.EXPIRE and not record.rotation_due_s:
            due_s = record.activated_s + ROTATE_AT * (record.expires_s - record.activated_s)
            record = record._replace(stage=Stage.ROTATE, due_s=due_s)
        self.site.store.register.put(record)
        if record.stage is Stage.ROTATE and (why := self._used_up(record)):
            return self._call_for_rotation(record, why)
        return record

    def _note_consumer(self, use: Use) -> None:
        """A consumer that is known is written again only now and then: they report every few seconds."""
        known = {(one.sae, one.consumer): one for one in self.site.store.register.uses(use.key_id)}
        before = known.get((use.sae, use.consumer))
        if before is None and len(known) >= CONSUMERS_PER_KEY_MAX:
            raise BadRequest(f"a key has at most {CONSUMERS_PER_KEY_MAX} consumers")
        if before is None or not 0 <= use.last_s - before.last_s < USE_FRESH_S:
            self.site.store.register.put_use(use)

    def _used_up(self, record: KeyRecord) -> str:
        """Which limit of use the key has reached, or ""."""
        found = (self.site.policy.rules.get(pair) for pair in record.pairs)
        rules, limits = [rule for rule in found if rule is not None], self.site.limits
        uses_max = min((r.cryptoperiod_uses for r in rules if r.cryptoperiod_uses), default=limits.rotation_uses)
        bytes_max = min((r.cryptoperiod_bytes for r in rules if r.cryptoperiod_bytes), default=limits.rotation_bytes)
        if record.uses >= uses_max:
            return "uses"
        return "bytes" if record.used_bytes >= bytes_max else ""

    def _call_for_rotation(self, record: KeyRecord, why: str) -> KeyRecord:
        now_s = self.site.clock.now_s()
        record = record._replace(stage=Stage.EXPIRE, due_s=record.expires_s, rotation_due_s=now_s)
        self.site.store.register.put(record)
        self.site.note(
            "key.rotation_due",
            key_id=record.key_id,
            initiator=record.initiator,
            responder=record.responders[0],
            reason=why,
        )
        return record

    # jobs: each does a bounded part and says how much ----------------------------------------------------------------

    def rotate(self) -> int:
        """Say once of each key in use that it is time for another one."""
        return self._each_due(Stage.ROTATE, lambda record: self._call_for_rotation(record, "time"))

    def expire(self) -> int:
        """Deactivate keys at the end of their cryptoperiod; the peer does the same by its own clock."""
        due = self.site.store.register.due(Stage.EXPIRE, self.site.clock.now_s(), KEYS_PER_NOTICE_MAX)
        for record in self.register.move(due, Change.DEACTIVATE, CLOCK, "cryptoperiod"):
            self._settle(record)
        return len(due)

    def collect(self) -> int:
        """Forget keys whose life ended long ago; the log still has it."""
        return self._each_due(Stage.COLLECT, lambda record: self.site.store.register.drop(record.key_id))

    def _each_due(self, stage: Stage, do: Callable[[KeyRecord], object]) -> int:
        due = self.site.store.register.due(stage, self.site.clock.now_s(), KEYS_PER_NOTICE_MAX)
        for record in due:
            do(record)
        return len(due)


_DEFAULTS = tuple(KeyRecord._field_defaults.values())


def _check_words(actor: str, reason: str) -> None:
    for what, words in (("actor", actor), ("reason", reason)):
        if not words.strip() or len(words) > WORDS_MAX:
            raise BadRequest(f"{what} shall be 1 to {WORDS_MAX} characters")


def _burns(change: Change, scope: Scope, after: tuple[float, str] | None) -> bool:
    """Whether keys that are not released yet are meant too: with the first page of what stops keys that are active."""
    return after is None and change in BURNING and (not scope.states or State.ACTIVE in scope.states)


def _casts_doubt(change: Change, scope: Scope, after: tuple[float, str] | None) -> bool:
    return after is None and change is Change.COMPROMISE and scope.is_of_bits


def _is_news(record: KeyRecord, state: State, turns: Turns, compromised: bool) -> bool:
    turned = not LEVEL[state] and turns != record.turns
    return state is not record.state or turned or (compromised and not record.compromised_s)


def _sequences(message: Reserve) -> set[int]:
    return {int(block_id.rsplit("/", 2)[1]) for key in message.keys for block_id, _, _ in key.segments}


def _state_of(peer: str, message: Changed) -> State:
    try:
        state = State(message.state)
    except ValueError:
        raise PeerFault(f"{peer} knows a state {message.state!r}") from None
    if state is State.PRE_ACTIVATION or len(message.keys) > KEYS_PER_NOTICE_MAX:
        raise PeerFault(f"{peer} sent a notice of {len(message.keys)} keys as {state.value}")
    if any(min(turns) < 0 for _, *turns in message.keys):
        raise PeerFault(f"{peer} counts turns below zero")
    return state
