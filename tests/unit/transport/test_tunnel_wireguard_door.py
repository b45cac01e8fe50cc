"""What WireGuard says is read with care, and what it is told is what was meant."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystrand.core.errors import ConfigError, Unavailable
from keystrand.core.secret import Secret
from keystrand.transport.wireguard import door
from keystrand.transport.wireguard.door import Peer, UapiDoor, key_of, parse_dump, parse_uapi
from keystrand.transport.wireguard.settings import WireGuardSettings, faults_of

KEY = base64.b64encode(b"k" * 32).decode()
UAPI = """\
private_key=00
listen_port=51820
public_key=aa
preshared_key=bb
endpoint=10.99.0.2:51820
last_handshake_time_sec=1700000000
last_handshake_time_nsec=500000000
tx_bytes=10
rx_bytes=20
public_key=cc
tx_bytes=99
errno=0

"""
DUMP = f"(hidden)\t{KEY}\t51820\toff\n{KEY}\t(none)\t10.99.0.2:51820\t10.2.0.1/32\t1700000000\t20\t10\t25\n"


def test_both_ways_of_asking_say_the_same() -> None:
    state = parse_uapi(UAPI)
    assert state is not None
    assert (state.handshake_s, state.rx_bytes, state.tx_bytes) == (1700000000.5, 20, 10)
    dumped = parse_dump(DUMP)
    assert dumped is not None
    assert (dumped.handshake_s, dumped.rx_bytes, dumped.tx_bytes) == (1700000000.0, 20, 10)
    assert dumped.endpoint == state.endpoint == "10.99.0.2:51820"
    assert parse_uapi("listen_port=1\nerrno=0\n\n") is parse_dump(DUMP.splitlines()[0]) is None


@given(st.text())
def test_whatever_it_says_ends_in_a_state_or_a_refusal(text: str) -> None:
    for parse, start in ((parse_uapi, "public_key=aa\n"), (parse_dump, "x\ty\n")):
        for answer in (text, start + text):
            with contextlib.suppress(Unavailable):
                parse(answer)


@pytest.mark.parametrize("text", ["", "AAAA", KEY[:-1], KEY + "AA==", "!" * 44, "ключ"])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        key_of(text)


class Daemon:
    """The socket of a WireGuard in userspace that answers what it is told to."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.answer = b"errno=0\n\n"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            self.heard.append((await reader.readuntil(b"\n\n")).decode())
            writer.write(self.answer)
        writer.close()


@pytest.fixture
async def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Daemon]:
    monkeypatch.setattr(door, "SOCKETS", tmp_path)
    double = Daemon()
    server = await asyncio.start_unix_server(double.serve, tmp_path / "wg0.sock")
    yield double
    server.close()


async def test_a_peer_is_set_whole_or_in_the_stated_parts(daemon: Daemon) -> None:
    peer = Peer(
        public_key=b"p" * 32, psk=Secret(b"s" * 32), endpoint="1.2.3.4:5", allowed_ips=("10.0.0.0/8", "fd00::/8")
    )
    await UapiDoor("wg0").set_peer(peer, anew=True)
    await UapiDoor("wg0").set_peer(Peer(public_key=b"p" * 32, keepalive_s=25), anew=False)
    whole, part = (text.splitlines() for text in daemon.heard)
    assert whole == [
        "set=1",
        "replace_peers=true",
        f"public_key={(b'p' * 32).hex()}",
        f"preshared_key={(b's' * 32).hex()}",
        "endpoint=1.2.3.4:5",
        "persistent_keepalive_interval=0",
        "replace_allowed_ips=true",
        "allowed_ip=10.0.0.0/8",
        "allowed_ip=fd00::/8",
        "",
    ]
    assert part == [
        "set=1",
        f"public_key={(b'p' * 32).hex()}",
        "update_only=true",
        "persistent_keepalive_interval=25",
        "",
    ]


@pytest.mark.parametrize("answer", [b"errno=-22\n\n", b"", b"errno=0", b"\n\n", b"x" * 3_000_000])
async def test_a_daemon_that_refuses_or_raves_is_unavailable(daemon: Daemon, answer: bytes) -> None:
    daemon.answer = answer
    with pytest.raises(Unavailable) as caught:
        await UapiDoor("wg0").set_peer(Peer(public_key=b"p" * 32, psk=Secret(b"s" * 32)), anew=True)
    assert (b"s" * 32).hex() not in str(caught.value)


async def test_without_a_daemon_the_socket_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"nowhere\.sock does not answer"):
        await UapiDoor("nowhere").state()


async def test_a_command_that_fails_says_why() -> None:
    with pytest.raises(Unavailable, match=r"ip link show nowhere0"):
        await door.run("ip", "link", "show", "nowhere0")
    with pytest.raises(Unavailable, match="keystrand-none"):
        await door.run("keystrand-none")


def settings(folder: Path, **changes: object) -> WireGuardSettings:
    file = folder / "own.key"
    file.touch(0o600)
    file.write_text(KEY)
    raw = {"interface": "wg", "private_key": str(file), "peer_public_key": KEY, "allowed_ips": ["10.2.0.0/16"]}
    return msgspec.convert({**raw, **changes}, WireGuardSettings, dec_hook=lambda kind, text: Path(text))


def test_settings_say_every_fault_at_once(tmp_path: Path) -> None:
    assert faults_of(settings(tmp_path)) == []
    bad = settings(
        tmp_path,
        peer_public_key="short",
        allowed_ips=["10.2.0.0/16", "10.2.0.1/16", "somewhere"],
        endpoint="host.example:51820",
        source="10.1.0.1/32",
    )
    assert [field for field, _ in faults_of(bad)] == [
        "peer_public_key",
        "allowed_ips",
        "allowed_ips",
        "source",
        "endpoint",
    ]
    (tmp_path / "own.key").chmod(0o640)
    assert [field for field, _ in faults_of(msgspec.structs.replace(bad, endpoint=None))][1] == "private_key"
    assert faults_of(msgspec.structs.replace(bad, private_key=tmp_path / "none"))[1][1].endswith(
        "No such file or directory"
    )


@pytest.mark.parametrize("name", ["", "a" * 15, "../x", "a b", "-a"])
def test_names_that_are_no_interface_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        settings(tmp_path, interface=name)
