"""One run of a link, as two state machines without I/O: the transmitter and the receiver of decoy-state BB84.

    receiver                         transmitter
    Open                    <->      Open                 align numbers and authentication keys
    Detections               ->                           every train: where it clicked, in which basis
                            <-       Sifting              which match, at which intensity
    Query                   <->      Answer               many times: error correction, led by the receiver
    Verify                   ->                           hash of the corrected bits
                            <-       Amplify              equal: so many secret bits, by this seed
    Authenticate             ->                           tag over all that the receiver said
                            <-       Authenticate         tag over all that the transmitter said
    Delivered                ->

The ends share nothing but these frames and the start key. Each computes the bound by itself and refuses to go above it.
Whatever goes wrong ends the run: the error is raised, the driver says Abort and opens a new run with a new seed.

Numbers: both ends open with the first number that they have not used, and the run starts with the larger. The receiver
delivers when the transmitter's tag fits, the transmitter when it hears so. If that last message is lost the receiver alone
has the block; the transmitter's next number is then one lower, both go on above it, and the KMEs, which compare digests,
never confirm it. The other way round cannot be: a number is delivered at both ends, at the receiver only, or nowhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from keystrand.core.clock import Entropy
from keystrand.core.errors import LinkUnavailable, PeerFault
from keystrand.core.key import Block, Provenance
from keystrand.core.secret import Secret
from keystrand.qkd.choices import Bits, ChoiceStream
from keystrand.qkd.distill import amplify, reconcile, verify
from keystrand.qkd.distill.authenticate import PAIR_BYTES, AuthKeyPool, KeyPair, Transcript
from keystrand.qkd.distill.estimate import Counts, bound_bits
from keystrand.qkd.distill.sift import (
    RawBlock,
    Sifted,
    SiftedBuffer,
    announce,
    conclude,
    errors_by_intensity,
    match,
)
from keystrand.qkd.optics import Clicks
from keystrand.qkd.profile import LinkProfile
from keystrand.wire import classical as wire

SOURCE: Final = "simulated-bb84"
SEED_BYTES: Final = 32
ERROR_COUNT_BITS: Final = 64  # the two error counts of Verify tell as much at most
BACKLOG_BLOCKS_MAX: Final = 8
QBER_ESTIMATE_MIN: Final = 0.002


class BlockRejected(LinkUnavailable):
    """A block was dropped at this end; `reason` is a word: qber, no-secret, verification, peer."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the driver has to do, in this order: hand over the blocks, send the frames."""

    frames: list[bytes] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)


@dataclass(slots=True)
class _Work:
    """A block on its way through distillation."""

    sequence: int
    raw: RawBlock
    duration_s: float
    seed: bytes = b""  # of the permutations
    keys: KeyPair | None = None
    block: Block | None = None
    refill: bytes = b""


