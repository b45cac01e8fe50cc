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
    """One pass over one frame: which bit lies under which leaf, and which nodes have been split."""

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
        self.leaves, self.first, self.split = leaves, layout.blocks(step), set[int]()

    def bits(self, node: int) -> list[int]:
        """The bits below a node."""
        if node >= self.leaves:
            bit = self.bit_at[node - self.leaves]
            return [] if bit is None else [bit]
        return self.bits(2 * node) + self.bits(2 * node + 1)

    def blocks(self) -> range:
        return range(self.first, 2 * self.first)


def textbook_frame(wrong: list[int], layout: Layout, seed: bytes) -> int:
    """Cascade over the difference of one frame, in place. Returns the number of parities asked."""
    passes: list[Pass] = []
    leak_bits = 0

    def odd(step: Pass, node: int) -> bool:
        return sum(wrong[bit] for bit in step.bits(node)) % 2 == 1

    def locate(step: Pass, node: int) -> tuple[int, int]:
        asked = 0
        while node < step.leaves:
            empty = node >= step.leaves // 2 and not (step.bits(2 * node) and step.bits(2 * node + 1))
            asked += node not in step.split and not empty
            step.split.add(node)
            node = 2 * node if odd(step, 2 * node) else 2 * node + 1
        return step.bits(node)[0], asked

    def correct() -> int:
        asked = 0
        while todo := next((step for step in passes if any(odd(step, b) for b in step.blocks())), None):
            found = [locate(todo, block) for block in todo.blocks() if odd(todo, block)]
            for bit, queries in found:
                wrong[bit] ^= 1
                asked += queries
        return asked

    for step in range(layout.passes):
        passes.append(Pass(layout, step, seed))
        leak_bits += layout.blocks_asked(step)
        if step < EARLY_PASSES or step == layout.passes - 1:  # the late passes are opened together
            leak_bits += correct()
    return leak_bits


def textbook_cascade(sent: list[int], received: list[int], layout: Layout, seed: bytes) -> tuple[list[int], int]:
    """What the receiver ends up with, and the parities that it asked for."""
    wrong = [int(a) ^ int(b) for a, b in zip(sent, received, strict=True)]
    wrong += [0] * (layout.frames * layout.frame_bits - len(wrong))
    leak_bits = 0
    for start in range(0, layout.frames, 64):
        lanes = min(64, layout.frames - start)
        for lane in range(lanes):
            places = [start * layout.frame_bits + i * lanes + lane for i in range(layout.frame_bits)]
            frame = [wrong[place] for place in places]
            leak_bits += textbook_frame(frame, layout, seed)
            for place, bit in zip(places, frame, strict=True):
                wrong[place] = bit
    return [int(a) ^ left for a, left in zip(sent, wrong, strict=False)], leak_bits
