"""Both ends of a link in one thread, with the channel in between open to the test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from keystrand.core.key import Block
from keystrand.core.secret import Secret
from keystrand.qkd.distill.authenticate import AuthKeyPool, Segment, found
from keystrand.qkd.optics import QuantumChannel
from keystrand.qkd.optics_disturb import Disturbance
from keystrand.qkd.profile import Distillation, Fibre, LinkProfile
from keystrand.qkd.session import Receiver, Transmitter

# A short and bright link with small blocks, so that a block takes a fraction of a second.
SMALL = LinkProfile(
    fibre=Fibre(length_km=1, insertion_loss_db=0),
    distillation=Distillation(block_sifted_bits=120_000, eps_sec=1e-9, eps_cor=1e-10),
)
TRAIN_PULSES = 3_000_000

Wire = Callable[[str, bytes], bytes | None]  # direction and frame -> what arrives, None: lost


class SeededEntropy:
    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def bytes(self, length: int, /) -> bytes:
        return self._rng.bytes(length)


@dataclass
class Side:
    """What one end would have on disk, and what it handed over."""

    segments: tuple[Segment, ...] = field(default_factory=lambda: found(Secret(bytes(range(256)) * 4)))
    next_sequence: int = 0
    blocks: list[Block] = field(default_factory=list)

    def pool(self) -> AuthKeyPool:
        return AuthKeyPool(self.segments, keep=self._keep, low_water_bytes=128)

    def _keep(self, segments: tuple[Segment, ...]) -> None:
        self.segments = segments

    def keep_sequence(self, sequence: int) -> None:
        self.next_sequence = sequence


def honest(_direction: str, frame: bytes) -> bytes:
    return frame


class Pair:
    """One run of a link. `wire` sees and may change every classical frame."""

    def __init__(
        self,
        alice: Side,
        bob: Side,
        *,
        seed: int = 1,
        profile: LinkProfile = SMALL,
        wire: Wire = honest,
        attack: Disturbance | None = None,
        busy: bool = False,  # then the transmitter does its chores only when what it hears makes it
    ) -> None:
        self.busy = busy
        self.alice, self.bob, self.wire = alice, bob, wire
        secret = Secret(SeededEntropy(seed).bytes(32))
        ends = {"link": "east"}
        self.transmitter = Transmitter(
            profile,
            alice.pool(),
            next_sequence=alice.next_sequence,
            entropy=SeededEntropy(seed + 1000),
            keep_sequence=alice.keep_sequence,
            seed=secret,
            **ends,
        )
        self.receiver = Receiver(
            profile,
            bob.pool(),
            next_sequence=bob.next_sequence,
            entropy=SeededEntropy(seed + 2000),
            keep_sequence=bob.keep_sequence,
            **ends,
        )
        acting = () if attack is None else (attack,)
        self.channel = QuantumChannel(secret, profile, rng=np.random.default_rng(seed), disturbances=acting)

    def open(self) -> None:
        self._deliver(self.transmitter.open().frames, self.receiver.open().frames)

    def shine(self, trains: int = 1) -> None:
        """Pulses that arrive at once, and all the talk that follows from them."""
        frames = []
        for _ in range(trains):
            train = self.transmitter.train(TRAIN_PULSES)
            clicks = self.channel.detect(train.first, train.count)
            frames += self.receiver.detected(train.first, train.count, clicks).frames
        self._deliver([], frames)

    def run(self, blocks: int) -> None:
        """Until the receiver has so many blocks more. Raises what an end raises."""
        if not self.transmitter.opened:
            self.open()
        goal = len(self.bob.blocks) + blocks
        while len(self.bob.blocks) < goal:
            self.shine()

    def _deliver(self, to_bob: list[bytes], to_alice: list[bytes]) -> None:
        while to_bob or to_alice:
            answers_of_bob = self._pass("to receiver", self.receiver, self.bob, to_bob)
            answers_of_alice = self._pass("to transmitter", self.transmitter, self.alice, to_alice)
            to_bob, to_alice = answers_of_alice, answers_of_bob

    def _pass(self, direction: str, end: Transmitter | Receiver, side: Side, frames: list[bytes]) -> list[bytes]:
        answers = []
        for frame in frames:
            arrived = self.wire(direction, frame)
            if arrived is not None:
                outcomes = [end.hear(arrived)]
                while end.chores and not (self.busy and end is self.transmitter):
                    outcomes.append(end.work())
                for outcome in outcomes:
                    side.blocks += outcome.blocks
                    answers += outcome.frames
        return answers
