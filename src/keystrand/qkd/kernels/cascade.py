"""Cascade on bit-sliced parity trees: 64 frames share every permutation, and one machine word walks all 64 trees at once.

Shapes, with P passes, G groups of 64 frames, B bits a frame and N = 2^depth >= B leaves:

  words   uint64 (G, B)       bit f of words[g, i] is bit i of frame 64 g + f
  lanes   uint64 (G,)         the frames that exist in a group
  leaves  int32 (E, B)        leaf (a heap index in N .. 2N-1) of each bit in each of the E early passes
  bit_at  int32 (P, N)        the bit of a leaf, -1 for an empty one
  member  uint64 (S, B / 64)  the bits that take part in each late pass, which covers a random half in natural order
  trees   uint64 (P, G * N)   place i of a group: parity of the left child of node i, whose children are nodes 2i and 2i+1; the
                              F blocks of a pass are nodes F .. 2F-1, and their own parities are in the places 0 .. F-1
  split   uint64 (P, G * N)   the frames in which the parities of both children of node i are known of the other side

At the receiver a parity that is known of the other side gives way to the difference of the two sides: in the blocks, and
under the nodes that are split, there in these frames only. A bit that is flipped changes either alike. The right child
needs no place: one path goes on below a node whose sides differ, and it goes left or right.

A sweep walks one pass from its blocks to the leaves, a level at a time. It is a list of nodes (`nodes` int64: flat index
into a row of trees) with the frames (`open_` uint64) in which the path to an error goes through that node; so one entry
serves up to 64 frames, and nodes are visited in the order of memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from keystrand.qkd.kernels import kernel
from keystrand.qkd.kernels.words import ONE, ZERO, count, gather, read, spread, write

Words = NDArray[np.uint64]
Ints = NDArray[np.int32]
Longs = NDArray[np.int64]


@kernel
def shuffle(seed: Any, order: Ints) -> None:
    """Permute `order` at random (Fisher-Yates over SplitMix64)."""
    state = np.uint64(seed)
    for i in range(order.size - 1, 0, -1):
        state += np.uint64(0x9E3779B97F4A7C15)
        z = state
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
        j = np.int64(((z >> np.uint64(32)) * np.uint64(i + 1)) >> np.uint64(32))
        order[i], order[j] = order[j], order[i]


@kernel
def settle(leaves: Ints, member: Words, bit_at: Ints) -> None:
    """The inverse of `leaves` (heap indices) in `bit_at`, for the bits of `member`; an empty one means all."""
    bit_at[:] = -1
    for bit in range(leaves.size):
        if member.size == 0 or (member[bit >> 6] >> np.uint64(bit & 63)) & ONE != ZERO:
            bit_at[leaves[bit] - bit_at.size] = bit


@kernel
def grow(words: Words, bit_at: Ints, first: int, tree: Words, level: Words) -> None:
    """The parity trees (flat, G * N) of one pass, from its leaves up to its blocks first .. 2 first - 1.

    level: room for N words, the parities of all nodes of a level."""
    slots = bit_at.size
    for group in range(words.shape[0]):
        base, width = slots * group, slots
        for slot in range(slots):
            bit = bit_at[slot]
            level[slot] = words[group, bit] if bit >= 0 else ZERO
        while width > first:
            width >>= 1
            for node in range(width):
                left = level[2 * node]
                tree[base + width + node] = left
                level[node] = left ^ level[2 * node + 1]
        for block in range(first):
            tree[base + block] = level[block]


@kernel
def halves(words: Words, member: Words, parities: Words) -> None:
    """parities (S, G): of the bits that each late pass covers."""
    for group in range(words.shape[0]):
        row = words[group]
        for late in range(member.shape[0]):
            inside = member[late]
            parity = ZERO
            for i in range(row.size):
                taken = (inside[i >> 6] >> np.uint64(i & 63)) & ONE
                parity ^= row[i] if taken != ZERO else ZERO
            parities[late, group] = parity


@kernel
def tell(tops: Words, lanes: Words, stream: Words) -> int:
    """Write parities (tops: (G, T), rows of blocks) frame by frame. Returns the number of bits."""
    place = 0
    for group in range(tops.shape[0]):
        for top in range(tops.shape[1]):
            place = write(stream, place, gather(tops[group, top], lanes[group]), count(lanes[group]))
    return place


@kernel
def compare(tops: Words, lanes: Words, stream: Words, wholes: Words, odd: Words) -> None:
    """The inverse of `tell` on the other side: odd (G, T) takes where the two sides differ; or (G, T + 1), where it is known
    which frames are odd as a whole (wholes: (G,)) and the parity of one block more follows from the others.
    """
    place = 0
    for group in range(tops.shape[0]):
        rest = wholes[group]
        for top in range(tops.shape[1]):
            theirs = spread(read(stream, place, 64), lanes[group])
            place += count(lanes[group])
            differs = (theirs ^ tops[group, top]) & lanes[group]
            odd[group, top] = differs
            rest ^= differs
        if odd.shape[1] > tops.shape[1]:
            odd[group, tops.shape[1]] = rest


@kernel
def alone(node: int, bit_at: Ints) -> bool:
    """Whether one of the two leaves below is empty: then nobody needs to ask which of them is odd."""
    left = 2 * node - bit_at.size
    return left >= 0 and (bit_at[left] < 0 or bit_at[left + 1] < 0)


@kernel
def paths(trees: Words, slots: int, shifts: Longs, found: Longs) -> None:
    """How many blocks of each pass differ, each frame's counted: found (P,)."""
    for step in range(found.size):
        first = slots >> shifts[step]
        found[step] = 0
        for base in range(0, trees.shape[1], slots):
            for place in range(base, base + first):
                found[step] += count(trees[step, place])


