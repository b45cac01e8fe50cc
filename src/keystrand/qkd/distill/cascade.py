"""Reconciliation by Cascade: the receiver asks for parities of the transmitter's bits and corrects its own.

Brassard and Salvail (EUROCRYPT '93) with the refinements of Martinez-Mateo et al. (arXiv:1407.3257): few large passes after
small ones, known parts of blocks reused, small odd blocks bisected before large ones as long as there are enough of them. Once
less than one block a frame is odd the next pass begins, which works on what is left along with its own. Frames of up to 2^16
bits advance in lock step, 64 to a machine word, so one round trip and one walk through memory serve them all. After three
passes over permuted bits the rest are parities of random halves, which cost a tree only where one of them is odd.

The `Corrector` (receiver) asks, the `Oracle` (transmitter) answers. They share the messages, the public `seed` and the
estimate of the error rate; every parity disclosed is counted at both ends. Bit f of each run of 64 sifted bits belongs to
frame f, so a burst of errors is spread over the frames.

A query is a 4-byte fingerprint of the layout, one byte that says what is asked, and
  TOPS    first pass and number of passes (one byte each): the parities of their blocks
  SWEEP   a pass (one byte), a bitmap of its blocks, for each block set there the frames in which it is odd (8 bytes), turns:
          the parities of the left halves of these blocks
  STEP    turns: one level further down the paths of the sweep under way
Turns are a bit a path and level: whether the left half is the odd one. Levels of which all is known are passed without an
answer. Bits are packed with the first in the lowest place; an answer is the parities in the order of frames within blocks.
"""

from __future__ import annotations

import hashlib
import math
import struct
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from keystrand.core.errors import PeerFault
from keystrand.core.labels import LABELS
from keystrand.qkd.distill.packed import LANES, from_bytes, lanes_of, to_bytes, unweave, weave, words_for
from keystrand.qkd.distill.rounds import check_answer, check_block, opened
from keystrand.qkd.kernels import cascade

Bits = NDArray[np.uint8]
Item = TypeVar("Item", bound=np.generic)

TOPS: Final = 0
SWEEP: Final = 1
STEP: Final = 2
FRAME_BITS_MAX: Final = 1 << 16
EARLY_PASSES: Final = 3
LATE_PASSES: Final = 12
PASSES_MAX: Final = 64
FIRST_BLOCK_ERRORS: Final = 0.8
SECOND_BLOCK_ERRORS: Final = 4.6
THIRD_PASS_DEPTH: Final = 4
QBER_MIN: Final = 1e-4
EVERY: Final = np.zeros(0, np.uint64)  # no `member`: all bits
QBER_MAX: Final = 0.25


