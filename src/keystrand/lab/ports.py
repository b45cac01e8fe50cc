"""Ports on loopback for programs that start later: free now, and nobody else who looks is given the same.

A port that was found free is taken when its program starts, which may be seconds later. So a process takes its ports
from blocks that it alone holds: it keeps an abstract socket of a block's name, which the kernel lets go when it ends.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Final

_FIRST: Final = 18_432
_BLOCK: Final = 128
_BLOCKS: Final = (32_000 - _FIRST) // _BLOCK  # all of them below the ports that the kernel gives to clients
_held: dict[int, socket.socket] = {}
_next = 0  # where the next search begins: what was given last may not be in use yet


def free_base_port(count: int) -> int:
    """The first of `count` consecutive ports on loopback that are free, and that no other process is given meanwhile."""
    global _next
    for base in _bases(count):
        if all(map(_is_free, range(base, base + count))):
            _next = base + count
            return base
    raise RuntimeError("no free ports on loopback")


def _bases(count: int) -> Iterator[int]:
    """Where `count` ports could begin: in blocks that we hold, from where the last ended on, then in others."""
    blocks = -(-count // _BLOCK)
    turn = os.getpid() % _BLOCKS
    firsts = [(turn + place) % _BLOCKS for place in range(_BLOCKS)]
    for first in sorted(firsts, key=lambda first: first not in _held):
        if first + blocks <= _BLOCKS and all(map(_hold, range(first, first + blocks))):
            begin, end = (_FIRST + block * _BLOCK for block in (first, first + blocks))
            again = _next if begin <= _next < end else begin
            yield from range(again, end - count + 1, count)
            yield from range(begin, min(again, end - count + 1), count)


def _hold(block: int) -> bool:
    if block not in _held:
        mark = socket.socket(socket.AF_UNIX)
        try:
            mark.bind(f"\0keystrand ports {block}")
        except OSError:
            mark.close()
            return False
        _held[block] = mark
    return True


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