@kernel
def begin(tree: Words, slots: int, first: int, nodes: Longs, open_: Words) -> int:
    """List the blocks of one pass that differ. Returns the length of the list."""
    length = 0
    for base in range(0, tree.size, slots):
        for block in range(first):
            if tree[base + block] != ZERO:
                nodes[length] = 2 * base + first + block
                open_[length] = tree[base + block]
                length += 1
    return length


@kernel
def place_of(flat: int, node: int) -> int:
    """Where a tree and `split` hold a node of a list; node: its number within its group."""
    return ((flat - node) >> 1) + node


@kernel
def wanted(nodes: Longs, open_: Words, length: int, split: Words, bit_at: Ints) -> int:
    """How many parities the nodes of a list lack: those of their left children, where these are not known."""
    inside = 2 * bit_at.size - 1
    asked = 0
    for i in range(length):
        node = nodes[i] & inside
        need = open_[i] & ~split[place_of(nodes[i], node)]
        if need != ZERO and not alone(node, bit_at):
            asked += count(need)
    return asked


@kernel
def reply(nodes: Longs, open_: Words, length: int, tree: Words, split: Words, bit_at: Ints, stream: Words) -> int:
    """The other side's part of a level: write the parities that `wanted` counted. Returns their number."""
    inside = 2 * bit_at.size - 1
    place = 0
    for i in range(length):
        node = nodes[i] & inside
        at = place_of(nodes[i], node)
        need = open_[i] & ~split[at]
        if need != ZERO and not alone(node, bit_at):
            place = write(stream, place, gather(tree[at], need), count(need))
            split[at] |= need
    return place


@kernel
def descend(
    nodes: Longs,
    open_: Words,
    length: int,
    stream: Words,
    tree: Words,
    split: Words,
    bit_at: Ints,
    turns: Words,
    place: int,
    nodes_below: Longs,
    open_below: Words,
) -> tuple[int, int]:
    """Take in the parities of a level (`stream`) and list the children that differ.

    turns: where the paths went left, a bit each. Returns the length of the list and the new place in `turns`.
    """
    slots = bit_at.size
    inside = 2 * slots - 1
    heard = below = 0
    for i in range(length):
        flat, path = nodes[i], open_[i]
        node = flat & inside
        left = flat + node  # the child 2 * node in the same group
        at = place_of(flat, node)
        differs, need = tree[at], path & ~split[at]
        if need != ZERO:
            if alone(node, bit_at):
                differs = differs & ~need | (need if bit_at[2 * node - slots] >= 0 else ZERO)
            else:
                number = count(need)
                differs ^= spread(read(stream, heard, number), need)
                heard += number
            split[at] |= need
            tree[at] = differs
        known = differs & path
        place = write(turns, place, gather(known, path), count(path))
        if known != ZERO:
            nodes_below[below] = left
            open_below[below] = known
            below += 1
        if known != path:
            nodes_below[below] = left + 1
            open_below[below] = path & ~known
            below += 1
    return below, place


@kernel
def follow(
    nodes: Longs,
    open_: Words,
    length: int,
    turns: Words,
    place: int,
    bit_at: Ints,
    nodes_below: Longs,
    open_below: Words,
) -> tuple[int, int]:
    """The other side's twin of `descend`: it learns from `turns` where the paths go. Returns the same."""
    inside = 2 * bit_at.size - 1
    below = 0
    for i in range(length):
        flat, path = nodes[i], open_[i]
        left = flat + (flat & inside)
        number = count(path)
        known = spread(read(turns, place, number), path)
        place += number
        if known != ZERO:
            nodes_below[below] = left
            open_below[below] = known
            below += 1
        if known != path:
            nodes_below[below] = left + 1
            open_below[below] = path & ~known
            below += 1
    return below, place


@kernel
def toggle(tree: Words, base: int, leaf: int, shift: int, first: int, mask: Any) -> None:
    """Flip one bit of the frames `mask` in one tree, whose places of its group start at `base`; first: of its blocks."""
    node = leaf
    for _ in range(shift):
        if node & 1 == 0:
            tree[base + (node >> 1)] ^= mask
        node >>= 1
    tree[base + node - first] ^= mask


@kernel
def mend(
    nodes: Longs,
    open_: Words,
    length: int,
    step: int,
    begun: int,
    shifts: Longs,
    words: Words,
    fixed: Words,
    leaves: Ints,
    spread_at: Ints,
    member: Words,
    grown: NDArray[np.bool_],
    bit_at: Ints,
    trees: Words,
) -> int:
    """Flip the bits under the leaves that a sweep of pass `step` ended at, in all passes begun.

    fixed: like `words`, the bits flipped so far. A late pass that has not `grown` its tree knows its one block only. Returns
    the number of bits flipped, -1 where a bit would be flipped twice: parities of one fixed string never ask for that.
    """
    slots, early = bit_at.shape[1], leaves.shape[0]
    errors = 0
    for i in range(length):
        leaf = nodes[i] & (2 * slots - 1)
        group, base = nodes[i] // (2 * slots), (nodes[i] - leaf) >> 1
        bit, mask = bit_at[step, leaf - slots], open_[i]
        if bit < 0 or fixed[group, bit] & mask != ZERO:
            return -1
        fixed[group, bit] |= mask
        words[group, bit] ^= mask
        errors += count(mask)
        for other in range(begun):
            if other < early:
                toggle(trees[other], base, leaves[other, bit], shifts[other], slots >> shifts[other], mask)
            elif (member[other - early, bit >> 6] >> np.uint64(bit & 63)) & ONE != ZERO:
                if grown[other]:
                    toggle(trees[other], base, spread_at[bit], shifts[other], 1, mask)
                else:
                    trees[other, base] ^= mask
    return errors
