"""Two networks without a link between them: their SAEs share keys by ETSI GS QKD 014 at either end, ETSI GS QKD 020 between."""

from __future__ import annotations

import asyncio
import random
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from test_site_pair import ended

from keystrand.config.founding import append, found_site
from keystrand.config.load import load_site
from keystrand.config.schema import SiteConfig
from keystrand.core.errors import ConfigError, KeystrandError
from keystrand.core.events import Event
from keystrand.core.register import Scope
from keystrand.core.states import State
from keystrand.lab.ports import free_base_port
from keystrand.net.http_client import HttpClient
from keystrand.net.tls import TlsContexts, TlsFiles, TlsPolicy
from keystrand.node.interdomain import border_of
from keystrand.node.site import SiteNode
from keystrand.observe.audit_verify import custody, rows_of
from keystrand.testing.patience import until
from keystrand.wire import etsi014
from keystrand.wire.handover import Stage

NAMES = ("east", "west")
OTHER = {"east": "west", "west": "east"}
UNKNOWN = b"one or more keys specified are not found on KME"


def found_networks(
    folder: Path, *, synchronous: bool, timeout_ms: int = 3000, listening: bool = True
) -> dict[str, Path]:
    """Two sites of their own, each with its own authority, which know each other's KME and one SAE."""
    base = free_base_port(16)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    files = {name: found_site(folder / name, name, base_port=base + 8 * place) for place, name in enumerate(NAMES)}
    ports = {name: base + 8 * place + 7 for place, name in enumerate(NAMES)}
    for name, file in files.items():
        there, port = OTHER[name], ports[OTHER[name]]
        (file.parent / "other-ca.pem").write_text((folder / there / "pki" / "ca.pem").read_text())
        append(
            file,
            f"""
[interdomain]
listen = "127.0.0.1:{ports[name]}"
callback_url = "https://127.0.0.1:{ports[name]}/kmapi/v1/ext_keys/ack"
trust = "other-ca.pem"
timeout_ms = {timeout_ms}

[interdomain.peers."kme-{there}"]
url = "https://127.0.0.1:{port}"
callback_url = "https://127.0.0.1:{port}/kmapi/v1/ext_keys/ack"
synchronous = {str(synchronous).lower()}
protection = "pqc"
saes = {{ gateway-{there} = ["gateway-{name}"] }}
""",
        )
    return files


def client_of(config: SiteConfig) -> HttpClient:
    assert config.gateway is not None
    files = TlsFiles(config.gateway.certificate, config.gateway.private_key, config.tls.trust, config.tls.revoked)
    listen = config.etsi014.listen
    return HttpClient(
        listen.host, listen.port, TlsContexts(files, TlsPolicy()), expect=("kme", config.site.kme_id), timeout_s=30
    )


async def draw(client: HttpClient, there: str, number: int = 1) -> tuple[int, list[etsi014.Key], bytes]:
    """Status, keys and body of enc_keys."""
    answer = await client.request("POST", f"/api/v1/keys/gateway-{there}/enc_keys", f'{{"number":{number}}}'.encode())
    return answer.status, etsi014.parse_container(answer.body) if answer.status == 200 else [], answer.body


async def fetch(client: HttpClient, there: str, key_id: str) -> tuple[int, list[etsi014.Key], bytes]:
    answer = await client.request("GET", f"/api/v1/keys/gateway-{there}/dec_keys?key_ID={key_id}")
    return answer.status, etsi014.parse_container(answer.body) if answer.status == 200 else [], answer.body


class Network:
    """One running site."""

    def __init__(self, file: Path, *, restored: bool = False) -> None:
        self.config = load_site(file)
        self.node = SiteNode(self.config)
        if restored:
            self.node.begin_epoch()
        self.client = client_of(self.config)
        self._stop = asyncio.Event()
        self._task = asyncio.create_task(self.node.run(self._stop))

    def stages(self) -> set[Stage]:
        return {record.stage for record in border_of(self.node.engine.kme).handovers.records()}

    async def started(self) -> None:
        await until(lambda: ended([self._task]) or len(self.node._servers) >= 5)

    async def stop(self) -> None:
        await self.client.close()
        self._stop.set()
        await self._task


@asynccontextmanager
async def networks(files: dict[str, Path]) -> AsyncIterator[dict[str, Network]]:
    running = {name: Network(file) for name, file in files.items()}
    try:
        for one in running.values():
            await one.started()
        yield running
    finally:
        for one in running.values():
            await one.stop()


