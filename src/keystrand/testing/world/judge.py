"""The judges: what must hold at every release, at every quiet moment and at the end. Each violation names its invariant."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field

import msgspec

from keystrand.core.key import Key
from keystrand.core.pool import BlockState
from keystrand.core.protection import Protection
from keystrand.core.register import LEVEL, KeyRecord, Scope
from keystrand.core.states import Change, State, Step
from keystrand.kme.delivery import segment_of
from keystrand.kme.lifecycle import Affected
from keystrand.testing.world.sitting import Sitting

CONVERGENCE_S = 120.0  # the stated time of invariant I11
GRACE_S = 30.0  # longer than any answer is under way


@dataclass(slots=True)
class Judge:
    """Remembers every key byte that ever left a site, over crashes and restores."""

    require: Protection
    violations: list[str] = field(default_factory=list)
    delivered: dict[tuple[str, str], str] = field(default_factory=dict)  # (key ID, recipient) -> material
    owner_of: dict[str, str] = field(default_factory=dict)  # material -> key ID
    material_of: dict[str, str] = field(default_factory=dict)  # key ID -> material
    records: dict[tuple[str, str, str], int] = field(default_factory=dict)  # (site, key ID, recipient) -> times
    spans: dict[str, dict[int, str]] = field(default_factory=dict)  # block ID -> byte -> key ID
    restored_s: dict[str, float] = field(default_factory=dict)  # site -> when it was last put back
    audited: dict[str, int] = field(default_factory=dict)  # site -> audit rows read
    withheld: set[tuple[str, str]] = field(default_factory=set)  # (site, key ID) that an operator suspended there
    ended: set[tuple[str, str]] = field(default_factory=set)  # (site, key ID) that an operator took back for good there
    doubted: set[tuple[str, int]] = field(default_factory=set)  # (site, sequence) that an operator declared compromised
    drawn: dict[str, set[int]] = field(default_factory=dict)  # key ID -> device blocks that its bits came from

    def blame(self, invariant: str, what: str) -> None:
        self.violations.append(f"{invariant}: {what}")

    def released(self, sitting: Sitting, recipient: str, keys: list[Key]) -> None:
        """Keys are leaving a site for an SAE, now."""
        self._read_audit(sitting)
        for key in keys:
            material = key.material.reveal().hex()
            copy = (key.key_id, recipient)
            if copy in self.delivered:
                self.blame("I1", f"{key.key_id} went to {recipient} twice")
            if self.owner_of.setdefault(material, key.key_id) != key.key_id:
                self.blame("I1", f"{key.key_id} has the bytes of {self.owner_of[material]}")
            if self.material_of.setdefault(key.key_id, material) != material:
                self.blame("I2", f"{key.key_id} differs between its recipients")
            self.delivered[copy] = material
            self._permitted(sitting.name, key.key_id)
            times = self.records.get((sitting.name, key.key_id, recipient), 0)
            if times == 0:
                self.blame("I4", f"{key.key_id} left for {recipient} before its record was durable")
            elif times > 1:
                self.blame("I5", f"{key.key_id} for {recipient} has {times} records")
            if key.protection < self.require:
                self.blame("I7", f"{key.key_id} is {key.protection.label}, not {self.require.label}")

    def _permitted(self, site: str, key_id: str) -> None:
        """What an operator took back at this site must not leave it any more."""
        if (site, key_id) in self.ended:
            self.blame("I6", f"{key_id} left {site} after it was revoked there")
        elif (site, key_id) in self.withheld:
            self.blame("I6", f"{key_id} left {site} while it was suspended there")
        if any((site, sequence) in self.doubted for sequence in self.drawn.get(key_id, ())):
            self.blame("I6", f"{key_id} left {site} and has bits of a block that was declared compromised there")

    def changed(self, sitting: Sitting, change: Change, result: Affected) -> None:
        """An operator was told that this is done, durably."""
        places = {(sitting.name, key_id) for key_id in result.key_ids}
        if change is Change.SUSPEND:
            self.withheld |= places
        elif change is Change.RESUME:
            self.withheld -= places | {(sitting.peer, key_id) for key_id in result.key_ids}
        else:
            self.ended |= places
        self.doubted |= {(sitting.name, sequence) for _, sequence in result.quarantined}

    def agreed(self, peer: Sitting, keys: list[Key]) -> None:
        """Keys go to the SAE that drew them: the peer must have them durably, now."""
        if peer.clock.monotonic_s() - self.restored_s.get(peer.name, -GRACE_S) < GRACE_S:
            return  # it had them when it said so, and was put back since
        for key in keys:
            if not peer.store.copies(key.key_id):
                self.blame("I3", f"{key.key_id} left, and {peer.name} does not have it")

    def restored(self, sitting: Sitting) -> None:
        """An old backup stands in the place of the store: its log is shorter now."""
        self.restored_s[sitting.name] = sitting.clock.monotonic_s()
        self.audited[sitting.name] = min(self.audited.get(sitting.name, 0), sitting.store.audit_head()[0])

    def silent(self, sitting: Sitting) -> None:
        """No key byte stands in the log, in any spelling that a reader would recognise."""
        log = b"".join(raw for _, raw, _ in sitting.store.audit_rows(0, 2**31)).decode()
        for material in list(self.owner_of)[:200]:
            raw = bytes.fromhex(material)
            if material in log or base64.b64encode(raw).decode() in log:
                self.blame("I12", f"{sitting.name}: the log holds key bytes")

    def _read_audit(self, sitting: Sitting) -> None:
        """Count delivery records as they become durable, and see that no byte of a block goes into two keys."""
        first = self.audited.get(sitting.name, 0)
        while rows := sitting.store.audit_rows(first, 1000):
            for _, raw, _ in rows:
                record = msgspec.json.decode(raw)
                if record["kind"] == "key.delivered":
                    for key_id in record["key_ids"]:
                        place = (sitting.name, key_id, record["recipient"])
                        self.records[place] = self.records.get(place, 0) + 1
                    self._claim(record["key_ids"], record.get("segments", []))
                elif record["kind"] == "key.burnt" and record["reason"] == "void":
                    self._check_loss(record["key_id"])
            first += len(rows)
        self.audited[sitting.name] = first

    def _check_loss(self, key_id: str) -> None:
        """What has left for the SAE that drew it is not taken away from the others by a request that was given up."""
        if key_id in self.material_of and not self.restored_s:
            self.blame("I3", f"{key_id} left, and was burnt at the other end before it was fetched")

    def _claim(self, key_ids: list[str], segments: list[str]) -> None:
        for place, block_id, offset, length in map(segment_of, segments):
            key_id = key_ids[place]
            owners = self.spans.setdefault(block_id, {})
            self.drawn.setdefault(key_id, set()).add(int(block_id.split("/")[1]))
            for byte in range(offset // 8, (offset + length) // 8):
                if owners.setdefault(byte, key_id) != key_id:
                    self.blame("I1", f"byte {byte} of {block_id} is in {key_id} and in {owners[byte]}")

    def quiet(self, sitting: Sitting) -> None:
        """Between two events: the books balance to the bit."""
        if sitting.kme is not None:
            for problem in sitting.kme.check_ledger():
                self.blame("I9", f"{sitting.name}: {problem}")
        for copy in sitting.store.copies_before(float("inf"), 2**31):
            record = sitting.store.register.get(copy.key_id)
            if record is None or LEVEL[record.state] or (record.state is State.ACTIVE) != (copy.step is Step.READY):
                state = "unknown" if record is None else record.state.value
                self.blame("I6", f"{sitting.name}: a copy of {copy.key_id}, which is {state}, is {copy.step.value}")

    def pair(self, one: Sitting, other: Sitting) -> None:
        """Both sites at one moment: nobody but one may allocate from a block."""
        claims = {b.block_id for b in one.store.blocks(state=BlockState.CONFIRMED) if b.owner == one.name}
        for block in other.store.blocks(state=BlockState.CONFIRMED):
            if block.owner == other.name and block.block_id in claims:
                self.blame("I13", f"{block.block_id} is owned by both")

    @staticmethod
    def _settled(sitting: Sitting, since: int) -> dict[str, tuple[str, int]]:
        confirmed = sitting.store.blocks(state=BlockState.CONFIRMED)
        return {b.block_id: (b.owner, b.taken) for b in confirmed if b.sequence >= since}

    def converged(self, one: Sitting, other: Sitting, *, since: int) -> None:
        """After peace has returned: both ends hold the same blocks, with the same owners and the same bytes taken.

        since: blocks from this sequence on; older ones run out of time about now, and not at the same second.
        """
        mine, theirs = (self._settled(sitting, since) for sitting in (one, other))
        for block_id in sorted(mine.keys() ^ theirs.keys()):
            self.blame("I11", f"{block_id} is at one end only")
        for block_id in sorted(mine.keys() & theirs.keys()):
            if mine[block_id][0] != theirs[block_id][0]:
                self.blame("I11", f"{block_id} is of {mine[block_id][0]} and of {theirs[block_id][0]}")
        self._same_lives(one, other)
        for sitting in (one, other):
            if notices := sitting.store.register.notices(sitting.peer, 1000):
                self.blame("I11", f"{sitting.name} still has {len(notices)} notices for {sitting.peer}")
            if open_requests := sitting.store.requests():
                self.blame("I11", f"{sitting.name} still has {len(open_requests)} open requests")

    def _same_lives(self, one: Sitting, other: Sitting) -> None:
        """Both ends agree on the state of every key that both know, but for what each one's clock does."""
        mine, theirs = (
            {record.key_id: record for record in sitting.store.register.find(Scope(), None, 2**31)}
            for sitting in (one, other)
        )
        for key_id in sorted(mine.keys() & theirs.keys()):
            if not _alike(mine[key_id], theirs[key_id]):
                states = f"{mine[key_id].state.value} at {one.name}, {theirs[key_id].state.value} at {other.name}"
                self.blame("I11", f"{key_id} is {states}")
        for site, key_id in sorted(self.ended):
            record = (mine if site == one.name else theirs).get(key_id)
            if record is not None and not LEVEL[record.state] and site not in self.restored_s:
                self.blame("I6", f"{key_id} was revoked at {site} and is {record.state.value}")


def _alike(one: KeyRecord, other: KeyRecord) -> bool:
    by_clock = "clock" in (one.actor, other.actor)
    return one.state is other.state or (by_clock and max(LEVEL[one.state], LEVEL[other.state]) == 1)
