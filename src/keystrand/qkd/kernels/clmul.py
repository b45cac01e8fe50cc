"""Products of polynomials over GF(2) by the processor's carry-less multiplication, for Toeplitz hashing.

`middle` is the middle product of a window of 2 w words and a vector of w words, Karatsuba's way (transposed: Hanrot, Quercia
and Zimmermann, AAECC 14, 2004) down to LEAF words, where PCLMULQDQ or VPCLMULQDQ takes over, the widest that there is.
Word k of a polynomial holds its coefficients 64 k .. 64 k + 63, the lowest in the lowest bit. Vectors are held with their
words in reverse, so that products become correlations: with acc[k] the sum over i of window[i + k] times vector[i], which
has two words, out[r] = high word of acc[r] XOR low word of acc[r + 1].

`available` is False where the processor has no such instruction and for plain Python: then nobody may call `blocks`.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, Final, cast

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from keystrand.qkd.kernels import has_feature, kernel

Words = NDArray[np.uint64]

LEAF: Final = 16
SPARE: Final = 9  # blocks of room that `blocks` needs
WORD: Final = ir.IntType(64)

Vectors = list[ir.Value]


def _lanes() -> int:
    """128-bit lanes of the widest carry-less multiplication; 0 for none."""
    if has_feature("vpclmulqdq", "avx512f", "avx512vl"):
        return 4
    if has_feature("vpclmulqdq", "avx2"):
        return 2
    return 1 if has_feature("pclmul") else 0


LANES: Final = _lanes()
available: Final = LANES > 0


class _Emitter:
    """Writes LLVM code on vectors of 2 * LANES words of one array."""

    def __init__(self, context: Any, builder: ir.IRBuilder, array_type: Any, array: Any) -> None:
        self.builder = builder
        self.width = 2 * LANES
        self.vector = ir.VectorType(WORD, self.width)
        self.data = context.make_array(array_type)(context, builder, value=array).data

    def at(self, offset: ir.Value, more: int = 0) -> ir.Value:
        place = self.builder.add(offset, ir.Constant(WORD, more)) if more else offset
        return self.builder.gep(self.data, [place])

    def load(self, offset: ir.Value, more: int = 0) -> ir.Value:
        return self.builder.load(self._vector_at(offset, more), align=8)

    def store(self, value: ir.Value, offset: ir.Value, more: int = 0) -> None:
        self.builder.store(value, self._vector_at(offset, more), align=8)

    def lane(self, value: ir.Value, which: int) -> ir.Value:
        """One lane of 128 bits, in all lanes."""
        return self.shuffle(value, value, [2 * which, 2 * which + 1] * LANES)

    def window(self, aligned: Vectors, first: int) -> ir.Value:
        """Words `first` .. of what these hold. Out of registers: a load across cache lines costs two."""
        block, start = divmod(first, self.width)
        if not start:
            return aligned[block]
        return self.shuffle(aligned[block], aligned[block + 1], list(range(start, start + self.width)))

    def sum(self, one: Vectors, other: Vectors) -> Vectors:
        return [self.builder.xor(a, b) for a, b in zip(one, other, strict=True)]

    def shuffle(self, a: ir.Value, b: ir.Value, places: list[int]) -> ir.Value:
        mask = ir.Constant(ir.VectorType(ir.IntType(32), self.width), places)
        return self.builder.shuffle_vector(a, b, mask)

    def multiply(self, a: ir.Value, b: ir.Value, halves: int) -> ir.Value:
        name = "llvm.x86.pclmulqdq" + {1: "", 2: ".256", 4: ".512"}[LANES]
        kind = ir.FunctionType(self.vector, [self.vector, self.vector, ir.IntType(8)])
        return self.builder.call(
            self.builder.module.declare_intrinsic(name, (), kind), [a, b, ir.Constant(ir.IntType(8), halves)]
        )

    def add(self, total: ir.Value | None, value: ir.Value) -> ir.Value:
        return value if total is None else self.builder.xor(total, value)

    def _vector_at(self, offset: ir.Value, more: int) -> ir.Value:
        return self.builder.bitcast(self.at(offset, more), self.vector.as_pointer())


def _emit_leaf(emit: _Emitter, window: ir.Value, vector: ir.Value, out: ir.Value) -> None:
    """One more step of Karatsuba's, in registers: the unit that multiplies is what holds a leaf back."""
    half = LEAF // 2 // emit.width
    words = [emit.load(window, k) for k in range(0, 2 * LEAF, emit.width)]
    factors = [emit.load(vector, k) for k in range(0, LEAF, emit.width)]
    quarters = [words[k * half : (k + 1) * half] for k in range(4)]
    sums = [emit.sum(a, b) for a, b in pairwise(quarters)]
    low, high = factors[:half], factors[half:]
    shared = _emit_square(emit, quarters[1] + quarters[2], emit.sum(low, high))
    first = _emit_square(emit, sums[0] + sums[1], low)
    second = _emit_square(emit, sums[1] + sums[2], high)
    for block, value in enumerate(emit.sum(first, shared) + emit.sum(second, shared)):
        emit.store(value, out, block * emit.width)


