"""Reconciliation by LDPC codes: the transmitter tells a syndrome, the receiver decodes; one round trip where it goes well.

Frames of 2^16 sifted bits, 64 of them decoded at once (kernels/ldpc.py). The rate is adapted by puncturing: some bits of a
frame are private random bits of the transmitter, which hide as many bits of the syndrome (no two of them share a check), and
by shortening: bits that both ends know to be 0. Frames that do not decode are extended (blind reconciliation:
Martinez-Mateo, Elkouss, Martin, Quantum Inf. Comput. 12, 2012): the transmitter reveals punctured bits of these frames, and
sifted ones when there are no more. Bits are spread over the frames as in cascade.py.

A query is a 4-byte fingerprint of the layout and one byte that says what is asked:
  SYNDROME  the syndromes of all frames
  EXTEND    the frames, 8 bytes for each 64: the next REVEAL_BITS bits of each of them
"""

from __future__ import annotations

import hashlib
import math
import struct
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from keystrand.core.errors import PeerFault
from keystrand.core.labels import LABELS
from keystrand.qkd.distill import codes
from keystrand.qkd.distill.estimate import binary_entropy
from keystrand.qkd.distill.packed import LANES, from_bytes, lanes_of, to_bytes, unweave, weave, words_for
from keystrand.qkd.distill.rounds import check_answer, check_block, opened
from keystrand.qkd.kernels import cascade, ldpc

Bits = NDArray[np.uint8]

SYNDROME: Final = 0
EXTEND: Final = 1
START: Final = 1.068  # disclosed at first, in units of what a code without end would need: frames differ
STRENGTH: Final = 16  # of a received bit, in the decoder's units
REVEAL_BITS: Final = 256  # of a frame, in one extension
ITERATIONS: Final = 60
ITERATIONS_MORE: Final = 60  # after an extension, from where the decoder stood
SLACK: Final = 1 / 17  # of a frame, left for punctured bits: 2^16 of 17 * 2^12 are sifted
QBER_MIN: Final = 0.004


