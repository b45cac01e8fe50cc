"""Textbook twins of the compiled kernels: slow, plain, and written from the definitions."""

from __future__ import annotations

import hashlib

from keystrand.core.labels import LABELS
from keystrand.qkd.distill.cascade import EARLY_PASSES, Layout


def textbook_shuffle(seed: int, size: int) -> list[int]:
    """Fisher-Yates over SplitMix64."""
    order, state = list(range(size)), seed
    for i in range(size - 1, 0, -1):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        z = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
        j = ((z ^ z >> 31) >> 32) * (i + 1) >> 32
        order[i], order[j] = order[j], order[i]
    return order


class Pass:
    """One pass: which bit lies under which leaf, and which nodes of which frame have been split."""

    def __init__(self, layout: Layout, step: int, seed: bytes) -> None:
        size, leaves = layout.frame_bits, layout.leaves
        public = hashlib.shake_128(LABELS["qkd/permutation"] + bytes([step]) + seed).digest
        order, inside = list(range(size)), [True] * size
        if 0 < step < EARLY_PASSES:
            order = textbook_shuffle(int.from_bytes(public(8), "little"), size)
        if step >= EARLY_PASSES:
            mask = int.from_bytes(public(8 * -(-size // 64)), "little")
            inside = [bool(mask >> i & 1) for i in range(size)]
        self.bit_at: list[int | None] = [None] * leaves
        for i in range(size):
            if inside[i]:
                self.bit_at[order[i] * leaves // size] = i
        self.leaves, self.first, self.split = leaves, layout.blocks(step), set[tuple[int, int]]()

    def bits(self, node: int) -> list[int]:
        """The bits below a node."""
        if node >= self.leaves:
            bit = self.bit_at[node - self.leaves]
            return [] if bit is None else [bit]
        return self.bits(2 * node) + self.bits(2 * node + 1)

    def odd(self, wrong: list[int], node: int) -> bool:
        """Whether the ends differ in the parity of a node."""
        return sum(wrong[bit] for bit in self.bits(node)) % 2 == 1

    def odd_blocks(self, frames: list[list[int]]) -> list[tuple[int, int]]:
        blocks = range(self.first, 2 * self.first)
        return [(f, block) for f, wrong in enumerate(frames) for block in blocks if self.odd(wrong, block)]

    def locate(self, frame: int, wrong: list[int], node: int) -> tuple[int, int]:
        """The wrong bit that halving ends at, and the parities asked."""
        asked = 0
        while node < self.leaves:
            empty = node >= self.leaves // 2 and not (self.bits(2 * node) and self.bits(2 * node + 1))
            asked += (frame, node) not in self.split and not empty
            self.split.add((frame, node))
            node = 2 * node if self.odd(wrong, 2 * node) else 2 * node + 1
        return self.bits(node)[0], asked


def textbook_sweeps(frames: list[list[int]], passes: list[Pass], least: int) -> int:
    """Correct in all frames until fewer than `least` blocks of any pass are odd. Returns the number of parities asked."""
    asked = 0
    while True:
        todo = [step.odd_blocks(frames) for step in passes]
        most = max(map(len, todo))
        if most < least:
            return asked
        step, blocks = next((s, b) for s, b in zip(passes, todo, strict=True) if 2 * len(b) >= most)
        for frame, block in blocks:
            bit, queries = step.locate(frame, frames[frame], block)
            frames[frame][bit] ^= 1
            asked += queries


def textbook_cascade(sent: list[int], received: list[int], layout: Layout, seed: bytes) -> tuple[list[int], int]:
    """What the receiver ends up with, and the parities that it asked for."""
    wrong = [int(a) ^ int(b) for a, b in zip(sent, received, strict=True)]
    wrong += [0] * (layout.frames * layout.frame_bits - len(wrong))
    places = []
    for start in range(0, layout.frames, 64):
        lanes = min(64, layout.frames - start)
        base = start * layout.frame_bits
        places += [[base + i * lanes + lane for i in range(layout.frame_bits)] for lane in range(lanes)]
    frames, passes, leak_bits = [[wrong[place] for place in row] for row in places], list[Pass](), 0
    for step in range(layout.passes):
        passes.append(Pass(layout, step, seed))
        leak_bits += layout.blocks_asked(step) * layout.frames
        last = step == layout.passes - 1
        if step < EARLY_PASSES or last:  # the late passes are opened together
            leak_bits += textbook_sweeps(frames, passes, 1 if last else layout.frames)
    for row, frame in zip(places, frames, strict=True):
        for place, bit in zip(row, frame, strict=True):
            wrong[place] = bit
    return [int(a) ^ left for a, left in zip(sent, wrong, strict=False)], leak_bits
