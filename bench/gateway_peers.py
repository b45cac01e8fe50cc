"""The ways that the gateway is measured beside: each copies one file, or one folder, over loopback."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

RAW_RECEIVER = """
import socket, sys
server = socket.create_server(("127.0.0.1", int(sys.argv[2]))); print(server.getsockname()[1], flush=True)
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


def python(script: str, *args: object, pipe: bool = False) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE if pipe else None, text=True)


def pair(receiver: subprocess.Popen[str], start: Callable[[str], subprocess.Popen[str]]) -> None:
    """The sender that `start` makes of the port that `receiver` prints; until both have ended."""
    assert receiver.stdout is not None
    sender = start(receiver.stdout.readline().strip())
    try:
        for process in (sender, receiver):
            if process.wait(timeout=120):
                raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
    finally:
        for process in (sender, receiver):
            process.kill()


def raw_tcp(source: Path, folder: Path) -> None:
    """sendfile to recv_into and write: what a socket between two Python processes can do."""
    receiver = python(RAW_RECEIVER, folder / "out", 0, pipe=True)
    pair(receiver, lambda port: python(RAW_SENDER, source, port))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def wait_for(port: int) -> None:
    until_s = time.monotonic() + 10
    while time.monotonic() < until_s:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    raise RuntimeError(f"nothing listens on port {port}")


def wait_listening(port: int) -> None:
    """Look at the kernel's table: a connection would use up the one that a server accepts."""
    mark = f"0100007F:{port:04X} 00000000:0000 0A"
    until_s = time.monotonic() + 10
    while mark not in Path("/proc/net/tcp").read_text():
        if time.monotonic() > until_s:
            raise RuntimeError(f"nothing listens on port {port}")
        time.sleep(0.005)


def certificate(folder: Path) -> tuple[Path, Path]:
    """Key and self-signed certificate, made once."""
    key, pem = folder / "tls.key", folder / "tls.pem"
    if not pem.exists():
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
             "-subj", "/CN=bench", "-keyout", key, "-out", pem],
            check=True, stderr=subprocess.DEVNULL,
        )  # fmt: skip
    return key, pem


class Sshd:
    """A private sshd on loopback with keys of its own; scp uses its default cipher."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for name in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
        shutil.copy(folder / "user.pub", folder / "authorized")
        self.port = free_port()
        config = folder / "sshd_config"
        config.write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized\n"
            f"StrictModes no\nUsePAM no\nPidFile none\nPasswordAuthentication no\nSubsystem sftp internal-sftp\n"
        )
        Path("/run/sshd").mkdir(exist_ok=True)
        sshd = shutil.which("sshd", path=os.environ["PATH"] + ":/usr/sbin")
        assert sshd is not None
        self._process = subprocess.Popen([sshd, "-D", "-e", "-f", config], stderr=subprocess.DEVNULL)
        wait_for(self.port)

    @property
    def _options(self) -> list[str]:
        trust = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
        return ["-F", "none", "-i", str(self._folder / "user"), *trust]

    def scp(self, source: Path, folder: Path) -> None:
        many = ["-r"] if source.is_dir() else []
        command = ["scp", "-q", *many, *self._options, "-P", str(self.port)]
        subprocess.run([*command, str(source), f"root@127.0.0.1:{folder}/out"], check=True)

    def rsync(self, source: Path, folder: Path) -> None:
        shell = " ".join(["ssh", *self._options, "-p", str(self.port)])
        end = "/" if source.is_dir() else ""
        command = ["rsync", "-a", "--whole-file", "-e", shell, f"{source}{end}", f"root@127.0.0.1:{folder}/out{end}"]
        subprocess.run(command, check=True)

    def tar(self, source: Path, folder: Path) -> None:
        """tar into ssh into tar: the usual way for many small files."""
        reach = ["ssh", *self._options, "-p", str(self.port), "root@127.0.0.1"]
        (folder / "out").mkdir()
        with subprocess.Popen(["tar", "-C", str(source), "-cf", "-", "."], stdout=subprocess.PIPE) as packing:
            subprocess.run([*reach, f"tar -C {folder}/out -xf -"], stdin=packing.stdout, check=True)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()


class OpensslPipe:
    """`openssl s_client < file` to `openssl s_server > file`, TLS 1.3, AES-256-GCM."""

    def __init__(self, folder: Path) -> None:
        self._key, self._certificate = certificate(folder)

    def copy(self, source: Path, folder: Path) -> None:
        port = free_port()
        with (folder / "out").open("wb") as out, source.open("rb") as data:
            server = subprocess.Popen(
                ["openssl", "s_server", "-quiet", "-naccept", "1", "-accept", f"127.0.0.1:{port}",
                 "-cert", self._certificate, "-key", self._key],
                stdin=subprocess.PIPE, stdout=out, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            wait_listening(port)
            subprocess.run(
                ["openssl", "s_client", "-quiet", "-no_ign_eof", "-nocommands", "-tls1_3",
                 "-ciphersuites", "TLS_AES_256_GCM_SHA384", "-connect", f"127.0.0.1:{port}"],
                stdin=data, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            server.wait(timeout=60)


class Age:
    """`age` into `age -d`, over a pipe: no network at all, which favours it. ChaCha20-Poly1305, X25519."""

    def __init__(self, folder: Path) -> None:
        self._key = folder / "age.key"
        subprocess.run(["age-keygen", "-o", self._key], check=True, stderr=subprocess.DEVNULL)
        lines = self._key.read_text().splitlines()
        self._recipient = next(line.split()[-1] for line in lines if "public key" in line)

    def copy(self, source: Path, folder: Path) -> None:
        command = ["age", "-r", self._recipient, str(source)]
        with (folder / "out").open("wb") as out, subprocess.Popen(command, stdout=subprocess.PIPE) as encrypting:
            subprocess.run(["age", "-d", "-i", self._key], stdin=encrypting.stdout, stdout=out, check=True)


TLS_RECEIVER = """
import socket, ssl, sys
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); context.load_cert_chain(sys.argv[2], sys.argv[3])
server = socket.create_server(("127.0.0.1", 0)); print(server.getsockname()[1], flush=True)
wire = context.wrap_socket(server.accept()[0], server_side=True); buffer = memoryview(bytearray(1 << 20))
with open(sys.argv[1], "wb", buffering=0) as out:
    while got := wire.recv_into(buffer): out.write(buffer[:got])
