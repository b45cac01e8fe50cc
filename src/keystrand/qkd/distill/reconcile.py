"""Reconciliation by Cascade: the receiver asks for parities of the transmitter's bits and corrects its own.

Brassard and Salvail (EUROCRYPT '93) with the refinements of Martinez-Mateo et al. (arXiv:1407.3257): few large passes
after two small ones, and every odd block of every pass bisected at once, starting from the smallest part of it already
known to be odd. Long inputs are cut into equal frames that advance in lock step, so a round trip serves them all.

The `Corrector` (receiver) asks, the `Oracle` (transmitter) answers and keeps no other state than what it disclosed. They
share the messages, the public `seed` and the estimate of the error rate; every parity disclosed is counted at both ends.

A query is a 4-byte fingerprint of the layout, one byte that says what is asked, and
  TOPS    the pass (one byte): the parities of its top blocks, frame by frame
  NODES   little-endian addresses ((pass * frames) + frame) * 2N + node: the parities of these nodes
and an answer is the parities in this order, packed eight to a byte, most significant bit first.
"""

from __future__ import annotations

import hashlib
import math
import struct
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from keystrand.core.errors import PeerFault
from keystrand.core.labels import LABELS
from keystrand.qkd.kernels import cascade

Bits = NDArray[np.uint8]
Item = TypeVar("Item", bound=np.generic)

TOPS: Final = 0
NODES: Final = 1
HEADER_BYTES: Final = 5
FRAME_BITS_MAX: Final = 1 << 16
PASSES: Final = 10
PASSES_MAX: Final = 64
FIRST_BLOCK_ERRORS: Final = 0.8  # expected errors in a block of the first pass
SECOND_BLOCK_ERRORS: Final = 4.6  # and of the second: more gives a better f_ec and many more round trips
THIRD_PASS_DEPTH: Final = 4  # 16 blocks a frame: bisects in parallel what halves would bisect one after the other
QBER_MIN: Final = 1e-4
QBER_MAX: Final = 0.25