def _emit_square(emit: _Emitter, window: Vectors, vector: Vectors) -> Vectors:
    """The middle product of LEAF / 2 words, every word with every word."""
    width, blocks = emit.width, len(vector)
    evens: list[Any] = [None] * blocks
    odds: list[Any] = [None] * blocks
    for i in range(width * blocks):
        factor = emit.lane(vector[i // width], i % width // 2)
        for block in range(blocks):
            part = emit.window(window, i + block * width)
            evens[block] = emit.add(evens[block], emit.multiply(part, factor, i % 2 << 4))
            odds[block] = emit.add(odds[block], emit.multiply(part, factor, i % 2 << 4 | 1))
    last: Any = None  # acc[LEAF / 2], of which only the low word matters
    for part, factor in zip(window[blocks:], vector, strict=True):
        last = emit.add(last, emit.builder.xor(emit.multiply(part, factor, 0x00), emit.multiply(part, factor, 0x11)))
    low_words = [k for pair in range(0, width, 2) for k in (pair, width + pair)]
    lows = [emit.shuffle(even, odd, low_words) for even, odd in zip(evens, odds, strict=True)]
    lows.append(_fold(emit, last))
    out = []
    for block, (even, odd) in enumerate(zip(evens, odds, strict=True)):
        high = emit.shuffle(even, odd, [k + 1 for k in low_words])
        low = emit.shuffle(lows[block], lows[block + 1], list(range(1, width + 1)))
        out.append(emit.builder.xor(high, low))
    return out


def _fold(emit: _Emitter, total: Any) -> Any:
    """The XOR of the low words of all lanes, in word 0."""
    step = emit.width // 2
    while step > 1:
        turned = emit.shuffle(total, total, [(k + step) % emit.width for k in range(emit.width)])
        total = emit.builder.xor(total, turned)
        step //= 2
    return total


def _leaf_code(_typing: Any, work: Any, window: Any, vector: Any, out: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _emit_leaf(_Emitter(context, builder, signature.args[0], args[0]), *args[1:])
        return context.get_dummy_value()

    return types.void(work, types.int64, types.int64, types.int64), generate


def _xor_code(_typing: Any, work: Any, out: Any, a: Any, b: Any, size: Any) -> Any:
    """work[out + i] = work[a + i] XOR work[b + i] for i below size, a multiple of the vector."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        emit = _Emitter(context, builder, signature.args[0], args[0])
        entry = builder.block
        loop, done = builder.append_basic_block("xor"), builder.append_basic_block("done")
        builder.branch(loop)
        builder.position_at_end(loop)
        i = builder.phi(WORD)
        i.add_incoming(ir.Constant(WORD, 0), entry)
        left, right = emit.load(builder.add(args[2], i)), emit.load(builder.add(args[3], i))
        emit.store(builder.xor(left, right), builder.add(args[1], i))
        following = builder.add(i, ir.Constant(WORD, emit.width))
        i.add_incoming(following, loop)
        builder.cbranch(builder.icmp_signed("<", following, args[4]), loop, done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return types.void(work, types.int64, types.int64, types.int64, types.int64), generate


_leaf = cast("Callable[..., None]", intrinsic(_leaf_code))
_xor = cast("Callable[..., None]", intrinsic(_xor_code))


@kernel
def middle(work: Words, window: int, vector: int, out: int, spare: int, size: int) -> None:
    """Middle product inside `work`: offsets of a window of 2 size words, of a vector and of the product, size words each.

    size: LEAF times a power of two. From `spare` on, 5 size words are overwritten.
    """
    if size == LEAF:
        _leaf(work, window, vector, out)
        return
    half = size // 2
    sums, vector_sum, shared = spare, spare + 3 * half, spare + 4 * half
    _xor(work, sums, window, window + half, 3 * half)
    _xor(work, vector_sum, vector, vector + half, half)
    middle(work, window + half, vector_sum, shared, spare + 5 * half, half)
    middle(work, sums, vector, out, spare + 5 * half, half)
    middle(work, sums + half, vector + half, out + half, spare + 5 * half, half)
    _xor(work, out, out, shared, half)
    _xor(work, out + half, out + half, shared, half)


@kernel
def _square(work: Words, window: int, vector: int, out: int, spare: int, count: int, size: int) -> None:
    """Add to `count` blocks of outputs what as many blocks of inputs give: count (count + 1) / 2 middle products.

    The matrix of blocks is symmetric (that of row r and column c is window block r + c), so a product with the sum of two
    inputs serves both their rows (Weimerskirch and Paar's way, transposed). 9 size words from `spare` on are overwritten.
    """
    mixed, product, rest = spare, spare + 2 * size, spare + 3 * size
    for row in range(count):
        block = window + row * size
        _xor(work, mixed, block, block + size, 2 * size) if count > 1 else _copy(work, mixed, block, 2 * size)
        for column in range(2, count):
            _xor(work, mixed, mixed, block + column * size, 2 * size)
        middle(work, mixed, vector + row * size, product, rest, size)
        _xor(work, out + row * size, out + row * size, product, size)
        for other in range(row + 1, count):
            _xor(work, mixed, vector + row * size, vector + other * size, size)
            middle(work, window + (row + other) * size, mixed, product, rest, size)
            _xor(work, out + row * size, out + row * size, product, size)
            _xor(work, out + other * size, out + other * size, product, size)


@kernel
def _copy(work: Words, out: int, a: int, size: int) -> None:
    for i in range(size):
        work[out + i] = work[a + i]


@kernel
def blocks(work: Words, columns: int, rows: int, size: int) -> None:
    """A whole Toeplitz product cut into blocks of `size` words, in place.

    work: the window ((columns + rows) * size words), the reversed vector (columns * size), zeros for the product
    (rows * size) and SPARE * size words more.
    """
    vector = (columns + rows) * size
    out = vector + columns * size
    spare = out + rows * size
    row = column = 0
    while row < rows and column < columns:  # squares, as Euclid would cut them
        count = min(rows - row, columns - column)
        place = (row + column) * size
        _square(work, place, vector + column * size, out + row * size, spare, count, size)
        if rows - row <= columns - column:
            column += count
        else:
            row += count
