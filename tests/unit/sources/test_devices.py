"""Devices by their interfaces: what they give in the right order, and what they may not do."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from keystrand.core.errors import BadRequest, NotPermitted, PeerFault, Unavailable, UnknownKey
from keystrand.core.key import Key
from keystrand.core.secret import Secret
from keystrand.sources.device import DeviceKey
from keystrand.sources.etsi004 import Etsi004Device
from keystrand.sources.etsi014 import Etsi014Device
from keystrand.sources.files import FilesDevice
from keystrand.sources.journal import claim_of
from keystrand.sources.push import HOLD_S, PushDevice
from keystrand.testing.linkjournal import JournalRig
from keystrand.wire import etsi014 as wire
from keystrand.wire.etsi004 import Chunk, Opened, Qos, Status

# ETSI GS QKD 014 ---------------------------------------------------------------------------------------------------------


@dataclass
class Answer:
    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class Kme:
    """Answers what it is told to."""

    def __init__(self, *answers: Answer) -> None:
        self.answers, self.asked = list(answers), list[tuple[str, str, bytes | None]]()

    async def request(self, method: str, path: str, body: bytes | None = None) -> Answer:
        self.asked.append((method, path, body))
        return self.answers.pop(0)

    async def close(self) -> None:
        self.answers.clear()


def key(size_bytes: int = 32) -> Key:
    return Key(key_id=str(uuid4()), material=Secret(os.urandom(size_bytes)), strands=frozenset())


def device(kme: Kme, method: str = "post") -> Etsi014Device:
    return Etsi014Device(requester=kme, far_sae="sae-far", key_bits=256, number=2, method=method)  # type: ignore[arg-type]


async def test_014_asks_for_keys_and_takes_the_same_ones() -> None:
    keys = [key(), key()]
    kme = Kme(Answer(200, wire.print_container(keys)), Answer(200, wire.print_container(keys[::-1])))
    drawn = await device(kme).draw()
    fetched = await device(kme).fetch(tuple(key.name for key in drawn))
    assert [key.name for key in drawn] == [key.name for key in fetched] == [key.key_id for key in keys]
    assert all(one.material.matches(other.material) for one, other in zip(drawn, fetched, strict=True))
    assert [asked[:2] for asked in kme.asked] == [
        ("POST", "/api/v1/keys/sae-far/enc_keys"),
        ("POST", "/api/v1/keys/sae-far/dec_keys"),
    ]


async def test_014_by_get_asks_for_one_key_at_a_time() -> None:
    one = key()
    kme = Kme(Answer(200, wire.print_container([one])), Answer(200, wire.print_container([one])))
    (drawn,) = await device(kme, "get").draw()
    await device(kme, "get").fetch((drawn.name,))
    assert [asked[1].rpartition("/")[2] for asked in kme.asked] == [
        "enc_keys?number=1&size=256",
        f"dec_keys?key_ID={one.key_id}",
    ]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(503, b'{"message": "no key"}'), Unavailable),
        (Answer(401), UnknownKey),
        (Answer(400, b'{"message": "one or more keys specified are not found on KME"}'), UnknownKey),
        (Answer(404), UnknownKey),
        (Answer(500), PeerFault),
        (Answer(200, b"<html>"), PeerFault),
        (Answer(200, wire.print_container([key(), key()])), PeerFault),  # others than asked for
        (Answer(200, wire.print_container([key()])), PeerFault),  # too few
    ],
)
async def test_014_says_what_went_wrong(answer: Answer, error: type[Exception]) -> None:
    with pytest.raises(error):
        await device(Kme(answer)).fetch((str(uuid4()), str(uuid4())))


async def test_014_without_permission_there_is_no_key() -> None:
    with pytest.raises(NotPermitted):
        await device(Kme(Answer(401))).draw()


async def test_014_a_key_of_another_length_is_no_key() -> None:
    with pytest.raises(PeerFault, match="64 bits, not 256"):
        await device(Kme(Answer(200, wire.print_container([key(8)])))).draw()


# ETSI GS QKD 004 ---------------------------------------------------------------------------------------------------------


KSID = "0b0f6b9e-3c9e-4a5c-9b1a-6f5f4d1f2a10"


@dataclass
class Streams:
    """A device of which the far end joins late, and which has no more than `chunks` chunks of a stream."""

    chunks: int = 3
    opened: list[UUID] = field(default_factory=list)
    read: list[int] = field(default_factory=list)
    closed: list[UUID] = field(default_factory=list)
    flaky: int = -1

    async def open_connect(self, source: str, destination: str, qos: Qos, ksid: UUID | None = None) -> Opened:
        self.opened.append(ksid or uuid4())
        return Opened(status=Status.PEER_NOT_CONNECTED, qos=qos, ksid=self.opened[-1])

    async def get_key(self, ksid: UUID, index: int) -> Chunk:
        if index >= self.chunks or index == self.flaky:
            self.flaky = -1
            return Chunk(status=Status.INSUFFICIENT_KEY, index=index)
        assert index not in self.read, "a chunk is read once"
        self.read.append(index)
        return Chunk(status=Status.SUCCESSFUL, index=index, material=Secret(bytes([index]) * 32))

    async def close_stream(self, ksid: UUID) -> Status:
        self.closed.append(ksid)
        return Status.SUCCESSFUL

    async def close(self) -> None:
        return


def streaming(streams: Streams, number: int = 2) -> Etsi004Device:
    async def connect() -> Streams:
        return streams

    return Etsi004Device(connect, source="qkd://a@a", destination="qkd://b@b", qos=Qos(), number=number)


async def test_004_the_far_end_is_told_of_a_stream_before_it_is_read() -> None:
    one, other = streaming(near := Streams()), streaming(far := Streams())
    (join,) = await one.draw()
    assert (len(join.material), join.name.endswith("/join")) == (0, True)
    await other.fetch((join.name,))
    assert far.opened == near.opened
    names: list[str] = []
    for _ in range(2):
        drawn = await one.draw()
        fetched = await other.fetch(tuple(key.name for key in drawn))
        assert all(a.material.matches(b.material) for a, b in zip(drawn, fetched, strict=True))
        names += [key.name.rpartition("/")[2] for key in drawn]
    assert names == ["0", "1", "2"], "two, and then what there is"
    with pytest.raises(Unavailable):
        await one.draw()


async def test_004_after_a_loss_there_is_another_stream() -> None:
    one = streaming(near := Streams())
    (first,) = await one.draw()
    await one.reset()
    (second,) = await one.draw()
    assert first.name != second.name
    assert near.closed == near.opened[:1]


async def test_004_what_was_read_before_a_chunk_was_missing_is_kept() -> None:
    other = streaming(far := Streams(flaky=1))
    wanted = (f"{KSID}/0", f"{KSID}/1")
    with pytest.raises(Unavailable):
        await other.fetch(wanted)
    assert [key.name for key in await other.fetch(wanted)] == list(wanted)
    assert far.read == [0, 1]


@pytest.mark.parametrize("name", ["x", f"{KSID}/-1", f"{KSID}/01", f"{KSID}/9999999999", "../0", ""])
async def test_004_a_name_is_a_place(name: str) -> None:
    with pytest.raises(BadRequest):
        await streaming(Streams()).fetch((name,))


# files -------------------------------------------------------------------------------------------------------------------


@dataclass
class Drop:
    folder: Path
    rig: JournalRig
    refused: list[tuple[str, str]] = field(default_factory=list)

    def device(self, number: int = 4) -> FilesDevice:
        note = lambda name, reason: self.refused.append((name, reason))  # noqa: E731
        return FilesDevice(self.folder, self.rig.journal, file_bytes=32, number=number, refused=note)

    def put(self, name: str, content: bytes | None = None, *, age_s: float = 0.0) -> Path:
        path = self.folder / f"{name}.qkey"
        path.write_bytes(os.urandom(32) if content is None else content)
        os.utime(path, (path.stat().st_atime, path.stat().st_mtime - age_s))
        return path

    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


@pytest.fixture
def drop(tmp_path: Path) -> Drop:
    (tmp_path / "drop").mkdir()
    return Drop(tmp_path / "drop", JournalRig(tmp_path / "state"))


def claim(drop: Drop, keys: list[DeviceKey]) -> None:
    with drop.rig.store.transaction():
        drop.rig.store.sources.claim(drop.rig.link, 0, [claim_of(key) for key in keys])


async def used(drop: Drop, device: FilesDevice, keys: list[DeviceKey]) -> None:
    claim(drop, keys)
    await device.claimed(tuple(key.name for key in keys))


async def test_files_are_taken_in_the_order_of_their_names_and_wiped(drop: Drop) -> None:
    for name in ("b", "a", "c"):
        drop.put(name)
    drop.put("e", b"short")
    (drop.folder / "f.part").write_bytes(b"")
    device = drop.device(number=2)
    keys = await device.draw()
    assert [key.name for key in keys] == ["a", "b"]
    assert "a.qkey" in drop.names(), "not before they are claimed"
    await used(drop, device, keys)
    assert drop.names() == ["c.qkey", "e.qkey", "f.part"]
    assert [key.name for key in await device.draw()] == ["c"], "e may still be growing"


async def test_files_that_come_late_twice_or_in_another_size_are_not_used(drop: Drop) -> None:
    drop.put("m")
    device = drop.device()
    await used(drop, device, await device.draw())
    drop.put("a")
    drop.put("m")
    drop.put("x", b"short", age_s=60)
    drop.put("y", bytes(33))
    os.symlink("/etc/hostname", drop.folder / "z.qkey")
    assert await device.draw() == []
    assert await device.draw() == []
    assert drop.names() == ["a.qkey.refused", "x.qkey.refused", "y.qkey.refused", "z.qkey"]
    assert [name for name, _ in drop.refused] == ["a", "m", "x", "y"]


async def test_files_claimed_before_a_crash_are_wiped_after_it(drop: Drop) -> None:
    drop.put("a")
    drop.put("b")
    claim(drop, await drop.device(number=1).draw())
    again = drop.device()
    assert [key.name for key in await again.draw()] == ["b"]
    assert drop.names() == ["b.qkey"]


async def test_the_far_end_waits_for_a_file_and_takes_none_out_of_order(drop: Drop) -> None:
    device = drop.device()
    with pytest.raises(Unavailable):
        await device.fetch(("k",))
    drop.put("k")
    drop.put("h")
    keys = await device.fetch(("k",))
    await used(drop, device, keys)
    assert drop.names() == ["h.qkey.refused"], "the other end never had it, or lost it"
    for names in (("h",), ("z", "y"), ("y", "y"), ("../x",), ("",)):
        with pytest.raises(BadRequest):
            await device.fetch(names)


# push --------------------------------------------------------------------------------------------------------------------


def pushed(*names: str) -> list[DeviceKey]:
    return [DeviceKey(name, Secret(name.encode() * 32)) for name in names]


async def test_pushed_keys_wait_for_their_turn_and_there_is_no_endless_room(tmp_path: Path) -> None:
    rig = JournalRig(tmp_path / "state")
    device = PushDevice(rig.journal, bits_max=4 * 256, number=2)
    assert await device.push(pushed("a", "b", "c")) == 3 * 256
    with pytest.raises(Unavailable):
        await device.push(pushed("d", "e"))
    assert [key.name for key in await device.draw()] == ["a", "b"]
    assert await device.push(pushed("a", "d")) == 4 * 256, "a is here, and it is said again"
    with pytest.raises(Unavailable):
        await device.fetch(("c", "x"))
    assert [key.name for key in await device.fetch(("d", "c"))] == ["d", "c"]
    assert [key.name for key in await device.draw()] == ["a", "b"], "until they are claimed"


async def test_keys_that_the_other_end_never_speaks_of_are_burnt_once_it_speaks_of_others(tmp_path: Path) -> None:
    rig = JournalRig(tmp_path / "state")
    device = PushDevice(rig.journal, bits_max=2 * 256, number=2)
    await device.push(pushed("a", "b"))
    rig.engine.now_s = HOLD_S + 1
    with pytest.raises(Unavailable):
        await device.push(pushed("c", "d"))
    with pytest.raises(Unavailable, match="has not pushed key c"):
        await device.fetch(("c", "d"))
    assert rig.lost == [(512, "the other end never spoke of what waited for 300 s")]
    await device.push(pushed("c", "d"))
    assert [key.name for key in await device.fetch(("c", "d"))] == ["c", "d"]
    with pytest.raises(BadRequest, match="before"):
        await device.push(pushed("a"))
