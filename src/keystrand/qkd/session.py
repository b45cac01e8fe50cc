"""One run of a link, as two state machines without I/O: the transmitter and the receiver of decoy-state BB84.

    receiver                         transmitter
    Open                    <->      Open                 align numbers and authentication keys
    Detections               ->                           every train: where it clicked, in which basis
                            <-       Sifting              which match, at which intensity
    Query                   <->      Answer               many times: error correction, led by the receiver
    Verify                   ->                           hash of the corrected bits
                            <-       Mismatch             not equal: correct further, and verify again
                            <-       Amplify              equal: so many secret bits, by this seed
    Authenticate             ->                           tag over all that the receiver said
                            <-       Authenticate         tag over all that the transmitter said
    Delivered                ->

Up to four blocks are corrected at once, so that both ends have work while an answer is under way. From Verify on
they go one by one and in order. Frames keep their order, so a tag covers what was said of later blocks as well. Amplification
is a chore: the transmitter sends the seed before it hashes, and both ends do so at the same time.

The ends share nothing but these frames and the start key. Each computes the bound by itself and refuses to go above it.
Whatever goes wrong ends the run: the error is raised, the driver says Abort and opens a new run with a new seed.

Numbers: both ends open with the first number that they have not used, and the run starts with the larger. The receiver
delivers when the transmitter's tag fits, the transmitter when it hears so. If that last message is lost the receiver alone
has the block; the transmitter's next number is then one lower, both go on above it, and the KMEs, which compare digests,
never confirm it. Delivered itself is under no tag before that of the next block, so whoever can hold back the last tag and
forge Delivered makes it the other way round: the transmitter alone has the block. That ends the same way: the block is secret,
its number is used up, and the KMEs never confirm it; the attacker has stopped a block, as a cut fibre would.
"""

from __future__ import annotations

from typing import Final, Unpack

from keystrand.core.errors import PeerFault
from keystrand.core.secret import Secret
from keystrand.qkd.choices import ChoiceStream
from keystrand.qkd.distill import amplify, reconcile, verify
from keystrand.qkd.distill.authenticate import PAIR_BYTES, AuthKeyPool
from keystrand.qkd.distill.sift import announce, conclude, match
from keystrand.qkd.end import (
    SOURCE,
    VERIFICATIONS_MAX,
    BlockRejected,
    End,
    Outcome,
    Proposed,
    Standing,
    Work,
    estimate_qber,
)
from keystrand.qkd.optics import Clicks
from keystrand.qkd.profile import LinkProfile
from keystrand.wire import classical as wire

__all__ = ["SOURCE", "BlockRejected", "Outcome", "Receiver", "Transmitter"]

SEED_BYTES: Final = 32


class Transmitter(End):
    """Alice: sends light, answers. `seed` (32 secret bytes) makes her choices for this run and must never be used again."""

    role, other_role = "transmitter", "receiver"

    def __init__(self, profile: LinkProfile, pool: AuthKeyPool, *, seed: Secret, **standing: Unpack[Standing]) -> None:
        super().__init__(profile, pool, **standing)
        self.run = self._entropy.bytes(16)
        self._seed = seed
        self._stream = ChoiceStream(seed, profile.source)
        self._sent_pulses = 0

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

    def _start(self) -> None:
        """A transmitter waits to be asked."""

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
        with self.stages.of("sift"):
            answer, sifted = match(message, self._stream)
        self._count_train(message.first, message.count, sifted)
        self._say(answer)

    def _hear_query(self, message: wire.Query) -> None:
        work = self._begin(message) if message.sequence == self._cut_sequence else self._in_work(message.sequence)
        if work.oracle is None or message.seed != work.seed:
            raise PeerFault("a query out of turn")
        with self.stages.of("reconcile"):
            body = work.oracle.answer(message.body)
        self._say(wire.Answer(sequence=work.sequence, body=body))

    def _begin(self, message: wire.Query) -> Work:
        if not self._may_cut():
            raise PeerFault("a query before there is a block")
        work = self._cut()
        work.seed = message.seed
        estimate = estimate_qber(work.raw)
        with self.stages.of("reconcile", work.raw.bits.size):
            work.oracle = reconcile.oracle(
                self.scheme, work.raw.bits, qber_estimate=estimate, seed=work.seed, entropy=self._entropy
            )
        self._chores.append(lambda: self._draw(work))
        return work

    def _draw(self, work: Work) -> None:
        """What the amplification will need, told when the bits are verified and not before."""
        work.hash_seed = self._entropy.bytes(amplify.seed_bytes(work.raw.bits.size))

    def _hear_verify(self, message: wire.Verify) -> None:
        work = self._oldest(message.sequence)
        if work.oracle is None or message.leak_bits != work.oracle.leak_bits:
            raise PeerFault("the ends count different leakage")
        if len(message.seed) != verify.SEED_BYTES:
            raise PeerFault("the seed of the verification has the wrong length")
        work.tags += 1
        with self.stages.of("verify", work.raw.bits.size):
            fits = verify.tag(work.raw.bits, seed=message.seed) == message.tag
        if not fits:
            self._refuse(work)
            return
        counts = self._counts(work, message.errors)
        leak_bits = self._leak_bits(work, work.oracle.leak_bits)
        work.oracle = None
        answer = self._amplify(work, self._bound(counts, leak_bits))
        bound = self._accept(work, counts, leak_bits, answer)
        self._say(answer)
        proposed = Proposed(work.raw.bits, counts, leak_bits)
        self._chores.append(lambda: self._make(work, proposed, bound, answer))

    def _refuse(self, work: Work) -> None:
        if work.tags >= VERIFICATIONS_MAX:
            raise BlockRejected("verification", "errors are left after correction")
        self._say(wire.Mismatch(sequence=work.sequence))

    def _amplify(self, work: Work, bound: int) -> wire.Amplify:
        refill = PAIR_BYTES if self.pool.left_bytes >= self.profile.distillation.auth_reserve_bytes else 2 * PAIR_BYTES
        length = bound // 8 * 8
        if length <= 8 * refill:
            raise BlockRejected("no-secret", f"the bound of {bound} bits leaves no key")
        seed, work.hash_seed = work.hash_seed, b""
        return wire.Amplify(sequence=work.sequence, seed=seed, secret_bits=length, refill_bytes=refill)

    def _hear_tag(self, message: wire.Authenticate) -> None:
        work = self._oldest(message.sequence)
        if work.block is None or work.keys is not None:
            raise PeerFault("a tag out of turn")
        work.keys = keys = self.pool.take()
        self._check_tag(work, keys, keys.receiver, message)
        self._sign(work, keys, keys.transmitter)

    def _hear_delivered(self, message: wire.Delivered) -> None:
        work = self._oldest(message.sequence)
        if work.keys is None:
            raise PeerFault("delivered before it was authenticated")
        self._release(work)


