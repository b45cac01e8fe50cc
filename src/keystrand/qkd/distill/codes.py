"""The LDPC codes of error correction: quasi-cyclic lifts from scripts/make-ldpc-codes, unfolded when first used."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from keystrand.qkd.distill.estimate import binary_entropy
from keystrand.qkd.kernels import ldpc

FILE: Final = Path(__file__).with_name("codes.json")
PUNCTURED_DEGREE_MAX: Final = 4


@dataclass(frozen=True, slots=True)
class Code:
    """A parity check matrix by its checks (see kernels/ldpc.py), and which of its bits may be punctured.

    punctured: int32, in the order to take them; no two share a check, so every syndrome hides as many bits as are punctured.
    """

    bits: int
    checks: int
    first: ldpc.Ints
    var: ldpc.Ints
    punctured: ldpc.Ints

    @property
    def widest(self) -> int:
        """Edges of the largest check."""
        return int(np.diff(self.first).max())


@cache
def _file() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(FILE.read_text())
    return table


def sizes() -> list[tuple[int, int]]:
    """Bits and checks of every code, the least checks first."""
    table = _file()
    return [(table["columns"] * table["lift"], code["rows"] * table["lift"]) for code in table["codes"]]


def efficiencies() -> list[float]:
    """Of every code, what it discloses at its threshold, relative to the Shannon limit there."""
    table = _file()
    return [code["rows"] / table["columns"] / binary_entropy(code["threshold"]) for code in table["codes"]]


@cache
def load(index: int) -> Code:
    """The code of this place in `sizes`."""
    table = _file()
    lift, rows = table["lift"], table["codes"][index]["rows"]
    edges, turn = np.array(table["codes"][index]["edges"], np.int64), np.arange(lift)
    check = (edges[:, :1] * lift + turn).reshape(-1)
    var = (edges[:, 1:2] * lift + (turn + edges[:, 2:]) % lift).reshape(-1)
    bits, checks = table["columns"] * lift, rows * lift
    by_check, by_var = np.lexsort((var, check)), np.lexsort((check, var))
    first = np.searchsorted(check[by_check], np.arange(checks + 1)).astype(np.int32)
    start = np.searchsorted(var[by_var], np.arange(bits + 1)).astype(np.int32)
    order = np.random.Generator(np.random.PCG64(index)).permutation(bits).astype(np.int32)
    order = order[np.diff(start)[order] <= PUNCTURED_DEGREE_MAX]
    chosen = np.zeros(order.size, np.int32)
    count = ldpc.untainted(order, start, check[by_var].astype(np.int32), np.zeros(checks, np.bool_), chosen)
    return Code(bits, checks, first, var[by_check].astype(np.int32), chosen[:count])
