"""Orders and states of a MACsec interface, over a SecY in memory; settings; the control socket of wpa_supplicant."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from keystrand.core.errors import Unavailable
from keystrand.core.secret import Secret
from keystrand.crypto.macsec import Extended
from keystrand.transport.macsec.door import Door, SaKey, key_identifier, parse_state
from keystrand.transport.macsec.secy import SecY
from keystrand.transport.macsec.settings import MacsecSettings, exhausted_s, faults_of
from keystrand.transport.macsec.supplicant import Supplicant, parse_status

OWN, PEER = "02:00:00:00:00:01", "02:00:00:00:00:02"
PLAIN = bytes.fromhex("020000000002020000000001") + b"\x08\x00" + bytes(60)


def settings(**other: Any) -> MacsecSettings:
    return MacsecSettings(device="eth1", interface="ms0", peer_mac=PEER, **other)


class InMemory:
    """A `Mouth` over a SecY, or none before `make`."""

    def __init__(self, cipher: str = "gcm-aes-256", own: str = OWN) -> None:
        self._new = SecY("ms0", bytes.fromhex(own.replace(":", "")) + b"\0\1", cipher)
        self.secy: SecY | None = None
        self.heard: list[str] = []

    async def make(self) -> None:
        self.secy = self._new

    async def order(self, lines: Sequence[str]) -> None:
        assert self.secy is not None
        for line in lines:
            self.heard.append(line)
            self.secy.order(line)

    async def show(self) -> str:
        return self.secy.show() if self.secy is not None else "[]"


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> tuple[Door, InMemory]:
    async def nothing(*words: str, **options: Any) -> str:
        return ""

    monkeypatch.setattr("keystrand.transport.macsec.door.run", nothing)
    mouth = InMemory()
    return Door(mouth, settings()), mouth


def key(number: int, fill: int, extended: Extended | None = None) -> SaKey:
    return SaKey(identifier=key_identifier(number, f"key-{number}"), sak=Secret(bytes([fill]) * 32), extended=extended)


async def test_an_interface_is_made_once_and_shows_which_generation_is_where(door: tuple[Door, InMemory]) -> None:
    gate, mouth = door
    assert await gate.state() is None
    made = await gate.make()
    assert (made.sci.hex(), made.peers, made.sending) == ("0200000000010001", (gate.peer_sci,), None)
    await gate.install(1, rx=key(5, 1), tx=key(5, 2), first_pn=1024)
    await gate.send_under(1)
    state = await gate.make()
    assert state.sending is not None
    assert (state.sending.number, state.sending.pn, state.holds(1), state.holds(0)) == (5, 1024, {5}, set())
    with pytest.raises(Unavailable, match="File exists"):
        await gate.install(1, rx=key(9, 1), tx=key(9, 2), first_pn=1)
    await gate.forget(state, [0, 1, 2])
    assert (await gate.make()).holds(1) == set()
    assert [line.split()[1] for line in mouth.heard[-4:]] == ["set", "del", "set", "del"], "off before it goes"


async def test_an_interface_of_somebody_else_is_left_alone(door: tuple[Door, InMemory]) -> None:
    gate, mouth = door
    await gate.make()
    mouth.secy.cipher = "gcm-aes-128"  # type: ignore[union-attr]
    with pytest.raises(Unavailable, match="is not what this tunnel needs") as raised:
        await gate.make()
    assert "ip link delete ms0" in str(raised.value.hint)


async def test_i7_without_a_key_or_with_packet_numbers_used_up_nothing_passes(door: tuple[Door, InMemory]) -> None:
    gate, mouth = door
    await gate.make()
    secy = mouth.secy
    assert secy is not None
    assert secy.protect(PLAIN) is None
    await gate.install(0, rx=key(4, 1), tx=key(4, 2), first_pn=2**32 - 1)
    assert secy.protect(PLAIN) is not None
    assert secy.protect(PLAIN) is None, "no packet number comes twice"
    assert secy.validate(PLAIN) is None, "what is not protected does not come in"


async def test_frames_that_come_late_or_twice_do_not_pass() -> None:
    ours, theirs = InMemory(), InMemory(own=PEER)
    await ours.make()
    await theirs.make()
    sender, receiver = ours.secy, theirs.secy
    assert sender is not None
    assert receiver is not None
    receiver.window = 2
    ident = key_identifier(1, "k")
    receiver.order(f"macsec add ms0 rx port 1 address {OWN} on")
    receiver.order(f"macsec add ms0 rx port 1 address {OWN} sa 1 pn 1 on key {ident} {'11' * 32}")
    sender.order(f"macsec add ms0 tx sa 1 pn 1 on key {ident} {'11' * 32}")
    sender.order("link set ms0 type macsec encodingsa 1")
    frames = [sender.protect(PLAIN) for _ in range(6)]
    assert receiver.validate(frames[4]) == PLAIN  # type: ignore[arg-type]
    assert receiver.validate(frames[3]) == PLAIN, "within the window"  # type: ignore[arg-type]
    assert receiver.validate(frames[0]) is None, "too late"  # type: ignore[arg-type]
    assert receiver.counts["late"] == 1


def test_the_kernels_own_words_are_understood() -> None:
    text = (
        '[{"ifindex":4,"ifname":"ms0","protect":true,"validate":"strict","encrypt":true,"replay":true,"window":64,'
        '"cipher_suite":"GCM-AES-XPN-256","icv_length":16,"sci":"0x5a7dd880079f0001","encoding_sa":0,'
        '"OutOctetsProtected":0,"OutOctetsEncrypted":70,"sa_list":[{"an":0,"pn":1024,"ssci":"0x1","active":true,'
        '"key":"00000000000000070000000000000099","OutPktsEncrypted":0}],"rx_sc":[{"sci":"0x4ed87ec63bdc0001",'
        '"active":true,"InOctetsValidated":0,"InOctetsDecrypted":30,"sa_list":[{"an":0,"pn":9,"ssci":"0x2",'
        '"active":true,"key":"00000000000000070000000000000000","InPktsOK":8}]}],"offload":"off"}]'
    )
    state = parse_state(text)
    assert state is not None
    assert state.shape == ("gcm-aes-xpn-256", True, True, "strict")
    assert (state.octets, state.tx[0].number, state.rx[0].accepted, state.rx[0].pn) == (100, 7, 8, 9)
    assert parse_state("[]") is None
    for nonsense in ("{", "[{}]", '[{"rx_sc": 3}]'):
        with pytest.raises(Unavailable):
            parse_state(nonsense)


@pytest.mark.proves("R089")
def test_packet_numbers_that_would_end_too_soon_are_a_fault() -> None:
    assert not faults_of(settings())
    assert 210 < exhausted_s(settings()) < 220, "10 Gbit/s of shortest frames: 14.88 million packets a second"
    assert [field for field, _ in faults_of(settings(link_mbps=100_000))] == ["cipher"]
    assert not faults_of(settings(link_mbps=400_000, cipher="gcm-aes-xpn-256"))


@pytest.mark.parametrize(
    ("other", "field"),
    [
        ({"networks": ("10.1.2.3/8",)}, "networks"),
        ({"addresses": ("here",)}, "addresses"),
        ({"keys": "mka"}, "control"),
        ({"keys": "mka", "control": Path("/x"), "plane": "userspace"}, "plane"),
        ({"keys": "mka", "control": Path("/x"), "cipher": "gcm-aes-xpn-256"}, "cipher"),
    ],
)
def test_what_cannot_work_is_refused(other: dict[str, Any], field: str) -> None:
    assert field in [name for name, _ in faults_of(settings(**other))]
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"device": "e", "interface": "m", "peer_mac": "not a mac"}, MacsecSettings)


async def test_i12_keys_go_over_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """What others can read of a process is its command line."""
    from keystrand.transport.macsec.door import Kernel

    seen: list[tuple[tuple[str, ...], bytes | None]] = []

    async def note(*words: str, stdin: bytes | None = None, **options: Any) -> str:
        seen.append((words, stdin))
        return ""

    monkeypatch.setattr("keystrand.transport.macsec.door.run", note)
    await Door(Kernel(settings()), settings()).install(2, rx=key(6, 0xAA), tx=key(6, 0xBB), first_pn=1)
    words = " ".join(word for command_line, _ in seen for word in command_line)
    assert "aaaa" not in words
    assert "bbbb" not in words
    assert b"bb" * 32 in (seen[0][1] or b"")
    assert "aa" * 32 not in repr(key(6, 0xAA))


class FakeSupplicant:
    """Answers as wpa_supplicant 2.10 does, for networks only."""

    def __init__(self, path: Path) -> None:
        self.networks: dict[int, dict[str, str]] = {}
        self.selected: int | None = None
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            words, sender = await loop.sock_recvfrom(self._socket, 4096)
            await loop.sock_sendto(self._socket, b"<3>CTRL-EVENT-NOISE", sender)
            await loop.sock_sendto(self._socket, self._answer(words.decode()).encode(), sender)

    def _answer(self, line: str) -> str:
        verb, *rest = line.split(" ", 3)
        match verb:
            case "ADD_NETWORK":
                number = max(self.networks, default=-1) + 1
                self.networks[number] = {}
                return f"{number}\n"
            case "SET_NETWORK":
                if rest[1] == "macsec_csindex":
                    return "FAIL\n"  # as 2.10
                self.networks[int(rest[0])][rest[1]] = rest[2]
            case "GET_NETWORK":
                return self.networks[int(rest[0])].get(rest[1], "FAIL\n")
            case "SELECT_NETWORK":
                self.selected = int(rest[0])
            case "REMOVE_NETWORK":
                del self.networks[int(rest[0])]
            case "LIST_NETWORKS":
                return "network id / ssid / bssid / flags\n" + "".join(
                    f"{number}\t\tany\t\n" for number in self.networks
                )
            case _:
                return "FAIL\n"
        return "OK\n"

    def close(self) -> None:
        self._socket.close()


async def test_networks_of_a_tunnel_come_and_go_and_others_stay(tmp_path: Path) -> None:
    daemon = FakeSupplicant(tmp_path / "eth1")
    daemon.networks[0] = {"id_str": '"of the operator"'}
    running = asyncio.get_running_loop().create_task(daemon.run())
    client = Supplicant(tmp_path / "eth1", "west")
    await client.add(3, b"ckn of three", Secret(b"c" * 32), {"mka_priority": "9"})
    assert await client.networks() == {3: "1"}
    assert daemon.networks[1]["mka_cak"] == (b"c" * 32).hex()
    await client.select(3)
    assert daemon.selected == 1
    with pytest.raises(Unavailable, match="SET_NETWORK macsec_csindex") as raised:
        await client.add(4, b"ckn", Secret(b"d" * 32), {"macsec_csindex": "1"})
    assert (b"d" * 32).hex() not in str(raised.value)
    assert await client.networks() == {3: "1"}, "what was refused in part is taken back"
    with pytest.raises(Unavailable, match="not in wpa_supplicant"):
        await client.select(8)
    await client.remove(3, 8)
    assert list(daemon.networks) == [0]
    running.cancel()
    daemon.close()
    with pytest.raises(Unavailable, match="refused"):
        await client.networks()


def test_a_status_of_wpa_supplicant_is_read() -> None:
    status = parse_status("wpa_state=COMPLETED\nSecured=Yes\nckn=6b31\nlive_peers=1\nckn=6b30\n")
    assert (status["Secured"], status["ckn"], status["live_peers"]) == ("Yes", "6b31", "1")


def test_the_userspace_plane_says_why_it_cannot_start(tmp_path: Path) -> None:
    words = [str(tmp_path / "s"), "ms0", "no-such-port", "gcm-aes-256", "0"]
    done = subprocess.run(
        [sys.executable, "-m", "keystrand.transport.macsec.plane", *words], capture_output=True, text=True, timeout=30
    )
    assert done.returncode
    expected = "No such device" if os.geteuid() == 0 else "Operation not permitted"
    assert expected in done.stderr
