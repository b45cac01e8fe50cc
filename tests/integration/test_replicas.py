"""Two sites of two replicas each, as processes on PostgreSQL behind a balancer: killed, stopped and restarted under load."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from keystrand.config.load import load_module
from keystrand.config.schema import SiteConfig
from keystrand.core.errors import KeystrandError
from keystrand.net.http_client import HttpClient
from keystrand.net.tls import TlsContexts, TlsFiles, TlsPolicy
from keystrand.node.site import SiteNode
from keystrand.observe.audit_verify import rows_of, verify
from keystrand.testing.feeder import Feeder
from keystrand.testing.patience import until
from keystrand.testing.postgres import postgres_server, why_not
from keystrand.testing.replicas import Estate, found_estate, running_estate
from keystrand.wire import etsi014 as wire

if reason := why_not():
    pytest.skip(reason, allow_module_level=True)

ENC, DEC = "/api/v1/keys/gateway-bravo/enc_keys", "/api/v1/keys/gateway-alpha/dec_keys"
BODY = b'{"number": 1, "size": 256}'
LINES = 6
FETCH_TRIES = 1200  # a tenth of a second apart: as long as a database may take to come back on a busy machine
RESUMES_S = 15.0  # docs/guides/scale-out.md states it
BLOCKS, BLOCK_BITS = 128, 131_072  # for 65,536 pairs: minutes of load, so that no run ends for want of keys


def client_of(config: SiteConfig) -> HttpClient:
    gateway = config.gateway
    assert gateway is not None
    files = TlsFiles(gateway.certificate, gateway.private_key, config.tls.trust, config.tls.revoked)
    contexts = TlsContexts(files, TlsPolicy())
    listen = config.etsi014.listen
    return HttpClient(listen.host, listen.port, contexts, expect=("kme", config.site.kme_id), connections_max=LINES)


@dataclass
class Load:
    """Draws keys at alpha and fetches them at bravo, repeating what fails, and remembers everything."""

    estate: Estate
    drawn: Counter[str] = field(default_factory=Counter)
    fetched: Counter[str] = field(default_factory=Counter)
    lost: dict[str, str] = field(default_factory=dict)  # acknowledged at alpha, never had: what bravo said last
    unsure: set[str] = field(default_factory=set)  # a fetch of these was cut off, so it may have been the one
    differing: int = 0
    done_s: list[float] = field(default_factory=list)
    refused: str = ""  # what alpha said last when it gave no key
    stopping: bool = False

    @property
    def gap_s(self) -> float:
        """The longest time in which nobody got a pair."""
        return max((b - a for a, b in zip(self.done_s, self.done_s[1:], strict=False)), default=0.0)

    async def line(self) -> None:
        alpha, bravo = (client_of(config) for config in self.estate.configs.values())
        try:
            while not self.stopping:
                with suppress(KeystrandError, TimeoutError, OSError):
                    async with asyncio.timeout(4):
                        answer = await alpha.request("POST", ENC, BODY)
                    if answer.status == 200:
                        (key,) = wire.parse_container(answer.body)
                        self.drawn[key.key_id] += 1
                        await self.fetch(bravo, key)
                        continue
                    self.refused = f"{answer.status} {answer.body.decode()}"
                await asyncio.sleep(0.05)
        finally:
            await alpha.close()
            await bravo.close()

    async def fetch(self, bravo: HttpClient, key: wire.WireKey) -> None:
        said = ""
        for _ in range(FETCH_TRIES):
            try:
                async with asyncio.timeout(4):
                    answer = await bravo.request("POST", DEC, wire.print_key_ids([key.key_id]))
            except (KeystrandError, TimeoutError, OSError) as error:
                said = repr(error)
                self.unsure.add(key.key_id)
                await asyncio.sleep(0.1)
                continue
            if answer.status == 200:
                (got,) = wire.parse_container(answer.body)
                self.fetched[got.key_id] += 1
                self.differing += not got.material.matches(key.material)
                self.done_s.append(time.monotonic())
                return
            said = f"{answer.status} {answer.body.decode()}"
            if answer.status == 400:
                break
            await asyncio.sleep(0.1)
        self.lost[key.key_id] = said

    def check(self) -> None:
        """Invariants I1 and I2, and that what was acknowledged was there to be had."""
        assert self.differing == 0
        assert set(self.drawn.values()) == {1}
        assert set(self.fetched.values()) == {1}
        assert {key_id: said for key_id, said in self.lost.items() if key_id not in self.unsure} == {}


@asynccontextmanager
async def loaded(folder: Path, *, blocks: int = BLOCKS) -> AsyncIterator[tuple[Estate, Load]]:
    estate = found_estate(folder / "pair", postgres_server())
    async with running_estate(estate):
        feeder = Feeder([load_module(file) for file in estate.pair.module_files.values()])
        await feeder.connect_soon()
        await feeder.feed(BLOCK_BITS, blocks=blocks)
        for replica in estate.all_replicas():
            await replica.ready(bits=blocks * BLOCK_BITS // 4)
        load = Load(estate)
        lines = [asyncio.create_task(load.line()) for _ in range(LINES)]
        try:
            await progress(load, 20)
            yield estate, load
        finally:
            load.stopping = True
            await asyncio.gather(*lines)
            await feeder.close()


async def progress(load: Load, pairs: int) -> None:
    """Until so many more pairs are through."""
    before = len(load.done_s)
    await until(
        lambda: len(load.done_s) >= before + pairs,
        told=lambda: f"{len(load.done_s) - before} of {pairs} pairs after {before}; last refusal: {load.refused}",
    )


def check_books(estate: Estate) -> None:
    """Both sites' ledgers balance, and each has one chain that verifies and tells of every release once (I5).

    Read by a process that joins them at last.
    """
    for name, site in estate.replicas.items():
        node = SiteNode(site[0].config)
        with closing(node.store):
            with node.store.transaction():
                assert node.engine.kme.check_ledger() == [], name
            rows = list(rows_of(node.store))
            signer = node.notary._signer.verifier
            report = verify(rows, node.store.checkpoints(), site=name, signer=signer)
            assert report.intact, report.findings
        records = [json.loads(record) for _, record, _ in rows]
        delivered = [record for record in records if record["kind"] == "key.delivered"]
        released = Counter((key_id, record["recipient"]) for record in delivered for key_id in record["key_ids"])
        assert len(released) >= 20
        assert set(released.values()) == {1}


@pytest.mark.proves("R019")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [1])
async def test_i1_i2_i9_replicas_killed_at_random_lose_no_key_and_give_none_twice(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    async with loaded(tmp_path) as (estate, load):
        replicas = estate.all_replicas()
        for victim in chance.sample(replicas, len(replicas)):  # each of them once
            victim.kill()
            await progress(load, 15)
            victim.start()
            await victim.ready()
            await progress(load, 10)
    load.check()
    print(f"{len(load.done_s)} pairs, longest gap {load.gap_s:.2f} s, {len(load.lost)} answers cut off")
    assert load.gap_s < RESUMES_S
    check_books(estate)


@pytest.mark.proves("R019")
@pytest.mark.timeout(600)
async def test_i1_i2_i3_i9_postgresql_killed_under_load_loses_no_key_and_delivery_goes_on(tmp_path: Path) -> None:
    """Crashed, recovered and back: every replica goes on by itself, and no key that was acknowledged is gone."""
    server = postgres_server()
    async with loaded(tmp_path) as (estate, load):
        os.kill(server.pid, signal.SIGQUIT)  # immediate shutdown: no checkpoint, the log is replayed at the next start
        await until(lambda: not (server.data / "postmaster.pid").exists())
        await asyncio.to_thread(server.start)
        await progress(load, 20)
        for replica in estate.all_replicas():
            await replica.ready()
    load.check()
    print(f"{len(load.done_s)} pairs, longest gap {load.gap_s:.2f} s, {len(load.lost)} answers cut off")
    check_books(estate)


@pytest.mark.timeout(600)
async def test_i3_a_rolling_restart_fails_no_fetch_of_an_acknowledged_key(tmp_path: Path) -> None:
    async with loaded(tmp_path) as (estate, load):
        for replica in estate.all_replicas():
            estate.take_out(replica, out=True)
            await asyncio.to_thread(replica.stop)
            replica.start()
            await replica.ready()
            estate.take_out(replica, out=False)
            await progress(load, 10)
    load.check()
    assert load.lost == {}
    check_books(estate)


@pytest.mark.timeout(600)
async def test_a_replica_that_was_away_is_given_up_and_joins_anew_without_harm(tmp_path: Path) -> None:
    async with loaded(tmp_path) as (estate, load):
        stale = estate.replicas["alpha"][1]
        estate.take_out(stale, out=True)
        stale.signal(signal.SIGSTOP)
        await progress(load, 10)
        await until(lambda: "replica.lost" in estate.replicas["alpha"][0].log())
        stale.signal(signal.SIGCONT)
        # it finds its connection ended (if it was stopped within its turn) or its place in the roster gone
        await until(lambda: "store.failed" in stale.log())
        estate.take_out(stale, out=False)
        await stale.ready()
        await progress(load, 20)
    load.check()
    check_books(estate)