@pytest.fixture(params=[True, False], ids=["synchronous", "asynchronous"])
def files(tmp_path: Path, request: pytest.FixtureRequest) -> dict[str, Path]:
    return found_networks(tmp_path / "networks", synchronous=request.param)


async def test_I1_I2_I4_two_networks_share_keys_once_each_and_both_logs_have_them(files: dict[str, Path]) -> None:
    async with networks(files) as both:
        for name in NAMES:
            here, there = both[name], both[OTHER[name]]
            answer = await here.client.request("GET", f"/api/v1/keys/gateway-{OTHER[name]}/status")
            assert answer.status == 200, answer.body
            outlook = etsi014.parse_status(answer.body)
            assert (outlook.target_kme_id, outlook.stored_keys > 0) == (f"kme-{OTHER[name]}", True)
            status, keys, body = await draw(here.client, OTHER[name], number=3)
            assert status == 200, body
            for key in keys:
                status, (got,), _ = await fetch(there.client, name, key.key_id)
                assert status == 200
                assert got.material.matches(key.material)
                status, _, body = await fetch(there.client, name, key.key_id)
                assert (status, UNKNOWN in body) == (400, True)
            for site in (here, there):
                told = custody(rows_of(site.node.store), keys[0].key_id)
                delivered = [record for record in told if record["kind"] == "key.delivered"]
                assert len(delivered) == 1
                assert delivered[0]["protection"] == "pqc"
                record = site.node.engine.kme.lifecycle.get(keys[0].key_id)
                assert record.protection.label == "pqc", "no QKD protects the way between the two KMEs"
        for one in both.values():
            assert one.stages() == {Stage.RELEASED}
            found = one.node.store._db.rows("SELECT count(*) FROM handovers WHERE material IS NOT NULL")
            assert found == [(0,)], "what is released keeps no material"


async def test_who_may_not_share_keys_gets_none_and_an_unknown_sae_is_answered_alike(files: dict[str, Path]) -> None:
    files["east"].write_text(files["east"].read_text().replace('= ["gateway-east"]', "= []"))
    async with networks(files) as both:
        status, _, body = await draw(both["east"].client, "west")
        assert status == 401, body
        status, _, _ = await draw(both["east"].client, "nowhere")
        assert status == 401
        # east would refuse what west offers: it has the same say
        status, _, body = await draw(both["west"].client, "east")
        assert status == 503, body
        assert both["east"].stages() == set()
        assert both["west"].stages() == {Stage.VOIDED}