class Receiver(End):
    """Bob: turns clicks into blocks and leads their distillation."""

    role, other_role = "receiver", "transmitter"

    def __init__(self, profile: LinkProfile, pool: AuthKeyPool, **standing: Unpack[Standing]) -> None:
        super().__init__(profile, pool, **standing)
        self._unsifted: list[tuple[int, int, Clicks]] = []

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
            case wire.Mismatch():
                self._hear_mismatch(message)
            case wire.Amplify():
                self._hear_amplify(message)
            case wire.Authenticate():
                self._hear_tag(message)
            case _:
                raise PeerFault(f"{type(message).__name__} is not for a receiver")
        self._start()

    def _hear_sifting(self, message: wire.Sifting) -> None:
        if not self._unsifted or self._unsifted[0][0] != message.first:
            raise PeerFault("sifting of a train that was not announced")
        first, count, clicks = self._unsifted.pop(0)
        with self.stages.of("sift"):
            sifted = conclude(clicks, message, levels=len(self.profile.source.intensities))
        self._count_train(first, count, sifted)

    def _start(self) -> None:
        while self._may_cut():
            self._begin()

    def _begin(self) -> None:
        self.pool.check()
        work = self._cut()
        work.seed = self._entropy.bytes(SEED_BYTES)
        estimate = estimate_qber(work.raw)
        with self.stages.of("reconcile", work.raw.bits.size):
            work.corrector = reconcile.corrector(self.scheme, work.raw.bits, qber_estimate=estimate, seed=work.seed)
        self._ask(work, work.corrector)

    def _ask(self, work: Work, corrector: reconcile.Corrector) -> None:
        with self.stages.of("reconcile"):
            body = corrector.ask()
        if body is not None:
            self._say(wire.Query(sequence=work.sequence, seed=work.seed, body=body))
            return
        work.waits = True
        if work is next(iter(self._works.values())):
            self._propose(work, corrector)

    def _hear_answer(self, message: wire.Answer) -> None:
        work = self._in_work(message.sequence)
        if work.corrector is None or work.proposed is not None:
            raise PeerFault("an answer that nobody asked for")
        with self.stages.of("reconcile"):
            work.corrector.hear(message.body)
        self._ask(work, work.corrector)

    def _propose(self, work: Work, corrector: reconcile.Corrector) -> None:
        with self.stages.of("reconcile"):
            corrected = corrector.corrected
            errors = work.raw.errors(corrected)
        counts = self._counts(work, errors)
        work.tags += 1
        work.proposed = Proposed(corrected, counts, self._leak_bits(work, corrector.leak_bits))
        seed = self._entropy.bytes(verify.SEED_BYTES)
        with self.stages.of("verify", corrected.size):
            tag = verify.tag(corrected, seed=seed)
        self._say(
            wire.Verify(
                sequence=work.sequence,
                seed=seed,
                tag=tag,
                leak_bits=corrector.leak_bits,
                errors=errors,
            )
        )

    def _hear_mismatch(self, message: wire.Mismatch) -> None:
        """Errors are left: correct further, and verify again under a fresh seed."""
        work = self._oldest(message.sequence)
        if work.proposed is None or work.corrector is None or work.block is not None:
            raise PeerFault("a mismatch out of turn")
        if work.tags >= VERIFICATIONS_MAX:
            raise BlockRejected("verification", "errors are left after correction")
        work.proposed, work.waits = None, False
        work.corrector.extend()
        self._ask(work, work.corrector)

    def _hear_amplify(self, message: wire.Amplify) -> None:
        work = self._oldest(message.sequence)
        if work.proposed is None or work.block is not None:
            raise PeerFault("amplification out of turn")
        proposed, work.corrector = work.proposed, None
        bound = self._accept(work, proposed.counts, proposed.leak_bits, message)
        self._chores.append(lambda: self._conclude(work, proposed, bound, message))

    def _conclude(self, work: Work, proposed: Proposed, bound: int, message: wire.Amplify) -> None:
        self._make(work, proposed, bound, message)
        work.keys = keys = self.pool.take()
        self._sign(work, keys, keys.receiver)

    def _hear_tag(self, message: wire.Authenticate) -> None:
        work = self._oldest(message.sequence)
        if work.keys is None:
            raise PeerFault("a tag out of turn")
        self._check_tag(work, work.keys, work.keys.transmitter, message)
        self._release(work)
        self._say(wire.Delivered(sequence=message.sequence))
        following = next(iter(self._works.values()), None)
        if following is not None and following.corrector is not None and following.waits:
            self._propose(following, following.corrector)
