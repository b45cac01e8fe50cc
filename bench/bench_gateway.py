"""The gateway beside raw TCP, scp and an openssl pipe: one file, two processes, loopback.

`python -m bench.bench_gateway --mib 512 --rounds 3`. The ways take turns, so that a busy moment of the machine hits all
of them; ratios are of medians. Ways whose program is missing are left out, and said so.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.report import Row, publish

MIB = 1 << 20
GOAL_RAW, GOAL_SCP, GOAL_OPENSSL, GOAL_RSS_MIB = 0.45, 2.0, 1.0, 200.0

Way = Callable[[Path, Path], None]

RAW_RECEIVER = """
import socket, sys
server = socket.create_server(("127.0.0.1", 0)); print(server.getsockname()[1], flush=True)
wire, _ = server.accept(); buffer = memoryview(bytearray(1 << 20))
with open(sys.argv[1], "wb", buffering=0) as out:
    while got := wire.recv_into(buffer): out.write(buffer[:got])
wire.sendall(b"!")
"""
RAW_SENDER = """
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[2]))) as wire, open(sys.argv[1], "rb") as file:
    wire.sendfile(file); wire.shutdown(socket.SHUT_WR); wire.recv(1)
"""
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
              from_sae="a", to_sae="b", rotate_bytes=int(sys.argv[5]))
print(peak_kib(), file=open(sys.argv[4], "a"))
"""
)


def _python(script: str, *args: object, pipe: bool = False) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE if pipe else None, text=True)


def _pair(receiver: subprocess.Popen[str], start: Callable[[str], subprocess.Popen[str]]) -> None:
    assert receiver.stdout is not None
    sender = start(receiver.stdout.readline().strip())
    for process in (sender, receiver):
        if process.wait():
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}")


def raw_tcp(source: Path, folder: Path) -> None:
    """sendfile to recv_into and write: what a socket between two Python processes can do."""
    receiver = _python(RAW_RECEIVER, folder / "out", pipe=True)
    _pair(receiver, lambda port: _python(RAW_SENDER, source, port))


def gateway(source: Path, folder: Path, *, rss: Path, rotate_bytes: int) -> None:
    keys = folder / "keys"
    keys.mkdir()
    receiver = _python(GATEWAY_RECEIVER, folder, keys, rss, pipe=True)
    _pair(receiver, lambda port: _python(GATEWAY_SENDER, source, port, keys, rss, rotate_bytes))
    (folder / source.name).rename(folder / "out")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _wait_for(port: int) -> None:
    until_s = time.monotonic() + 10
    while time.monotonic() < until_s:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    raise RuntimeError(f"nothing listens on port {port}")


class Sshd:
    """A private sshd on loopback with keys of its own; scp uses its default cipher."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for name in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
        shutil.copy(folder / "user.pub", folder / "authorized")
        self.port = _free_port()
        config = folder / "sshd_config"
        config.write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized\n"
            f"StrictModes no\nUsePAM no\nPidFile none\nPasswordAuthentication no\nSubsystem sftp internal-sftp\n"
        )
        Path("/run/sshd").mkdir(exist_ok=True)
        sshd = shutil.which("sshd", path=os.environ["PATH"] + ":/usr/sbin")
        assert sshd is not None
        self._process = subprocess.Popen([sshd, "-D", "-e", "-f", config], stderr=subprocess.DEVNULL)
        _wait_for(self.port)

    def copy(self, source: Path, folder: Path) -> None:
        trust = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
        target = f"root@127.0.0.1:{folder}/out"
        command = ["scp", "-q", "-F", "none", "-P", str(self.port), "-i", str(self._folder / "user"), *trust]
        subprocess.run([*command, str(source), target], check=True)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()


class OpensslPipe:
    """`openssl s_client < file` to `openssl s_server > file`, TLS 1.3, AES-256-GCM."""

    def __init__(self, folder: Path) -> None:
        self._key, self._certificate = folder / "tls.key", folder / "tls.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
             "-subj", "/CN=bench", "-keyout", self._key, "-out", self._certificate],
            check=True, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def copy(self, source: Path, folder: Path) -> None:
        port = _free_port()
        with (folder / "out").open("wb") as out, source.open("rb") as data:
            server = subprocess.Popen(
                ["openssl", "s_server", "-quiet", "-naccept", "1", "-accept", f"127.0.0.1:{port}",
                 "-cert", self._certificate, "-key", self._key],
                stdin=subprocess.PIPE, stdout=out, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            self._wait_listening(port)
            subprocess.run(
                ["openssl", "s_client", "-quiet", "-no_ign_eof", "-nocommands", "-tls1_3",
                 "-ciphersuites", "TLS_AES_256_GCM_SHA384", "-connect", f"127.0.0.1:{port}"],
                stdin=data, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            server.wait(timeout=60)

    @staticmethod
    def _wait_listening(port: int) -> None:
        """Look at the kernel's table: a connection would use up the one that the server accepts."""
        mark = f"0100007F:{port:04X} 00000000:0000 0A"
        until_s = time.monotonic() + 10
        while mark not in Path("/proc/net/tcp").read_text():
            if time.monotonic() > until_s:
                raise RuntimeError("openssl s_server does not listen")
            time.sleep(0.005)


