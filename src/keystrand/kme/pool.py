"""The pools of a site: blocks come in, are confirmed with the peer, have one owner each, and are given out byte by byte.

Ownership is the whole trick that keeps two KMEs from racing for the same bits (invariant I13): a block may be allocated
from by its owner only. Both ends derive the first owner from the block's name; later it moves by `Lend`, which the giver
makes durable before the taker hears of it, so that for a while nobody may own a block, but never both.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterable
from dataclasses import replace

from keystrand.core.errors import BadRequest, KeyUnavailable, PeerFault
from keystrand.core.events import spans
from keystrand.core.key import Block, Segment
from keystrand.core.labels import LABELS
from keystrand.core.pool import Account, BlockState, DeviceBlock, PoolBlock
from keystrand.core.register import Origin
from keystrand.core.secret import Secret
from keystrand.kme.site import Site
from keystrand.wire.peer import Announce, Borrow, Gone, Known, Lend, Lent, Probe

BATCH_MAX = 256  # blocks per message or per tick


def digest_of(block: Block) -> bytes:
    """Keyed digest that two KMEs compare: the bits are the key, their name is the message; 128 bits."""
    name = f"{block.link}/{block.sequence}/{block.length_bits}".encode()
    return hmac.digest(block.material.reveal(), LABELS["pool/digest"] + name, hashlib.sha256)[:16]


def byte_mask(offset_bits: int, length_bits: int) -> int:
    """The `taken` mask of a segment: one bit per byte."""
    return ((1 << (length_bits // 8)) - 1) << (offset_bits // 8)


def _fault_within(block: PoolBlock, parts: list[Segment]) -> str:
    """Why these bits of a block cannot be had, all of them: a word, or ""."""
    taken, length_bits = block.taken, block.length_bits
    for _, offset, length in parts:
        if offset % 8 or length % 8 or length <= 0 or not 0 <= offset <= length_bits - length:
            return "range"
        mask = byte_mask(offset, length)
        if mask & taken:
            return "taken"
        taken |= mask
    return ""


class Pool:
    """Blocks of all links of one site."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self._probe_from: dict[str, str] = {}  # peer -> last block probed
        self.reserved_bits: Callable[[str], float] = lambda peer: 0.0  # what floors hold back towards a peer

    # in: from the module -------------------------------------------------------------------------------------------

    def ingest(self, block: Block) -> None:
        """Take a block from a module. Raises BadRequest for a link, length or sequence that cannot be right.

        The same block again changes nothing: the module did not hear that it was durable.
        """
        site = self.site
        peer = site.peer_of(block.link)
        if peer is None:
            raise BadRequest(f"no link {block.link!r} at this site")
        if not 0 < block.length_bits <= site.limits.device_block_size_bits_max:
            raise BadRequest(f"block of {block.length_bits} bits is outside the limits")
        if block.sequence < site.store.next_sequence(block.link):
            before = site.store.device_block(block.link, block.sequence)
            if before is not None and before.digest == digest_of(block):
                return
            raise BadRequest(f"block {block.sequence} of {block.link} was delivered before or skipped")
        ledger = site.store.ledger(block.link)
        if ledger[Account.AVAILABLE] + block.length_bits > site.limits.pool_size_bits_max:
            raise KeyUnavailable(f"pool of {block.link} is full", hint="raise limits.pool_size_bits_max")
        known = DeviceBlock(
            link=block.link, sequence=block.sequence, length_bits=block.length_bits, digest=digest_of(block)
        )
        site.store.add_device_block(known)
        self._cut(block, peer)
        site.store.move_bits(block.link, Account.INGESTED, Account.QUARANTINED, block.length_bits)
        origin = block.provenance
        site.store.register.add_origin(Origin(block.link, block.sequence, origin.source, site.clock.now_s()))
        site.record(
            "block.ingested",
            link=block.link,
            sequence=block.sequence,
            bits=block.length_bits,
            source=origin.source,
            qber=origin.qber,
            sifted_bits=origin.sifted_bits,
            bound_bits=origin.bound_bits,
            leak_ec_bits=origin.leak_ec_bits,
            eps_sec=origin.eps_sec,
            duration_s=origin.duration_s,
        )
        site.emit("block.ingested", link=block.link, sequence=block.sequence, bits=block.length_bits)
        self.announce(known, peer)

    def _cut(self, block: Block, peer: str) -> None:
        size_bits = self.site.limits.block_size_bits
        ends = sorted((self.site.name, peer))
        material = block.material.reveal()
        for index, start in enumerate(range(0, block.length_bits, size_bits)):
            piece = material[start // 8 : (start + size_bits) // 8]
            row = PoolBlock(
                block_id=f"{block.link}/{block.sequence}/{index}",
                link=block.link,
                sequence=block.sequence,
                index=index,
                length_bits=8 * len(piece),
                state=BlockState.PENDING,
                owner=ends[(block.sequence + index) % 2],
                epoch=self.site.store.epoch(),
                ingested_s=self.site.clock.now_s(),
            )
            self.site.store.add_block(row, Secret(piece))

    def announce(self, known: DeviceBlock, peer: str) -> None:
        self.site.send(
            peer,
            Announce(
                link=known.link,
                sequence=known.sequence,
                length_bits=known.length_bits,
                digest=known.digest,
                epoch=self.site.store.epoch(),
            ),
        )

    # agreement with the peer ---------------------------------------------------------------------------------------

    def hear_announce(self, peer: str, message: Announce) -> None:
        """The peer has this block. Confirm ours when the digests match; quarantine ours when they do not."""
        if self.site.peer_of(message.link) != peer:
            raise PeerFault(f"{peer} announced a block of {message.link}, which is not a link with it")
        known = self.site.store.device_block(message.link, message.sequence)
        if known is None:
            if message.sequence >= self.site.store.next_sequence(message.link):
                return  # our module has not delivered it yet; we shall announce it ourselves
            verdict = "gone"  # our end will never have it
        elif known.length_bits != message.length_bits or not hmac.compare_digest(known.digest, message.digest):
            verdict = "mismatch"
            self.quarantine(message.link, (message.sequence,), "mismatch")
        elif self.site.store.blocks(link=message.link, sequence=message.sequence):
            verdict = "match"
            self.confirm(message.link, message.sequence)
        else:
            verdict = "gone"
        self.site.send(peer, Known(link=message.link, sequence=message.sequence, verdict=verdict))

    def hear_known(self, peer: str, message: Known) -> None:
        if self.site.peer_of(message.link) != peer:
            raise PeerFault(f"{peer} answered about {message.link}, which is not a link with it")
        if message.verdict == "match":
            self.confirm(message.link, message.sequence)
        elif message.verdict == "mismatch":
            self.quarantine(message.link, (message.sequence,), "mismatch")
        elif message.verdict == "gone":
            for block in self.site.store.blocks(link=message.link, sequence=message.sequence):
                if block.state is BlockState.PENDING:
                    self.discard(block, Account.BURNT)
        else:
            raise PeerFault(f"{peer} answered {message.verdict!r} to an announcement")

    def confirm(self, link: str, sequence: int) -> None:
        """Both ends hold the same bits: they become available."""
        pending = [b for b in self.site.store.blocks(link=link, sequence=sequence) if b.state is BlockState.PENDING]
        for block in pending:
            self.site.store.put_block(replace(block, state=BlockState.CONFIRMED))
            self.site.store.move_bits(link, Account.QUARANTINED, Account.AVAILABLE, block.free_bits)
        if pending:
            self.site.record("block.confirmed", link=link, sequence=sequence, blocks=len(pending))
            self.site.emit("block.confirmed", link=link, sequence=sequence)

    def quarantine(self, link: str, sequences: Iterable[int], reason: str) -> None:
        """Destroy what is left of device blocks that are not trusted. Their bits stay in the quarantined account.

        Each has a record in the log; people are told once of all of them.
        """
        gone = [sequence for sequence in sequences if self._destroy(link, sequence)]
        for sequence in gone:
            self.site.record("block.quarantined", link=link, sequence=sequence, reason=reason)
        if gone:
            self.site.emit("block.quarantined", link=link, blocks=len(gone), sequences=spans(gone), reason=reason)

    def _destroy(self, link: str, sequence: int) -> bool:
        left = self.site.store.blocks(link=link, sequence=sequence)
        for block in left:
            self.discard(block, Account.QUARANTINED)
        return bool(left)

    def discard(self, block: PoolBlock, target: Account) -> None:
        """Drop a pool block; its free bits move to `target`."""
        source = Account.AVAILABLE if block.state is BlockState.CONFIRMED else Account.QUARANTINED
        if block.free_bits and source is not target:
            self.site.store.move_bits(block.link, source, target, block.free_bits)
        self.site.store.drop_block(block.block_id)

    # out: allocation -----------------------------------------------------------------------------------------------

    def owned_bits(self, link: str) -> int:
        return self.site.store.free_bits(link, self.site.name)

    def held_bits(self, link: str) -> int:
        """Bits of this link that are key or wait to be confirmed, whoever owns them; none that are quarantined for good."""
        ledger, waiting = self.site.store.ledger(link), 0
        if ledger[Account.QUARANTINED]:
            waiting = sum(block.free_bits for block in self.site.store.blocks(link=link, state=BlockState.PENDING))
        return ledger[Account.AVAILABLE] + waiting

    def allocate(self, link: str, number: int, size_bits: int) -> list[tuple[tuple[Segment, ...], Secret]]:
        """Take `number` × `size_bits` from our own blocks, oldest first; the store keeps zeros in their place.

        Raises KeyUnavailable when they do not suffice. The bits move from available to reserved.
        """
        wanted_bits = number * size_bits
        limit = 2 + 2 * wanted_bits // self.site.limits.block_size_bits
        blocks = self.site.store.free_blocks(link, self.site.name, limit)
        while sum(b.free_bits for b in blocks) < wanted_bits and len(blocks) == limit:
            limit *= 4
            blocks = self.site.store.free_blocks(link, self.site.name, limit)
        if sum(block.free_bits for block in blocks) < wanted_bits:
            raise KeyUnavailable(
                f"{link}: asked for {wanted_bits} bits, {self.owned_bits(link)} at hand",
                hint="ask for fewer or smaller keys, or see `keystrand status` for the refill rate",
            )
        plan = self._plan(blocks, number, size_bits)
        pieces = self.take([segment for segments in plan for segment in segments])
        return [(segments, Secret(b"".join(pieces[s] for s in segments))) for segments in plan]

    @staticmethod
    def _plan(blocks: list[PoolBlock], number: int, size_bits: int) -> list[tuple[Segment, ...]]:
        """Which bytes of which blocks make which key; a key may span blocks so that no bit is wasted."""
        cursor = iter(blocks)
        block = next(cursor)
        offset_bits = 8 * block.taken.bit_length()  # owners allocate from the front, so what is taken is a prefix
        plan = []
        for _ in range(number):
            segments: list[Segment] = []
            missing_bits = size_bits
            while missing_bits:
                if offset_bits == block.length_bits:
                    block = next(cursor)
                    offset_bits = 8 * block.taken.bit_length()
                    continue
                length_bits = min(missing_bits, block.length_bits - offset_bits)
                segments.append(Segment(block.block_id, offset_bits, length_bits))
                offset_bits += length_bits
                missing_bits -= length_bits
            plan.append(tuple(segments))
        return plan

    def take(self, segments: list[Segment]) -> dict[Segment, bytes]:
        """Read these bytes, zero them in the store, mark them taken, and account them as reserved."""
        by_block: dict[str, list[Segment]] = {}
        for segment in segments:
            by_block.setdefault(segment.block_id, []).append(segment)
        pieces: dict[Segment, bytes] = {}
        for block_id, parts in by_block.items():
            block = self.site.store.block(block_id)
            assert block is not None
            assert block.state is BlockState.CONFIRMED
            material = bytearray(self.site.store.block_material(block_id).reveal())
            taken = block.taken
            for part in parts:
                first, last = part.offset_bits // 8, (part.offset_bits + part.length_bits) // 8
                pieces[part] = bytes(material[first:last])
                material[first:last] = bytes(last - first)
                taken |= byte_mask(part.offset_bits, part.length_bits)
            self.site.store.move_bits(
                block.link, Account.AVAILABLE, Account.RESERVED, sum(p.length_bits for p in parts)
            )
            left = replace(block, taken=taken)
            if left.free_bits:
                self.site.store.put_block(left, Secret(material))
            else:
                self.site.store.drop_block(block_id)
        return pieces

    def fault_in(self, segments: list[Segment], owner: str, link: str) -> str:
        """Why a peer may not allocate these segments: a word, or "" when it may."""
        by_block: dict[str, list[Segment]] = {}
        for segment in segments:
            by_block.setdefault(segment.block_id, []).append(segment)
        for block_id, parts in by_block.items():
            block = self.site.store.block(block_id)
            if block is None:
                return "gone"
            if block.state is BlockState.PENDING and block.link == link:
                # only a KME that has compared the digests reserves from a block, so its word confirms ours
                self.confirm(block.link, block.sequence)
            elif block.state is not BlockState.CONFIRMED or block.link != link:
                return "state"
            if block.owner != owner:
                return "owner"
            if problem := _fault_within(block, parts):
                return problem
        return ""

    # ownership -----------------------------------------------------------------------------------------------------

    def balance(self, peer: str, wanted_bits: int = 0) -> None:
        """Ask the peer for blocks when it owns far more than we do, or when a request just failed for want of them."""
        for link in self.site.links_to(peer):
            ours, theirs = self.owned_bits(link), self.site.store.free_bits(link, peer)
            if theirs > 2 * self.site.limits.block_size_bits and (wanted_bits > ours or theirs > 4 * ours):
                self.site.send(peer, Borrow(link=link, bits=max(wanted_bits, (theirs - ours) // 2)))

    def hear_borrow(self, peer: str, message: Borrow) -> None:
        """Lend untouched blocks that no floor reserves, up to half of the difference: two hungry ends do not trade for ever."""
        if self.site.peer_of(message.link) != peer:
            raise PeerFault(f"{peer} wants blocks of {message.link}, which is not a link with it")
        ours = self.owned_bits(message.link)
        surplus_bits = (ours - self.site.store.free_bits(message.link, peer)) // 2
        spare_bits = sum(self.owned_bits(link) for link in self.site.links_to(peer)) - self.reserved_bits(peer)
        budget_bits = min(message.bits, surplus_bits, spare_bits)
        terms: list[tuple[str, int]] = []
        for block in reversed(self.site.store.free_blocks(message.link, self.site.name, BATCH_MAX)):
            if block.taken or block.free_bits > budget_bits:
                continue
            budget_bits -= block.free_bits
            term = block.term + 1
            self.site.store.put_block(replace(block, owner=peer, term=term))
            self.site.store.put_lend(peer, block.block_id, term)
            terms.append((block.block_id, term))
        if terms:
            self.site.send(peer, Lend(blocks=tuple(terms)))
            self.site.emit("block.lent", link=message.link, peer=peer, blocks=len(terms))

    def hear_lend(self, peer: str, message: Lend) -> None:
        """Blocks are ours now. An older term than the one we know changes nothing."""
        for block_id, term in message.blocks[:BATCH_MAX]:
            block = self.site.store.block(block_id)
            if block is None or self.site.peer_of(block.link) != peer or term <= block.term:
                continue
            self.site.store.put_block(replace(block, owner=self.site.name, term=term))
        self.site.send(peer, Lent(blocks=message.blocks[:BATCH_MAX]))

    def hear_lent(self, peer: str, message: Lent) -> None:
        for block_id, term in message.blocks[:BATCH_MAX]:
            self.site.store.drop_lend(peer, block_id, term)

    # housekeeping --------------------------------------------------------------------------------------------------

    def repeat(self, peer: str) -> None:
        """Say again what the peer has not answered."""
        for link in self.site.links_to(peer):
            waiting = {b.sequence for b in self.site.store.blocks(link=link, state=BlockState.PENDING)}
            for sequence in sorted(waiting)[:BATCH_MAX]:
                known = self.site.store.device_block(link, sequence)
                assert known is not None
                self.announce(known, peer)
        if lends := self.site.store.lends(peer)[:BATCH_MAX]:
            self.site.send(peer, Lend(blocks=tuple(lends)))

    def probe(self, peer: str) -> None:
        """Ask about some of the peer's blocks: what it used up without our hearing of it must not linger here."""
        theirs = [
            b.block_id
            for link in self.site.links_to(peer)
            for b in self.site.store.free_blocks(link, peer, 4 * BATCH_MAX)
        ]
        last = self._probe_from.get(peer, "")
        later = [block_id for block_id in theirs if block_id > last] or theirs
        if batch := sorted(later)[:BATCH_MAX]:
            self._probe_from[peer] = batch[-1]
            self.site.send(peer, Probe(block_ids=tuple(batch)))

    def hear_probe(self, peer: str, message: Probe) -> None:
        gone = [b for b in message.block_ids[:BATCH_MAX] if self._is_gone(peer, b)]
        if gone:
            self.site.send(peer, Gone(block_ids=tuple(gone)))

    def _is_gone(self, peer: str, block_id: str) -> bool:
        link, sequence, _ = block_id.rsplit("/", 2) if block_id.count("/") >= 2 else ("", "", "")
        if self.site.peer_of(link) != peer or not sequence.isdecimal():
            raise PeerFault(f"{peer} asked about a block that cannot be")
        return self.site.store.block(block_id) is None and int(sequence) < self.site.store.next_sequence(link)

    def hear_gone(self, peer: str, message: Gone) -> None:
        for block_id in message.block_ids[:BATCH_MAX]:
            block = self.site.store.block(block_id)
            if block is not None and self.site.peer_of(block.link) == peer and block.owner == peer:
                self.discard(block, Account.BURNT)

    def expire(self) -> int:
        """Destroy unused bits that are too old."""
        old = self.site.store.blocks_before(self.site.clock.now_s() - self.site.limits.block_ttl_s, BATCH_MAX)
        for block in old:
            target = Account.EXPIRED if block.state is not BlockState.QUARANTINED else Account.QUARANTINED
            self.discard(block, target)
            self.site.emit("block.expired", link=block.link, sequence=block.sequence, bits=block.free_bits)
        return len(old)