@dataclass(frozen=True, slots=True)
class Layout:
    """How both ends cut `length_bits` into frames, and each frame into the blocks of each pass."""

    length_bits: int
    frames: int
    frame_bits: int
    depth: int  # of a parity tree with 2**depth >= frame_bits leaves
    early_depths: tuple[int, int, int]  # tree levels of the blocks of the early passes

    @classmethod
    def plan(cls, length_bits: int, qber_estimate: float) -> Layout:
        """Equal frames; raises ValueError for an empty input or an estimate outside 0 .. 0.5."""
        check_block(length_bits, qber_estimate)
        frames = -(-length_bits // FRAME_BITS_MAX)
        frame_bits = -(-length_bits // frames)
        qber = min(max(qber_estimate, QBER_MIN), QBER_MAX)
        depth = (frame_bits - 1).bit_length()
        first, second = (
            min(max(round(math.log2(frame_bits * qber / errors)), 0), max(depth - 1, 0))
            for errors in (FIRST_BLOCK_ERRORS, SECOND_BLOCK_ERRORS)
        )
        second = max(second, min(1, depth))
        return cls(length_bits, frames, frame_bits, depth, (first, second, min(THIRD_PASS_DEPTH, second)))

    @property
    def leaves(self) -> int:
        return 1 << self.depth

    @property
    def groups(self) -> int:
        """Machine words of 64 frames each."""
        return -(-self.frames // LANES)

    @property
    def passes(self) -> int:
        """Passes that are planned from the start."""
        return EARLY_PASSES + LATE_PASSES if self.depth else 1

    @property
    def lanes(self) -> cascade.Words:
        """Which frames exist in each group: uint64 (groups,)."""
        return lanes_of(self.frames)

    def blocks(self, step: int) -> int:
        """Blocks of one frame in a pass; a late pass is one block."""
        return 1 << self.early_depths[step] if step < EARLY_PASSES else 1

    def blocks_asked(self, step: int) -> int:
        """After the first pass a frame as a whole is even, so the last of several blocks follows from the others."""
        return self.blocks(step) - (0 < step < EARLY_PASSES)

    def shift(self, step: int) -> int:
        """Levels from the blocks of a pass down to the bits."""
        return self.depth - self.blocks(step).bit_length() + 1

    def fingerprint(self, seed: bytes) -> bytes:
        """Four bytes that differ where the two ends do not mean the same blocks."""
        shape = struct.pack(">6Q", self.length_bits, self.frames, self.depth, *self.early_depths)
        return hashlib.sha256(LABELS["qkd/reconcile"] + shape + seed).digest()[:4]


class Forest:
    """The passes of one end: where every bit lies in them, their parity trees, and what of these is disclosed."""

    def __init__(self, layout: Layout, sifted: Bits, seed: bytes) -> None:
        self.layout = layout
        self.words = weave(sifted, layout.frames, layout.frame_bits)
        self.begun = 0
        self._seed = seed
        bits, slots, row = layout.frame_bits, layout.leaves, layout.groups * layout.leaves
        self.natural = (slots + np.arange(bits, dtype=np.int64) * slots // bits).astype(np.int32)
        self.leaves: cascade.Ints = np.zeros((EARLY_PASSES, bits), np.int32)
        self.member: cascade.Words = np.zeros((0, words_for(bits)), np.uint64)
        self.grown = np.zeros(layout.passes, np.bool_)
        # Not cleared: most late passes never touch theirs. `grow` fills the row of a pass.
        self.bit_at: cascade.Ints = np.empty((layout.passes, slots), np.int32)
        self.trees: cascade.Words = np.empty((layout.passes, row), np.uint64)
        self.split: cascade.Words = np.empty((layout.passes, row), np.uint64)
        places = layout.groups * slots
        self._lists = [(np.empty(places, np.int64), np.empty(places, np.uint64)) for _ in range(2)]

    @property
    def here(self) -> tuple[cascade.Longs, cascade.Words]:
        """The list of the sweep at its present level."""
        return self._lists[0]

    @property
    def below(self) -> tuple[cascade.Longs, cascade.Words]:
        """Room for the list of the next level."""
        return self._lists[1]

    def lower(self) -> None:
        """The next level becomes the present one."""
        self._lists.reverse()

    def begin(self, count: int) -> cascade.Words:
        """Begin `count` passes more. Returns the parities of their blocks that are to be told: (groups, blocks)."""
        step, layout = self.begun, self.layout
        self.begun += count
        self._make_room()
        if step >= EARLY_PASSES:
            return self._begin_late(count)
        self._order(step)
        self.grow(step)
        return self.blocks(step)[:, : layout.blocks_asked(step)]

    def blocks(self, step: int) -> cascade.Words:
        """The parities of a pass's blocks, or at the receiver where they differ: (groups, blocks), a view to write to."""
        rows: cascade.Words = self.trees[step].reshape(self.layout.groups, -1)
        return rows[:, : self.layout.blocks(step)]

    def grow(self, step: int) -> None:
        """The trees of a pass, of the bits as they are now, unless they are there already. What is known of the block of a late
        pass is kept."""
        if self.grown[step]:
            return
        blocks = self.blocks(step)
        known = blocks.copy()
        if step >= EARLY_PASSES:
            cascade.settle(self.natural, self.member[step - EARLY_PASSES], self.bit_at[step])
        level = self.below[1]  # not in use between sweeps
        cascade.grow(self.words, self.bit_at[step], self.layout.blocks(step), self.trees[step], level)
        if step >= EARLY_PASSES:
            blocks[:] = known
        self.split[step] = 0
        self.grown[step] = True

    def _order(self, step: int) -> None:
        """The bits of an early pass: as they came in the first, permuted in the others."""
        leaves = self.leaves[step]
        leaves[:] = self.natural
        if step:
            with np.errstate(over="ignore"):  # the generator counts modulo 2**64
                cascade.shuffle(np.uint64(int.from_bytes(self._stream(step, 8), "little")), leaves)
        cascade.settle(leaves, EVERY, self.bit_at[step])

    def _begin_late(self, count: int) -> cascade.Words:
        layout, width = self.layout, self.member.shape[1]
        drawn = [self._stream(step, 8 * width) for step in range(self.begun - count, self.begun)]
        fresh = np.frombuffer(b"".join(drawn), np.uint64).reshape(count, width).copy()
        self.member = np.concatenate([self.member, fresh])
        parities = np.zeros((count, layout.groups), np.uint64)
        cascade.halves(self.words, fresh, parities)
        return np.ascontiguousarray(parities.T)

    def _stream(self, step: int, size: int) -> bytes:
        """Public random bytes of one pass."""
        return hashlib.shake_128(LABELS["qkd/permutation"] + bytes([step]) + self._seed).digest(size)

    def _make_room(self) -> None:
        while self.begun > len(self.trees):
            self.trees, self.split, self.bit_at = _doubled(self.trees), _doubled(self.split), _doubled(self.bit_at)
            self.grown = np.concatenate([self.grown, np.zeros_like(self.grown)])


def _doubled(passes: NDArray[Item]) -> NDArray[Item]:
    """Room for as many passes again."""
    return np.concatenate([passes, np.empty_like(passes)])


class Oracle:
    """The transmitter's side: answers parity queries about `sifted` (uint8 of 0/1) and counts what it disclosed."""

    def __init__(self, sifted: Bits, *, qber_estimate: float, seed: bytes) -> None:
        self._layout = layout = Layout.plan(sifted.size, qber_estimate)
        self._fingerprint = layout.fingerprint(seed)
        self._forest = Forest(layout, sifted, seed)
        self._step = self._level = self._length = self._paths = 0  # of the sweep under way; no paths: there is none
        self.leak_bits = 0
        self._leak_bits_max = 4 * sifted.size + 4096  # more than any honest run: a peer that never ends is cut off

    def answer(self, query: bytes) -> bytes:
        """The parities asked for. Raises PeerFault for a query that is malformed, out of order or without end."""
        kind, body = opened(query, self._fingerprint)
        if kind == TOPS:
            return self._answer_tops(body)
        if kind == SWEEP:
            body = self._start(body)
        elif kind != STEP or not self._paths:
            raise PeerFault("reconciliation query out of order")
        return self._answer_level(body, fresh=kind == SWEEP)

    def _answer_tops(self, body: bytes) -> bytes:
        if len(body) != 2 or body[0] != self._forest.begun or not 0 < body[1] <= PASSES_MAX - body[0]:
            raise PeerFault("reconciliation pass out of order")
        step, count = body
        if step < EARLY_PASSES and count != 1:
            raise PeerFault("reconciliation pass out of order")
        blocks = self._layout.blocks_asked(step) if step < EARLY_PASSES else count
        self._disclose(blocks * self._layout.frames)
        self._paths = 0
        tops = self._forest.begin(count)
        stream = np.zeros(words_for(tops.shape[1] * self._layout.frames) + 1, np.uint64)
        return to_bytes(stream, cascade.tell(tops, self._layout.lanes, stream))

    def _start(self, body: bytes) -> bytes:
        """Take in which blocks a sweep starts from. Returns what follows in the query."""
        layout, forest = self._layout, self._forest
        if not body or body[0] >= forest.begun:
            raise PeerFault("reconciliation sweep of a pass that has not begun")
        step = body[0]
        first = layout.blocks(step)
        end = 1 + -(-layout.groups * first // 8)
        chosen = np.flatnonzero(np.unpackbits(np.frombuffer(body[1:end], np.uint8), bitorder="little"))
        masks = np.frombuffer(body[end : end + 8 * chosen.size], np.uint8)
        if masks.size != 8 * chosen.size or not chosen.size or chosen[-1] >= layout.groups * first:
            raise PeerFault("reconciliation sweep is cut off")
        group, block = np.divmod(chosen, first)
        frames = masks.view("<u8")
        if not frames.all() or (frames & ~layout.lanes[group]).any():
            raise PeerFault("reconciliation sweep of frames that do not exist")
        forest.grow(step)
        nodes, open_ = forest.here
        nodes[: chosen.size] = group * (2 * layout.leaves) + first + block
        open_[: chosen.size] = frames
        self._step, self._level, self._length = step, first.bit_length() - 1, chosen.size
        self._paths = int(np.bitwise_count(frames).sum())
        return body[end + 8 * chosen.size :]

    def _answer_level(self, body: bytes, *, fresh: bool) -> bytes:
        forest, step = self._forest, self._step
        turns, place, asked = from_bytes(body), 0, 0
        maps = (forest.split[step], forest.bit_at[step])
        while fresh or not asked:
            if not fresh:
                if place + self._paths > 8 * len(body) or self._level >= self._layout.depth:
                    raise PeerFault("reconciliation turns are cut off")
                here = (*forest.here, self._length)
                self._length, place = cascade.follow(*here, turns, place, forest.bit_at[step], *forest.below)
                forest.lower()
                self._level += 1
            fresh = False
            if self._level < self._layout.depth:
                asked = cascade.wanted(*forest.here, self._length, *maps)
        if len(body) != -(-place // 8):
            raise PeerFault("reconciliation query goes on after its end")
        self._disclose(asked)
        stream = np.zeros(words_for(asked) + 1, np.uint64)
        return to_bytes(stream, cascade.reply(*forest.here, self._length, forest.trees[step], *maps, stream))

    def _disclose(self, count_bits: int) -> None:
        if self.leak_bits + count_bits > self._leak_bits_max:
            raise PeerFault("reconciliation asks for more than the block holds")
        self.leak_bits += count_bits


class Corrector:
    """The receiver's side: `ask`, send, `hear` the answer, until `ask` returns None.

    sifted: uint8 of 0/1, any length from 1. leak_bits: parities that the transmitter disclosed, every one counted.
    errors: bits corrected so far. round_trips: answers heard.
    """

    def __init__(self, sifted: Bits, *, qber_estimate: float, seed: bytes) -> None:
        self._layout = layout = Layout.plan(sifted.size, qber_estimate)
        self._fingerprint = layout.fingerprint(seed)
        self._forest = forest = Forest(layout, sifted, seed)
        self._lanes = layout.lanes
        self._planned = layout.passes
        self._fixed = np.zeros_like(forest.words)
        self._shifts = np.array([layout.shift(step) for step in range(PASSES_MAX)], np.int64)
        self._opening: tuple[int, cascade.Words] | None = (
            None  # first of the passes that open, own parities of its blocks
        )
        self._step = self._level = self._length = self._paths = 0  # of the sweep under way; no paths: there is none
        self._head = b""  # of the next query
        self._turns, self._place = np.zeros(1, np.uint64), 0
        self._pending = 0  # parities that the answer under way must hold
        self.leak_bits = self.errors = self.round_trips = 0

    @property
    def corrected(self) -> Bits:
        """The bits as far as they are corrected: uint8 of 0/1."""
        layout = self._layout
        return unweave(self._forest.words, layout.frames)[: layout.length_bits]

    def extend(self, passes: int = LATE_PASSES) -> None:
        """Plan more passes, because verification failed. Every parity they cost is counted like the others.

        Raises PeerFault where no further pass can be had: the block is lost.
        """
        if not self._layout.depth or self._planned + passes > PASSES_MAX:
            raise PeerFault("reconciliation does not converge")
        self._planned += passes

    def ask(self) -> bytes | None:
        """The next query, or None when the planned passes are done."""
        assert self._pending == 0, "hear the answer before asking again"
        while True:
            if self._paths and self._walk():
                return self._take_query()
            if not self._next_sweep():
                return self._ask_tops() if self._forest.begun < self._planned else None

    def hear(self, answer: bytes) -> None:
        """Take in an answer. Raises PeerFault where it does not fit the query or contradicts earlier answers."""
        count = self._pending
        check_answer(answer, count)
        self._pending = 0
        self.leak_bits += count
        self.round_trips += 1
        parities = from_bytes(answer)
        if self._opening is None:
            self._descend(parities)
        else:
            self._open(*self._opening, parities)

    def _ask_tops(self) -> bytes:
        step, forest = self._forest.begun, self._forest
        count = self._planned - step if step >= EARLY_PASSES else 1
        tops = forest.begin(count)
        self._opening, self._pending = (step, tops), tops.shape[1] * self._layout.frames
        return self._fingerprint + bytes([TOPS, step, count])

    def _open(self, step: int, tops: cascade.Words, parities: cascade.Words) -> None:
        """Note which blocks of the passes that open are odd."""
        layout, forest, follows = self._layout, self._forest, 0 < step < EARLY_PASSES
        odd = np.zeros((layout.groups, tops.shape[1] + follows), np.uint64)
        wholes = np.bitwise_xor.reduce(forest.blocks(0), axis=1) if step else self._lanes
        cascade.compare(tops, self._lanes, parities, wholes, odd)
        if step < EARLY_PASSES:
            forest.blocks(step)[:] = odd
        else:
            for late in range(odd.shape[1]):
                forest.blocks(step + late)[:, 0] = odd[:, late]
        self._opening = None

    def _next_sweep(self) -> bool:
        """Start from the odd blocks of a pass: the smallest ones, unless another pass has more than twice as many, which a
        round trip would serve as well. False where it is time for another pass, or all blocks are even."""
        forest, layout = self._forest, self._layout
        counts = np.zeros(forest.begun, np.int64)
        cascade.paths(forest.trees, layout.leaves, self._shifts, counts)
        most = int(counts.max(initial=0))
        if most < (layout.frames if forest.begun < self._planned else 1):
            return False
        step = int(np.argmax(2 * counts >= most))
        first = layout.blocks(step)
        forest.grow(step)
        length = cascade.begin(forest.trees[step], layout.leaves, first, *forest.here)
        nodes, open_ = forest.here[0][:length], forest.here[1][:length]
        self._step, self._level, self._length = step, first.bit_length() - 1, length
        self._paths = int(counts[step])
        self._head = self._start_of(step, first, nodes, open_)
        self._turns = np.zeros(words_for(self._paths * (self._shifts[step] + 1)) + 1, np.uint64)
        self._place = 0
        return True

    def _start_of(self, step: int, first: int, nodes: cascade.Longs, open_: cascade.Words) -> bytes:
        group, node = np.divmod(nodes, 2 * self._layout.leaves)
        chosen = np.zeros(self._layout.groups * first, np.uint8)
        chosen[group * first + node - first] = 1
        bitmap = np.packbits(chosen, bitorder="little").tobytes()
        return bytes([SWEEP, step]) + bitmap + open_.astype("<u8").tobytes()

    def _walk(self) -> bool:
        """Down to the next level that lacks parities (True), or to the errors, which are mended (False)."""
        forest, step = self._forest, self._step
        while self._level < self._layout.depth:
            self._pending = cascade.wanted(*forest.here, self._length, forest.split[step], forest.bit_at[step])
            if self._pending:
                return True
            self._descend(np.zeros(1, np.uint64))
        self._mend()
        return False

    def _take_query(self) -> bytes:
        query = self._fingerprint + self._head + to_bytes(self._turns, self._place)
        self._head = bytes([STEP])
        self._turns[: self._place // 64 + 1] = 0
        self._place = 0
        return query

    def _descend(self, parities: cascade.Words) -> None:
        forest, step = self._forest, self._step
        state = (forest.trees[step], forest.split[step], forest.bit_at[step])
        self._length, self._place = cascade.descend(
            *forest.here, self._length, parities, *state, self._turns, self._place, *forest.below
        )
        forest.lower()
        self._level += 1

    def _mend(self) -> None:
        forest = self._forest
        self._paths = 0
        where = (*forest.here, self._length, self._step, forest.begun, self._shifts)
        maps: tuple[Any, ...] = (
            forest.leaves,
            forest.natural,
            forest.member,
            forest.grown,
            forest.bit_at,
            forest.trees,
        )
        errors = cascade.mend(*where, forest.words, self._fixed, *maps)
        if errors < 0:
            raise PeerFault("reconciliation answers contradict each other")
        self.errors += errors
