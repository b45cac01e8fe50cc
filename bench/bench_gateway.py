"""The gateway beside raw TCP and the tools that people use: one file, and a folder of many small files, over loopback.

`python -m bench.bench_gateway --mib 1024 --rounds 3`. The ways take turns, so that a busy moment of the machine hits all
of them; the first turn warms the page cache and is not counted; ratios are of medians. A copy is compared afterwards.
Process starts and handshakes are counted. Ways whose program is missing are left out, and said so.
"""

from __future__ import annotations

import argparse
import contextlib
import filecmp
import hashlib
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from bench.gateway_peers import Age, OpensslPipe, PythonTls, Sshd, Stunnel, pair, python, raw_tcp
from bench.report import Row, publish

MIB: Final = 1 << 20
GOAL_RAW, GOAL_PEER, GOAL_RSS_MIB = 0.6, 1.0, 200.0
SMALL_BYTES: Final = 4096
DAEMONS: Final = ("scp", "rsync", "stunnel psk")  # part of their work is done by programs that stay
NEEDS: Final = {
    "scp": ("scp", "sshd"),
    "rsync": ("rsync", "sshd"),
    "tar+ssh": ("tar", "sshd"),
    "age": ("age", "age-keygen"),
    "openssl": ("openssl",),
    "python tls": ("openssl",),
    "stunnel psk": ("stunnel4",),
}

Way = Callable[[Path, Path], None]

# VmHWM and not ru_maxrss, which carries the parent's peak over fork and exec.
PEAK = """
def peak_kib():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
"""
GATEWAY_RECEIVER = (
    PEAK
    + """
import sys; from pathlib import Path
from keystrand.testing.keyfolder import KeyFolder
from keystrand.transport.gateway.inbox import Inbox
from keystrand.transport.gateway.receiver import Receiver
receiver = Receiver(("127.0.0.1", 0), keys=KeyFolder(Path(sys.argv[2]), "b"), me="b", senders={"a"},
                    destination=Inbox(Path(sys.argv[1])))
print(receiver.port, flush=True); receiver.serve_once()
print(peak_kib(), file=open(sys.argv[3], "a"))
"""
)
GATEWAY_SENDER = (
    PEAK
    + """
import sys; from pathlib import Path
from keystrand.testing.keyfolder import KeyFolder
from keystrand.transport.gateway.sender import send
report = send(Path(sys.argv[1]), keys=KeyFolder(Path(sys.argv[3]), "a"), connect=("127.0.0.1", int(sys.argv[2])),
              from_sae="a", to_sae="b", rotate_bytes=int(sys.argv[5]), streams=int(sys.argv[6]))
print(peak_kib(), file=open(sys.argv[4], "a"))
"""
)


def gateway(source: Path, folder: Path, *, rss: Path, rotate_bytes: int, streams: int) -> None:
    keys = folder / "keys"
    keys.mkdir()
    receiver = python(GATEWAY_RECEIVER, folder, keys, rss, pipe=True)
    pair(receiver, lambda port: python(GATEWAY_SENDER, source, port, keys, rss, rotate_bytes, streams))
    (folder / source.name).rename(folder / "out")


def _same(source: Path, copy: Path) -> bool:
    if source.is_dir():
        names = [path.name for path in source.iterdir()]
        return not any(filecmp.cmpfiles(source, copy, names, shallow=False)[1:])
    digests = []
    for path in (source, copy):
        with path.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").digest())
    return digests[0] == digests[1]


def _children_s() -> float:
    """Processor time of the programs that have ended, user and system."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _time(way: Way, source: Path, folder: Path) -> tuple[float, float]:
    """Seconds of one copy, process starts included: passed, and of processor time."""
    work = folder / "work"
    work.mkdir()
    try:
        began_s, used_s = time.monotonic(), _children_s()
        way(source, work)
        passed_s, used_s = time.monotonic() - began_s, _children_s() - used_s
        if not _same(source, work / "out"):
            raise RuntimeError(f"{way!r} did not copy {source}")
        return passed_s, used_s
    finally:
        shutil.rmtree(work)


def _make_file(path: Path, size_bytes: int) -> Path:
    with path.open("wb") as file:
        for _ in range(size_bytes // MIB):
            file.write(os.urandom(MIB))
    return path


def _make_files(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:06}").write_bytes(os.urandom(SMALL_BYTES))
    return folder


def _missing(way: str) -> list[str]:
    path = os.environ["PATH"] + ":/usr/sbin"
    return [program for program in NEEDS[way] if shutil.which(program, path=path) is None]


class Place:
    """Daemons and keys of the peers, started once, under `folder`."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack, rotate_bytes: int) -> None:
        self._folder = folder
        self._stack = stack
        self._rotate_bytes = rotate_bytes
        self.rss = folder / "rss"
        self._sshd: Sshd | None = None

    def gateway(self, streams: int) -> Way:
        options = {"rss": self.rss, "rotate_bytes": self._rotate_bytes, "streams": streams}
        return lambda source, out: gateway(source, out, **options)  # type: ignore[arg-type]  # Path and two numbers

    def sshd(self) -> Sshd:
        if self._sshd is None:
            self._sshd = Sshd(self._folder)
            self._stack.callback(self._sshd.stop)
        return self._sshd

    def stunnel(self) -> Way:
        stunnel = Stunnel(self._folder)
        self._stack.callback(stunnel.stop)
        return stunnel.copy

    def peers(self, makers: Mapping[str, Callable[[], Way]]) -> dict[str, Way]:
        """Those whose programs are here; the others are named."""
        found = {}
        for name, make in makers.items():
            if missing := _missing(name):
                print(f"{name}: left out, {' and '.join(missing)} not installed", file=sys.stderr)
            else:
                found[name] = make()
        return found

    def for_file(self) -> dict[str, Way]:
        makers: dict[str, Callable[[], Way]] = {
            "scp": lambda: self.sshd().scp,
            "rsync": lambda: self.sshd().rsync,
            "age": lambda: Age(self._folder).copy,
            "openssl": lambda: OpensslPipe(self._folder).copy,
            "python tls": lambda: PythonTls(self._folder).copy,
            "stunnel psk": self.stunnel,
        }
        ours = {"raw": raw_tcp, "gateway": self.gateway(1), "gateway, 2 streams": self.gateway(2)}
        return ours | self.peers(makers)

    def for_folder(self) -> dict[str, Way]:
        makers: dict[str, Callable[[], Way]] = {
            "scp": lambda: self.sshd().scp,
            "rsync": lambda: self.sshd().rsync,
            "tar+ssh": lambda: self.sshd().tar,
        }
        return {"gateway": self.gateway(1)} | self.peers(makers)