async def test_F7_a_network_that_is_away_means_refusal_in_time_and_the_key_is_void_once_it_is_back(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    east = Network(files["east"])
    heard: list[Event] = []
    emit = east.node.feed.emit
    monkeypatch.setattr(east.node.feed, "emit", lambda e: (heard.append(e) if e.kind == "peer.down" else None, emit(e)))
    await east.started()
    status, _, body = await draw(east.client, "west")
    assert status == 503, body
    assert east.stages() == {Stage.VOIDING}
    assert [event.fields["peer"] for event in heard] == ["kme-west"], "said once"
    west = Network(files["west"])
    await until(lambda: east.stages() == {Stage.VOIDED})
    status, keys, body = await draw(east.client, "west")
    assert status == 200, body
    assert (await fetch(west.client, "east", keys[0].key_id))[0] == 200
    for one in (east, west):
        await one.stop()


async def test_I6_a_key_that_is_revoked_is_not_handed_out_and_is_given_up(files: dict[str, Path]) -> None:
    async with networks(files) as both:
        east, west = both["east"], both["west"]
        _, (key,), _ = await draw(east.client, "west")
        await west.node.engine.call(
            lambda kme: kme.lifecycle.revoke(Scope(key_ids=(key.key_id,)), actor="test", reason="test")
        )
        status, _, body = await fetch(west.client, "east", key.key_id)
        assert (status, UNKNOWN in body) == (400, True)
        await west.node.engine.call(lambda kme: border_of(kme).collect())
        await until(lambda: west.stages() == {Stage.RELEASED})  # east's SAE has it, so that west's copy is burnt
        kinds = [record["kind"] for record in custody(rows_of(west.node.store), key.key_id)]
        assert kinds[-2:] == ["key.given_up", "key.burnt"]


async def test_I14_after_a_restore_nothing_that_waited_is_handed_out(files: dict[str, Path], tmp_path: Path) -> None:
    async with networks(files) as both:
        _, (key,), _ = await draw(both["east"].client, "west")
    state = load_site(files["west"]).site.state_dir
    backup = tmp_path / "backup.db"
    with sqlite3.connect(state / "site.db") as source, sqlite3.connect(backup) as target:
        source.backup(target)
    async with networks(files) as both:
        assert (await fetch(both["west"].client, "east", key.key_id))[0] == 200
    for leftover in state.glob("site.db*"):
        leftover.unlink()
    (state / "site.db").write_bytes(backup.read_bytes())
    (state / "site.db").chmod(0o600)
    east, west = Network(files["east"]), Network(files["west"], restored=True)
    await east.started()
    await west.started()
    assert (await fetch(west.client, "east", key.key_id))[0] == 400, "the backup held the key as waiting"
    assert west.node.engine.kme.lifecycle.get(key.key_id).state is not State.ACTIVE
    for one in (east, west):
        await one.stop()


class Process:
    """A site as a process of its own, which can be killed."""

    def __init__(self, file: Path) -> None:
        self.file, self.config = file, load_site(file)
        self._process: asyncio.subprocess.Process | None = None
        self.client = client_of(self.config)

    async def start(self) -> None:
        words = (sys.executable, "-m", "keystrand", "serve", str(self.file))
        log = (self.file.parent / "log").open("ab")
        self._process = await asyncio.create_subprocess_exec(*words, stdout=log, stderr=log)
        await until(self._answers)

    async def _answers(self) -> bool:
        there = OTHER[self.config.site.name]
        try:
            return (await self.client.request("GET", f"/api/v1/keys/gateway-{there}/status")).status == 200
        except KeystrandError:
            return False

    async def end(self, number: signal.Signals) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(number)
        await self._process.wait()


@pytest.mark.parametrize(("victim", "synchronous"), [("east", False), ("west", True)])
async def test_I1_I2_I10_either_kme_is_killed_while_keys_are_on_their_way(
    tmp_path: Path, victim: str, synchronous: bool
) -> None:
    """East draws all the time; one KME is killed and started again. No key is here and not there, none is given twice."""
    files = found_networks(tmp_path / "networks", synchronous=synchronous, timeout_ms=1500)
    both = {name: Process(file) for name, file in files.items()}
    chance = random.Random(f"{victim} {synchronous}")
    drawn: list[etsi014.Key] = []
    over = asyncio.Event()

    async def drawing() -> None:
        while not over.is_set():
            try:
                _, keys, _ = await draw(both["east"].client, "west", number=2)
            except KeystrandError:
                await asyncio.sleep(0.05)
                continue
            drawn.extend(keys)

    try:
        await asyncio.gather(*(one.start() for one in both.values()))
        drawers = [asyncio.create_task(drawing()) for _ in range(4)]
        for _ in range(3):
            await asyncio.sleep(chance.uniform(0.2, 1.0))
            await both[victim].end(signal.SIGKILL)
            await both[victim].start()
        await asyncio.sleep(1.0)
        over.set()
        await asyncio.gather(*drawers)
        assert len(drawn) >= 8
        for key in drawn:
            status, got, body = await fetch(both["west"].client, "east", key.key_id)
            assert status == 200, body
            assert got[0].material.matches(key.material)
            assert (await fetch(both["west"].client, "east", key.key_id))[0] == 400
    finally:
        for one in both.values():
            await one.client.close()
            await one.end(signal.SIGTERM)
    print(f"{victim} killed 3 times: {len(drawn)} keys at both ends, 0 at one end only, 0 given twice")
    _check_books(files, {key.key_id for key in drawn})


def _check_books(files: dict[str, Path], drawn: set[str]) -> None:
    """A key that east's SAE did not get was not handed to west's: it is void, or on its way to be."""
    nodes = {name: SiteNode(load_site(file)) for name, file in files.items()}
    try:
        released = {
            name: {
                record.key_id
                for record in border_of(node.engine.kme).handovers.records()
                if record.stage is Stage.RELEASED
            }
            for name, node in nodes.items()
        }
        assert drawn <= released["east"]
        assert drawn == released["west"]
    finally:
        for node in nodes.values():
            node.store.close()


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ('protection = "pqc"', 'protection = "hybrid"', "pqc"),
        ('["gateway-east"]', '["gateway-west"]', "not an SAE of this site"),
        ("/kmapi/v1/ext_keys/ack", "/elsewhere", "where acks are served"),
        ("gateway-west = [", "gateway-east = [", "an SAE of this network"),
        ("[site]\n", '[site]\nstore = "postgresql://db/east?sslmode=verify-full"\n', "served by one process"),
    ],
)
def test_a_border_that_cannot_work_is_refused_at_start(tmp_path: Path, old: str, new: str, word: str) -> None:
    file = found_networks(tmp_path / "networks", synchronous=True)["east"]
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(ConfigError, match=word):
        load_site(file)