class _End:
    """What both ends do alike: opening, tags, bounds, books."""

    role: str
    other_role: str

    def __init__(
        self,
        profile: LinkProfile,
        pool: AuthKeyPool,
        *,
        link: str,
        next_sequence: int,
        entropy: Entropy,
        keep_sequence: Callable[[int], None],
    ) -> None:
        self.profile = profile
        self.pool = pool
        self.link = link
        self.next_sequence = next_sequence
        self.run = b""
        self.opened = False
        self.qber = 0.0  # of the last block
        self.sifted_bits = 0  # key basis, of this run
        self._entropy = entropy
        self._keep_sequence = keep_sequence
        self._buffer = SiftedBuffer()
        self._pulses = 0
        self._pulses_cut = 0
        self._said, self._heard = Transcript(), Transcript()
        self._work: _Work | None = None
        self._frames: list[bytes] = []
        self._blocks: list[Block] = []

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
        """Take in one frame. Raises PeerFault, Tampered, LinkUnavailable or BlockRejected; the run is over then."""
        message = wire.decode(frame)
        if isinstance(message, wire.Abort):
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

    def _react(self, message: wire.AnyClassical) -> None:
        raise NotImplementedError

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
        self.next_sequence = max(self.next_sequence, message.next_sequence)
        self.run = self.run or message.run
        self.opened = True

    def _count_train(self, first: int, count: int, sifted: Sifted) -> None:
        before = self._buffer.key_bits
        self._buffer.add(sifted)
        self.sifted_bits += self._buffer.key_bits - before
        self._pulses = first + count
        if self.backlog_blocks > BACKLOG_BLOCKS_MAX:
            raise PeerFault("more light than can be distilled: the ends do not keep pace")

    def _cut(self) -> _Work:
        """The next raw block. Raises BlockRejected where the test basis already shows too many errors."""
        raw = self._buffer.cut(self.profile.distillation.block_sifted_bits)
        duration_s = (self._pulses - self._pulses_cut) / self.profile.source.clock_hz
        self._pulses_cut = self._pulses
        self._check_qber(raw.qber_test)
        return _Work(self.next_sequence, raw, duration_s)

    def _check_qber(self, qber: float) -> None:
        if qber > self.profile.distillation.qber_abort:
            self.qber = qber
            raise BlockRejected("qber", f"error rate {qber:.1%} is above {self.profile.distillation.qber_abort:.1%}")

    def _counts(self, work: _Work, key_errors: tuple[int, int]) -> Counts:
        try:
            counts = work.raw.counts(self.profile.source, key_errors)
        except ValueError as error:
            raise PeerFault(f"counts of block {work.sequence} cannot be: {error}") from None
        self._check_qber(counts.qber)
        self.qber = counts.qber
        return counts

    def _bound(self, counts: Counts, leak_bits: int) -> int:
        rules = self.profile.distillation
        return bound_bits(counts, proof=rules.proof, leak_bits=leak_bits, eps_sec=rules.eps_sec, eps_cor=rules.eps_cor)

    def _finish(self, work: _Work, corrected: Bits, counts: Counts, leak_bits: int, message: wire.Amplify) -> None:
        """Make the block, up to the tags. Raises BlockRejected or PeerFault where `message` asks for too much."""
        bound = self._bound(counts, leak_bits)
        length, refill = message.secret_bits, message.refill_bytes
        if length > bound or length % 8 or refill % PAIR_BYTES or 8 * refill >= length:
            raise PeerFault(f"{length} bits with {refill} bytes for tags are not to be had of a bound of {bound}")
        if len(message.seed) != amplify.seed_bytes(corrected.size, length):
            raise PeerFault("the seed of the amplification has the wrong length")
        secret = amplify.amplify(corrected, seed=message.seed, length_bits=length).reveal()
        work.refill, material = secret[:refill], secret[refill:]
        assert 8 * (len(material) + len(work.refill)) <= bound, "a block may not exceed its bound"
        work.block = Block(
            link=self.link,
            sequence=work.sequence,
            material=Secret(material),
            provenance=self._provenance(work, counts, bound, leak_bits, len(material)),
        )

    def _provenance(self, work: _Work, counts: Counts, bound: int, leak_bits: int, length_bytes: int) -> Provenance:
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
            eps_cor=rules.eps_cor,
            duration_s=work.duration_s,
        )

    def _sign(self, work: _Work, keys: KeyPair, key: Secret) -> None:
        self._say(
            wire.Authenticate(
                sequence=work.sequence,
                segment=keys.segment,
                offset_bytes=keys.offset_bytes,
                tag=self._said.tag(key),
            )
        )
        self._said.clear()

    def _check_tag(self, work: _Work, keys: KeyPair, key: Secret, message: wire.Authenticate) -> None:
        if (message.segment, message.offset_bytes) != (keys.segment, keys.offset_bytes):
            raise PeerFault("the ends take their authentication keys from different places")
        self._heard.verify(key, message.tag)
        self._heard.clear()

    def _release(self, work: _Work) -> None:
        """Books first, then the block: its number is used up and its share for tags is in stock."""
        assert work.block is not None
        self.next_sequence = work.sequence + 1
        self._keep_sequence(self.next_sequence)
        self.pool.refill(work.sequence, work.refill)
        self._blocks.append(work.block)
        self._work = None

    def _current(self, sequence: int) -> _Work:
        if self._work is None or self._work.sequence != sequence:
            raise PeerFault(f"block {sequence} is not the one in work")
        return self._work


def _estimate(raw: RawBlock) -> float:
    return max(QBER_ESTIMATE_MIN, raw.qber_test)


