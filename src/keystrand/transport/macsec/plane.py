"""The userspace plane: MACsec frames between a TAP interface and a port, one Python process for each interface.

Started as `python -m keystrand.transport.macsec.plane SOCKET INTERFACE DEVICE CIPHER WINDOW` in the namespace of its port. For
labs and tests where the kernel has no MACsec; it moves some ten thousand frames a second. It ends with SIGTERM.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import selectors
import signal
import socket
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Final

from keystrand.core.errors import KeystrandError, Unavailable
from keystrand.transport.macsec.secy import SecY, mtu_above

ALL: Final = 0x0003
FRAME_BYTES_MAX: Final = 65_535
ORDER_BYTES_MAX: Final = 65_536
CALL_S: Final = 2.0
_TUNSETIFF, _SIOCSIFMTU, _SIOCSIFHWADDR, _SIOCGIFHWADDR, _SIOCGIFMTU = 0x400454CA, 0x8922, 0x8924, 0x8927, 0x8921
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000
_ETHERNET: Final = 1


class Stopped(Exception):
    """SIGTERM."""


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped


class Plane:
    """The program's life: three files to watch."""

    def __init__(self, control: Path, interface: str, device: str, cipher: str, window: int) -> None:
        self._raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL))
        self._raw.bind((device, ALL))
        mac, mtu = self._port(device)
        self.secy = SecY(interface, mac + b"\0\1", cipher, window)
        self._tap = self._open_tap(interface, mac, mtu_above(mtu))
        self._control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        control.unlink(missing_ok=True)
        os.umask(0o177)
        self._control.bind(str(control))
        self._control.listen(8)

    def run(self) -> None:
        with selectors.DefaultSelector() as ready:
            ready.register(self._raw, selectors.EVENT_READ, self._inward)
            ready.register(self._tap, selectors.EVENT_READ, self._outward)
            ready.register(self._control, selectors.EVENT_READ, self._obey)
            while True:
                for key, _ in ready.select():
                    key.data()

    def _inward(self) -> None:
        try:
            frame, origin = self._raw.recvfrom(FRAME_BYTES_MAX)
        except OSError:  # the port is down
            return
        if origin[2] != socket.PACKET_OUTGOING and (plain := self.secy.validate(frame)) is not None:
            with contextlib.suppress(OSError):  # the interface is down
                os.write(self._tap, plain)

    def _outward(self) -> None:
        frame = os.read(self._tap, FRAME_BYTES_MAX)
        if (secured := self.secy.protect(frame)) is not None:
            with contextlib.suppress(OSError):
                self._raw.send(secured)

    def _obey(self) -> None:
        """One connection: lines up to its end, then the answer."""
        with contextlib.suppress(OSError), self._control.accept()[0] as caller:
            caller.settimeout(CALL_S)
            said = b""
            while len(said) < ORDER_BYTES_MAX and (more := caller.recv(ORDER_BYTES_MAX)):
                said += more
            caller.sendall(self._answer(said.decode().splitlines()).encode())

    def _answer(self, lines: Sequence[str]) -> str:
        if lines == ["show"]:
            return self.secy.show()
        try:
            for line in lines:
                self.secy.order(line)
        except KeystrandError as problem:
            return f"error {problem}"
        except (ValueError, KeyError):
            return "error: an order that is not understood"
        return ""

    def _port(self, device: str) -> tuple[bytes, int]:
        named = struct.pack("16s24x", device.encode())
        mac = fcntl.ioctl(self._raw, _SIOCGIFHWADDR, named)[18:24]
        return mac, struct.unpack_from("i", fcntl.ioctl(self._raw, _SIOCGIFMTU, named), 16)[0]

    def _open_tap(self, interface: str, mac: bytes, mtu: int) -> int:
        tap = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        name = interface.encode()
        fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH22x", name, _IFF_TAP | _IFF_NO_PI))
        fcntl.ioctl(self._raw, _SIOCSIFHWADDR, struct.pack("16sH6s16x", name, _ETHERNET, mac))
        fcntl.ioctl(self._raw, _SIOCSIFMTU, struct.pack("16si20x", name, mtu))
        return tap


def main(words: Sequence[str]) -> None:
    signal.signal(signal.SIGTERM, _stop)
    control, interface, device, cipher, window = words
    try:
        plane = Plane(Path(control), interface, device, cipher, int(window))
    except OSError as error:
        raise Unavailable(f"{interface} above {device}: {error.strerror}") from None
    with contextlib.suppress(Stopped):
        plane.run()
    Path(control).unlink(missing_ok=True)


if __name__ == "__main__":
    main(sys.argv[1:])