@dataclass(frozen=True, slots=True)
class Layout:
    """How both ends cut `length_bits` into frames, and each frame into the blocks of each pass."""

    length_bits: int
    frames: int
    frame_bits: int
    depth: int  # of a parity tree with 2**depth >= frame_bits leaves
    early_depths: tuple[int, int]  # tree levels of the blocks of the first two passes

    @classmethod
    def plan(cls, length_bits: int, qber_estimate: float) -> Layout:
        """Equal frames; raises ValueError for an empty input or an estimate outside 0 .. 0.5."""
        if length_bits < 1:
            raise ValueError(f"length_bits={length_bits}: nothing to reconcile")
        if not 0.0 <= qber_estimate <= 0.5:
            raise ValueError(f"qber_estimate={qber_estimate} is outside 0 .. 0.5")
        frames = -(-length_bits // FRAME_BITS_MAX)
        frame_bits = -(-length_bits // frames)
        qber = min(max(qber_estimate, QBER_MIN), QBER_MAX)
        depth = (frame_bits - 1).bit_length()
        first, second = (
            min(max(round(math.log2(frame_bits * qber / errors)), 0), max(depth - 1, 0))
            for errors in (FIRST_BLOCK_ERRORS, SECOND_BLOCK_ERRORS)
        )
        return cls(length_bits, frames, frame_bits, depth, (first, second))

    @property
    def leaves(self) -> int:
        return 1 << self.depth

    @property
    def groups(self) -> int:
        """Machine words of 64 frames each."""
        return -(-self.frames // 64)

    @property
    def address_type(self) -> np.dtype[np.unsignedinteger]:
        """The narrower one that can address every node of every pass."""
        return np.dtype("<u4" if PASSES_MAX * self.frames * 2 * self.leaves <= 1 << 32 else "<u8")

    def top_depth(self, step: int) -> int:
        """Tree level of the blocks of a pass: small ones, larger ones, sixteenths, then halves of the frame."""
        if step == 0:
            return self.early_depths[0]
        late = min(1, self.depth)
        second = max(self.early_depths[1], late)
        return (second, min(THIRD_PASS_DEPTH, second))[step - 1] if step < 3 else late

    def tops_asked(self, step: int) -> int:
        """Top blocks asked for in each frame: after the first pass the last one follows from the others."""
        return (1 << self.top_depth(step)) - (step > 0)

    def fingerprint(self, seed: bytes) -> bytes:
        """Four bytes that differ where the two ends do not mean the same blocks."""
        shape = struct.pack(">5Q", self.length_bits, self.frames, self.depth, *self.early_depths)
        return hashlib.sha256(LABELS["qkd/reconcile"] + shape + seed).digest()[:4]

    def weave(self, sifted: Bits) -> cascade.Words:
        """The input bit-sliced over frames; the last frame is filled up with zeros that both ends know."""
        padded = np.zeros(self.frames * self.frame_bits, np.uint8)
        padded[: sifted.size] = sifted
        words = np.zeros((self.groups, self.frame_bits), np.uint64)
        cascade.weave(padded, words, self.frames)
        return words

    def unweave(self, words: cascade.Words) -> Bits:
        bits = np.empty(self.frames * self.frame_bits, np.uint8)
        cascade.unweave(words, bits, self.frames)
        return bits[: self.length_bits]


class Forest:
    """The permutations and parity trees of one end, pass by pass."""

    def __init__(self, layout: Layout, words: cascade.Words, seed: bytes) -> None:
        self.layout = layout
        self.words = words
        self.begun = 0
        self._seed = seed
        self.leaves: cascade.Ints = np.zeros((PASSES, layout.frame_bits), np.int32)
        self.bit_at: cascade.Ints = np.zeros((PASSES, layout.leaves), np.int32)
        self.trees: cascade.Words = np.zeros((PASSES, layout.groups, 2 * layout.leaves), np.uint64)

    def room_for_more(self) -> None:
        """Double the passes there is room for; memory is touched only when a pass begins."""
        self.leaves, self.bit_at = with_room(self.leaves), with_room(self.bit_at)
        self.trees = with_room(self.trees)

    def begin(self) -> int:
        """Draw the permutation of the next pass and grow its trees. Returns the pass."""
        step = self.begun
        if step == len(self.trees):
            self.room_for_more()
        digest = hashlib.sha256(LABELS["qkd/permutation"] + bytes([step]) + self._seed).digest()
        with np.errstate(over="ignore"):  # the generator counts modulo 2**64
            cascade.scatter(np.uint64(int.from_bytes(digest[:8], "big")), self.leaves[step], self.bit_at[step])
        cascade.grow(self.words, self.leaves[step], self.trees[step])
        self.begun += 1
        return step


def with_room(passes: NDArray[Item]) -> NDArray[Item]:
    """Twice as many passes along the first axis, the new ones zero."""
    return np.concatenate([passes, np.zeros_like(passes)])


class Oracle:
    """The transmitter's side: answers parity queries about `sifted` (uint8 of 0/1) and counts what it disclosed."""

    def __init__(self, sifted: Bits, *, qber_estimate: float, seed: bytes) -> None:
        self._layout = Layout.plan(sifted.size, qber_estimate)
        self._fingerprint = self._layout.fingerprint(seed)
        self._forest = Forest(self._layout, self._layout.weave(sifted), seed)
        self.leak_bits = 0
        self._leak_bits_max = 4 * sifted.size + 4096  # more than any honest run: a peer that never ends is cut off

    def answer(self, query: bytes) -> bytes:
        """The parities asked for. Raises PeerFault for a query that is malformed, out of order or without end."""
        if len(query) <= HEADER_BYTES or query[:4] != self._fingerprint:
            raise PeerFault("reconciliation query does not fit this block")
        kind, body = query[4], query[HEADER_BYTES:]
        if kind == TOPS:
            parities = self._answer_tops(body)
        elif kind == NODES:
            parities = self._answer_nodes(body)
        else:
            raise PeerFault(f"reconciliation query of unknown kind {kind}")
        return np.packbits(parities).tobytes()

    def _answer_tops(self, body: bytes) -> Bits:
        layout, forest = self._layout, self._forest
        if len(body) != 1 or body[0] != forest.begun or forest.begun == PASSES_MAX:
            raise PeerFault("reconciliation passes asked out of order")
        asked = layout.tops_asked(body[0])
        self._disclose(asked * layout.frames)
        step = forest.begin()
        out = np.empty(asked * layout.frames, np.uint8)
        cascade.top_parities(forest.trees[step], 1 << layout.top_depth(step), asked, layout.frames, out)
        return out

    def _answer_nodes(self, body: bytes) -> Bits:
        layout, kind = self._layout, self._layout.address_type
        if len(body) % kind.itemsize:
            raise PeerFault("reconciliation query is cut off")
        rest, nodes = np.divmod(np.frombuffer(body, kind), kind.type(2 * layout.leaves))
        steps, frames = np.divmod(rest, kind.type(layout.frames))
        if int(steps.max()) >= self._forest.begun or int(nodes.min()) == 0:
            raise PeerFault("reconciliation query outside this block")
        self._disclose(nodes.size)
        out = np.empty(nodes.size, np.uint8)
        places = (steps.astype(np.int32), frames.astype(np.int32), nodes.astype(np.int32))
        cascade.parities(self._forest.trees, *places, out)
        return out

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
        self._forest = Forest(layout, layout.weave(sifted), seed)
        self._planned = PASSES if layout.depth else 1
        self._fixed = np.zeros_like(self._forest.words)
        self._odd, self._split, self._busy = (np.zeros_like(self._forest.trees) for _ in range(3))
        self._agenda = np.zeros((0, 4), np.int32)
        self._finds = np.zeros((0, 3), np.int32)
        self._waiting = 0  # rows of the agenda in use
        self._pending = 0  # parities that the answer under way must hold
        self._opening: int | None = None  # the pass whose top blocks are under way
        self.leak_bits = self.errors = self.round_trips = 0

    @property
    def corrected(self) -> Bits:
        """The bits as far as they are corrected: uint8 of 0/1."""
        return self._layout.unweave(self._forest.words)

    def extend(self, passes: int = 2) -> None:
        """Plan more passes, because verification failed. Every parity they cost is counted like the others.

        Raises PeerFault where no further pass can be had: the block is lost.
        """
        if self._planned + passes > PASSES_MAX:
            raise PeerFault("reconciliation does not converge")
        self._planned += passes

    def ask(self) -> bytes | None:
        """The next query, or None when the planned passes are done."""
        assert self._pending == 0, "hear the answer before asking again"
        if self._waiting:
            return self._ask_nodes()
        if self._forest.begun < self._planned:
            return self._ask_tops()
        return None

    def hear(self, answer: bytes) -> None:
        """Take in an answer. Raises PeerFault where it does not fit the query or contradicts earlier answers."""
        parities = self._unpack(answer)
        self.leak_bits += parities.size
        self.round_trips += 1
        forest, known = self._forest, (self._odd, self._split)
        if self._opening is None:
            cascade.bisect(self._agenda, parities, forest.trees, *known)
        else:
            self._open_pass(self._opening, parities)
        self._settle()

    def _ask_nodes(self) -> bytes:
        layout, rows = self._layout, self._agenda[: self._waiting].astype(np.uint64)
        self._opening, self._pending = None, self._waiting
        where = rows[:, 0] * np.uint64(layout.frames) + rows[:, 1]
        addresses = where * np.uint64(2 * layout.leaves) + np.uint64(2) * rows[:, 3]
        return self._fingerprint + bytes([NODES]) + addresses.astype(layout.address_type).tobytes()

    def _ask_tops(self) -> bytes:
        step = self._forest.begin()
        self._make_room()
        self._opening, self._pending = step, self._layout.tops_asked(step) * self._layout.frames
        return self._fingerprint + bytes([TOPS, step])

    def _make_room(self) -> None:
        """A row of the agenda for every top block of the passes begun; what is known grows with the trees."""
        forest, layout = self._forest, self._layout
        rows = sum(1 << layout.top_depth(step) for step in range(forest.begun)) * layout.frames
        self._agenda, self._finds = np.zeros((rows, 4), np.int32), np.zeros((rows, 3), np.int32)
        if len(self._odd) < len(forest.trees):
            self._odd, self._split, self._busy = (with_room(a) for a in (self._odd, self._split, self._busy))

    def _unpack(self, answer: bytes) -> Bits:
        count = self._pending
        if count == 0:
            raise PeerFault("reconciliation answer without a query")
        bits = np.unpackbits(np.frombuffer(answer, np.uint8))
        if len(answer) != -(-count // 8) or bits[count:].any():
            raise PeerFault("reconciliation answer does not fit the query")
        self._pending = 0
        return bits[:count]

    def _open_pass(self, step: int, parities: Bits) -> None:
        layout, asked = self._layout, self._layout.tops_asked(step)
        shift = layout.depth - layout.top_depth(step)
        state = (self._forest.trees, self._odd, self._busy, self._agenda, self._waiting)
        self._waiting = cascade.open_pass(step, parities, asked, shift, layout.frames, *state)

    def _settle(self) -> None:
        forest, layout = self._forest, self._layout
        shifts = np.array([layout.depth - layout.top_depth(step) for step in range(forest.begun)], np.int64)
        maps = (forest.words, self._fixed, forest.leaves, forest.bit_at)
        known = (forest.trees, self._odd, self._split, self._busy)
        self._waiting, errors = cascade.settle(
            self._agenda, self._waiting, forest.begun, shifts, *maps, *known, self._finds
        )
        if errors < 0:
            raise PeerFault("reconciliation answers contradict each other")
        self.errors += errors
