"""The one door to numba: flat functions of arrays and scalars, which know nothing of the product.

`kernel` compiles with an on-disk cache where some directory for it is writable, and without one elsewhere: a read-only
installation costs a slower first call, never a failed import. The composition root points NUMBA_CACHE_DIR into the
state directory before it imports anything from here. With NUMBA_DISABLE_JIT=1 every kernel runs as plain Python, and
`has_feature` denies every instruction, so that the portable twins of the fast paths run.

Kernels are compiled with nogil: threads that distil different blocks run side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
from llvmlite import binding, ir
from numba import njit, types
from numba.extending import intrinsic

Function = TypeVar("Function", bound=Callable[..., object])


def kernel(function: Function) -> Function:
    """`function`, compiled at its first call for the argument types it meets. It may call kernels and allocate nothing.

    Without numba's counting of references, which a helper called in a loop would do for each array at each call: several
    nanoseconds where the helper itself takes one.
    """
    return _compiled(function, _nrt=False)


def allocating(function: Function) -> Function:
    """A kernel that makes arrays of its own, or is given a random generator from outside: references are counted."""
    return _compiled(function)


def _compiled(function: Function, **options: bool) -> Function:
    compiled = cast("Callable[..., Callable[[Function], Function]]", njit)  # its types lack the option _nrt
    try:
        return compiled(cache=True, nogil=True, **options)(function)
    except (RuntimeError, OSError):  # numba finds no directory that it may write its cache to
        return compiled(nogil=True, **options)(function)


def has_feature(*names: str) -> bool:
    """Whether kernels are compiled and this processor has all these features (LLVM's names)."""
    if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]  # made from the environment
        return False
    features = binding.get_host_cpu_features()
    return all(features.get(name, False) for name in names)


def instruction(name: str, arguments: int) -> Callable[..., Any]:
    """An LLVM intrinsic of uint64 arguments and result, to be called from kernels only."""

    def typed(_context: Any, *args: Any) -> Any:
        def generate(_context: Any, builder: ir.IRBuilder, _signature: Any, values: Any) -> Any:
            word = ir.IntType(64)
            callee = builder.module.declare_intrinsic(name, (), ir.FunctionType(word, [word] * arguments))
            return builder.call(callee, values)

        return types.uint64(*([types.uint64] * arguments)), generate

    if arguments == 2:
        return cast("Callable[..., Any]", intrinsic(lambda context, a, b: typed(context, a, b)))
    return cast("Callable[..., Any]", intrinsic(lambda context, a: typed(context, a)))
