"""What both ends of a run do alike: opening, counting, bounds, tags and books. The machines themselves are in session.py."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final, TypedDict, Unpack

from keystrand.core.clock import Entropy
from keystrand.core.errors import LinkUnavailable, PeerFault, PeerUnavailable
from keystrand.core.key import Block, Provenance
from keystrand.core.secret import Secret
from keystrand.qkd.choices import Bits
from keystrand.qkd.distill import amplify, reconcile, verify
from keystrand.qkd.distill.authenticate import PAIR_BYTES, AuthKeyPool, KeyPair, Transcript
from keystrand.qkd.distill.estimate import Counts, bound_bits
from keystrand.qkd.distill.sift import RawBlock, Sifted, SiftedBuffer
from keystrand.qkd.profile import LinkProfile
from keystrand.qkd.stages import Stages
from keystrand.wire import classical as wire

SOURCE: Final = "simulated-bb84"
BACKLOG_BLOCKS_MAX: Final = 8
VERIFICATIONS_MAX: Final = 4  # of one block; each discloses a tag and error counts
ERROR_COUNT_BITS: Final = 32  # each error count of Verify tells as much at most
QBER_ESTIMATE_MIN: Final = 0.002


class BlockRejected(LinkUnavailable):
    """A block was dropped at this end; `reason` is a word: qber, no-secret, verification, monitor, peer."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the driver has to do, in this order: hand over the blocks, send the frames."""

    frames: list[bytes] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Proposed:
    """What verification compares and amplification starts from."""

    corrected: Bits
    counts: Counts
    leak_bits: int


@dataclass(slots=True)
class Work:
    """A block on its way through distillation."""

    sequence: int
    raw: RawBlock
    duration_s: float
    pulses: int
    seed: bytes = b""  # of what is public and random in error correction
    hash_seed: bytes = b""  # at the transmitter, of the amplification, until it is told
    oracle: reconcile.Oracle | None = None  # at the transmitter, until the tags fit
    corrector: reconcile.Corrector | None = None  # at the receiver, until the tags fit
    waits: bool = False  # at the receiver: nothing more to ask
    tags: int = 0  # of verification, told so far
    proposed: Proposed | None = None  # at the receiver: told in Verify
    keys: KeyPair | None = None
    block: Block | None = None
    refill: bytes = b""
    eps_auth: float = 0.0  # chance that a forged transcript passed, both directions


class Standing(TypedDict):
    """What an end goes by beyond one run: `keep_sequence` makes the first unused number durable before it returns."""

    link: str
    next_sequence: int
    entropy: Entropy
    keep_sequence: Callable[[int], None]


