"""The records of this site's keys: entered when both ends hold a key, moved through its states, told to the peer.

Whatever moves a key here is said to the peer until it confirms. Both ends merge what they hear with what they know
(`core.register.merged`), so that lost, repeated and overtaken notices change nothing in the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from keystrand.core.clock import new_uuid
from keystrand.core.policy import Policy
from keystrand.core.protection import Strand
from keystrand.core.register import LEVEL, KeyRecord, Stage, Turns, resumed, suspended
from keystrand.core.states import Change, State, advance, changes_to
from keystrand.kme.site import Site
from keystrand.wire import peer as wire
from keystrand.wire.peer import Changed, Heard, Quarantined, WireKey

KEYS_PER_NOTICE_MAX = 256
NOTICES_PER_REPEAT_MAX = 16
CLOCK = "clock"  # who ends cryptoperiods: both ends by themselves
SERVICE = "kme"

KIND = {
    State.ACTIVE: "key.resumed",
    State.SUSPENDED: "key.suspended",
    State.DEACTIVATED: "key.deactivated",
    State.COMPROMISED: "key.compromised",
    State.DESTROYED: "key.destroyed",
}

Terms = tuple[str, tuple[str, ...], float]  # tenant, tags, cryptoperiod in seconds


def span_of(keys: Sequence[WireKey]) -> tuple[int, int]:
    """First and last device block that the bits of these keys came from; -1, -1 for none."""
    if len(keys) == 1 and len(keys[0].segments) == 1:  # nearly always, and for every key
        only = int(keys[0].segments[0][0].split("/")[-2])
        return only, only
    sequences = [int(block_id.rsplit("/", 2)[1]) for key in keys for block_id, _, _ in key.segments]
    return (min(sequences), max(sequences)) if sequences else (-1, -1)


def _unturned(turns: Turns) -> Turns:
    return turns


def portions(records: Sequence[KeyRecord]) -> Iterable[Sequence[KeyRecord]]:
    return (records[at : at + KEYS_PER_NOTICE_MAX] for at in range(0, len(records), KEYS_PER_NOTICE_MAX))


class Register:
    """Writes the register of one site."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self._terms: dict[tuple[str, tuple[str, ...]], Terms] = {}
        self._policy: Policy | None = None

    # entry ---------------------------------------------------------------------------------------------------------

    def terms(self, initiator: str, responders: tuple[str, ...]) -> Terms:
        """What the rules say about keys of these SAEs: those of the first rule, and the shortest cryptoperiod."""
        if self._policy is not self.site.policy:
            self._policy = self.site.policy
            self._terms.clear()
        known = self._terms.get((initiator, responders))
        if known is None:
            known = self._terms[initiator, responders] = self._read_terms(initiator, responders)
        return known

    def _read_terms(self, initiator: str, responders: tuple[str, ...]) -> Terms:
        found = (self.site.policy.rules.get((initiator, responder)) for responder in responders)
        rules = [rule for rule in found if rule is not None]
        period_s = min((r.cryptoperiod_s for r in rules if r.cryptoperiod_s), default=self.site.limits.cryptoperiod_s)
        if not rules:
            return "", (), period_s
        return rules[0].tenant, tuple(f"{name}={value}" for name, value in rules[0].tags), period_s

    def enter(
        self,
        keys: Iterable[WireKey],
        *,
        initiator: str,
        responders: tuple[str, ...],
        peer: str,
        link: str,
        size_bits: int,
        strands: frozenset[Strand],
    ) -> float:
        """Both ends hold these keys: they are active from now on. When their cryptoperiod ends, in Unix seconds."""
        tenant, tags, period_s = self.terms(initiator, responders)
        now_s = self.site.clock.now_s()
        end_s = now_s + period_s
        alike = KeyRecord(
            key_id="",
            initiator=initiator,
            responders=responders,
            peer=peer,
            link=link,
            first_sequence=-1,
            last_sequence=-1,
            strands=strands,
            size_bits=size_bits,
            tenant=tenant,
            tags=tags,
            created_s=now_s,
            activated_s=now_s,
            expires_s=end_s,
            stage=Stage.EXPIRE,
            due_s=end_s,
        )
        self.site.store.register.add_alike(alike, [(key.key_id, *span_of((key,))) for key in keys])
        return end_s

    # the states ----------------------------------------------------------------------------------------------------

    def move(
        self, records: Sequence[KeyRecord], change: Change, actor: str, reason: str, told_by: str = ""
    ) -> list[KeyRecord]:
        """The same change for all. Raises IllegalTransition."""
        turned = {Change.SUSPEND: suspended, Change.RESUME: resumed}.get(change, _unturned)
        aims = [(record, advance(record.state, change), turned(record.turns)) for record in records]
        return self.bring(aims, actor, reason, told_by=told_by)

    def bring(
        self,
        aims: Iterable[tuple[KeyRecord, State, Turns]],
        actor: str,
        reason: str,
        *,
        told_by: str = "",
        compromised: bool = False,
    ) -> list[KeyRecord]:
        """Bring each key to a state and its turns, on legal ways only; record, announce and return what has become of them."""
        moved: list[KeyRecord] = []

        def order(aim: tuple[KeyRecord, State, Turns]) -> tuple[int, bool]:
            return list(State).index(aim[1]), aim[0].state is aim[1]

        for (_, is_there), same in groupby(sorted(aims, key=order), key=order):
            together = list(same)
            # what is there already was only marked: the peer knows that it was compromised before its end
            kind = "key.compromised" if is_there and compromised else KIND[together[0][1]]
            self.site.emit(kind, keys=len(together), actor=actor, reason=reason)
            for at in range(0, len(together), KEYS_PER_NOTICE_MAX):
                part = together[at : at + KEYS_PER_NOTICE_MAX]
                ids = [record.key_id for record, _, _ in part]
                number = self.site.record(kind, key_ids=ids, actor=actor, reason=reason, told_by=told_by)
                moved += [self._put(*aim, actor, reason, number, compromised) for aim in part]
        return moved

    def _put(
        self, record: KeyRecord, state: State, turns: Turns, actor: str, reason: str, number: int, compromised: bool
    ) -> KeyRecord:
        now_s = self.site.clock.now_s()
        now = record.state
        for change in changes_to(record.state, state):
            now = advance(now, change)
        over = LEVEL[state] > 0
        mark_s = now_s if (compromised or state is State.COMPROMISED) and not record.compromised_s else 0.0
        moved = record._replace(
            state=now,
            turn=turns[0],
            peer_turn=turns[1],
            changed_s=now_s,
            actor=actor,
            reason=reason,
            stage=Stage.COLLECT if over else record.stage,
            due_s=now_s + self.site.limits.register_ttl_s if over else record.due_s,
            compromised_s=mark_s or record.compromised_s,
            destroyed_n=number if now is State.DESTROYED is not record.state else record.destroyed_n,
        )
        self.site.store.register.put(moved)
        return moved

    def retire(self, key_ids: Iterable[str], reason: str) -> None:
        """Keys that nobody here will ever fetch: of no use to the initiator either, which is told so."""
        found = (self.site.store.register.get(key_id) for key_id in key_ids)
        records = [record for record in found if record is not None and not LEVEL[record.state]]
        if records:
            self.tell_changes(self.move(records, Change.DEACTIVATE, SERVICE, reason))

    # the peer ------------------------------------------------------------------------------------------------------

    def tell(self, peer: str, message: Changed | Quarantined) -> None:
        """Say it now, and again until the peer has it durably."""
        self.site.store.register.put_notice(peer, message.notice_id, wire.encode([message]))
        self.site.send(peer, message)

    def tell_changes(self, records: Iterable[KeyRecord]) -> None:
        """Notices of where these keys stand now."""

        def terms(record: KeyRecord) -> tuple[str, str, bool, str, str]:
            return record.peer, record.state.value, record.compromised_s > 0, record.actor, record.reason

        for (peer, state, compromised, actor, reason), same in groupby(sorted(records, key=terms), key=terms):
            if peer not in self.site.peer_kme_ids:
                continue
            for part in portions(list(same)):
                keys = tuple((record.key_id, *record.turns) for record in part)
                self.tell(
                    peer,
                    Changed(
                        notice_id=new_uuid(self.site.entropy),
                        state=state,
                        compromised=compromised,
                        actor=actor,
                        reason=reason,
                        keys=keys,
                    ),
                )

    def repeat(self, peer: str) -> int:
        """Say again what the peer has not confirmed."""
        waiting = self.site.store.register.notices(peer, NOTICES_PER_REPEAT_MAX)
        for _, frame in waiting:
            for message in wire.decode(frame):
                self.site.send(peer, message)
        return len(waiting)

    def hear_heard(self, peer: str, message: Heard) -> None:
        self.site.store.register.drop_notice(peer, message.notice_id)

    def resync(self, peer: str) -> None:
        """The peer went back to an old state: tell it everything that anyone but the clock did to keys shared with it."""
        after: tuple[float, str] | None = None
        while records := self.site.store.register.changed(peer, after, KEYS_PER_NOTICE_MAX):
            self.tell_changes(records)
            after = (records[-1].created_s, records[-1].key_id)