wire.unwrap()
"""
TLS_SENDER = """
import socket, ssl, sys
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT); context.check_hostname = False; context.load_verify_locations(sys.argv[3])
context.minimum_version = ssl.TLSVersion.TLSv1_3; buffer = memoryview(bytearray(1 << 20))
with socket.create_connection(("127.0.0.1", int(sys.argv[2]))) as plain, open(sys.argv[1], "rb", buffering=0) as file:
    wire = context.wrap_socket(plain)
    while got := file.readinto(buffer): wire.sendall(buffer[:got])
    wire.unwrap()
"""


class PythonTls:
    """The standard library's ssl on both ends, TLS 1.3, its default cipher."""

    def __init__(self, folder: Path) -> None:
        self._key, self._certificate = certificate(folder)

    def copy(self, source: Path, folder: Path) -> None:
        receiver = python(TLS_RECEIVER, folder / "out", self._certificate, self._key, pipe=True)
        pair(receiver, lambda port: python(TLS_SENDER, source, port, self._certificate))


class Stunnel:
    """A Python socket through stunnel, TLS 1.3 with an external PSK, to a Python socket."""

    def __init__(self, folder: Path) -> None:
        self._ports = free_port(), free_port(), free_port()
        near, between, far = self._ports
        (folder / "psk").write_text("bench:" + os.urandom(32).hex() + "\n")
        (folder / "psk").chmod(0o600)
        common = f"foreground = yes\ndebug = err\nPSKsecrets = {folder}/psk\nciphers = PSK\nsslVersionMin = TLSv1.3\n"
        services = {
            "server": f"[s]\naccept = 127.0.0.1:{between}\nconnect = 127.0.0.1:{far}\n",
            "client": f"[c]\nclient = yes\naccept = 127.0.0.1:{near}\nconnect = 127.0.0.1:{between}\n",
        }
        self._processes: list[subprocess.Popen[bytes]] = []
        for name, service in services.items():
            (folder / f"stunnel-{name}.conf").write_text(f"pid =\n{common}{service}")
            command = ["stunnel4", str(folder / f"stunnel-{name}.conf")]
            self._processes.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
        for port in (between, near):
            wait_listening(port)

    def copy(self, source: Path, folder: Path) -> None:
        near, _, far = self._ports
        receiver = python(RAW_RECEIVER, folder / "out", far, pipe=True)
        pair(receiver, lambda port: python(RAW_SENDER, source, near))

    def stop(self) -> None:
        for process in self._processes:
            process.terminate()
            process.wait()
