"""AES-256 of single blocks inside a kernel, by the processor's own rounds (FIPS 197).

`available` is False where the processor has no such instruction and for plain Python: then nobody may call `block`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from keystrand.qkd.kernels import has_feature

Words = NDArray[np.uint64]

ROUNDS: Final = 14
KEY_BYTES: Final = 32
WORD: Final = ir.IntType(64)
STATE: Final = ir.VectorType(WORD, 2)

available: Final = has_feature("aes")


def _sbox() -> bytes:
    """SubBytes of every byte: its inverse in GF(2^8), turned and mixed (FIPS 197, 5.1.1)."""
    box, p, q = bytearray(256), 1, 1
    while True:
        p = p ^ (p << 1) & 0xFF ^ (0x1B if p & 0x80 else 0)  # times 3
        for shift in (1, 2, 4):  # over 3
            q ^= q << shift & 0xFF
        q ^= 0x09 if q & 0x80 else 0
        turns = (q, *((q << k | q >> 8 - k) & 0xFF for k in (1, 2, 3, 4)))
        box[p] = 0x63
        for turned in turns:
            box[p] ^= turned
        if p == 1:
            box[0] = 0x63
            return bytes(box)


def expand(key: bytes) -> Words:
    """Round keys of a key of 32 bytes (FIPS 197, 5.2): uint64 (15, 2), words as they lie in memory."""
    if len(key) != KEY_BYTES:
        raise ValueError(f"a key of AES-256 has {KEY_BYTES} bytes, not {len(key)}")
    box, round_constant = _sbox(), 1
    words = [key[4 * i : 4 * i + 4] for i in range(8)]
    for i in range(8, 4 * (ROUNDS + 1)):
        last = words[-1]
        if i % 8 == 0:
            last = (last[1:] + last[:1]).translate(box)
            last = bytes([last[0] ^ round_constant]) + last[1:]
            round_constant <<= 1
        elif i % 8 == 4:
            last = last.translate(box)
        words.append(bytes(a ^ b for a, b in zip(words[-8], last, strict=True)))
    return np.frombuffer(b"".join(words), np.uint64).reshape(ROUNDS + 1, 2).copy()


def _block_code(_typing: Any, keys: Any, counter: Any) -> Any:
    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, value=args[0]).data
        row = builder.bitcast(data, STATE.as_pointer())
        step = ir.FunctionType(STATE, [STATE, STATE])

        def key(number: int) -> ir.Value:
            return builder.load(builder.gep(row, [ir.Constant(WORD, number)]), align=8)

        state = builder.insert_element(ir.Constant(STATE, [0, 0]), args[1], ir.Constant(ir.IntType(32), 0))
        state = builder.xor(state, key(0))
        for number in range(1, ROUNDS + 1):
            name = "llvm.x86.aesni.aesenclast" if number == ROUNDS else "llvm.x86.aesni.aesenc"
            state = builder.call(builder.module.declare_intrinsic(name, (), step), [state, key(number)])
        halves = [builder.extract_element(state, ir.Constant(ir.IntType(32), place)) for place in (0, 1)]
        return context.make_tuple(builder, signature.return_type, halves)

    pair: Any = types.UniTuple  # untyped in numba
    return pair(types.uint64, 2)(keys, types.uint64), generate


# The two words of AES of the block `counter` (uint64), zeros behind, under round keys from `expand`; from kernels only.
block = cast("Callable[..., tuple[Any, Any]]", intrinsic(_block_code))
