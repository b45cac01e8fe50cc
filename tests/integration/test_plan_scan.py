"""keystrand plan scan against real servers on loopback: OpenSSL's s_server, a server with hybrid groups, and sshd."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from OpenSSL import SSL

from keystrand.cli import exits
from keystrand.cli.program import root
from keystrand.config.load import load_estate
from keystrand.lab.ports import free_base_port
from keystrand.net.look import look_at_tls
from keystrand.testing.patience import wait_until_listening

DEADLINE_S = 60.0
LONG = ("--timeout-s", "30")  # a loaded machine is slow, and silence is no answer
SSHD = shutil.which("sshd") or "/usr/sbin/sshd"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scan")
    words = "req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 30 -subj /CN=old.example"
    subprocess.run(["openssl", *words.split()], cwd=folder, check=True, capture_output=True)
    return folder


@contextmanager
def program(words: Callable[[int], list[str]], folder: Path) -> Iterator[str]:
    """A server on a port of its own, up before it is used and down afterwards."""
    port = free_base_port(1)
    process = subprocess.Popen(words(port), cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until_listening(port, process)
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@contextmanager
def hybrid(folder: Path, groups: bytes = b"X25519MLKEM768:X25519") -> Iterator[str]:
    """A TLS server on the OpenSSL of `cryptography`, which knows ML-KEM."""
    context = SSL.Context(SSL.TLS_METHOD)
    context.use_certificate_file(str(folder / "cert.pem"))
    context.use_privatekey_file(str(folder / "key.pem"))
    assert SSL._lib.SSL_CTX_set1_curves_list(context._context, groups) == 1
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener, context), daemon=True)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(DEADLINE_S)


def serve(listener: socket.socket, context: SSL.Context) -> None:
    with suppress(OSError):
        while True:
            accepted, _ = listener.accept()
            with accepted, suppress(SSL.Error, OSError):
                connection = SSL.Connection(context, accepted)
                connection.set_accept_state()
                connection.do_handshake()
                connection.recv(1)


def scan(*words: str) -> tuple[int, list[dict[str, Any]]]:
    told = CliRunner().invoke(root, ["plan", "scan", *words, *LONG, "--json"], standalone_mode=False)
    assert told.exception is None, told.output
    return told.return_value, [json.loads(line) for line in told.stdout.splitlines()]


@pytest.mark.proves("R067", "R069")
def test_a_classical_server_is_told_with_its_certificate(files: Path, tmp_path: Path) -> None:
    def words(port: int) -> list[str]:
        return f"openssl s_server -accept 127.0.0.1:{port} -key key.pem -cert cert.pem -quiet".split()

    with program(words, files) as at:
        status, (facts,) = scan(at, "--into", str(tmp_path / "estate.toml"))
    assert (status, facts["protocol"], facts["key_exchange_pqc"]) == (exits.OK, "tls 1.3", "no")
    assert {"X25519", "P-256"} <= set(facts["supported"])
    assert not any("MLKEM" in group for group in facts["supported"])
    assert (facts["signature"], facts["signature_pqc"]) == ("sha256WithRSAEncryption", "no")
    estate = load_estate(tmp_path / "estate.toml")
    (certificate,) = estate.certificates.values()
    assert (certificate.subject, certificate.public_key) == ("CN=old.example", "RSA 2048")
    assert certificate.expires is not None
    assert abs(certificate.expires - date.today() - timedelta(days=30)) <= timedelta(days=1)
    assert certificate.source.tool == "keystrand"


@pytest.mark.proves("R068")
def test_a_hybrid_server_negotiates_ml_kem_and_its_way_around_is_told(files: Path) -> None:
    with hybrid(files) as at:
        _, (facts,) = scan(at)
    assert (facts["negotiated"], facts["key_exchange_pqc"]) == (["X25519MLKEM768"], "yes")
    assert (facts["supported"], facts["classical_way_around"]) == (["X25519MLKEM768", "X25519"], True)


def test_a_server_with_hybrid_groups_only_has_no_way_around(files: Path) -> None:
    with hybrid(files, b"X25519MLKEM768") as at:
        _, (facts,) = scan(at)
    assert (facts["supported"], facts["classical_way_around"]) == (["X25519MLKEM768"], False)


def test_a_server_of_tls_1_2_is_seen_as_one(files: Path) -> None:
    def words(port: int) -> list[str]:
        return f"openssl s_server -accept 127.0.0.1:{port} -key key.pem -cert cert.pem -quiet -tls1_2".split()

    with program(words, files) as at:
        look = look_at_tls("127.0.0.1", int(at.rpartition(":")[2]), 30.0)
    assert look.chosen is not None
    assert (look.chosen.version, look.unclear) == ("1.2", ())
    assert set(look.accepted) & {"X25519", "P-256"}
    assert not any("MLKEM" in group for group in look.accepted)


@pytest.mark.skipif(not Path(SSHD).exists(), reason="no sshd here: scripts/system-packages installs it")
@pytest.mark.proves("R069")
def test_sshd_is_known_by_its_banner_and_its_lists_are_read(files: Path) -> None:
    key = files / "host_key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True, capture_output=True)
    Path("/run/sshd").mkdir(exist_ok=True)

    def words(port: int) -> list[str]:
        options = ("ListenAddress=127.0.0.1", "PidFile=none", "UsePAM=no")
        return [SSHD, "-D", "-p", str(port), "-h", str(key), "-f", "/dev/null", *(f"-o{option}" for option in options)]

    with program(words, files) as at:
        status, (facts,) = scan(at)
    assert (status, facts["protocol"], facts["signature"]) == (exits.OK, "ssh 2.0", "ssh-ed25519")
    assert "curve25519-sha256" in facts["supported"]
    assert not any(name.startswith(("kex-strict", "ext-info")) for name in facts["supported"])
    assert (facts["negotiated"], facts["key_exchange_pqc"]) == (None, "unknown")  # the client's order decides


def test_who_does_not_answer_stays_unknown() -> None:
    status, (facts,) = scan(f"127.0.0.1:{free_base_port(1)}")
    assert (status, facts["supported"], facts["key_exchange_pqc"]) == (exits.UNAVAILABLE, None, "unknown")


def test_a_server_of_nothing_is_no_tls() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(DEADLINE_S)

        def greet() -> None:
            with suppress(OSError):
                while True:
                    accepted, _ = listener.accept()
                    with accepted:
                        accepted.sendall(b"220 mail.example ESMTP\r\n")

        threading.Thread(target=greet, daemon=True).start()
        status, (facts,) = scan(f"127.0.0.1:{listener.getsockname()[1]}")
        listener.shutdown(socket.SHUT_RDWR)
    assert (status, facts["protocol"], facts["key_exchange_pqc"]) == (exits.UNAVAILABLE, "unknown", "unknown")
