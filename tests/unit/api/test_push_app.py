"""The door for devices that push: who may, what a key is, and what each refusal says."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from uuid import uuid4

import pytest

from keystrand.api.push import BODY_BYTES_MAX, Pusher, push_app
from keystrand.sources.push import PushDevice
from keystrand.testing.asgi import AsgiCaller
from keystrand.testing.linkjournal import JournalRig

PATH = "/keystrand/v1/sources/fibre/keys"


class Door:
    def __init__(self, folder: Path, bits_max: int = 1024) -> None:
        self.device = PushDevice(JournalRig(folder / "state").journal, bits_max=bits_max, number=4)
        self.refused: list[tuple[str, str, str]] = []
        pushers = {"fibre": Pusher("acme-17", 256, self.device)}
        self.app = push_app(pushers, lambda *told: self.refused.append(told))

    def caller(self, name: str = "acme-17", kind: str | None = "module") -> AsgiCaller:
        return AsgiCaller(self.app, name, kind=kind)


def body(*sizes_bytes: int) -> bytes:
    keys = [{"key_ID": str(uuid4()), "key": base64.b64encode(os.urandom(size)).decode()} for size in sizes_bytes]
    return json.dumps({"keys": keys}).encode()


async def test_keys_of_the_device_wait(tmp_path: Path) -> None:
    door = Door(tmp_path)
    reply = await door.caller().request("POST", PATH, body(32, 32))
    assert (reply.status, json.loads(reply.body)) == (200, {"waiting_bits": 512})
    assert reply.headers["cache-control"] == "no-store"
    assert len(await door.device.draw()) == 2


@pytest.mark.parametrize(
    ("name", "kind", "path"),
    [
        ("acme-18", "module", PATH),
        ("acme-17", "sae", PATH),
        ("acme-17", None, PATH),
        ("acme-17", "module", "/keystrand/v1/sources/other/keys"),
        ("acme-17", "module", "/"),
    ],
)
async def test_a_stranger_learns_nothing(tmp_path: Path, name: str, kind: str | None, path: str) -> None:
    door = Door(tmp_path)
    reply = await door.caller(name, kind).request("POST", path, body(32))
    assert (reply.status, reply.body) == (401, b"")
    assert await door.device.draw() == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (body(31), "a key of 248 bits, where this link has keys of 256"),
        (b'{"keys": []}', "no keys"),
        (b"not JSON", "cannot be read"),
        (b'{"keys": [{"key_ID": "x", "key": "AAAA"}]}', "no UUID"),
    ],
)
async def test_what_is_no_key_is_refused_and_told(tmp_path: Path, content: bytes, words: str) -> None:
    door = Door(tmp_path)
    reply = await door.caller().request("POST", PATH, content)
    assert reply.status == 400
    assert words in json.loads(reply.body)["message"]
    ((link, device, reason),) = door.refused
    assert (link, device) == ("fibre", "acme-17")
    assert words in reason


async def test_a_key_that_waits_already_and_a_full_house(tmp_path: Path) -> None:
    door, twice = Door(tmp_path), body(32)
    assert (await door.caller().request("POST", PATH, twice)).status == 200
    assert (await door.caller().request("POST", PATH, twice)).status == 200, "its device may not have heard"
    other = json.loads(twice)
    other["keys"][0]["key"] = base64.b64encode(os.urandom(32)).decode()
    assert (await door.caller().request("POST", PATH, json.dumps(other).encode())).status == 400
    reply = await door.caller().request("POST", PATH, body(32, 32, 32, 32))
    assert (reply.status, reply.headers["retry-after"]) == (503, "1")
    assert len(await door.device.draw()) == 1


async def test_other_methods_and_bodies_without_end(tmp_path: Path) -> None:
    door = Door(tmp_path)
    reply = await door.caller().request("GET", PATH)
    assert (reply.status, reply.headers["allow"]) == (405, "POST")
    assert (await door.caller().request("POST", PATH, bytes(BODY_BYTES_MAX + 1))).status == 413
