"""Raw frames at a port, beside what its interfaces see: the one door to packet sockets."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from keystrand.core.errors import Unavailable

ALL: Final = 0x0003  # ETH_P_ALL: a copy of each frame, before any interface above the port takes it
CLONE_NEWNET: Final = 0x4000_0000
FRAME_BYTES_MAX: Final = 65_535
DOWN_S: Final = 0.05
_ATTACH_FILTER: Final = 26
_INSTRUCTION: Final = struct.Struct("=HBBI")

Filter = Sequence[tuple[int, int, int, int]]  # instructions of the classic packet filter: code, true, false, value


class Wire:
    """Both ways at `device` of a namespace. Raises Unavailable where that cannot be had."""

    def __init__(self, device: str, namespace: str = "", only: Filter = ()) -> None:
        self._socket = within(namespace, lambda: _open(device, only))

    def send(self, frame: bytes) -> None:
        try:
            self._socket.send(frame)
        except OSError as error:
            raise Unavailable(f"no frame can be sent: {error.strerror}") from None

    async def receive(self) -> bytes:
        """The next frame, of either way. A port that is down is waited for."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                return await loop.sock_recv(self._socket, FRAME_BYTES_MAX)
            except OSError as error:
                if error.errno != errno.ENETDOWN:
                    raise Unavailable(f"no frame can be received: {error.strerror}") from None
                await asyncio.sleep(DOWN_S)

    def close(self) -> None:
        self._socket.close()


def _open(device: str, only: Filter) -> socket.socket:
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)  # 0: nothing comes before the filter stands
    try:
        raw.setblocking(False)
        if only:
            _attach(raw, only)
        raw.bind((device, ALL))
    except BaseException:
        raw.close()
        raise
    return raw


def _attach(raw: socket.socket, only: Filter) -> None:
    program = ctypes.create_string_buffer(b"".join(_INSTRUCTION.pack(*step) for step in only))
    raw.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, struct.pack("HL", len(only), ctypes.addressof(program)))


def within(namespace: str, opening: Callable[[], socket.socket]) -> socket.socket:
    """A socket opened in a network namespace, by a thread that goes there and ends. Raises Unavailable."""
    found: list[socket.socket | OSError] = []

    def go() -> None:
        try:
            if namespace:
                _enter(Path("/run/netns") / namespace)
            found.append(opening())
        except OSError as error:
            found.append(error)

    thread = threading.Thread(target=go)
    thread.start()
    thread.join()
    if isinstance(found[0], OSError):
        hint = "it needs CAP_NET_RAW, and CAP_SYS_ADMIN for a namespace"
        raise Unavailable(f"no packet socket: {found[0].strerror or found[0]}", hint=hint)
    return found[0]


def _enter(place: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(place, os.O_RDONLY)
    try:
        if libc.setns(descriptor, CLONE_NEWNET):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(descriptor)
