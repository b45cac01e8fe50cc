"""A required audit sink that fails while keys are drawn from two real sites: nothing leaves unlogged, nobody waits for long."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from test_site_pair import ENC, Running, client_of, only, running, settled

from keystrand.core.clock import SystemClock
from keystrand.crypto.sign import Signer
from keystrand.kme.site import Reply, Send
from keystrand.lab.pair import Pair, found_pair
from keystrand.net.http_client import HttpClient
from keystrand.node.site import SiteNode
from keystrand.observe.audit import AuditLog
from keystrand.observe.audit_verify import read_jsonl, verify
from keystrand.testing.faultysink import SINK_TOML, Trial
from keystrand.testing.patience import until
from keystrand.wire import etsi014 as wire

INSTANTS = 200


@pytest.mark.proves("R096", "R098")
async def test_I4_nothing_is_released_unlogged_whenever_the_sink_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trial = Trial(found_pair(tmp_path / "pair", extra=SINK_TOML))
    seen = await trial.run(INSTANTS)
    with capsys.disabled():
        print(f"\naudit sink: {json.dumps(seen.report())}")
    assert seen.instants == INSTANTS
    assert seen.unlogged == []
    assert seen.strange == []
    assert seen.refused > INSTANTS, "the faults were felt"
    assert seen.report()["refusal_own_p999_ms"] <= 2000  # whatever else runs here; 250: test_engine_gate
    assert sorted(seen.resume_ms)[int(0.99 * len(seen.resume_ms))] <= 1000 + max(seen.lag_ms)
    _is_whole(trial, tmp_path / "pair" / "alpha" / "copy.jsonl")


def _is_whole(trial: Trial, copy: Path) -> None:
    """The copy is the log, record by record, and verifies by itself."""
    with copy.open() as lines:
        rows, _ = read_jsonl(lines)
    config = trial.configs["alpha"]
    log_origin = AuditLog(None, SystemClock(), "alpha").origin  # type: ignore[arg-type]
    signer = Signer.load_or_create(log_origin, config.site.audit_key_file).verifier
    report = verify(rows, [], site="alpha", signer=signer)
    assert report.intact, report.findings[:3]
    assert report.size > INSTANTS


async def drawn(site: Running) -> bytes:
    """A container with a key; two sites that have only just met may refuse at first (their strand, a sink that is late)."""
    async with asyncio.timeout(60):
        while (answer := await site.clients["alpha"].request("GET", ENC)).status != 200:
            await asyncio.sleep(0.2)
    return answer.body


async def test_a_sink_that_missed_a_while_gets_what_it_missed(tmp_path: Path) -> None:
    """Optional sinks never hold anything up, and have every record in the end."""
    toml = SINK_TOML.replace("required = true", "required = false")
    pair = found_pair(tmp_path / "pair", extra=toml)
    copy = tmp_path / "pair" / "alpha" / "copy.jsonl"
    copy.mkdir()  # it cannot be a file for now
    async with running(pair) as site:
        await site.feeder.feed(131_072)
        await settled(site)
        key_id = wire.parse_container(await drawn(site))[0].key_id
        sinks = site.nodes["alpha"].audit_sinks
        assert sinks is not None
        await until(lambda: "IsADirectoryError" in sinks.sinks[0].failure)
        copy.rmdir()
        await until(lambda: copy.is_file() and key_id in copy.read_text())


@contextlib.asynccontextmanager
async def running_alone(pair: Pair) -> AsyncIterator[tuple[SiteNode, HttpClient]]:
    """Alpha without its peer."""
    async with only(pair, "alpha") as node:
        client = client_of(node.config)
        try:
            yield node, client
        finally:
            await client.close()


async def test_a_sink_that_knows_more_than_the_store_stops_everything(tmp_path: Path) -> None:
    """It was written after the commit, so a store that lacks its records has gone back in time."""
    pair = found_pair(tmp_path / "pair", extra=SINK_TOML)
    copy = tmp_path / "pair" / "alpha" / "copy.jsonl"
    async with running(pair) as site:
        await site.feeder.feed(131_072)
        await settled(site)
        await drawn(site)
    with copy.open("a") as file:
        last = json.loads(copy.read_text().splitlines()[-1])
        last["n"] += 1
        file.write(json.dumps(last) + "\n")
    (tmp_path / "pair" / "alpha" / "state" / "sinks" / "copy").unlink()
    async with running_alone(pair) as (node, client):
        answer = await client.request("GET", ENC)
        assert answer.status == 503
        assert b"does not have" in answer.body
        assert not any(isinstance(effect, Reply | Send) for effect in node.engine.kme.drain())
