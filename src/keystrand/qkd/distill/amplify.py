"""Privacy amplification: a 2-universal hash down to the bits of which nobody else knows anything.

The matrix is (I | T), the identity beside a random Toeplitz matrix (Hayashi and Tsurumaru, IEEE Trans. Inf. Theory 62, 2213
(2016), arXiv:1311.5322): two inputs that differ behind the first m bits collide with a chance of 2^-m over the seed, two that
differ there only never do. Of n bits in and m out it multiplies n - m and needs n - 1 public random seed bits, chosen after
the bits are fixed:

    out[i] = bits[i] XOR the sum over j of seed[i - j + n - m - 1] AND bits[m + j], for j in 0 .. n - m - 1

T is the middle of a product of polynomials over GF(2). Where the processor has carry-less multiplication that product is taken
as it is (kernels/clmul.py). Elsewhere it is one of integers, by FFT in double precision: its results are known to be integers,
so the distance to the nearest one measures the error made, and beyond RESIDUE_MAX it is refused. Both ways give the same bits.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from keystrand.core.secret import Secret
from keystrand.qkd.kernels import clmul, fourier

Bits = NDArray[np.uint8]
Floats = NDArray[np.float64]

RESIDUE_MAX: Final = 0.1  # of 0.5, where rounding would go wrong; 1e-9 is usual at 1e7 bits
FFT_BLOCK_BITS: Final = (1 << 10, 1 << 17)
REVERSED: Final = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def seed_bytes(n_bits: int) -> int:
    """Bytes of public seed that hashing n_bits takes, to any length."""
    return -(-(n_bits - 1) // 8)


def amplify(bits: Bits, *, seed: bytes, length_bits: int) -> Secret:
    """Hash `bits` (uint8 of 0/1) down to `length_bits`, a multiple of 8 not above their number.

    Raises ValueError for another length, or for a seed that has not exactly seed_bytes(n) bytes.
    """
    if not 0 < length_bits <= bits.size or length_bits % 8:
        raise ValueError(f"length_bits={length_bits} is not a multiple of 8 in 8 .. {bits.size}")
    if len(seed) != seed_bytes(bits.size):
        raise ValueError(f"the seed has {len(seed)} bytes, not {seed_bytes(bits.size)}")
    head = np.packbits(bits[:length_bits])
    if length_bits < bits.size:
        product = by_clmul if clmul.available else by_fft
        head ^= np.frombuffer(product(bits[length_bits:], seed, length_bits), np.uint8)
    return Secret(head.tobytes())


def by_clmul(bits: Bits, seed: bytes, length_bits: int) -> bytes:
    """The product T alone by carry-less multiplication; only where clmul.available."""
    size = _block_words(bits.size, length_bits)
    columns, rows = -(-bits.size // (64 * size)), -(-length_bits // (64 * size))
    work = np.zeros((2 * columns + 2 * rows + clmul.SPARE) * size, np.uint64)
    window, vector = work[: (columns + rows) * size], work[(columns + rows) * size :][: columns * size]
    diagonals = _diagonals(seed, bits.size + length_bits - 1)
    _shifted(diagonals, 64 * columns * size - bits.size + 1, window)
    vector[::-1] = _words(np.packbits(bits, bitorder="little").tobytes(), vector.size)
    clmul.blocks(work, columns, rows, size)
    out = work[(2 * columns + rows) * size :].astype("<u8", copy=False)[: -(-length_bits // 64)]
    return out.tobytes()[: length_bits // 8].translate(REVERSED)


def _block_words(n_bits: int, m_bits: int) -> int:
    """The cheapest size of blocks: doubling it triples the work of one, and fewer are needed."""
    sizes = [clmul.LEAF << k for k in range((n_bits // (64 * clmul.LEAF)).bit_length() + 1)]
    words = -(-n_bits // 64), -(-m_bits // 64)
    return min(sizes, key=lambda size: (size / clmul.LEAF) ** math.log2(3) * _products(*(-(-w // size) for w in words)))


def _products(columns: int, rows: int) -> int:
    """Middle products that so many blocks take, cut into squares."""
    total = 0
    while columns and rows:
        columns, rows = max(columns, rows), min(columns, rows)
        whole, columns = divmod(columns, rows)
        total += whole * rows * (rows + 1) // 2
    return total


def _diagonals(seed: bytes, count: int) -> NDArray[np.uint64]:
    """The first `count` bits of the seed, bit 0 of word 0 being the highest bit of its first byte."""
    words = _words(seed.translate(REVERSED), -(-count // 64))
    if count % 64:
        words[-1] &= np.uint64((1 << count % 64) - 1)
    return words


def _words(packed: bytes, count: int) -> NDArray[np.uint64]:
    return np.frombuffer(packed.ljust(8 * count, b"\0"), "<u8").astype(np.uint64)


def _shifted(words: NDArray[np.uint64], places: int, out: NDArray[np.uint64]) -> None:
    """Write `words` into `out`, zeros before, moved up by so many bits."""
    skip, shift = divmod(places, 64)
    out[skip : skip + words.size] = words << np.uint64(shift)
    if shift:
        high = words >> np.uint64(64 - shift)
        fits = min(words.size, out.size - skip - 1)
        out[skip + 1 : skip + 1 + fits] |= high[:fits]


def by_fft(bits: Bits, seed: bytes, length_bits: int) -> bytes:
    """The product T alone on any processor. Raises ArithmeticError where double precision is too coarse to be exact."""
    diagonals = np.unpackbits(np.frombuffer(seed, np.uint8), count=bits.size + length_bits - 1)
    sums = _convolve(bits.astype(np.float64), diagonals.astype(np.float64))
    counts = np.rint(sums)
    if np.abs(sums - counts).max() > RESIDUE_MAX:
        raise ArithmeticError(f"the FFT is too coarse to hash {bits.size} bits exactly")
    return np.packbits((counts.astype(np.int64) & 1).astype(np.uint8)).tobytes()


def _convolve(vector: Floats, window: Floats) -> Floats:
    """Entries n-1 .. n+m-2 of the product of two real sequences, by blocks that stay in the cache."""
    outputs = window.size - vector.size + 1
    least, most = FFT_BLOCK_BITS
    block = min(max(least, 1 << (vector.size // 16).bit_length()), most)
    columns, rows = -(-vector.size // block), -(-outputs // block)
    # Window k lies over outputs of row r and inputs of column c with c = columns - 1 - k + r.
    padded = np.zeros((columns + rows) * block, window.dtype)
    start = columns * block - vector.size
    padded[start : start + window.size] = window
    inputs = np.zeros(columns * block, vector.dtype)
    inputs[: vector.size] = vector
    inputs_f = np.fft.rfft(inputs.reshape(columns, block), 2 * block)
    windows_f = np.empty((columns + rows - 1, inputs_f.shape[1]), inputs_f.dtype)
    for k in range(columns + rows - 1):
        windows_f[k] = np.fft.rfft(padded[k * block : (k + 2) * block])
    out = np.empty(rows * block, np.float64)
    total = np.empty_like(inputs_f[0])
    for row in range(rows):
        fourier.accumulate(windows_f, inputs_f, row, total)
        out[row * block : (row + 1) * block] = np.fft.irfft(total, 2 * block)[block - 1 : 2 * block - 1]
    return out[:outputs]
