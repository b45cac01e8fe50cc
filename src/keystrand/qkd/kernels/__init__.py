"""The one door to numba: flat functions of arrays and scalars, which know nothing of the product.

`kernel` compiles with an on-disk cache where some directory for it is writable, and without one elsewhere: a read-only
installation costs a slower first call, never a failed import. The composition root points NUMBA_CACHE_DIR into the
state directory before it imports anything from here. With NUMBA_DISABLE_JIT=1 every kernel runs as plain Python.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

from numba import njit

Function = TypeVar("Function", bound=Callable[..., object])


def kernel(function: Function) -> Function:
    """`function`, compiled at its first call for the argument types it meets."""
    try:
        return cast("Function", njit(cache=True)(function))
    except (RuntimeError, OSError):  # numba finds no directory that it may write its cache to
        return cast("Function", njit(function))
