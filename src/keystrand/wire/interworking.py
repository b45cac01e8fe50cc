"""Keys handed from one network's KME to another's (ETSI GS QKD 020 V1.1.1), as both ends see them. No I/O, no clock.

One record per key and a table of stages (handover). The order of the rules keeps the two ends apart from what must never be, a
key given to an SAE at one end and void at the other: an end gives out only from READY, calls a key void only once the other end
cannot give it out, and stays in VOIDING, where it does neither, until the other end has said which it is. Messages may be
lost, doubled and overtaken; each is repeated until it is answered, and a record that ended stays as a tombstone.

A key that is carried on has two records here, its way in and its way out, and neither side is told of it what the other has not
said: relayed once the way out is, void once the other side has it void, "failed to void" where an SAE there has it. Until then
the way in stays HELD, and whoever voids the key waits. So a row of KMEs keeps the two ends apart as two KMEs do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from keystrand.core.errors import UnknownKey
from keystrand.core.limits import Limits
from keystrand.core.secret import Secret
from keystrand.wire.etsi020 import (
    Ack,
    AckStatus,
    Extensions,
    ExtKey,
    ExtKeys,
    Parties,
    ProblemType,
    Refused,
    Void,
)
from keystrand.wire.handover import (
    TRANSITIONS,
    Answered,
    Handover,
    Outgoing,
    Records,
    Stage,
    Step,
    acks_of,
    grouped,
    record_of,
    wipe,
)

RETRY_S_MAX: Final = 60.0
_STEP_OF_ACK: Final = {
    AckStatus.RELAYED: Step.RELAYED,
    AckStatus.FAILED: Step.FAILED,
    AckStatus.VOIDED: Step.PEER_VOIDED,
    AckStatus.FAILED_TO_VOID: Step.VOID_FAILED,
}
_OUTCOME: Final = {
    Stage.READY: AckStatus.RELAYED,
    Stage.RELEASED: AckStatus.RELAYED,
    Stage.VOIDING: AckStatus.FAILED,
    Stage.VOIDED: AckStatus.VOIDED,
}


@dataclass(slots=True)
class Interworking(Records):
    """This KME's side towards all its peers. callbacks: peer -> the own URL for its acks; None asks for synchronous mode.
    passed: what our ack says of a key that is carried on, given its way out.

    Every method is a step of one transaction; `now_s` is Unix time.
    """

    callbacks: Mapping[str, str | None]
    limits: Limits = field(default_factory=Limits)
    passed: Callable[[Handover], Extensions] = lambda way_out: way_out.said

    @property
    def room(self) -> int:
        """How many more records there may be."""
        return self.limits.tombstones_max - self.count

    # for this KME's own service --------------------------------------------------------------------------------------

    def offer(self, peer: str, keys: ExtKeys, *, now_s: float, deadline_s: float) -> None:
        """Hand `keys` to `peer`; given up if no ack has come by `deadline_s`. Raises ValueError for a key ID known already."""
        if peer not in self.callbacks or any(key_id in self._records for key_id in keys.key_ids):
            raise ValueError("not a peer, or a key ID is not new")
        for key in keys.keys:
            record = record_of(peer, key, keys, Stage.OFFERED, now_s)
            record.sends, record.deadline_s = True, deadline_s
            self._keep(record)

    def carry(
        self, key_ids: Iterable[str], peer: str, optional: Extensions, *, now_s: float, deadline_s: float
    ) -> None:
        """Hand keys that were received on to `peer`. Raises Refused; ValueError unless they are HELD, and came from another."""
        held_keys = [self._records[key_id] for key_id in key_ids]
        if len(held_keys) > self.room:
            raise Refused(ProblemType.SERVER_ERROR, "too many keys are on their way")
        for held in held_keys:
            if held.stage is not Stage.HELD or peer == held.peer or peer not in self.callbacks:
                raise ValueError("not held, or no peer to carry it to")
            assert held.material is not None
            record = replace(
                held,
                peer=peer,
                sends=True,
                onward=True,
                stage=Stage.OFFERED,
                since_s=now_s,
                material=Secret(held.material.reveal()),
                optional=optional,
                callback_url=None,
                owes=None,
                attempts=0,
                next_s=now_s,
                deadline_s=deadline_s,
            )
            self._keep(record)

    def weave(self, key_id: str, material: Secret) -> None:
        """Let a key be this material, made of what it was. Its extension tells a repeated one from now on."""
        record = self._records[key_id]
        wipe(record)
        record.material, record.woven = material, True
        self._keep(record)

    def settle(self, key_ids: Iterable[str], *, relayed: bool, now_s: float, said: Extensions | None = None) -> None:
        """Keys that were received have reached the KMEs of their target SAEs, or never will. said: with their acks."""
        for key_id in key_ids:
            record = self._records[key_id]
            if record.stage is Stage.HELD:
                record.said = said or {}
                self._advance(record, Step.RELAYED if relayed else Step.FAILED, now_s)
                self._owe_if_asked(record, AckStatus.RELAYED if relayed else AckStatus.FAILED, now_s)

    def release(self, key_id: str, *, now_s: float) -> ExtKey:
        """The key for an SAE of this end; the SAE gets it only after this step is durable. Raises UnknownKey unless READY."""
        record = self._records.get(key_id)
        if record is None or record.stage is not Stage.READY or record.material is None:
            raise UnknownKey("one or more keys specified are not found on KME")
        key = ExtKey(key_id=key_id, material=Secret(record.material.reveal()), extension=record.extension)
        self._advance(record, Step.RELEASE, now_s)
        return key

    def give_up(self, key_ids: Iterable[str], *, now_s: float) -> None:
        """Void keys that no SAE of this end has. What the peer says decides; until then they are neither given out nor void."""
        for key_id in key_ids:
            self._advance(self._records[key_id], Step.GIVEN_UP, now_s)

    # what the peer asks ----------------------------------------------------------------------------------------------

    def receive_keys(self, peer: str, keys: ExtKeys, *, now_s: float) -> tuple[str, ...]:
        """Take keys in; the IDs of those that are new, for the service to relay and `settle`. All or none. Raises Refused.

        A repeated container changes nothing, whatever policy says by now. A key ID that stands for another key here is refused
        with 503, for 400 would say that nothing is held under it.
        """
        new = [key for key in keys.keys if not self._is_same(peer, key, keys.parties)]
        if len(new) > self.room:
            raise Refused(ProblemType.SERVER_ERROR, "too many keys are on their way")
        for key in new:
            self._keep(record_of(peer, key, keys, Stage.HELD, now_s))
        for record in (self._records[key_id] for key_id in keys.key_ids):
            record.callback_url = keys.callback_url
            # whoever asks again has not heard the outcome
            settled = _OUTCOME.get(record.stage) if keys.callback_url else None
            self._owe(record, settled, now_s)
        return tuple(key.key_id for key in new)

    def outcome(self, key_ids: Sequence[str]) -> tuple[Ack, ...] | None:
        """What became of received keys, for the answer in synchronous mode; None while one is still HELD."""
        records = [self._records[key_id] for key_id in key_ids]
        if any(record.stage is Stage.HELD for record in records):
            return None
        return acks_of((record, _OUTCOME[record.stage]) for record in records)

    def acknowledge(self, peer: str, acks: Iterable[Ack], *, now_s: float) -> None:
        """The peer says what became of keys. All or none. Raises Refused for keys that are not there."""
        pairs = [(self._acked(peer, key_id, ack), ack) for ack in acks for key_id in ack.key_ids]
        for record, ack in pairs:
            self._hear(record, ack, now_s)

    def void_keys(self, peer: str, void: Void, *, now_s: float) -> tuple[Ack, ...] | None:
        """The peer voids keys: what became of each. Where a callback is named, the acks are owed instead of answered.

        None where the other side of a key that is carried on must be asked first.
        All or none. Raises Refused where a key ID stands for a key of others.
        """
        key_ids = void.key_ids or self._living(peer, void.parties)
        if not key_ids:
            raise Refused(ProblemType.KEY_NOT_PRESENT, "no keys of these SAEs are here")
        if len(key_ids) > self.room:
            raise Refused(ProblemType.SERVER_ERROR, "too many keys are remembered")
        for key_id in key_ids:
            self._check_owner(peer, key_id, void.parties)
        said = []
        for key_id in key_ids:
            status = self._void(peer, key_id, void.parties, now_s)
            record = self._find(peer, key_id)
            assert record is not None
            record.callback_url = void.callback_url or record.callback_url
            if status is None:
                self._keep(record)
                continue
            if void.callback_url is not None:
                self._owe(record, status, now_s)
            said.append((record, status))
        return acks_of(said) if len(said) == len(key_ids) else None

    # what is to be sent, and what came of it -------------------------------------------------------------------------

    def due(self, now_s: float) -> list[Outgoing]:
        """Requests to send now; each is due again, later and later, until its answer settles it."""
        busy = [self._find(peer, key_id) for key_id, peer in sorted(self._busy)]
        waiting = [record for record in busy if record is not None and record.next_s <= now_s]
        for record in waiting:
            late = record.stage is Stage.OFFERED and now_s >= record.deadline_s
            if late:
                self._advance(record, Step.GIVEN_UP, now_s)
        outgoing = []
        for (kind, *_), records in grouped(waiting, self._group):
            if kind:
                outgoing.append(self._outgoing(kind, records))
            for record in records:
                self._sent(record, kind, now_s)
        return outgoing

    def answered(self, outgoing: Outgoing, answer: Answered, *, now_s: float) -> None:
        """The peer's answer to a request of `due`, or that there was none."""
        found = [self._find(outgoing.peer, key_id) for key_id in outgoing.key_ids]
        records = [record for record in found if record is not None]
        if isinstance(outgoing.body, tuple):
            self._acks_answered(records, outgoing.body, answer, now_s)
        elif isinstance(outgoing.body, Void):
            self._void_answered(records, answer, now_s)
        else:
            self._offer_answered(records, answer, now_s)

    # within ----------------------------------------------------------------------------------------------------------

    def _offer_answered(self, records: list[Handover], answer: Answered, now_s: float) -> None:
        for record in records:
            if answer.unclear:
                record.unclear = True
            elif answer.refused is not None:
                # an earlier request whose answer we missed may still arrive there: only a void keeps it out
                step = Step.GIVEN_UP if record.unclear or record.accepted else Step.NEVER_THERE
                if record.stage is Stage.OFFERED:
                    self._advance(record, step, now_s)
            elif not answer.acks:
                record.accepted = True
            self.store.save(record)
        self._hear_all(records, answer, now_s)

    def _void_answered(self, records: list[Handover], answer: Answered, now_s: float) -> None:
        absent = answer.refused is not None and answer.refused.kind is ProblemType.KEY_NOT_PRESENT
        for record in records:
            if absent and len(records) > 1:
                self._ask_alone(record, now_s)
            elif absent and record.stage is Stage.VOIDING:
                self._advance(record, Step.PEER_VOIDED, now_s)
        self._hear_all(records, answer, now_s)

    def _acks_answered(self, records: list[Handover], acks: tuple[Ack, ...], answer: Answered, now_s: float) -> None:
        if answer.unclear:
            return
        said = {key_id: ack.status for ack in acks for key_id in ack.key_ids}
        for record in records:
            if answer.refused is not None and len(records) > 1:
                self._ask_alone(record, now_s)
                continue
            if record.owes is said[record.key_id]:
                self._owe(record, None, now_s)
            if answer.refused is not None and not record.sends:
                self._advance(record, Step.GIVEN_UP, now_s)  # what cannot be acknowledged is voided from this side

    def _ask_alone(self, record: Handover, now_s: float) -> None:
        record.alone, record.next_s = True, now_s
        self._keep(record)

    def _hear_all(self, records: list[Handover], answer: Answered, now_s: float) -> None:
        asked = {record.key_id: record for record in records}
        for ack in answer.acks:
            for key_id in ack.key_ids:
                if key_id in asked and asked[key_id].parties == ack.parties:
                    self._hear(asked[key_id], ack, now_s)

    def _hear(self, record: Handover, ack: Ack, now_s: float) -> None:
        if ack.status is AckStatus.KEY_NOT_PRESENT:
            if record.stage is Stage.VOIDING:
                self._advance(record, Step.PEER_VOIDED, now_s)
        elif record.sends or ack.status in (AckStatus.VOIDED, AckStatus.FAILED_TO_VOID):
            if ack.status is AckStatus.RELAYED and record.stage is Stage.OFFERED:
                record.said = ack.extension
            self._advance(record, _STEP_OF_ACK[ack.status], now_s)

    def _acked(self, peer: str, key_id: str, ack: Ack) -> Handover:
        record = self._find(peer, key_id)
        known = record is not None and (record.peer, record.parties) == (peer, ack.parties)
        if record is None or not known or (record.stage is Stage.VOIDED and ack.status is AckStatus.RELAYED):
            raise Refused(ProblemType.KEY_NOT_PRESENT, "a key is not here", details={"key_id": key_id})
        return record

    def _is_same(self, peer: str, key: ExtKey, parties: Parties) -> bool:
        record = self._find(peer, key.key_id)
        if record is None:
            return False
        same = (record.peer, record.sends) == (peer, False) and record.parties == parties
        if record.woven:
            same = same and record.extension == key.extension
        elif record.material is not None:
            same = same and record.material.matches(key.material)
        if not same:
            raise Refused(ProblemType.SERVER_ERROR, "a key ID is in use", details={"key_id": key.key_id})
        return True

    def _void(self, peer: str, key_id: str, parties: Parties, now_s: float) -> AckStatus | None:
        """What the peer is told, and None where it has to wait for the other side's word."""
        record = self._find(peer, key_id)
        if record is None:  # whatever of it is still on its way must find it void
            self._keep(
                Handover(
                    key_id=key_id, peer=peer, parties=parties, sends=False, stage=Stage.VOIDED, since_s=now_s
                )
            )  # fmt: skip
            return AckStatus.KEY_NOT_PRESENT
        other = self._other(record)
        if record.stage is Stage.RELEASED or (other is not None and other.kept):
            return AckStatus.FAILED_TO_VOID
        if other is not None and record.stage in (Stage.HELD, Stage.READY):
            record.asked = True
            self._advance(other, Step.GIVEN_UP, now_s)
            return None
        self._advance(record, Step.PEER_VOIDED, now_s)
        return AckStatus.VOIDED

    def _check_owner(self, peer: str, key_id: str, parties: Parties) -> None:
        record = self._find(peer, key_id)
        if record is not None and (record.peer, record.parties) != (peer, parties):
            raise Refused(ProblemType.KEY_NOT_PRESENT, "a key is not here", details={"key_id": key_id})

    def _living(self, peer: str, parties: Parties) -> tuple[str, ...]:
        return tuple(
            record.key_id
            for record in (*self._records.values(), *self._onward.values())
            if (record.peer, record.parties) == (peer, parties) and record.stage is not Stage.VOIDED
        )

    def _group(self, record: Handover) -> tuple[object, ...]:
        alone = record.key_id if record.alone else ""
        if record.owes is not None:
            return "ack", record.peer, record.callback_url, alone
        if record.stage is Stage.VOIDING:
            return "void", record.peer, record.parties, alone
        if record.stage is Stage.OFFERED and not record.accepted:
            return "offer", record.peer, record.offer
        return ("",)

    def _outgoing(self, kind: object, records: list[Handover]) -> Outgoing:
        first, key_ids = records[0], tuple(record.key_id for record in records)
        if kind == "ack":
            return Outgoing(first.peer, acks_of((r, r.owes) for r in records if r.owes is not None), key_ids)
        callback_url = self.callbacks.get(first.peer)
        if kind == "void":
            return Outgoing(
                first.peer, Void(key_ids=key_ids, parties=first.parties, callback_url=callback_url), key_ids
            )
        keys = tuple(
            ExtKey(key_id=record.key_id, material=record.material, extension=record.extension)
            for record in records
            if record.material is not None
        )
        body = ExtKeys(
            keys=keys,
            parties=first.parties,
            callback_url=callback_url,
            mandatory=first.mandatory,
            optional=first.optional,
        )
        return Outgoing(first.peer, body, key_ids)

    def _sent(self, record: Handover, kind: object, now_s: float) -> None:
        if kind:
            record.next_s = now_s + min(RETRY_S_MAX, self.limits.peer_retry_s * 2 ** min(record.attempts, 16))
            record.attempts += 1
            if record.stage is Stage.OFFERED:
                record.next_s = min(record.next_s, record.deadline_s)
            self.store.save(record)
        elif record.stage is Stage.OFFERED:
            record.next_s = record.deadline_s  # accepted: nothing to say until then
        else:
            self._busy.discard((record.key_id, record.peer))

    def _owe_if_asked(self, record: Handover, status: AckStatus, now_s: float) -> None:
        self._owe(record, status if record.callback_url else None, now_s)

    def _owe(self, record: Handover, status: AckStatus | None, now_s: float) -> None:
        record.owes, record.attempts, record.next_s = status, 0, now_s
        self._keep(record)

    def _advance(self, record: Handover, step: Step, now_s: float) -> None:
        """The only writer of a record's stage. A step that the table does not have there is old news."""
        stage = TRANSITIONS[record.stage].get(step)
        if stage is None:
            return
        record.stage, record.since_s, record.attempts, record.next_s = stage, now_s, 0, now_s
        record.kept = record.kept or step is Step.VOID_FAILED
        other = self._other(record)
        if stage in (Stage.RELEASED, Stage.VOIDED) or (other is not None and stage is Stage.READY):
            wipe(record)
        self._keep(record)
        if other is not None and stage is Stage.READY:
            self._pass_on_ready(record, other, now_s)
        elif other is not None and stage is Stage.VOIDED:
            self._pass_on_void(other, now_s)

    def _pass_on_ready(self, record: Handover, other: Handover, now_s: float) -> None:
        """An SAE of that side may have the key, or has it."""
        if other.stage is Stage.HELD:
            other.said = self.passed(record)
            self._advance(other, Step.RELAYED, now_s)
            self._owe_if_asked(other, AckStatus.RELAYED, now_s)
        if other.asked and record.kept:
            other.asked = False
            self._owe_if_asked(other, AckStatus.FAILED_TO_VOID, now_s)

    def _pass_on_void(self, other: Handover, now_s: float) -> None:
        """No SAE of that side will have the key. Where this side has not asked for that, it is asked."""
        if other.asked:
            other.asked = False
            self._advance(other, Step.PEER_VOIDED, now_s)
            self._owe_if_asked(other, AckStatus.VOIDED, now_s)
        elif other.stage is Stage.HELD:
            self._advance(other, Step.FAILED, now_s)
            self._owe_if_asked(other, AckStatus.FAILED, now_s)
        else:
            self._advance(other, Step.GIVEN_UP, now_s)
