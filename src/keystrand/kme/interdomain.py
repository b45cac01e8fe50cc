"""Keys shared with SAEs of other networks (ETSI GS QKD 020 V1.1.1), as this site's KME serves them.

A key for such a pair is made here from this KME's own randomness, or comes from the other network's KME; no QKD link is on
its way, so it is worth what the TLS leg between the two KMEs is: `pqc`. `wire.interworking` keeps the two ends apart from
what must never be; here its records live in the site's transaction, with the audit log and the register. Whoever draws gets
keys once both ends have them; a key that nobody here will fetch is given up, and burnt where the other end's SAE has it.

Keys for an SAE that lies behind another KME of the table are carried on to it (`kme.border` says which may be). Where several
KMEs reach an SAE, `kme.ways` says which is asked first. A key goes one way only: where that fails it is given up, as any other,
and whoever waits gets another key, which went another way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from keystrand.core.clock import new_key_ids
from keystrand.core.errors import BadRequest, KeyUnavailable, NotPermitted, PeerUnavailable, UnknownKey
from keystrand.core.key import Key
from keystrand.core.pool import PoolStatus
from keystrand.core.protection import Protection
from keystrand.core.register import LEVEL
from keystrand.core.secret import Secret
from keystrand.core.states import State
from keystrand.kme.ask import CHECKS, Draft, require_local
from keystrand.kme.border import ALONE, STRANDS, Border, Terms, enter
from keystrand.kme.delivery import Delivery
from keystrand.kme.ends import Ends
from keystrand.kme.pickup import UNKNOWN
from keystrand.kme.register import Register
from keystrand.kme.site import Refuse, Reply, Site
from keystrand.kme.ways import Domain, Ways
from keystrand.wire import handover
from keystrand.wire.etsi020 import Ack, Extensions, ExtKey, ExtKeys, Parties, ProblemType, Refused, Void
from keystrand.wire.handover import Answered, Handover, HandoverStore, Outgoing
from keystrand.wire.interworking import Interworking

T = TypeVar("T")
At = handover.Stage
LIVING: Final = (At.OFFERED, At.HELD, At.READY)
ENDED_PER_RUN_MAX: Final = 256
# what the standard calls two of the reasons for which a key is not taken
ENTRIES: Final = {"invalid routing": "invalid_routing", "the target SAE": "target_sae_id_not_recognized"}


@dataclass(slots=True, kw_only=True)
class Draw:
    """An SAE of this site that waits, until_s at most, for keys over the last of the KMEs in `tried`."""

    ticket: object
    parties: Parties
    number: int
    size_bits: int
    until_s: float
    tried: list[str] = field(default_factory=list)
    key_ids: tuple[str, ...] = ()


class Interdomain:
    """All handovers of one site. Every method is a step of a transaction; one that raises has changed nothing.

    wake: called when there is something to send; what `due` gives then is durable once that call's transaction is.
    """

    def __init__(
        self,
        site: Site,
        register: Register,
        store: HandoverStore,
        domains: Iterable[Domain],
        *,
        timeout_s: float,
        wake: Callable[[], None],
        terms: Terms = ALONE,
        ends: Ends | None = None,
    ) -> None:
        self.site = site
        self.register = register
        self.ways: Final = Ways(domains, site.clock)
        self.timeout_s = timeout_s
        self.wake = wake
        callbacks = {kme_id: domain.own_callback for kme_id, domain in self.ways.domains.items()}
        self.ends = ends or Ends(site.kem, lambda message: b"", {})
        self.border = Border(site, self.ways, terms)
        self.handovers = Interworking(store, callbacks, site.limits, self.border.passed)
        self._draws: dict[str, Draw] = {}  # by key ID

    # start and restore ---------------------------------------------------------------------------------------------

    def recover(self) -> None:
        """Nobody waits any more for what was drawn before this start: it is given up."""
        for record in list(self.handovers.records()):
            if record.sends and record.stage in LIVING:
                self._give_up(record.key_id, "restart")

    def begin_epoch(self) -> None:
        """After a restore from backup: keys may have been handed out since (invariant I14), but those that are carried on."""
        for record in list(self.handovers.records()):
            if record.stage in LIVING and self.handovers.onward(record.key_id) is None:
                self._give_up(record.key_id, "restore")

    # SAEs of this site ---------------------------------------------------------------------------------------------

    def status(self, caller: str, other: str) -> PoolStatus:
        """Keys are made on demand, as many as one request may have."""
        limits, first = self.site.limits, self._ways_to(caller, other)[0]
        return PoolStatus(
            source_kme_id=self.site.kme_id,
            target_kme_id=first.kme_id,
            initiator=caller,
            responder=other,
            key_size_bits=limits.key_size_bits_default,
            stored_keys=limits.keys_per_request_max,
            stored_keys_max=limits.keys_per_request_max,
            keys_per_request_max=limits.keys_per_request_max,
            key_size_bits_max=limits.key_size_bits_max,
            key_size_bits_min=limits.key_size_bits_min,
            additional_recipients_max=0,
        )

    def _ways_to(self, caller: str, other: str) -> list[Domain]:
        """The one to be asked first at the head. Raises NotPermitted where the two may not share keys."""
        require_local(self.site, caller)
        return self.ways.need(other, caller)

    def draw(self, ticket: object, caller: str, other: str, number: int | None, size_bits: int | None) -> None:
        """Make keys and offer them; a Reply or Refuse effect for `ticket` follows. Raises when it is refused at once."""
        self._ways_to(caller, other)
        number, size_bits = self._checked(caller, other, number, size_bits)
        if len(self._draws) + number > self.site.limits.pending_requests_max:
            raise KeyUnavailable("too many keys wait for the other network", retry_after_s=self.timeout_s)
        if number > self.handovers.room:
            raise KeyUnavailable("too many keys were handed over within a day", retry_after_s=60.0)
        until_s, parties = self.site.clock.now_s() + self.timeout_s, Parties(caller, (other,))
        self._offer(Draw(ticket=ticket, parties=parties, number=number, size_bits=size_bits, until_s=until_s))

    def _untried(self, draw: Draw) -> list[Domain]:
        """The ways that are left to somebody who waits."""
        in_time = self.site.clock.now_s() < draw.until_s and draw.number <= self.handovers.room
        found = self.ways.to(draw.parties.targets[0], draw.parties.initiator) if in_time else []
        return [domain for domain in found if domain.kme_id not in draw.tried]

    def _offer(self, draw: Draw) -> None:
        """Make new keys and offer them over the next way. What time is left is shared with the ways after it."""
        left, entropy, now_s = self._untried(draw), self.site.entropy, self.site.clock.now_s()
        domain = left[0]
        made = tuple(
            ExtKey(key_id=key_id, material=Secret(entropy.bytes(draw.size_bits // 8)))
            for key_id in new_key_ids(entropy, now_s, draw.number)
        )
        keys = ExtKeys(
            keys=self.ends.offer(made, draw.parties),
            parties=draw.parties,
            callback_url=domain.own_callback,
            optional=self.border.said_here(),
        )
        deadline_s = now_s + (draw.until_s - now_s) / len(left)
        self.handovers.offer(domain.kme_id, keys, now_s=now_s, deadline_s=deadline_s)
        for key in made:
            key.material.wipe()  # the record has its own
        self.site.record(
            "key.offered", size_bits=draw.size_bits, **self._facts(keys.key_ids, domain.kme_id, draw.parties)
        )
        draw.tried.append(domain.kme_id)
        draw.key_ids = keys.key_ids
        self._draws.update(dict.fromkeys(draw.key_ids, draw))
        self.wake()

    def _checked(self, caller: str, other: str, number: int | None, size_bits: int | None) -> tuple[int, int]:
        draft = Draft(self.site, caller, other, number, size_bits, (other,))
        for name, check in CHECKS:
            if name in ("number", "size"):
                check(draft)
        assert draft.number is not None
        return draft.number, draft.size_bits or self.site.limits.key_size_bits_default

    def pick_up(self, caller: str, other: str, key_ids: Sequence[str]) -> list[Key]:
        """Keys that `other` drew in its network, all or none, each once. Raises NotPermitted, UnknownKey."""
        self._ways_to(caller, other)
        records = [self._waiting(caller, other, key_id) for key_id in key_ids]
        return [self._release(record, recipient=caller) for record in records]

    def _waiting(self, caller: str, other: str, key_id: str) -> Handover:
        record = self.handovers.record(key_id)
        if record is None or record.sends or record.parties.initiator != other:
            raise UnknownKey(UNKNOWN)
        if caller not in record.parties.targets:
            raise NotPermitted(f"{caller} is not a recipient of this key")
        if record.stage is not At.READY or self._is_over(record):
            raise UnknownKey(UNKNOWN)
        return record

    def _is_over(self, record: Handover) -> bool:
        """Whether a key that is ready must not be handed out (any more): too late, or not active."""
        known = self.site.store.register.get(record.key_id)
        late = self.site.clock.now_s() >= record.since_s + self.site.limits.key_ttl_s
        return late or known is None or known.state is not State.ACTIVE

    # what the other KME asks ---------------------------------------------------------------------------------------

    def holds(self, key_ids: Iterable[str]) -> bool:
        return any(self.handovers.record(key_id) for key_id in key_ids)

    def receive_keys(self, peer: str, keys: ExtKeys) -> tuple[Ack, ...] | None:
        """Take keys for an SAE of this site. What is held already is answered from its record, before any policy."""
        if any(self.handovers.record(key_id) is None for key_id in keys.key_ids):
            self._check_offer(peer, keys)
        taken = self._taken(keys)
        new = self.handovers.receive_keys(peer, keys, now_s=self.site.clock.now_s())
        if self.border.is_end(keys.parties):
            self._take(peer, keys, new, taken)
        elif new:
            self._carry_on(peer, keys, new)
        self.wake()
        return self.handovers.outcome(keys.key_ids)

    def _taken(self, keys: ExtKeys) -> dict[str, tuple[Secret, Extensions]]:
        """What those of them that are new and end here are woven to, where that was agreed with their far end."""
        new = [key for key in keys.keys if self.handovers.record(key.key_id) is None]
        if not self.border.is_end(keys.parties):
            return {}
        try:
            found = {key.key_id: self.ends.take(key, keys.parties) for key in new}
        except BadRequest as problem:
            kind = ProblemType.SERVER_ERROR if self.holds(keys.key_ids) else ProblemType.INVALID_PARAMETER
            raise Refused(kind, str(problem), details={"extension": str(problem)}) from None
        return {key_id: taken for key_id, taken in found.items() if taken is not None}

    def _take(
        self, peer: str, keys: ExtKeys, new: Sequence[str], taken: Mapping[str, tuple[Secret, Extensions]]
    ) -> None:
        """The SAE is served here: there is no way left to go."""
        fresh, way, now_s = frozenset(new), self.border.way_of(peer, keys.optional), self.site.clock.now_s()
        for key in (key for key in keys.keys if key.key_id in fresh):
            said = self.border.said_here()
            if key.key_id in taken:
                material, signed = taken[key.key_id]
                self.handovers.weave(key.key_id, material)
                said = {**said, **signed}
            size_bits, woven = key.material.length_bits, key.key_id in taken
            enter(self.site, self.register, key.key_id, peer, keys.parties, size_bits, way, woven=woven)
            self.handovers.settle((key.key_id,), relayed=True, now_s=now_s, said=said)
        if new:
            names = [stop.kme_id for stop in way]
            facts = self._facts(new, peer, keys.parties)
            self.site.record("key.reserved", way=names, woven=bool(taken), **facts)

    def _carry_on(self, peer: str, keys: ExtKeys, new: Sequence[str]) -> None:
        """Hand them to the next KME. From here until the outcome is known, they are in clear at this site."""
        onward, now_s = self.border.onward(peer, keys)[0], self.site.clock.now_s()
        assert onward is not None
        way = self.border.way_of(peer, keys.optional)
        optional = self.border.carried(way, keys.optional)
        self.handovers.carry(new, onward.kme_id, optional, now_s=now_s, deadline_s=now_s + self.timeout_s)
        bits = sum(key.material.length_bits for key in keys.keys if key.key_id in new)
        names = [stop.kme_id for stop in way]
        self.site.record(
            "key.carried", onward=onward.kme_id, way=names, bits=bits, **self._facts(new, peer, keys.parties)
        )
        self.site.emit("key.carried", peer=peer, onward=onward.kme_id, bits=bits)

    def _check_offer(self, peer: str, keys: ExtKeys) -> None:
        problem = self.border.refuses(peer, keys)
        if problem and self.holds(keys.key_ids):
            raise Refused(ProblemType.SERVER_ERROR, problem)  # 400 would say that nothing of it is held
        if problem:
            entry = next((name for start, name in ENTRIES.items() if problem.startswith(start)), "target_sae_ids")
            raise Refused(ProblemType.KEY_ROUTING_ERROR, problem, details={entry: problem})
        register, store = self.site.store.register, self.site.store
        new = [key_id for key_id in keys.key_ids if self.handovers.record(key_id) is None]
        if any(register.get(key_id) is not None or store.copies(key_id) for key_id in new):
            raise Refused(ProblemType.SERVER_ERROR, "a key ID is in use")

    def acknowledge(self, peer: str, acks: tuple[Ack, ...]) -> None:
        """What the other KME did with keys of ours."""
        key_ids = [key_id for ack in acks for key_id in ack.key_ids]
        self._watched(key_ids, lambda now_s: self.handovers.acknowledge(peer, acks, now_s=now_s))

    def void_keys(self, peer: str, void: Void) -> tuple[Ack, ...] | None:
        """The other KME takes keys back. None where the KME on the other side has to say first whether they can be."""
        meant = void.key_ids or [record.key_id for record in self.handovers.records() if record.peer == peer]
        return self._watched(meant, lambda now_s: self.handovers.void_keys(peer, void, now_s=now_s))

    # what is to be sent --------------------------------------------------------------------------------------------

    def due(self) -> list[Outgoing]:
        """Requests to send once this transaction is durable. What is late is given up."""
        outgoing = self.handovers.due(self.site.clock.now_s())
        for key_id in (key_id for request in outgoing for key_id in request.key_ids):
            draw = self._draws.get(key_id)
            if draw is not None and self.handovers.stage(key_id) is At.VOIDING:
                self.ways.failed(draw.tried[-1])
                self._fail(key_id, "no word in time")
        return outgoing

    def answered(self, outgoing: Outgoing, answer: Answered) -> None:
        """The answer to one of `due`."""
        why = str(answer.refused) if answer.refused is not None else ""
        self._watched(outgoing.key_ids, lambda now_s: self.handovers.answered(outgoing, answer, now_s=now_s), why)
        if not answer.unclear:
            self.ways.answered(outgoing.peer)
            return
        self.ways.failed(outgoing.peer, silent=True)
        for key_id in outgoing.key_ids:
            draw = self._draws.get(key_id)
            if draw is not None and self._untried(draw):
                self._fail(key_id, "no clear answer")  # rather another way now than this one later

    def _watched(self, key_ids: Sequence[str], do: Callable[[float], T], why: str = "") -> T:
        """Do something to these keys, and see to what has become of them."""
        before = {key_id: self.handovers.stage(key_id) for key_id in key_ids}
        result = do(self.site.clock.now_s())
        for key_id, stage in before.items():
            now = self.handovers.stage(key_id)
            if now is not stage and stage is not None:
                self._moved(key_id, stage, why)
        self.wake()
        return result

    def _moved(self, key_id: str, before: At, why: str) -> None:
        record = self.handovers.record(key_id)
        assert record is not None
        if (onward := self.handovers.onward(key_id)) is not None:
            if record.stage is At.READY:
                self.ways.came(onward.peer)
            if record.stage is not At.VOIDING:
                self.site.record("key.carry_ended", key_id=key_id, peer=record.peer, outcome=record.stage.value)
        elif record.stage is At.READY and before is At.VOIDING:
            self._burn(record)
        elif record.stage is At.READY:
            self._ready(key_id)
        elif record.stage is At.VOIDING:
            self._fail(key_id, why or "refused")
        elif record.stage is At.VOIDED:
            self._fail(key_id, why or "void")
            self._end("key.voided", key_id, f"agreed with {record.peer}")

    # how it ends ---------------------------------------------------------------------------------------------------

    def _ready(self, key_id: str) -> None:
        """At both ends. Keys of one draw leave together."""
        draw = self._draws.get(key_id)
        if draw is None:
            self._give_up(key_id, "nobody waits")
            return
        records = [self.handovers.record(each) for each in draw.key_ids]
        if not all(record is not None and record.stage is At.READY for record in records):
            return
        if problem := next(filter(None, map(self._finish, draw.key_ids)), ""):
            self.ways.failed(draw.tried[-1])
            self._fail(key_id, problem)
            return
        self.ways.came(draw.tried[-1])
        self._tell_way(draw, records[0])
        keys = []
        for record in records:
            assert record is not None
            assert record.material is not None
            del self._draws[record.key_id]
            way, size_bits = self.border.way_of(record.peer, record.said), record.material.length_bits
            who = record.key_id, record.peer, record.parties
            enter(self.site, self.register, *who, size_bits, way, woven=record.woven)
            keys.append(self._release(record, recipient=record.parties.initiator))
        self.site.outbox.append(Reply(draw.ticket, keys))

    def _tell_way(self, draw: Draw, first: Handover | None) -> None:
        """Into the log: which KMEs had these keys, unless their ends wove them."""
        assert first is not None
        way = [stop.kme_id for stop in self.border.way_of(first.peer, first.said)]
        self.site.record("key.relayed", key_ids=draw.key_ids, peer=first.peer, way=way, woven=first.woven)

    def _finish(self, key_id: str) -> str:
        """Weave a key that began here and is at its far end; or why it must not be used."""
        record = self.handovers.record(key_id)
        assert record is not None
        assert record.material is not None
        if problem := self.border.why_not_back(record):
            return problem
        try:
            woven = self.ends.finish(ExtKey(key_id=key_id, material=record.material), record.parties, record.said)
        except BadRequest as error:
            return str(error)
        if woven is not None:
            self.handovers.weave(key_id, woven)
        return ""

    def _release(self, record: Handover, *, recipient: str) -> Key:
        """State and audit record change in this transaction; the runner lets the key out after it (I4, I5)."""
        taken = self.handovers.release(record.key_id, now_s=self.site.clock.now_s())
        key = Key(key_id=taken.key_id, material=taken.material, strands=STRANDS)
        Delivery(
            key_ids=[key.key_id],
            recipient=recipient,
            initiator=record.parties.initiator,
            responders=record.parties.targets,
            peer=record.peer,
            link="",
            size_bits=key.material.length_bits,
            strands=STRANDS,
        ).tell(self.site)
        return key

    def _fail(self, key_id: str, reason: str) -> None:
        """The draw that this key belongs to gets none of its keys, but others over another way, if one is left."""
        draw = self._draws.get(key_id)
        if draw is None:
            return
        now_s = self.site.clock.now_s()
        for each in draw.key_ids:
            self._draws.pop(each, None)
            self.ends.forget(each)
            if self.handovers.stage(each) in LIVING:
                self.handovers.give_up((each,), now_s=now_s)
        self.site.record("key.given_up", key_ids=draw.key_ids, reason=reason)
        self.wake()
        if self._untried(draw):
            self._offer(draw)
            return
        hint = "repeat the request; if it persists, ask the operator of the other network"
        self.site.outbox.append(
            Refuse(draw.ticket, PeerUnavailable(f"the other network did not take the key ({reason})", hint=hint))
        )

    def _give_up(self, key_id: str, reason: str) -> None:
        """Nobody here will have it. The other end is asked; only what it says makes the key void, or burnt."""
        self.handovers.give_up((key_id,), now_s=self.site.clock.now_s())
        self._end("key.given_up", key_id, reason)
        self.wake()

    def _burn(self, record: Handover) -> None:
        """Given up here, but the other end's SAE has it: what is here is destroyed."""
        self.handovers.release(record.key_id, now_s=self.site.clock.now_s()).material.wipe()
        self._end("key.burnt", record.key_id, "the other network's SAE has it")

    def _end(self, kind: str, key_id: str, reason: str) -> None:
        self.site.record(kind, key_id=key_id, reason=reason)
        self.register.retire((key_id,), reason)

    def collect(self) -> int:
        """Give up keys that nobody fetched in time or that were revoked here; forget what ended long ago."""
        self.handovers.sweep(self.site.clock.now_s())
        received = [record for record in self.handovers.records() if record.stage is At.READY and not record.sends]
        ready = [record for record in received if self.handovers.onward(record.key_id) is None]
        over = [
            record for record in ready[:ENDED_PER_RUN_MAX] if self._is_over(record) and not self._may_resume(record)
        ]
        for record in over:
            self._give_up(record.key_id, "not fetched")
        return len(over)

    def _may_resume(self, record: Handover) -> bool:
        known = self.site.store.register.get(record.key_id)
        late = self.site.clock.now_s() >= record.since_s + self.site.limits.key_ttl_s
        return not late and known is not None and not LEVEL[known.state]

    # words ---------------------------------------------------------------------------------------------------------

    def _facts(self, key_ids: Sequence[str], peer: str, parties: Parties) -> dict[str, str | Sequence[str]]:
        return {
            "key_ids": tuple(key_ids),
            "initiator": parties.initiator,
            "responders": parties.targets,
            "peer": peer,
            "strands": sorted(strand.value for strand in STRANDS),
            "protection": Protection.of(STRANDS).label,
        }


def check_key_ids(key_ids: Sequence[str], keys_max: int) -> None:
    """Raises BadRequest."""
    if not 1 <= len(key_ids) <= keys_max or len(set(key_ids)) != len(key_ids):
        raise BadRequest(f"1 to {keys_max} key IDs, each once")