def _medians(
    ways: Mapping[str, Way], source: Path, folder: Path, rounds: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds of each way: passed, and of processor time."""
    times: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    for turn in range(rounds + 1):
        for way, copy in ways.items():
            seconds = _time(copy, source, folder)
            if turn:
                times[way].append(seconds)
            print(f"{turn}/{rounds} {way}: {seconds[0]:.2f} s{'' if turn else ' (warming)'}", file=sys.stderr)
    passed, used = (
        {way: statistics.median(pair[kind] for pair in pairs) for way, pairs in times.items()} for kind in (0, 1)
    )
    return passed, used


def _file_rows(seconds: Mapping[str, float], size_bytes: int, note: str) -> list[Row]:
    mbps = {way: size_bytes / value / 1e6 for way, value in seconds.items()}
    rows = [Row(name=way, value=value, unit="MB/s", note=note) for way, value in mbps.items()]
    for way, value in mbps.items():
        if not way.startswith("gateway"):
            goal = GOAL_RAW if way == "raw" else GOAL_PEER
            rows.append(
                Row(name=f"gateway / {way}", value=mbps["gateway"] / value, unit="x", goal=goal, reference=(way, value))
            )
    two = mbps["gateway, 2 streams"]
    more = GOAL_PEER if (os.cpu_count() or 1) >= 4 else None  # with fewer cores both ends fill them with one stream
    reference = ("gateway", mbps["gateway"])
    return [*rows, Row(name="2 streams / 1", value=two / mbps["gateway"], unit="x", goal=more, reference=reference)]


def _processor_rows(used: Mapping[str, float], size_bytes: int) -> list[Row]:
    """Of both ends together, which a busy machine disturbs less; of ways whose programs all end with the copy."""
    per_gb = {way: 1e9 * used[way] / size_bytes for way in used if way not in DAEMONS}
    return [
        Row(name=f"processor: {way}", value=value, unit="s/GB", better="lower", reference=("raw", per_gb["raw"]))
        for way, value in per_gb.items()
    ]


def _folder_rows(seconds: Mapping[str, float], count: int) -> list[Row]:
    rate = {way: count / value for way, value in seconds.items()}
    note = f"{count} files of {SMALL_BYTES} bytes"
    rows = [Row(name=f"files: {way}", value=value, unit="files/s", note=note) for way, value in rate.items()]
    ours = rate.pop("gateway")
    return rows + [
        Row(name=f"files: gateway / {way}", value=ours / value, unit="x", goal=GOAL_PEER, reference=(way, value))
        for way, value in rate.items()
    ]


def measure(size_mib: int, rounds: int, rotate_mib: int, files: int) -> list[Row]:
    base = Path("/dev/shm") if Path("/dev/shm").is_dir() else None  # tmpfs, so that no disk is measured
    with tempfile.TemporaryDirectory(dir=base) as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        place = Place(folder, stack, rotate_mib * MIB)
        source = _make_file(folder / "content.bin", size_mib * MIB)
        seconds, used = _medians(place.for_file(), source, folder, rounds)
        rows = _file_rows(seconds, size_mib * MIB, f"{size_mib} MiB, key every {rotate_mib} MiB, median of {rounds}")
        rows += _processor_rows(used, size_mib * MIB)
        source.unlink()
        if files:
            many = _make_files(folder / "many", files)
            rows += _folder_rows(_medians(place.for_folder(), many, folder, rounds)[0], files)
        rss_mib = max(map(int, place.rss.read_text().split())) / 1024
    return [*rows, Row(name="gateway peak RSS", value=rss_mib, unit="MiB", goal=GOAL_RSS_MIB, better="lower")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rotate-mib", type=int, default=16)
    parser.add_argument("--files", type=int, default=5000, help="of the folder; 0: no folder")
    args = parser.parse_args()
    publish("gateway", measure(args.mib, args.rounds, args.rotate_mib, args.files))


if __name__ == "__main__":
    main()