class Transmitter(_End):
    """Alice: sends light, answers. `seed` (32 secret bytes) makes her choices for this run and must never be used again."""

    role, other_role = "transmitter", "receiver"

    def __init__(
        self,
        profile: LinkProfile,
        pool: AuthKeyPool,
        *,
        link: str,
        next_sequence: int,
        entropy: Entropy,
        keep_sequence: Callable[[int], None],
        seed: Secret,
    ) -> None:
        super().__init__(
            profile, pool, link=link, next_sequence=next_sequence, entropy=entropy, keep_sequence=keep_sequence
        )
        self.run = entropy.bytes(16)
        self._seed = seed
        self._stream = ChoiceStream(seed, profile.source)
        self._sent_pulses = 0
        self._oracle: reconcile.Oracle | None = None

    def light(self) -> wire.Run:
        """First on the quantum channel."""
        return wire.Run(run=self.run, profile=self.profile.digest, seed=self._seed.reveal())

    def train(self, count: int) -> wire.Train:
        """The next `count` pulses."""
        first, self._sent_pulses = self._sent_pulses, self._sent_pulses + count
        return wire.Train(first=first, count=count)

    @property
    def pulses_in_flight(self) -> int:
        """Sent, and not yet heard of."""
        return self._sent_pulses - self._pulses

    def _react(self, message: wire.AnyClassical) -> None:
        match message:
            case wire.Detections():
                self._hear_detections(message)
            case wire.Query():
                self._hear_query(message)
            case wire.Verify():
                self._hear_verify(message)
            case wire.Authenticate():
                self._hear_tag(message)
            case wire.Delivered():
                self._hear_delivered(message)
            case _:
                raise PeerFault(f"{type(message).__name__} is not for a transmitter")

    def _hear_detections(self, message: wire.Detections) -> None:
        if message.first != self._pulses or message.first + message.count > self._sent_pulses:
            raise PeerFault("detections of pulses that were not sent, or out of order")
        answer, sifted = match(message, self._stream)
        self._count_train(message.first, message.count, sifted)
        self._say(answer)

    def _hear_query(self, message: wire.Query) -> None:
        if self._work is None:
            self._begin(message)
        work = self._current(message.sequence)
        if self._oracle is None or message.seed != work.seed:
            raise PeerFault("a query out of turn")
        self._say(wire.Answer(sequence=work.sequence, body=self._oracle.answer(message.body)))

    def _begin(self, message: wire.Query) -> None:
        if self._buffer.key_bits < self.profile.distillation.block_sifted_bits:
            raise PeerFault("a query before there is a block")
        self._work = work = self._cut()
        work.seed = message.seed
        self._oracle = reconcile.Oracle(work.raw.bits, qber_estimate=_estimate(work.raw), seed=work.seed)

    def _hear_verify(self, message: wire.Verify) -> None:
        work, oracle = self._current(message.sequence), self._oracle
        if oracle is None or message.leak_bits != oracle.leak_bits:
            raise PeerFault("the ends count different leakage")
        if len(message.seed) != verify.SEED_BYTES:
            raise PeerFault("the seed of the verification has the wrong length")
        if verify.tag(work.raw.bits, seed=message.seed) != message.tag:
            raise BlockRejected("verification", "errors are left after correction")
        self._oracle = None
        counts = self._counts(work, (message.signal_errors, message.decoy_errors))
        leak_bits = oracle.leak_bits + verify.TAG_BITS + ERROR_COUNT_BITS
        answer = self._amplify(work, self._bound(counts, leak_bits))
        self._finish(work, work.raw.bits, counts, leak_bits, answer)
        self._say(answer)

    def _amplify(self, work: _Work, bound: int) -> wire.Amplify:
        refill = PAIR_BYTES if self.pool.left_bytes >= self.profile.distillation.auth_reserve_bytes else 2 * PAIR_BYTES
        length = bound // 8 * 8
        if length <= 8 * refill:
            raise BlockRejected("no-secret", f"the bound of {bound} bits leaves no key")
        seed = self._entropy.bytes(amplify.seed_bytes(work.raw.bits.size, length))
        return wire.Amplify(sequence=work.sequence, seed=seed, secret_bits=length, refill_bytes=refill)

    def _hear_tag(self, message: wire.Authenticate) -> None:
        work = self._current(message.sequence)
        if work.block is None or work.keys is not None:
            raise PeerFault("a tag out of turn")
        work.keys = keys = self.pool.take()
        self._check_tag(work, keys, keys.receiver, message)
        self._sign(work, keys, keys.transmitter)

    def _hear_delivered(self, message: wire.Delivered) -> None:
        work = self._current(message.sequence)
        if work.keys is None:
            raise PeerFault("delivered before it was authenticated")
        self._release(work)