def _time(way: Way, source: Path, folder: Path, digest: str) -> float:
    """Seconds of one copy, process starts included; the copy is compared afterwards."""
    work = folder / "work"
    work.mkdir()
    try:
        began_s = time.monotonic()
        way(source, work)
        passed_s = time.monotonic() - began_s
        with (work / "out").open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                raise RuntimeError(f"{way!r} did not copy the file")
        return passed_s
    finally:
        shutil.rmtree(work)


def _make(path: Path, size_bytes: int) -> str:
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for _ in range(size_bytes // MIB):
            block = os.urandom(MIB)
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


def _ways(folder: Path, rss: Path, rotate_bytes: int, stack: contextlib.ExitStack) -> dict[str, Way]:
    ways: dict[str, Way] = {
        "raw": raw_tcp,
        "gateway": lambda source, out: gateway(source, out, rss=rss, rotate_bytes=rotate_bytes),
    }
    if shutil.which("scp") and shutil.which("sshd", path=os.environ["PATH"] + ":/usr/sbin"):
        sshd = Sshd(folder)
        stack.callback(sshd.stop)
        ways["scp"] = sshd.copy
    if shutil.which("openssl"):
        ways["openssl"] = OpensslPipe(folder).copy
    for name in ("scp", "openssl"):
        if name not in ways:
            print(f"{name}: left out, its programs are not installed", file=sys.stderr)
    return ways


def _rows(mbps: dict[str, float], rss_mib: float, reference: str) -> list[Row]:
    rows = [Row(name=f"{name} throughput", value=value, unit="MB/s", note=reference) for name, value in mbps.items()]
    goals = {"raw": GOAL_RAW, "scp": GOAL_SCP, "openssl": GOAL_OPENSSL}
    rows += [
        Row(
            name=f"gateway / {name}",
            value=mbps["gateway"] / mbps[name],
            unit="×",
            goal=goal,
            reference=(name, mbps[name]),
        )
        for name, goal in goals.items()
        if name in mbps
    ]
    return [*rows, Row(name="gateway peak RSS", value=rss_mib, unit="MiB", goal=GOAL_RSS_MIB, better="lower")]


def measure(size_mib: int, rounds: int, rotate_mib: int) -> list[Row]:
    base = Path("/dev/shm") if Path("/dev/shm").is_dir() else None  # tmpfs, so that no disk is measured
    with tempfile.TemporaryDirectory(dir=base) as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        source, rss = folder / "content.bin", folder / "rss"
        digest = _make(source, size_mib * MIB)
        ways = _ways(folder, rss, rotate_mib * MIB, stack)
        times: dict[str, list[float]] = {way: [] for way in ways}
        for turn in range(rounds):
            for way, copy in ways.items():
                times[way].append(_time(copy, source, folder, digest))
                print(f"{turn + 1}/{rounds} {way}: {size_mib * MIB / times[way][-1] / 1e6:.0f} MB/s", file=sys.stderr)
        mbps = {way: size_mib * MIB / statistics.median(seconds) / 1e6 for way, seconds in times.items()}
        rss_mib = max(map(int, rss.read_text().split())) / 1024
    return _rows(mbps, rss_mib, f"{size_mib} MiB, key every {rotate_mib} MiB, median of {rounds}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rotate-mib", type=int, default=16)
    args = parser.parse_args()
    publish("gateway", measure(args.mib, args.rounds, args.rotate_mib))


if __name__ == "__main__":
    main()
