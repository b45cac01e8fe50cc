"""Cascade on bit-sliced parity trees: 64 frames in one machine word share every permutation and every tree walk.

Shapes, with P passes, G groups of 64 frames, B bits a frame and N = 2^depth >= B leaves:

  words   uint64 (G, B)       bit f of words[g, i] is bit i of frame 64 g + f
  leaves  int32 (P, B)        leaf (a heap index in N .. 2N-1) of each bit in each pass
  bit_at  int32 (P, N)        the inverse, -1 for an empty leaf
  trees   uint64 (P, G, 2N)   parity of every node; node 1 is the root, the children of i are 2i and 2i+1
  odd     like trees          where the two sides are known to differ in parity; 0 where not known
  split   like trees          where the parities of both children are known
  busy    like trees          which top blocks are on the agenda
  shifts  int64 (P,)          leaf >> shift is the top block of a leaf
  agenda  int32 (C, 4)        rows of pass, frame, top block, node to bisect
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from keystrand.qkd.kernels import kernel

Words = NDArray[np.uint64]
Ints = NDArray[np.int32]
Bits = NDArray[np.uint8]


@kernel
def weave(bits: Bits, words: Words, frames: int) -> None:
    """Bit-slice `bits` (frames * B,) into `words` (G, B)."""
    size = words.shape[1]
    for frame in range(frames):
        shift = np.uint64(frame & 63)
        row = words[frame >> 6]
        for i in range(size):
            row[i] |= np.uint64(bits[frame * size + i]) << shift


@kernel
def unweave(words: Words, bits: Bits, frames: int) -> None:
    """The inverse of `weave`."""
    size = words.shape[1]
    for frame in range(frames):
        shift = np.uint64(frame & 63)
        row = words[frame >> 6]
        for i in range(size):
            bits[frame * size + i] = (row[i] >> shift) & np.uint64(1)


@kernel
def scatter(seed: Any, leaves: Ints, bit_at: Ints) -> None:
    """Fill one pass: a random order of the bits (Fisher-Yates over SplitMix64), spread evenly over the leaves."""
    size, slots = leaves.size, bit_at.size
    state = np.uint64(seed)
    for i in range(size):
        leaves[i] = i
    for i in range(size - 1, 0, -1):
        state += np.uint64(0x9E3779B97F4A7C15)
        z = state
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
        j = np.int64(((z >> np.uint64(32)) * np.uint64(i + 1)) >> np.uint64(32))
        swapped = leaves[i]
        leaves[i] = leaves[j]
        leaves[j] = swapped
    bit_at[:] = -1
    for i in range(size):
        slot = np.int64(leaves[i]) * slots // size
        leaves[i] = slots + slot
        bit_at[slot] = i


@kernel
def grow(words: Words, leaves: Ints, trees: Words) -> None:
    """The parity trees (G, 2N) of one pass."""
    slots = trees.shape[1] // 2
    for group in range(words.shape[0]):
        tree, row = trees[group], words[group]
        tree[slots:] = np.uint64(0)
        for i in range(row.size):
            tree[leaves[i]] = row[i]
        for node in range(slots - 1, 0, -1):
            tree[node] = tree[2 * node] ^ tree[2 * node + 1]


@kernel
def parities(trees: Words, passes: Ints, frames: Ints, nodes: Ints, out: Bits) -> None:
    """out[i] is the parity of one node of one frame in one pass."""
    for i in range(out.size):
        word = trees[passes[i], frames[i] >> 6, nodes[i]]
        out[i] = (word >> np.uint64(frames[i] & 63)) & np.uint64(1)


@kernel
def top_parities(trees: Words, first: int, count: int, frames: int, out: Bits) -> None:
    """Parities of the top blocks first .. first+count-1, frame by frame, of one pass (trees: (G, 2N))."""
    for frame in range(frames):
        shift = np.uint64(frame & 63)
        tree = trees[frame >> 6]
        for i in range(count):
            out[frame * count + i] = (tree[first + i] >> shift) & np.uint64(1)


@kernel
def open_pass(
    step: int,
    answers: Bits,
    asked: int,
    shift: int,
    frames: int,
    trees: Words,
    odd: Words,
    busy: Words,
    agenda: Ints,
    waiting: int,
) -> int:
    """Compare the top blocks of pass `step` with the other side's parities and put the odd ones on the agenda.

    Where one block fewer than there are was `asked` for, the last follows: the frame as a whole is even by then.
    Returns the new length of the agenda.
    """
    slots = trees.shape[2] // 2
    first = slots >> shift
    for frame in range(frames):
        group, mask = frame >> 6, np.uint64(1) << np.uint64(frame & 63)
        whole = False
        for i in range(first):
            node = first + i
            differs = whole
            if i < asked:
                mine = (trees[step, group, node] & mask) != np.uint64(0)
                differs = mine != (answers[frame * asked + i] != 0)
                whole = whole != differs
            if differs:
                odd[step, group, node] |= mask
                busy[step, group, node] |= mask
                agenda[waiting, 0] = step
                agenda[waiting, 1] = frame
                agenda[waiting, 2] = node
                agenda[waiting, 3] = node
                waiting += 1
    return waiting


@kernel
def bisect(agenda: Ints, answers: Bits, trees: Words, odd: Words, split: Words) -> None:
    """Take in the other side's parity of the left child of every node on the agenda, all of which are odd."""
    for i in range(answers.size):
        step, frame, node = agenda[i, 0], agenda[i, 1], agenda[i, 3]
        group, mask = frame >> 6, np.uint64(1) << np.uint64(frame & 63)
        mine = (trees[step, group, 2 * node] & mask) != np.uint64(0)
        split[step, group, node] |= mask
        if mine != (answers[i] != 0):
            odd[step, group, 2 * node] |= mask
        else:
            odd[step, group, 2 * node + 1] |= mask


