"""Layered min-sum decoding of 64 frames at once: one frame to a lane of 8 bits, so that any code runs at the speed of vectors.

Shapes, with n bits a frame, m checks and E edges sorted by check:

  first  int32 (m + 1,)   the edges of check c are first[c] .. first[c + 1] - 1
  var    int32 (E,)       the bit of an edge
  words  uint64 (n,)      bit-sliced frames; syndrome uint64 (m,) likewise
  llr    int8 (n, 64)     what is believed of each bit: positive for 0, at most TOP either way
  sent   int8 (E, 64)     the last message of each check along each edge

The messages of a check are the smallest magnitude among its other edges, scaled by 3/4, less what the next smallest takes away
where it is close (of inputs that doubt alike min-sum thinks too highly), and clipped at CLIP. Vector code is written as LLVM's
vectors of 64 bytes, which every processor gets in pieces that it can do; plain Python runs `_visit`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from keystrand.qkd.kernels import has_feature, kernel
from keystrand.qkd.kernels.words import ONE, ZERO

Words = NDArray[np.uint64]
Ints = NDArray[np.int32]
Lanes = NDArray[np.int8]

TOP: Final = 127
CLIP: Final = 41
NEAR: Final = 3  # where the two least inputs of a check are closer, the one passed on counts for so much less
BYTE: Final = ir.IntType(8)
VECTOR: Final = ir.VectorType(BYTE, 64)
FLAGS: Final = ir.VectorType(ir.IntType(1), 64)
WORD: Final = ir.IntType(64)


@kernel
def syndrome(words: Words, first: Ints, var: Ints, out: Words) -> None:
    """Parities of all checks."""
    for c in range(out.size):
        parity = ZERO
        for e in range(first[c], first[c + 1]):
            parity ^= words[var[e]]
        out[c] = parity


@kernel
def unlike(words: Words, first: Ints, var: Ints, wanted: Words) -> Any:
    """The frames in which some check differs from what is `wanted`."""
    frames = ZERO
    for c in range(wanted.size):
        parity = wanted[c]
        for e in range(first[c], first[c + 1]):
            parity ^= words[var[e]]
        frames |= parity
    return frames


def _visit(llr: Lanes, sent: Lanes, var: Ints, begin: int, end: int, odd: Any, hold: Lanes) -> None:
    """One check, all frames: the plain twin of the vector code."""
    parity = np.array([int(odd) >> lane & 1 for lane in range(64)], np.int64)
    inner = np.clip(llr[var[begin:end]].astype(np.int64) - sent[begin:end], -TOP, TOP)
    size = np.abs(inner)
    order = np.sort(size, axis=0) if end - begin > 1 else np.concatenate([size, np.full_like(size, TOP)])
    least, second = order[0], order[1]
    signs = (parity + (inner < 0).sum(axis=0)) % 2
    near = np.maximum(NEAR - (second - least), 0)
    for k in range(end - begin):
        value = np.where(size[k] == least, second - (second >> 2), np.maximum(least - (least >> 2) - near, 0))
        value = np.minimum(value, CLIP)
        value = np.where((signs + (inner[k] < 0)) % 2 == 1, -value, value)
        sent[begin + k] = value
        llr[var[begin + k]] = np.clip(inner[k] + value, -TOP, TOP)


class _Emitter:
    """Writes LLVM code on rows of 64 bytes."""

    def __init__(self, context: Any, builder: ir.IRBuilder, signature: Any) -> None:
        self.context, self.builder, self.signature = context, builder, signature

    def data(self, place: int, array: Any) -> ir.Value:
        return self.context.make_array(self.signature.args[place])(self.context, self.builder, value=array).data

    def row(self, data: ir.Value, index: ir.Value) -> ir.Value:
        start = self.builder.gep(data, [self.builder.mul(index, ir.Constant(WORD, 64))])
        return self.builder.bitcast(start, VECTOR.as_pointer())

    def load(self, data: ir.Value, index: ir.Value) -> ir.Value:
        return self.builder.load(self.row(data, index), align=1)

    def store(self, value: ir.Value, data: ir.Value, index: ir.Value) -> None:
        self.builder.store(value, self.row(data, index), align=1)

    def call(self, name: str, *args: ir.Value) -> ir.Value:
        kind = ir.FunctionType(VECTOR, [value.type for value in args])
        return self.builder.call(self.builder.module.declare_intrinsic(name + ".v64i8", (), kind), args)

    def all(self, value: int) -> ir.Value:
        return ir.Constant(VECTOR, [value] * 64)

    def size(self, value: ir.Value) -> ir.Value:
        return self.call("llvm.abs", value, ir.Constant(ir.IntType(1), 0))

    def clipped(self, value: ir.Value) -> ir.Value:
        """Never -128, whose magnitude is no int8."""
        return self.call("llvm.smax", value, self.all(-TOP))

    def loop(self, begin: ir.Value, end: ir.Value, state: list[ir.Value], body: Callable[..., Any]) -> list[ir.Value]:
        """`body(index, state)` for begin <= index < end, at least once; returns the last state."""
        entry, block = self.builder.block, self.builder.append_basic_block("loop")
        after = self.builder.append_basic_block("after")
        self.builder.branch(block)
        self.builder.position_at_end(block)
        index = self.builder.phi(WORD)
        kept = [self.builder.phi(value.type) for value in state]
        results = body(index, kept)
        following = self.builder.add(index, ir.Constant(WORD, 1))
        for phi, first, last in zip([index, *kept], [begin, *state], [following, *results], strict=True):
            phi.add_incoming(first, entry)
            phi.add_incoming(last, self.builder.block)
        self.builder.cbranch(self.builder.icmp_signed("<", following, end), block, after)
        self.builder.position_at_end(after)
        return cast("list[ir.Value]", results)


def _emit_visit(emit: _Emitter, args: Any) -> None:
    builder = emit.builder
    llr, sent, var, hold = (emit.data(place, args[place]) for place in (0, 1, 2, 6))
    begin, end = args[3], args[4]
    odd = builder.select(builder.bitcast(args[5], FLAGS), emit.all(-1), emit.all(0))

    def bit(edge: ir.Value) -> ir.Value:
        return builder.zext(builder.load(builder.gep(var, [edge]), align=4), WORD)

    def gather(edge: ir.Value, state: list[ir.Value]) -> list[ir.Value]:
        least, second, signs = state
        inner = emit.clipped(emit.call("llvm.ssub.sat", emit.load(llr, bit(edge)), emit.load(sent, edge)))
        emit.store(inner, hold, builder.sub(edge, begin))
        size = emit.size(inner)
        second = emit.call("llvm.umin", second, emit.call("llvm.umax", least, size))
        return [emit.call("llvm.umin", least, size), second, builder.xor(signs, inner)]

    least, second, signs = emit.loop(begin, end, [emit.all(TOP), emit.all(TOP), odd], gather)
    near = emit.call("llvm.usub.sat", emit.all(NEAR), builder.sub(second, least))
    scaled = []
    for value, less in ((least, near), (second, emit.all(0))):
        smaller = emit.call("llvm.usub.sat", builder.sub(value, builder.lshr(value, emit.all(2))), less)
        scaled.append(emit.call("llvm.umin", smaller, emit.all(CLIP)))

    def scatter(edge: ir.Value, _state: list[ir.Value]) -> list[ir.Value]:
        inner = emit.load(hold, builder.sub(edge, begin))
        value = builder.select(builder.icmp_unsigned("==", emit.size(inner), least), scaled[1], scaled[0])
        negative = builder.icmp_signed("<", builder.xor(signs, inner), emit.all(0))
        value = builder.select(negative, builder.neg(value), value)
        emit.store(value, sent, edge)
        emit.store(emit.clipped(emit.call("llvm.sadd.sat", inner, value)), llr, bit(edge))
        return []

    emit.loop(begin, end, [], scatter)


def _visit_code(_typing: Any, llr: Any, sent: Any, var: Any, begin: Any, end: Any, odd: Any, hold: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _emit_visit(_Emitter(context, builder, signature), args)
        return context.get_dummy_value()

    return types.void(llr, sent, var, types.int64, types.int64, types.uint64, hold), generate


def _signs_code(_typing: Any, llr: Any, index: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        emit = _Emitter(context, builder, signature)
        row = emit.load(emit.data(0, args[0]), args[1])
        return builder.bitcast(builder.icmp_signed("<", row, emit.all(0)), WORD)

    return types.uint64(llr, types.int64), generate


def _plain_signs(llr: Lanes, index: int) -> Any:
    frames = ZERO
    for lane in range(64):
        if llr[index, lane] < 0:
            frames |= ONE << np.uint64(lane)
    return frames


if has_feature():
    visit = cast("Callable[..., None]", intrinsic(_visit_code))
    signs_of = cast("Callable[..., Any]", intrinsic(_signs_code))
else:
    visit, signs_of = _visit, _plain_signs


@kernel
def believe(words: Words, places: Ints, strength: int, llr: Lanes) -> None:
    """llr of the bits at `places`, received as `words` over a channel of that `strength`."""
    for i in places:
        for lane in range(64):
            llr[i, lane] = -strength if (words[i] >> np.uint64(lane)) & ONE else strength


@kernel
def decode(
    llr: Lanes, sent: Lanes, first: Ints, var: Ints, wanted: Words, iterations: int, hold: Lanes, words: Words
) -> tuple[Any, int]:
    """Work on all frames until all checks are as `wanted`, or for so many iterations.

    words takes the decisions, hold is room for the widest check. Returns the frames that failed, and the iterations done.
    """
    for step in range(iterations):
        for c in range(wanted.size):
            visit(llr, sent, var, first[c], first[c + 1], wanted[c], hold)
        for i in range(words.size):
            words[i] = signs_of(llr, i)
        failed = unlike(words, first, var, wanted)
        if failed == ZERO:
            return failed, step + 1
    return failed, iterations


@kernel
def untainted(order: Ints, start: Ints, checks: Ints, tainted: NDArray[np.bool_], chosen: Ints) -> int:
    """Choose bits, in this order, so that no check has two of them (checks[start[v]] ..: of bit v). Returns their number."""
    count = 0
    for v in order:
        free = True
        for place in range(start[v], start[v + 1]):
            free = free and not tainted[checks[place]]
        if free:
            for place in range(start[v], start[v + 1]):
                tainted[checks[place]] = True
            chosen[count] = v
            count += 1
    return count


@kernel
def reveal(places: Ints, values: Words, frames: Any, llr: Lanes) -> None:
    """Take the bits at `places` as known (bit-sliced `values`) in some frames."""
    for i in range(places.size):
        for lane in range(64):
            if (frames >> np.uint64(lane)) & ONE:
                llr[places[i], lane] = -TOP if (values[i] >> np.uint64(lane)) & ONE else TOP
