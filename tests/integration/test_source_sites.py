"""Two real sites, each its own program, fed by devices: another pair of programs that serves ETSI GS QKD 014 and 004, files,
pushes. What the sites' applications draw is equal at both ends, whoever is killed when.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from keystrand.config.founding import append
from keystrand.config.load import load_module, load_site
from keystrand.core.errors import KeystrandError
from keystrand.crypto import pki
from keystrand.lab.pair import Pair, found_pair
from keystrand.lab.ports import free_base_port
from keystrand.lab.processes import Programs, read_status
from keystrand.lab.source import LINK, SITES, SourceLab
from keystrand.net.http_client import SyncHttpClient
from keystrand.net.tls import TlsContexts, TlsFiles, TlsPolicy
from keystrand.node.backup import restore, take
from keystrand.node.doctor import examine
from keystrand.node.site import open_store
from keystrand.observe.audit_verify import rows_of
from keystrand.testing.feeder import Feeder

DEVICE = """
[sources.trial.device]
maker = "Keystrand"
model = "{model}"
interfaces = ["{kind}"]
trust = "simulated"
key_ids = "{key_ids}"
"""


@dataclass
class Devices:
    """A pair of programs that makes keys and serves them by ETSI GS QKD 014 and 004: alpha beside east, bravo beside west."""

    pair: Pair
    programs: Programs
    ports: dict[str, int]
    ending: threading.Event = field(default_factory=threading.Event)

    def source(self, kind: str, here: str, there: str, more: str = "") -> str:
        config = load_site(self.pair.site_files[here])
        home = self.pair.site_files[here].parent
        port = config.etsi014.listen.port if kind == "etsi014" else self.ports[here]
        return f"""