@kernel
def descend(top: int, mask: Any, odd: Words, split: Words, bit_at: Ints) -> int:
    """The smallest known odd node below the odd node `top` of one tree; a leaf there is an error found."""
    node, slots = top, bit_at.size
    while node < slots:
        left = 2 * node
        if (split[node] & mask) == np.uint64(0):
            if left < slots or (bit_at[left - slots] >= 0 and bit_at[left + 1 - slots] >= 0):
                return node
            split[node] |= mask  # a single bit under this node: no need to ask which
            odd[left if bit_at[left - slots] >= 0 else left + 1] |= mask
        node = left if (odd[left] & mask) != np.uint64(0) else left + 1
    return node


@kernel
def locate(
    agenda: Ints, waiting: int, odd: Words, split: Words, busy: Words, bit_at: Ints, finds: Ints
) -> tuple[int, int]:
    """Drop what became even from the agenda and move the rest down to what is known; list the errors located.

    Returns the lengths of `agenda` and of `finds` (rows of pass, frame, leaf).
    """
    slots = bit_at.shape[1]
    kept = found = 0
    for i in range(waiting):
        step, frame, top = agenda[i, 0], agenda[i, 1], agenda[i, 2]
        group, mask = frame >> 6, np.uint64(1) << np.uint64(frame & 63)
        if (odd[step, group, top] & mask) == np.uint64(0):
            busy[step, group, top] &= ~mask
            continue
        node = descend(top, mask, odd[step, group], split[step, group], bit_at[step])
        agenda[kept, 0] = step
        agenda[kept, 1] = frame
        agenda[kept, 2] = top
        agenda[kept, 3] = node
        kept += 1
        if node >= slots:
            finds[found, 0] = step
            finds[found, 1] = frame
            finds[found, 2] = node
            found += 1
    return kept, found


@kernel
def toggle(leaf: int, shift: int, mask: Any, tree: Words, odd: Words, split: Words) -> None:
    """Flip one bit in one tree, and in what is known about it."""
    node = leaf
    while node > 0:
        tree[node] ^= mask
        node >>= 1
    node = leaf >> shift
    odd[node] ^= mask
    while shift > 0 and (split[node] & mask) != np.uint64(0):
        shift -= 1
        node = leaf >> shift
        odd[node] ^= mask


@kernel
def settle(
    agenda: Ints,
    waiting: int,
    begun: int,
    shifts: NDArray[np.int64],
    words: Words,
    fixed: Words,
    leaves: Ints,
    bit_at: Ints,
    trees: Words,
    odd: Words,
    split: Words,
    busy: Words,
    finds: Ints,
) -> tuple[int, int]:
    """Flip every error that is located by now and follow what it reveals in the other passes, until nothing moves.

    fixed: like `words`, the bits flipped so far. Returns the length of the agenda and the number of bits flipped, which
    is -1 where a bit would be flipped twice: parities of one fixed string never ask for that.
    """
    errors = 0
    while True:
        waiting, found = locate(agenda, waiting, odd, split, busy, bit_at, finds)
        if found == 0:
            return waiting, errors
        for i in range(found):
            step, frame, leaf = finds[i, 0], finds[i, 1], finds[i, 2]
            group, mask = frame >> 6, np.uint64(1) << np.uint64(frame & 63)
            if (odd[step, group, leaf] & mask) == np.uint64(0):
                continue  # the same bit was found in two passes at once
            bit = bit_at[step, leaf - bit_at.shape[1]]
            if (fixed[group, bit] & mask) != np.uint64(0):
                return waiting, -1
            fixed[group, bit] |= mask
            words[group, bit] ^= mask
            errors += 1
            for other in range(begun):
                place = leaves[other, bit]
                toggle(place, shifts[other], mask, trees[other, group], odd[other, group], split[other, group])
                top = place >> shifts[other]
                if (odd[other, group, top] & ~busy[other, group, top] & mask) != np.uint64(0):
                    busy[other, group, top] |= mask
                    agenda[waiting, 0] = other
                    agenda[waiting, 1] = frame
                    agenda[waiting, 2] = top
                    waiting += 1