class End(ABC):
    """What both ends do alike: opening, tags, bounds, books."""

    role: str
    other_role: str

    def __init__(self, profile: LinkProfile, pool: AuthKeyPool, **standing: Unpack[Standing]) -> None:
        self.profile = profile
        self.pool = pool
        self.link = standing["link"]
        self.next_sequence = self._cut_sequence = standing["next_sequence"]  # not used yet, not cut yet
        self.run = b""
        self.opened = False
        self.qber = 0.0  # of the last block
        self.seen: tuple[int, Counts] | None = None  # pulses and counts of the last block, delivered or not
        self.judge: Callable[[int, Counts], None] = _no_judge  # of pulses and counts; raises BlockRejected
        self.sifted_bits = 0  # key basis, of this run
        self._entropy = standing["entropy"]
        self._keep_sequence = standing["keep_sequence"]
        self._buffer = SiftedBuffer(len(profile.source.intensities))
        self._pulses = 0
        self._said, self._heard = Transcript(), Transcript()
        self.stages = Stages()
        self.scheme = reconcile.choose(profile)
        self._works_max = reconcile.blocks_in_work(profile)
        self._works: dict[int, Work] = {}  # by sequence, the oldest first
        self._frames: list[bytes] = []
        self._blocks: list[Block] = []
        self._chores: deque[Callable[[], None]] = deque()

    @property
    def chores(self) -> int:
        """Pieces of long work for which the other end need not wait: `work` does them."""
        return len(self._chores)

    @property
    def backlog_blocks(self) -> float:
        """Sifted bits in waiting, in blocks: what a driver slows down by."""
        return self._buffer.key_bits / self.profile.distillation.block_sifted_bits

    def open(self) -> Outcome:
        """The first frame of this end."""
        self._say(
            wire.Open(
                version=wire.VERSION,
                link=self.link,
                role=self.role,
                run=self.run,
                profile=self.profile.digest,
                next_sequence=self.next_sequence,
                stock=self.pool.stock(),
            )
        )
        return self._outcome()

    def hear(self, frame: bytes) -> Outcome:
        """Take in one frame. Raises PeerFault, Tampered, LinkUnavailable, PeerUnavailable or BlockRejected: the run is over."""
        message = wire.decode(frame)
        if isinstance(message, wire.Abort):
            if message.reason == "connection":
                raise PeerUnavailable("the other end lost one of its channels")
            raise BlockRejected("peer", f"the other end gave up: {message.reason}")
        if not isinstance(message, wire.Authenticate):
            self._heard.add(frame)
        if isinstance(message, wire.Open):
            self._hear_open(message)
        elif not self.opened:
            raise PeerFault(f"{type(message).__name__} before Open")
        else:
            self._react(message)
        return self._outcome()

    def work(self) -> Outcome:
        """Do the oldest chore, if any: best while no frame waits to be heard, so that the other end is kept at work, too."""
        if self._chores:
            self._chores.popleft()()
        return self._outcome()

    def _settle(self) -> None:
        """Do all chores: what is heard now builds on them."""
        while self._chores:
            self._chores.popleft()()

    def sifted(self, first: int, count: int, sifted: Sifted) -> Outcome:
        """Take in a train that was sifted elsewhere, as modules do that sift in hardware; both ends alike and in order."""
        self._count_train(first, count, sifted)
        self._start()
        return self._outcome()

    @abstractmethod
    def _start(self) -> None:
        """Begin what can be begun without being asked."""

    @abstractmethod
    def _react(self, message: wire.AnyClassical) -> None:
        """What only this end does with a message; the other end has other ones."""

    def _say(self, message: wire.AnyClassical) -> None:
        frame = wire.encode(message)
        if not isinstance(message, wire.Authenticate):
            self._said.add(frame)
        self._frames.append(frame)

    def _outcome(self) -> Outcome:
        outcome = Outcome(self._frames, self._blocks)
        self._frames, self._blocks = [], []
        return outcome

    def _hear_open(self, message: wire.Open) -> None:
        if self.opened:
            raise PeerFault("a second Open in one run")
        if (message.version, message.link, message.role) != (wire.VERSION, self.link, self.other_role):
            raise PeerFault(
                f"the other end serves link {message.link!r} as {message.role!r} in version {message.version}"
            )
        if message.profile != self.profile.digest:
            raise PeerFault("the ends have different link profiles; give both the same figures")
        self.pool.align(message.stock)
        self.next_sequence = self._cut_sequence = max(self.next_sequence, message.next_sequence)
        self.run = self.run or message.run
        self.opened = True

    def _count_train(self, first: int, count: int, sifted: Sifted) -> None:
        before = self._buffer.key_bits
        self._buffer.add(sifted, first + count)
        self.sifted_bits += self._buffer.key_bits - before
        self._pulses = first + count
        if self.backlog_blocks > BACKLOG_BLOCKS_MAX:
            raise PeerFault("more light than can be distilled: the ends do not keep pace")

    def _may_cut(self) -> bool:
        """Whether a block is there and there is room to work on it."""
        there = self._buffer.key_bits >= self.profile.distillation.block_sifted_bits
        return there and len(self._works) < self._works_max

    def _cut(self) -> Work:
        """The next raw block. Raises BlockRejected where the test basis already shows too many errors."""
        before = self._buffer.end_pulse
        with self.stages.of("sift", self.profile.distillation.block_sifted_bits):
            raw = self._buffer.cut(self.profile.distillation.block_sifted_bits)
        pulses = self._buffer.end_pulse - before
        duration_s = pulses / self.profile.source.clock_hz
        if raw.qber_test > self.profile.distillation.qber_abort:
            self.seen = pulses, raw.counts(self.profile.source, (0,) * len(raw.key))
        self._check_qber(raw.qber_test)
        work = self._works[self._cut_sequence] = Work(self._cut_sequence, raw, duration_s, pulses)
        self._cut_sequence += 1
        return work

    def _check_qber(self, qber: float) -> None:
        if qber > self.profile.distillation.qber_abort:
            self.qber = qber
            raise BlockRejected("qber", f"error rate {qber:.1%} is above {self.profile.distillation.qber_abort:.1%}")

    def _counts(self, work: Work, key_errors: tuple[int, ...]) -> Counts:
        try:
            counts = work.raw.counts(self.profile.source, key_errors)
        except ValueError as error:
            raise PeerFault(f"counts of block {work.sequence} cannot be: {error}") from None
        self.seen = work.pulses, counts
        self._check_qber(counts.qber)
        self.qber = counts.qber
        return counts

    def _bound(self, counts: Counts, leak_bits: int) -> int:
        rules = self.profile.distillation
        return bound_bits(counts, proof=rules.proof, leak_bits=leak_bits, eps_sec=rules.eps_sec, eps_cor=rules.eps_cor)

    def _accept(self, work: Work, counts: Counts, leak_bits: int, message: wire.Amplify) -> int:
        """The bound of a block that may be made. Raises BlockRejected where the judge wants none of it, or PeerFault where
        `message` asks for too much. What is judged here has refilled no stock and left for no KME."""
        self.judge(work.pulses, counts)
        bound = self._bound(counts, leak_bits)
        length, refill = message.secret_bits, message.refill_bytes
        if length > bound or length % 8 or refill % PAIR_BYTES or 8 * refill >= length:
            raise PeerFault(f"{length} bits with {refill} bytes for tags are not to be had of a bound of {bound}")
        if len(message.seed) != amplify.seed_bytes(work.raw.bits.size):
            raise PeerFault("the seed of the amplification has the wrong length")
        return bound

    def _make(self, work: Work, proposed: Proposed, bound: int, message: wire.Amplify) -> None:
        """Make the block, up to the tags."""
        with self.stages.of("amplify", proposed.corrected.size):
            amplified = amplify.amplify(proposed.corrected, seed=message.seed, length_bits=message.secret_bits)
            secret = amplified.reveal()
        refill = message.refill_bytes
        work.refill, material = secret[:refill], secret[refill:]
        assert 8 * (len(material) + len(work.refill)) <= bound, "a block may not exceed its bound"
        work.block = Block(
            link=self.link,
            sequence=work.sequence,
            material=Secret(material),
            provenance=self._provenance(work, proposed.counts, bound, proposed.leak_bits, len(material)),
        )

    def _provenance(self, work: Work, counts: Counts, bound: int, leak_bits: int, length_bytes: int) -> Provenance:
        rules = self.profile.distillation
        return Provenance(
            source=SOURCE,
            sifted_bits=work.raw.bits.size,
            secret_bits=8 * length_bytes,
            bound_bits=bound,
            leak_ec_bits=leak_bits,
            auth_bits=8 * len(work.refill),
            qber=counts.qber,
            qber_test=counts.qber_test,
            eps_sec=rules.eps_sec,
            eps_cor=rules.eps_cor + work.tags * verify.collision_bound(work.raw.bits.size),
            duration_s=work.duration_s,
        )

    def _sign(self, work: Work, keys: KeyPair, key: Secret) -> None:
        with self.stages.of("authenticate"):
            tag = self._said.tag(key)
        self._say(
            wire.Authenticate(
                sequence=work.sequence,
                segment=keys.segment,
                offset_bytes=keys.offset_bytes,
                tag=tag,
            )
        )
        work.eps_auth += self._said.forgery_bound
        self._said.clear()

    def _check_tag(self, work: Work, keys: KeyPair, key: Secret, message: wire.Authenticate) -> None:
        if (message.segment, message.offset_bytes) != (keys.segment, keys.offset_bytes):
            raise PeerFault("the ends take their authentication keys from different places")
        with self.stages.of("authenticate", work.raw.bits.size):
            self._heard.verify(key, message.tag)
        work.eps_auth += self._heard.forgery_bound
        self._heard.clear()

    def _release(self, work: Work) -> None:
        """Books first, then the block: its number is used up and its share for tags is in stock."""
        assert work.block is not None
        self.next_sequence = work.sequence + 1
        self._keep_sequence(self.next_sequence)
        self.pool.refill(work.sequence, work.refill)
        self._blocks.append(_with_eps_auth(work.block, work.eps_auth))
        del self._works[work.sequence]

    def _in_work(self, sequence: int) -> Work:
        if sequence not in self._works:
            raise PeerFault(f"block {sequence} is not in work")
        return self._works[sequence]

    def _oldest(self, sequence: int) -> Work:
        """The block that is being verified and signed: one at a time, in order, so that both ends take the same keys."""
        self._settle()
        work = self._in_work(sequence)
        if sequence != next(iter(self._works)):
            raise PeerFault(f"block {sequence} is not the oldest in work")
        return work

    def _leak_bits(self, work: Work, parities: int) -> int:
        """All that was disclosed of a block: parities, tags that fitted or not, and what was said of its errors."""
        return parities + work.tags * (verify.TAG_BITS + ERROR_COUNT_BITS * len(work.raw.key))


def _no_judge(pulses: int, counts: Counts) -> None:
    """Nobody watches."""


def _with_eps_auth(block: Block, eps_auth: float) -> Block:
    """Known only after the tags; counted once, under eps_cor, though a forgery would break either promise."""
    facts = block.provenance
    return replace(block, provenance=replace(facts, eps_cor=facts.eps_cor + eps_auth))


def estimate_qber(raw: RawBlock) -> float:
    """What error correction starts from, the same at both ends."""
    return max(QBER_ESTIMATE_MIN, raw.qber_test)
