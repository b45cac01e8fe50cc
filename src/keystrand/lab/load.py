"""Numbered UDP packets and what becomes of them: runs inside a namespace, as `python -m keystrand.lab.load`.

send FROM TO:PORT PACKETS_PER_S SECONDS SIZE, receive ADDRESS:PORT, capture INTERFACE SECONDS HEX. The last line of each is
JSON. A packet carries its number, the monotonic time at which it left (one clock for the whole machine), and MARK.
"""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import struct
import sys
import time
from dataclasses import dataclass, field
from types import FrameType
from typing import Final

HEAD: Final = struct.Struct("!Qd")
STOP: Final = {signal.SIGTERM}
MARK: Final = b"keystrand-plain-text"
ALL_PROTOCOLS: Final = 3
GAP_S: Final = 0.25  # silences as long as that are listed
SO_RCVBUFFORCE: Final = 33  # for root: beyond net.core.rmem_max
GAPS_MAX: Final = 10_000


class Stopped(Exception):
    """SIGTERM."""


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped


def place_of(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


def send(source: str, target: str, packets_per_s: int, seconds: float, size_bytes: int) -> dict[str, int]:
    """Until the time is over or SIGTERM comes. A packet that cannot leave (no route) counts as sent: it is lost."""
    sent = refused = 0
    body = (MARK * (1 + size_bytes // len(MARK)))[: max(size_bytes - HEAD.size, len(MARK))]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind((source, 0))
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP)  # it is heard between two packets only: each is counted once
        began_s = time.monotonic()
        while (due_s := began_s + sent / packets_per_s) < began_s + seconds:
            if signal.sigtimedwait(STOP, max(0.0, due_s - time.monotonic())) is not None:
                break
            sent += 1
            try:
                udp.sendto(HEAD.pack(sent, time.monotonic()) + body, place_of(target))
            except OSError:
                refused += 1
    time.sleep(0.5)  # for the last packets on their way
    return {"sent": sent, "refused": refused}


@dataclass(slots=True)
class Arrivals:
    """What came, of numbered packets at an even rate."""

    seen: set[int] = field(default_factory=set)
    latencies: list[float] = field(default_factory=list)
    gaps: list[tuple[float, float]] = field(default_factory=list)  # monotonic seconds: the last before, the first after
    repeated: int = 0
    gap_s: float = 0.0
    last_s: float = 0.0

    def take(self, packet: bytes, now_s: float) -> None:
        number, left_s = HEAD.unpack_from(packet)
        self.repeated += number in self.seen
        gap_s = now_s - self.last_s if self.last_s else 0.0
        self.gap_s = max(self.gap_s, gap_s)
        if gap_s >= GAP_S and len(self.gaps) < GAPS_MAX:
            self.gaps.append((self.last_s, now_s))
        self.last_s = now_s
        self.seen.add(number)
        self.latencies.append(now_s - left_s)

    def report(self) -> dict[str, object]:
        ordered = sorted(self.latencies) or [0.0]
        shares = {"p50": 0.5, "p99": 0.99, "max": 1.0}
        return {
            "received": len(self.seen),
            "repeated": self.repeated,
            "longest_gap_ms": _ms(self.gap_s),
            "last_at_s": self.last_s,
            "gaps": self.gaps,
        } | {f"latency_{name}_ms": _ms(ordered[int(share * (len(ordered) - 1))]) for name, share in shares.items()}


def receive(address: str) -> dict[str, object]:
    """Until SIGTERM."""
    arrivals = Arrivals()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16_777_216)  # what a busy machine keeps waiting is not lost
        udp.bind(place_of(address))
        print("listening", flush=True)
        try:
            while True:
                packet = udp.recv(65_535)
                arrivals.take(packet, time.monotonic())
        except Stopped:
            udp.setblocking(False)
        with contextlib.suppress(BlockingIOError):  # what has come already
            while True:
                arrivals.take(udp.recv(65_535), time.monotonic())
    return arrivals.report()


def capture(interface: str, seconds: float, needle: bytes) -> dict[str, int]:
    """Frames of any protocol, either way, that hold the needle; and how many there were at all."""
    found = total = 0
    # with a protocol it would hear every interface until it is bound
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as raw:
        raw.bind((interface, ALL_PROTOCOLS))
        until_s = time.monotonic() + seconds
        while (left_s := until_s - time.monotonic()) > 0:
            raw.settimeout(left_s)
            try:
                frame = raw.recv(65_535)
            except TimeoutError:
                break
            total += 1
            found += needle in frame
    return {"frames": found, "total": total}


def _ms(span_s: float) -> float:
    return round(1e3 * span_s, 3)


def main(words: list[str]) -> None:
    signal.signal(signal.SIGTERM, _stop)
    verb, *rest = words
    if verb == "send":
        said: object = send(rest[0], rest[1], int(rest[2]), float(rest[3]), int(rest[4]))
    elif verb == "receive":
        said = receive(rest[0])
    else:
        said = capture(rest[0], float(rest[1]), bytes.fromhex(rest[2]))
    print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
