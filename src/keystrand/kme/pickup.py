"""The responder's side of a key: set it aside when the peer asks, hand each recipient its copy once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from keystrand.core.errors import NotPermitted, TenantSealed, UnknownKey
from keystrand.core.key import Key, Segment
from keystrand.core.pool import Account, Copy
from keystrand.core.protection import Protection, Strand
from keystrand.core.secret import Secret
from keystrand.core.states import Move, Step, advance_step
from keystrand.kme.ask import accepts, require_local
from keystrand.kme.delivery import Delivery, spelt
from keystrand.kme.pool import BATCH_MAX, Pool
from keystrand.kme.register import Register
from keystrand.kme.reservation import weave
from keystrand.kme.site import Site
from keystrand.kme.strands import Strands
from keystrand.wire.peer import Refused, Reserve, Reserved, Void, Voided

UNKNOWN = "one or more keys specified are not found on KME"  # the wording that ETSI GS QKD 014 mandates
WAITING = frozenset({Step.RESERVED, Step.READY})  # for a recipient that may have them
UNSPENT = WAITING | {Step.WITHHELD}
STANDING = frozenset({Step.READY, Step.DELIVERED})


class Pickups:
    """Copies that wait at this KME for their recipients."""

    def __init__(self, site: Site, pool: Pool, strands: Strands, register: Register) -> None:
        self.site = site
        self.pool = pool
        self.strands = strands
        self.register = register

    # the peer reserves ---------------------------------------------------------------------------------------------

    def hear_reserve(self, peer: str, message: Reserve, peer_epoch: int, op_heard: int) -> None:
        """Set the keys aside durably and say so. A repeated request is answered again and changes nothing."""
        if known := self.site.store.copies_of_request(peer, message.request_id):
            if all(copy.step in STANDING for copy in known):
                self.site.send(peer, Reserved(request_id=message.request_id))
            else:  # taken back since: the peer must not release them
                self.site.send(peer, Refused(request_id=message.request_id, reason="void"))
            return
        reason = self._why_not(peer, message, peer_epoch, op_heard)
        if not reason:
            self._set_aside(peer, message)
            self.site.send(peer, Reserved(request_id=message.request_id))
            return
        # never under this request ID: a repetition that overtook its own refusal must not succeed
        self.site.store.add_tombstone(peer, message.request_id, self.site.clock.now_s())
        self.site.send(peer, Refused(request_id=message.request_id, reason=reason))
        if reason in ("owner", "range", "taken", "state", "shape"):
            self.site.note("peer.fault", peer=peer, reason=f"reserve: {reason}")

    def _why_not(self, peer: str, message: Reserve, peer_epoch: int, op_heard: int) -> str:
        """A word for the peer, or "" when the request is in order."""
        # a peer has at most pending_requests_max requests in flight; an older one is a replay whose copies are gone
        if message.op <= op_heard - self.site.limits.pending_requests_max:
            return "old"
        if self.site.store.is_tombstone(peer, message.request_id):
            return "void"
        if message.epoch != peer_epoch:
            return "epoch"
        if problem := self._shape_of(message):
            return problem
        if not self._permitted(peer, message):
            return "policy"
        if not self._is_open(self._tenant_of(message)):
            return "sealed"
        if Strand.PQC in message.strands and self.strands.of_peer(peer, message.strand_id) is None:
            return "strand"
        if self.site.store.has_copies([key.key_id for key in message.keys]):
            return "taken"
        segments = [Segment(*parts) for key in message.keys for parts in key.segments]
        return self.pool.fault_in(segments, peer, message.link)

    def _shape_of(self, message: Reserve) -> str:
        limits = self.site.limits
        in_limits = (
            1 <= len(message.keys) <= limits.keys_per_request_max
            and message.size_bits % 8 == 0
            and limits.key_size_bits_min <= message.size_bits <= limits.key_size_bits_max
            and 0 < message.ttl_s <= 10 * limits.key_ttl_s
            and len({key.key_id for key in message.keys}) == len(message.keys)
            and set(message.strands) <= {Strand.QKD, Strand.PQC}
            and message.strands
        )
        if not in_limits:
            return "shape"
        wanted_bits = message.size_bits if Strand.QKD in message.strands else 0
        whole = all(sum([length for _, _, length in key.segments]) == wanted_bits for key in message.keys)
        return "" if whole else "shape"

    def _permitted(self, peer: str, message: Reserve) -> bool:
        """Our own policy has the same say as the peer's: pair, level, and who is served where."""
        site_of, now_s = self.site.policy.site_of, self.site.clock.now_s()
        level = Protection.of(Strand(name) for name in message.strands)
        if site_of.get(message.initiator) != peer or not message.responders:
            return False
        served_here = any(site_of.get(responder) == self.site.name for responder in message.responders)
        return served_here and accepts(
            self.site.policy,
            message.initiator,
            message.responders,
            level=level,
            size_bits=message.size_bits,
            now_s=now_s,
        )

    def _tenant_of(self, message: Reserve) -> str:
        return self.site.policy.rule_for(message.initiator, message.responders[0]).tenant

    def _is_open(self, tenant: str) -> bool:
        try:
            self.site.require_open(tenant)
        except TenantSealed:
            return False
        return True

    def _set_aside(self, peer: str, message: Reserve) -> None:
        segments = [Segment(*parts) for key in message.keys for parts in key.segments]
        pieces = self.pool.take(segments)
        strands = frozenset(Strand(name) for name in message.strands)
        strand = self.strands.of_peer(peer, message.strand_id) if Strand.PQC in strands else None
        now_s = self.site.clock.now_s()
        recipients = [r for r in message.responders if self.site.policy.site_of[r] == self.site.name]
        tenant = self._tenant_of(message)
        end_s = self.register.enter(
            message.keys,
            initiator=message.initiator,
            responders=message.responders,
            peer=peer,
            link=message.link,
            size_bits=message.size_bits,
            strands=strands,
        )
        alike = Copy(
            key_id="",
            recipient="",
            initiator=message.initiator,
            peer=peer,
            link=message.link,
            request_id=message.request_id,
            length_bits=message.size_bits,
            strands=strands,
            segments=(),
            step=Step.READY,
            reserved_s=now_s,
            expires_s=min(now_s + message.ttl_s, end_s),
            tenant=tenant,
        )
        mine = [tuple(Segment(*parts) for parts in key.segments) for key in message.keys]
        link_bits = [Secret(b"".join([pieces[s] for s in own])) if own else None for own in mine]
        woven = weave(self.site, message, link_bits, strand, (peer, self.site.name))
        keys = [(key.key_id, own, material) for key, own, material in zip(message.keys, mine, woven, strict=True)]
        for recipient in recipients:
            self.site.store.add_copies(alike._replace(recipient=recipient), keys)
        # one record for all: what is set aside together stands or falls together, until its keys are delivered one by one
        self.site.record(
            "key.reserved",
            key_ids=[key.key_id for key in message.keys],
            initiator=message.initiator,
            responders=message.responders,
            peer=peer,
            link=message.link,
            segments=spelt(message.keys),
            request_id=message.request_id,
        )
        self.site.emit("key.reserved", peer=peer, link=message.link, keys=len(message.keys))

    def hear_void(self, peer: str, message: Void) -> None:
        """Burn what was set aside and not handed out; refuse what may still arrive."""
        request_ids, kept = message.request_ids[:BATCH_MAX], frozenset(message.kept)
        for request_id in request_ids:
            copies = self.site.store.copies_of_request(peer, request_id)
            waiting = [c for c in copies if c.step in UNSPENT and c.key_id not in kept]
            for copy in waiting:
                self.site.note("key.burnt", key_id=copy.key_id, link=copy.link, bits=copy.length_bits, reason="void")
            self.end(waiting, Move.BURN, "given up")
            self.site.store.add_tombstone(peer, request_id, self.site.clock.now_s())
        self.site.send(peer, Voided(request_ids=request_ids))

    # the SAE picks up ----------------------------------------------------------------------------------------------

    def deliver(self, caller: str, other: str, key_ids: tuple[str, ...]) -> list[Key]:
        """All keys or none, each once. `other` is the SAE that drew them.

        Raises NotPermitted when a key exists for the same initiator but not for this caller; UnknownKey when one is
        unknown, consumed, expired or burnt. The two are distinguished because ETSI GS QKD 014 asks for it.
        """
        require_local(self.site, caller)
        now_s = self.site.clock.now_s()
        found = [self._copy_for(caller, other, key_id) for key_id in key_ids]
        mine = [copy for copy in found if copy is not None]
        for strands in dict.fromkeys([copy.strands for copy in mine]):
            if Protection.of(strands) < self.site.policy.rule_for(other, caller).lowest_at(now_s):
                raise NotPermitted(f"the policy of {other} -> {caller} asks for more than this key has")
        if len(mine) < len(key_ids) or not all(copy.step in WAITING and now_s < copy.expires_s for copy in mine):
            raise UnknownKey(UNKNOWN)
        return self._hand_out(mine)

    def _copy_for(self, caller: str, other: str, key_id: str) -> Copy | None:
        copies = self.site.store.copies(key_id)
        if not copies or copies[0].initiator != other:
            return None  # one answer for "unknown" and "not of that SAE": no oracle
        for copy in copies:
            if copy.recipient == caller:
                return copy
        raise NotPermitted(f"{caller} is not a recipient of this key")

    def _hand_out(self, copies: list[Copy]) -> list[Key]:
        """The keys of copies that leave together, each recorded in this transaction (invariants I4, I5)."""
        material_of = self.site.store.copy_material
        materials = [material_of(copy.key_id, copy.recipient) for copy in copies]
        self.finish(copies, Move.DELIVER)
        keys, together = [], dict[str, list[Copy]]()
        for copy, material in zip(copies, materials, strict=True):
            keys.append(Key(key_id=copy.key_id, material=material, strands=copy.strands))
            together.setdefault(copy.request_id, []).append(copy)
        for same in together.values():
            first = same[0]
            Delivery(
                key_ids=[copy.key_id for copy in same],
                recipient=first.recipient,
                initiator=first.initiator,
                responders=(first.recipient,),
                peer=first.peer,
                link=first.link,
                size_bits=first.length_bits,
                strands=first.strands,
                request_id=first.request_id,
            ).tell(self.site)
        return keys

    # the end of a copy ---------------------------------------------------------------------------------------------

    def end(self, copies: Iterable[Copy], move: Move, reason: str) -> None:
        """Erase copies; the keys of which nobody here had one are deactivated, and the peer is told."""
        self.register.retire(dict.fromkeys(self.finish(copies, move)), reason)

    def finish(self, copies: Iterable[Copy], move: Move) -> list[str]:
        """Erase copies; with the last one of a key, its bits leave the reserved account. The keys that nobody here had."""
        missed: list[str] = []
        freed: dict[tuple[str, Account], int] = {}
        ending = [(copy, advance_step(copy.step, move)) for copy in copies]
        ends = self.site.store.finish_copies([(copy.key_id, copy.recipient, step) for copy, step in ending])
        for (copy, _), steps in zip(ending, ends, strict=True):
            if copy.peer == self.site.name:
                continue  # the initiator here had it, and its bits were accounted for then
            if not UNSPENT.isdisjoint(steps):
                continue
            if copy.segments:
                place = copy.link, self._account_of(steps)
                freed[place] = freed.get(place, 0) + copy.length_bits
            if Step.DELIVERED not in steps:
                missed.append(copy.key_id)
        for (link, account), bits in freed.items():
            self.site.store.move_bits(link, Account.RESERVED, account, bits)
        return missed

    @staticmethod
    def _account_of(steps: Sequence[Step]) -> Account:
        if Step.DELIVERED in steps:
            return Account.DELIVERED
        return Account.EXPIRED if set(steps) == {Step.EXPIRED} else Account.BURNT

    def expire(self) -> int:
        """Destroy copies that nobody fetched in time."""
        late = self.site.store.copies_before(self.site.clock.now_s(), BATCH_MAX)
        for copy in late:
            self.site.note("key.expired", key_id=copy.key_id, recipient=copy.recipient, link=copy.link)
        self.end(late, Move.EXPIRE, "not fetched")
        return len(late)