@dataclass(frozen=True, slots=True)
class Layout:
    """How both ends cut `length_bits` into frames of one code."""

    length_bits: int
    frames: int
    payload_bits: int  # of a frame; the other places are punctured or shortened
    code: int
    punctured: int

    @classmethod
    def plan(cls, length_bits: int, qber_estimate: float) -> Layout:
        """Raises ValueError for an empty input or an estimate outside 0 .. 0.5."""
        check_block(length_bits, qber_estimate)
        table = codes.sizes()
        room = table[0][0] * (1 - SLACK)
        frames = math.ceil(length_bits / room)
        payload = -(-length_bits // frames)
        limit = binary_entropy(max(qber_estimate, QBER_MIN)) * payload
        wants = [math.ceil(START * f * limit) for f in codes.efficiencies()]
        index = next((i for i, told in enumerate(wants) if table[i][1] >= told), len(table) - 1)
        (bits, checks), told = table[index], wants[index]
        punctured = min(max(checks - told, 0), codes.load(index).punctured.size, bits - payload)
        return cls(length_bits, frames, payload, index, punctured)

    @property
    def groups(self) -> int:
        return -(-self.frames // LANES)

    @property
    def lanes(self) -> ldpc.Words:
        """Which frames exist in each group: uint64 (groups,)."""
        return lanes_of(self.frames)

    @property
    def hidden(self) -> ldpc.Ints:
        """Places of punctured bits."""
        return codes.load(self.code).punctured[: self.punctured]

    @property
    def payload(self) -> ldpc.Ints:
        """Places of sifted bits; those that remain are shortened."""
        places = np.setdiff1d(np.arange(codes.load(self.code).bits, dtype=np.int32), self.hidden)
        return np.sort(np.random.Generator(np.random.PCG64(1)).permutation(places)[: self.payload_bits])

    def fingerprint(self, seed: bytes) -> bytes:
        """Four bytes that differ where the two ends do not mean the same frames."""
        shape = struct.pack(">5Q", self.length_bits, self.frames, self.payload_bits, self.code, self.punctured)
        return hashlib.sha256(LABELS["qkd/reconcile"] + shape + seed).digest()[:4]

    def revealed(self, seed: bytes) -> ldpc.Ints:
        """The order in which bits are revealed: punctured ones first."""
        state = int.from_bytes(hashlib.sha256(LABELS["qkd/permutation"] + seed).digest(), "big")
        order = np.random.Generator(np.random.PCG64(state)).permutation(self.payload)
        return np.concatenate([self.hidden, order]).astype(np.int32)

    def private_bytes(self) -> int:
        """Random bytes that the transmitter needs for the punctured bits."""
        return 8 * self.groups * self.punctured


class Oracle:
    """The transmitter's side. `private`: fresh secret bytes, Layout.private_bytes of them.

    leak_bits: of the sifted bits. A syndrome counts its checks less the private bits that it hides; a revealed bit counts.
    """

    def __init__(self, sifted: Bits, *, qber_estimate: float, seed: bytes, private: bytes) -> None:
        self._layout = layout = Layout.plan(sifted.size, qber_estimate)
        self._fingerprint = layout.fingerprint(seed)
        self._order = layout.revealed(seed)
        self._code = code = codes.load(layout.code)
        self._words = np.zeros((layout.groups, code.bits), np.uint64)
        self._words[:, layout.payload] = weave(sifted, layout.frames, layout.payload_bits)
        secret = np.frombuffer(private, np.uint64).reshape(layout.groups, layout.punctured)
        self._words[:, layout.hidden] = secret & layout.lanes[:, None]
        self._told = -1  # extensions answered; -1: not even the syndrome
        self.leak_bits = 0

    def answer(self, query: bytes) -> bytes:
        """What is asked for. Raises PeerFault for a query that is malformed, out of order or without end."""
        layout = self._layout
        kind, body = opened(query, self._fingerprint)
        if kind == SYNDROME and not body and self._told < 0:
            told = np.zeros((layout.groups, self._code.checks), np.uint64)
            for row, out in zip(self._words, told, strict=True):
                ldpc.syndrome(row, self._code.first, self._code.var, out)
            return self._tell(told, layout.lanes, layout.frames * (self._code.checks - layout.punctured))
        if kind != EXTEND or len(body) != 8 * layout.groups or self._told < 0:
            raise PeerFault("reconciliation query out of order")
        frames = np.frombuffer(body, "<u8").astype(np.uint64)
        places = self._order[self._told * REVEAL_BITS :][:REVEAL_BITS]
        if not places.size or (frames & ~layout.lanes).any() or not frames.any():
            raise PeerFault("reconciliation asks for more than the block holds")
        count = int(np.bitwise_count(frames).sum())
        return self._tell(np.ascontiguousarray(self._words[:, places]), frames, count * places.size)

    def _tell(self, rows: ldpc.Words, lanes: ldpc.Words, leak_bits: int) -> bytes:
        self._told += 1
        self.leak_bits += leak_bits
        stream = np.zeros(words_for(rows.shape[1] * LANES * len(rows)) + 1, np.uint64)
        return to_bytes(stream, cascade.tell(rows, lanes, stream))


class Corrector:
    """The receiver's side: `ask`, send, `hear` the answer, until `ask` returns None."""

    def __init__(self, sifted: Bits, *, qber_estimate: float, seed: bytes) -> None:
        self._layout = layout = Layout.plan(sifted.size, qber_estimate)
        self._fingerprint = layout.fingerprint(seed)
        self._order = layout.revealed(seed)
        self._code = code = codes.load(layout.code)
        self._sifted = sifted
        self._payload = layout.payload
        received = np.zeros((layout.groups, code.bits), np.uint64)
        received[:, self._payload] = weave(sifted, layout.frames, layout.payload_bits)
        self._llr = np.full((layout.groups, code.bits, LANES), ldpc.TOP, np.int8)  # what is shortened is 0 for certain
        for row, llr in zip(received, self._llr, strict=True):
            ldpc.believe(row, self._payload, STRENGTH, llr)
            llr[layout.hidden] = 0
        self._sent = np.zeros((layout.groups, code.var.size, LANES), np.int8)
        self._hold = np.zeros((code.widest, LANES), np.int8)
        self._words = received
        self._wanted: ldpc.Words | None = None
        self._failed = layout.lanes
        self._asked = -1
        self._pending = 0
        self.leak_bits = self.round_trips = 0

    @property
    def corrected(self) -> Bits:
        """The bits as far as they are corrected: uint8 of 0/1."""
        layout = self._layout
        return unweave(np.ascontiguousarray(self._words[:, self._payload]), layout.frames)[: layout.length_bits]

    @property
    def errors(self) -> int:
        """Bits that differ from those received."""
        return int(np.count_nonzero(self.corrected != self._sifted))

    def extend(self) -> None:
        """Ask for more of every frame, because verification failed. Raises PeerFault where all is revealed."""
        if self._asked * REVEAL_BITS >= self._order.size:
            raise PeerFault("reconciliation does not converge")
        self._failed = self._layout.lanes

    def ask(self) -> bytes | None:
        """The next query, or None when all frames are decoded."""
        assert self._pending == 0, "hear the answer before asking again"
        if self._wanted is None:
            self._pending = self._layout.frames * self._code.checks
            return self._fingerprint + bytes([SYNDROME])
        if not self._failed.any():
            return None
        places = self._order[self._asked * REVEAL_BITS :][:REVEAL_BITS]
        if not places.size:
            raise PeerFault("reconciliation does not converge")
        self._pending = int(np.bitwise_count(self._failed).sum()) * places.size
        return self._fingerprint + bytes([EXTEND]) + self._failed.astype("<u8").tobytes()

    def hear(self, answer: bytes) -> None:
        """Take in an answer and decode. Raises PeerFault where it does not fit the query."""
        count, layout = self._pending, self._layout
        check_answer(answer, count)
        self._pending = 0
        self.round_trips += 1
        if self._wanted is None:
            self.leak_bits += count - layout.frames * layout.punctured
            self._wanted = self._spread(answer, layout.lanes, self._code.checks)
            self._decode(self._wanted, ITERATIONS)
        else:
            self.leak_bits += count
            places = self._order[self._asked * REVEAL_BITS :][:REVEAL_BITS]
            values = self._spread(answer, self._failed, places.size)
            for group, llr in enumerate(self._llr):
                ldpc.reveal(places, values[group], self._failed[group], llr)
            self._decode(self._wanted, ITERATIONS_MORE)
        self._asked += 1

    def _spread(self, answer: bytes, lanes: ldpc.Words, count: int) -> ldpc.Words:
        rows = np.zeros((self._layout.groups, count), np.uint64)
        cascade.compare(rows.copy(), lanes, from_bytes(answer), lanes, rows)
        return rows

    def _decode(self, wanted: ldpc.Words, iterations: int) -> None:
        code = self._code
        failed = self._failed.copy()
        for group in np.flatnonzero(failed):
            state = (self._llr[group], self._sent[group], code.first, code.var, wanted[group])
            left, _ = ldpc.decode(*state, iterations, self._hold, self._words[group])
            failed[group] = left & self._layout.lanes[group]
        self._failed = failed