class Receiver(_End):
    """Bob: turns clicks into blocks and leads their distillation."""

    role, other_role = "receiver", "transmitter"

    def __init__(
        self,
        profile: LinkProfile,
        pool: AuthKeyPool,
        *,
        link: str,
        next_sequence: int,
        entropy: Entropy,
        keep_sequence: Callable[[int], None],
    ) -> None:
        super().__init__(
            profile, pool, link=link, next_sequence=next_sequence, entropy=entropy, keep_sequence=keep_sequence
        )
        self._unsifted: list[tuple[int, int, Clicks]] = []
        self._corrector: reconcile.Corrector | None = None
        self._proposed: tuple[Bits, Counts, int] | None = None  # corrected bits, counts, leakage: told in Verify

    def detected(self, first: int, count: int, clicks: Clicks) -> Outcome:
        """Announce what clicked in a train."""
        self._unsifted.append((first, count, clicks))
        self._say(announce(first, count, clicks))
        return self._outcome()

    def _react(self, message: wire.AnyClassical) -> None:
        match message:
            case wire.Sifting():
                self._hear_sifting(message)
            case wire.Answer():
                self._hear_answer(message)
            case wire.Amplify():
                self._hear_amplify(message)
            case wire.Authenticate():
                self._hear_tag(message)
            case _:
                raise PeerFault(f"{type(message).__name__} is not for a receiver")
        self._begin()

    def _hear_sifting(self, message: wire.Sifting) -> None:
        if not self._unsifted or self._unsifted[0][0] != message.first:
            raise PeerFault("sifting of a train that was not announced")
        first, count, clicks = self._unsifted.pop(0)
        self._count_train(first, count, conclude(clicks, message))

    def _begin(self) -> None:
        if self._work is not None or self._buffer.key_bits < self.profile.distillation.block_sifted_bits:
            return
        self.pool.check()
        self._work = work = self._cut()
        work.seed = self._entropy.bytes(SEED_BYTES)
        self._corrector = reconcile.Corrector(work.raw.bits, qber_estimate=_estimate(work.raw), seed=work.seed)
        self._ask(work, self._corrector)

    def _ask(self, work: _Work, corrector: reconcile.Corrector) -> None:
        body = corrector.ask()
        if body is None:
            self._propose(work, corrector)
        else:
            self._say(wire.Query(sequence=work.sequence, seed=work.seed, body=body))

    def _hear_answer(self, message: wire.Answer) -> None:
        work, corrector = self._current(message.sequence), self._corrector
        if corrector is None:
            raise PeerFault("an answer that nobody asked for")
        corrector.hear(message.body)
        self._ask(work, corrector)

    def _propose(self, work: _Work, corrector: reconcile.Corrector) -> None:
        corrected = corrector.corrected
        errors = errors_by_intensity(work.raw.bits, corrected, work.raw.intensities)
        counts = self._counts(work, errors)
        self._proposed = (corrected, counts, corrector.leak_bits + verify.TAG_BITS + ERROR_COUNT_BITS)
        self._corrector = None
        seed = self._entropy.bytes(verify.SEED_BYTES)
        self._say(
            wire.Verify(
                sequence=work.sequence,
                seed=seed,
                tag=verify.tag(corrected, seed=seed),
                leak_bits=corrector.leak_bits,
                signal_errors=errors[0],
                decoy_errors=errors[1],
            )
        )

    def _hear_amplify(self, message: wire.Amplify) -> None:
        work = self._current(message.sequence)
        if self._proposed is None:
            raise PeerFault("amplification out of turn")
        corrected, counts, leak_bits = self._proposed
        self._proposed = None
        self._finish(work, corrected, counts, leak_bits, message)
        work.keys = keys = self.pool.take()
        self._sign(work, keys, keys.receiver)

    def _hear_tag(self, message: wire.Authenticate) -> None:
        work = self._current(message.sequence)
        if work.keys is None:
            raise PeerFault("a tag out of turn")
        self._check_tag(work, work.keys, work.keys.transmitter, message)
        self._release(work)
        self._say(wire.Delivered(sequence=message.sequence))
