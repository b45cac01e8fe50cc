"""Numbered UDP packets and what becomes of them: runs inside a namespace, as `python -m keystrand.lab.load`.

send FROM TO:PORT PACKETS_PER_S SECONDS SIZE, receive ADDRESS:PORT, capture INTERFACE SECONDS HEX. The last line of each is
JSON. A packet carries its number, the monotonic time at which it left (one clock for the whole machine), and MARK.
"""

from __future__ import annotations

import json
import signal
import socket
import struct
import sys
import time
from types import FrameType
from typing import Final

HEAD: Final = struct.Struct("!Qd")
MARK: Final = b"keystrand-plain-text"
ALL_PROTOCOLS: Final = 3


class Stopped(Exception):
    """SIGTERM."""


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped


def _place(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


def send(source: str, target: str, packets_per_s: int, seconds: float, size_bytes: int) -> dict[str, int]:
    """A packet that cannot leave (no route) counts as sent: it is lost."""
    sent = refused = 0
    body = (MARK * (1 + size_bytes // len(MARK)))[: max(size_bytes - HEAD.size, len(MARK))]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind((source, 0))
        began_s = time.monotonic()
        try:
            while (due_s := began_s + sent / packets_per_s) < began_s + seconds:
                time.sleep(max(0.0, due_s - time.monotonic()))
                sent += 1
                try:
                    udp.sendto(HEAD.pack(sent, time.monotonic()) + body, _place(target))
                except OSError:
                    refused += 1
            time.sleep(0.5)  # for the last packets on their way
        except Stopped:
            pass
    return {"sent": sent, "refused": refused}


def receive(address: str) -> dict[str, float]:
    """Until SIGTERM."""
    seen: set[int] = set()
    latencies: list[float] = []
    repeated, gap_s, last_s = 0, 0.0, 0.0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_194_304)
        udp.bind(_place(address))
        print("listening", flush=True)
        try:
            while True:
                packet = udp.recv(65_535)
                now_s = time.monotonic()
                number, left_s = HEAD.unpack_from(packet)
                repeated += number in seen
                gap_s = max(gap_s, now_s - last_s if last_s else 0.0)
                last_s = now_s
                seen.add(number)
                latencies.append(now_s - left_s)
        except Stopped:
            pass
    latencies.sort()
    return {"received": len(seen), "repeated": repeated, "longest_gap_ms": _ms(gap_s), "last_at_s": last_s} | {
        f"latency_{name}_ms": _ms(latencies[int(share * (len(latencies) - 1))] if latencies else 0.0)
        for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
    }


def capture(interface: str, seconds: float, needle: bytes) -> dict[str, int]:
    """Frames of any protocol, either way, that hold the needle; and how many there were at all."""
    found = total = 0
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL_PROTOCOLS)) as raw:
        raw.bind((interface, 0))
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