[sources.trial]
kind = "{kind}"
keys_per_block = 16
fill_bits = 100000
{DEVICE.format(model="KME", kind=kind, key_ids="uuid" if kind == "etsi014" else "place")}
[sources.trial.{kind}]
address = "127.0.0.1:{port}"
name = "kme-{here}"
certificate = "{home}/pki/sae-gateway-{here}.pem"
private_key = "{home}/pki/sae-gateway-{here}.key"
trust = "{home}/pki/ca.pem"
{more}
"""

    async def feed(self) -> None:
        while not self.ending.is_set():
            feeder = Feeder([load_module(file) for file in self.pair.module_files.values()])
            try:
                await feeder.connect()
                while not self.ending.is_set():
                    await feeder.feed(65_536)
                    await asyncio.sleep(0.3)
            except (KeystrandError, AssertionError, OSError):
                await asyncio.sleep(0.3)
            finally:
                await feeder.close()


def status_of(file: Path) -> str:
    section = load_site(file).status
    assert section is not None
    return str(section.listen)


@pytest.fixture(scope="module")
def devices(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Devices]:
    folder = tmp_path_factory.mktemp("devices")
    pair = found_pair(folder / "pair")
    base = free_base_port(2)
    ports = {"alpha": base, "bravo": base + 1}
    for name, file in pair.site_files.items():
        append(file, f'\n[etsi004]\nlisten = "127.0.0.1:{ports[name]}"\n')
    made = Devices(pair, Programs(folder), ports)
    for name, file in pair.site_files.items():
        made.programs.start(name, "serve", str(file))
    feeding = threading.Thread(target=lambda: asyncio.run(made.feed()), daemon=True)
    feeding.start()
    try:
        made.programs.wait(
            "status page", lambda: all(read_status(status_of(file)) for file in pair.site_files.values())
        )
        yield made
    finally:
        made.ending.set()
        feeding.join(60)
        made.programs.stop()


def lab_of(folder: Path, one: str, other: str) -> SourceLab:
    lab = SourceLab(folder / "sites", (one, other), print)
    lab.found()
    return lab


def equal(lab: SourceLab, number: int = 4) -> None:
    drawn, picked = lab.draw(number)
    assert [key.key_id for key in drawn] == [key.key_id for key in picked]
    assert all(mine.material.matches(theirs.material) for mine, theirs in zip(drawn, picked, strict=True))
    assert {strand.value for strand in drawn[0].strands} == {"qkd", "pqc"}


def ingested(lab: SourceLab, name: str) -> int:
    return int(lab.link(name).get("ledger", {}).get("ingested", 0))


def records(lab: SourceLab, name: str, kind: str) -> list[dict[str, Any]]:
    store = open_store(lab.configs[name])
    try:
        return [found for _, record, _ in rows_of(store) if (found := json.loads(record))["kind"] == kind]
    finally:
        store.close()


def nothing_differs(lab: SourceLab) -> None:
    """With both sites stopped: no block was quarantined, and blocks of one number are confirmed with the same bits."""
    blocks = []
    for name in SITES:
        assert records(lab, name, "block.quarantined") == []
        store = open_store(lab.configs[name])
        following = store.next_sequence(LINK)
        known = {n: found.digest for n in range(following) if (found := store.device_block(LINK, n)) is not None}
        ledger = store.ledger(LINK)
        assert sum(ledger.values()) == 2 * next(bits for account, bits in ledger.items() if account == "ingested"), "I9"
        blocks.append(known)
        store.close()
    common = blocks[0].keys() & blocks[1].keys()
    assert common
    assert all(blocks[0][number] == blocks[1][number] for number in common), "I2"


def test_I2_a_014_device_feeds_two_sites_through_kill_9_at_either(devices: Devices, tmp_path: Path) -> None:
    one = devices.source("etsi014", "alpha", "bravo", 'far_sae = "gateway-bravo"')
    other = devices.source("etsi014", "bravo", "alpha", 'far_sae = "gateway-alpha"')
    lab = lab_of(tmp_path, one, other)
    try:
        lab.up()
        equal(lab, 8)
        for turn in range(3):
            name = SITES[turn % 2]
            time.sleep(0.11 * turn)  # at another step of the agreement each time
            lab.kill(name)
            lab.start(name)
            lab.wait(lab.is_ready)
            equal(lab)
        before = ingested(lab, "east")
        lab.wait(lambda: (lab.draw(16), ingested(lab, "east") > before)[1])
    finally:
        lab.down()
    nothing_differs(lab)
    (first, *_) = records(lab, "west", "block.ingested")
    assert first["source"] == "etsi014: Keystrand KME, simulated"


@pytest.mark.proves("R064")
def test_a_device_is_asked_what_it_can_do(devices: Devices, tmp_path: Path) -> None:
    one = devices.source("etsi014", "alpha", "bravo", 'far_sae = "gateway-bravo"')
    lab = lab_of(tmp_path, one.replace("keys_per_block = 16", "keys_per_block = 1000"), one)

    def ask(name: str) -> tuple[int, dict[str, Any], str]:
        words = [sys.executable, "-m", "keystrand", "link", "devices", "--json", "--config", str(lab.files[name])]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
        return done.returncode, json.loads(done.stdout), done.stderr

    code, facts, told = ask("west")
    assert facts["source"] == "etsi014: Keystrand KME, simulated", "its trust class, as it stands in the audit log"
    assert (code, facts["kme"], facts["far_kme"], facts["tls"], told) == (
        0,
        "kme-alpha",
        "kme-bravo",
        "X25519MLKEM768",
        "",
    )
    code, facts, told = ask("east")
    assert code == 1
    words = f"it gives {facts['keys_per_request_max']} keys at once, and is asked for 1000"
    assert words in told
    health = {name: [f for f in examine(lab.files[name]) if f.check == "sources"] for name in SITES}
    assert [finding.verdict for finding in health["west"]] == ["ok"]
    assert [finding.verdict for finding in health["east"]] == ["fail"]
    assert words in health["east"][0].words


@pytest.mark.parametrize("framing", ["2.1.1", "1.0.1"])
def test_I2_a_004_device_streams_to_two_sites(devices: Devices, tmp_path: Path, framing: str) -> None:
    uris = {"alpha": "qkd://gateway-alpha@alpha", "bravo": "qkd://gateway-bravo@bravo"}
    sources = [
        devices.source(
            "etsi004", here, there, f'uri = "{uris[here]}"\nfar_uri = "{uris[there]}"\nframing = "{framing}"'
        )
        for here, there in (("alpha", "bravo"), ("bravo", "alpha"))
    ]
    lab = lab_of(tmp_path, sources[0], sources[1])
    try:
        lab.up()
        equal(lab)
        if framing == "2.1.1":
            lab.kill("west")
            lab.start("west")
            lab.wait(lab.is_ready)
        before = ingested(lab, "west")
        lab.wait(lambda: (lab.draw(8), ingested(lab, "west") > before)[1])
        equal(lab)
    finally:
        lab.down()
    nothing_differs(lab)


# files -----------------------------------------------------------------------------------------------------------------


def files_source(folder: Path) -> str:
    folder.mkdir(mode=0o700)
    device = DEVICE.format(model="courier", kind="files", key_ids="file-name") + "key_bits_max = 8192\n"
    head = f'[sources.trial]\nkind = "files"\nkey_bits = 8192\nkeys_per_block = 4\n{device}'
    return f'{head}\n[sources.trial.files]\nfolder = "{folder}"\n'


def drop(folders: list[Path], name: str, material: bytes) -> None:
    for folder in folders:
        draft = folder / f"{name}.part"
        draft.write_bytes(material)
        draft.rename(folder / f"{name}.qkey")


def test_I2_key_files_dropped_at_both_ends_become_keys_once_and_are_wiped(tmp_path: Path) -> None:
    folders = [tmp_path / "drop-east", tmp_path / "drop-west"]
    lab = lab_of(tmp_path, files_source(folders[0]), files_source(folders[1]))
    materials = [secrets.token_bytes(1024) for _ in range(6)]
    for number, material in enumerate(materials[:5]):
        drop(folders, f"2026-{number:03}", material)
    try:
        lab.up()
        equal(lab, 8)
        lab.wait(lambda: ingested(lab, "west") == ingested(lab, "east") == 5 * 8192)
        assert [list(folder.glob("*")) for folder in folders] == [[], []]
        drop(folders, "2026-002", secrets.token_bytes(1024))  # late, under a name that was used
        drop(folders, "2026-006", materials[3])  # bits that were used
        drop(folders, "2026-007", secrets.token_bytes(100))  # too short
        drop(folders, "2026-008", materials[5])
        lab.wait(lambda: ingested(lab, "west") == ingested(lab, "east") == 6 * 8192)
        assert [sorted(path.name for path in folder.glob("*.qkey")) for folder in folders] == [[], []]
        lab.kill("east")
        drop(folders, "2026-009", secrets.token_bytes(1024))
        lab.start("east")
        lab.wait(lambda: ingested(lab, "west") == ingested(lab, "east") == 7 * 8192)
    finally:
        lab.down()
    nothing_differs(lab)


# push ------------------------------------------------------------------------------------------------------------------


def push_source(port: int) -> str:
    device = DEVICE.format(model="pusher", kind="push", key_ids="uuid")
    place = f'[sources.trial.push]\nmodule = "pusher"\n\n[push]\nlisten = "127.0.0.1:{port}"\n'
    return f'[sources.trial]\nkind = "push"\n{device}\n{place}'


def pusher(lab: SourceLab, name: str, port: int, *, holder: str = "pusher") -> Callable[[list[tuple[str, bytes]]], int]:
    home = lab.files[name].parent / "pki"
    if not (home / f"module-{holder}.pem").exists():
        pki.issue(home, kind="module", name=holder, hosts=("localhost",))
    contexts = TlsContexts(
        TlsFiles(home / f"module-{holder}.pem", home / f"module-{holder}.key", lab.configs[name].tls.trust), TlsPolicy()
    )

    def push(keys: list[tuple[str, bytes]]) -> int:
        body = json.dumps({"keys": [{"key_ID": i, "key": base64.b64encode(k).decode()} for i, k in keys]}).encode()
        with SyncHttpClient("127.0.0.1", port, contexts, expect=("kme", f"kme-{name}")) as client:
            return client.request("POST", f"/keystrand/v1/sources/{LINK}/keys", body).status

    return push


def test_I2_I3_a_device_pushes_keys_to_both_ends_which_are_killed_and_strangers_cannot(tmp_path: Path) -> None:
    base = free_base_port(2)
    lab = lab_of(tmp_path, push_source(base), push_source(base + 1))
    keys = [(str(uuid.uuid4()), secrets.token_bytes(32)) for _ in range(32)]
    ends = [pusher(lab, name, base + place) for place, name in enumerate(SITES)]
    try:
        for name in SITES:
            lab.start(name)
        lab.wait(lambda: bool(lab.link("east") and lab.link("west")))
        assert pusher(lab, "east", base, holder="stranger")(keys) == 401
        assert ends[0]([(str(uuid.uuid4()), b"short")]) == 400
        for push in ends:
            assert push(keys) == 200
        for name in SITES:  # what was acknowledged is durable (invariant I3)
            lab.kill(name)
        for name in SITES:
            lab.start(name)
        lab.wait(lab.is_ready)
        lab.wait(lambda: ingested(lab, "west") == ingested(lab, "east") == 32 * 256)
        equal(lab, 4)
        for push in ends:
            assert push([(str(uuid.uuid4()), keys[0][1])]) == 400, "the same bits again, under another name"
            assert push(keys[:1]) == 200, "its device may not have heard"
        fresh = [(str(uuid.uuid4()), secrets.token_bytes(32)) for _ in range(4)]
        lab.wait(
            lambda: ends[0](fresh) in (200, 400) and ends[1](fresh) in (200, 400) and ingested(lab, "east") >= 36 * 256
        )
    finally:
        lab.down()
    nothing_differs(lab)


def test_I14_a_restored_site_uses_no_key_that_a_device_gave_before(tmp_path: Path) -> None:
    base = free_base_port(2)
    lab = lab_of(tmp_path, push_source(base), push_source(base + 1))
    made = [[(str(uuid.uuid4()), secrets.token_bytes(32)) for _ in range(8)] for _ in range(5)]
    first, alone, later, *last = made
    east, west = (pusher(lab, name, base + place) for place, name in enumerate(SITES))
    copy, file = tmp_path / "west.backup", lab.files["west"]
    try:
        for name in SITES:
            lab.start(name)
        lab.wait(lambda: bool(lab.link("east") and lab.link("west")))
        assert {push(first) for push in (east, west)} == {200}
        lab.wait(lambda: ingested(lab, "west") == ingested(lab, "east") == 8 * 256)
        assert west(alone) == 200
        take(lab.configs["west"], file, copy)
        assert east(alone) == 200
        lab.wait(lambda: ingested(lab, "west") == ingested(lab, "east") == 16 * 256)
        assert {push(later) for push in (east, west)} == {200}
        lab.wait(lambda: ingested(lab, "west") == ingested(lab, "east") == 24 * 256)
        lab.kill("west")
        assert restore(load_site(file), copy).recovered > 0
        lab.start("west")
        lab.wait(lambda: bool(lab.link("west")))
        for keys in (alone, later):  # what waited in the backup, and what came after it
            assert west(keys) == 200, "it is known as used, and not taken in"
            assert west([(str(uuid.uuid4()), keys[0][1])]) == 400
        for number, keys in enumerate(last, 4):  # a block for either end
            assert {push(keys) for push in (east, west)} == {200}
            lab.wait(lambda bits=number * 8 * 256: ingested(lab, "east") == bits)  # type: ignore[misc]
        equal(lab, 4)
    finally:
        lab.down()
    store = open_store(lab.configs["west"])
    assert store.sources.waiting_bits(LINK) == 0
    assert len(store.sources.known(LINK, [name for keys in made for name, _ in keys])) == 40
    store.close()
