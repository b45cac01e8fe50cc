"""The map of key flows that the configuration draws equals what the audit logs of two real sites have."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from test_site_pair import DEC, ENC, Running, running, settled

from keystrand.cli import exits
from keystrand.cli.program import run
from keystrand.config.flow import consumers, key_flows
from keystrand.config.load import load_site
from keystrand.lab.pair import LINK, found_pair
from keystrand.observe.audit import canonical, link
from keystrand.observe.audit_verify import rows_of
from keystrand.observe.flow import Flow, compare, observed
from keystrand.wire import etsi014 as wire

BACK = ("/api/v1/keys/gateway-alpha/enc_keys", "/api/v1/keys/gateway-bravo/dec_keys")


async def shared(site: Running, here: str, there: str, enc: str, dec: str) -> None:
    """Keys that an application at `here` draws and one at `there` fetches."""
    answer = await site.clients[here].request("POST", enc, b'{"number": 3, "size": 256}')
    assert answer.status == 200, answer.body
    ids = wire.print_key_ids([key.key_id for key in wire.parse_container(answer.body)])
    assert (await site.clients[there].request("POST", dec, ids)).status == 200


@pytest.mark.proves("R032")
async def test_the_map_equals_what_both_logs_have_and_a_planted_flow_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = found_pair(tmp_path / "pair")
    configs = {name: load_site(file) for name, file in pair.site_files.items()}
    async with running(pair) as site:
        await site.feeder.feed(131_072, blocks=2)
        await settled(site)
        await shared(site, "alpha", "bravo", ENC, DEC)
        half = observed(rows_of(site.nodes["alpha"].engine.kme.site.store))
        assert len(compare(key_flows(configs["alpha"]), half).unused) == 1, "nobody has drawn the other way yet"
        await shared(site, "bravo", "alpha", *BACK)
        for name, node in site.nodes.items():
            seen = observed(rows_of(node.engine.kme.site.store))
            assert sorted(seen) == key_flows(configs[name]), name
        assert {flow.kind for flow in seen} == {"fills", "gives"}
        assert sum(found.times for flow, found in seen.items() if flow.kind == "gives") == 6
    file = str(pair.site_files["alpha"])
    capsys.readouterr()
    assert run(["policy", "flow", "--config", file, "--observed", "--json"]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all(way["mapped"] and way["seen"] for way in told)
    assert {way["used_by"] for way in told} == {"", "gateway"}
    # somebody was served whom the file does not name: the record is appended as the site itself would
    with sqlite3.connect(configs["alpha"].store_file) as store:
        rows = store.execute("SELECT number, record, head FROM audit ORDER BY number").fetchall()
        given = next(r for r in map(json.loads, (record for _, record, _ in rows)) if r["kind"] == "key.delivered")
        record = canonical(given | {"n": len(rows), "recipient": "mallory", "initiator": "mallory"})
        head = link(rows[-1][2], hashlib.sha256(record).digest())
        store.execute("INSERT INTO audit (number, record, head) VALUES (?, ?, ?)", (len(rows), record, head))
    assert run(["audit", "verify", "--config", file]) == 0, "the chain is whole: only the map tells"
    capsys.readouterr()
    assert run(["policy", "flow", "--config", file, "--observed"]) == exits.TAMPERED
    assert f"mallory (3 times, first in record {len(rows)})" in capsys.readouterr().err


PLANTS: dict[str, dict[str, object]] = {
    "recipient": {"recipient": "mallory", "initiator": "mallory"},
    "responder": {"responders": ["gateway-bravo", "mallory"]},
    "link": {"link": "alpha-eve"},
    "peer": {"peer": "eve"},
    "protection": {"protection": "pqc", "link": ""},
}


@pytest.mark.proves("R032")
@pytest.mark.parametrize("what", PLANTS)
def test_each_planted_flow_is_told_with_its_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    file = found_pair(tmp_path / "pair").site_files["alpha"]
    record = {
        "kind": "key.delivered", "key_ids": ["k1", "k2"], "recipient": "gateway-alpha", "initiator": "gateway-alpha",
        "responders": ["gateway-bravo"], "peer": "bravo", "link": LINK, "protection": "hybrid",
    }  # fmt: skip
    log = tmp_path / "log.jsonl"
    records = [record, record | PLANTS[what], {"kind": "block.ingested", "link": LINK}]
    log.write_text(
        "".join(
            msgspec.json.encode({"n": n, "head": "00" * 32, "record": r}).decode() + "\n" for n, r in enumerate(records)
        )
    )
    command = ["policy", "flow", "--config", str(file), "--export", str(log)]
    assert run(command) == exits.TAMPERED
    assert "first in record 1" in capsys.readouterr().err
    assert run([*command, "--since", "2"]) == 0
    log.write_text(log.read_text().replace('"key_ids"', '"key_idz"'))
    capsys.readouterr()
    assert run(command) == exits.TAMPERED
    assert "record 0" in capsys.readouterr().err


def test_waivers_and_fallbacks_are_ways_too(tmp_path: Path) -> None:
    file = found_pair(tmp_path / "pair").site_files["alpha"]
    before = key_flows(load_site(file))
    rule = 'on_exhaustion = "closed"\n'
    head, _, tail = file.read_text().rpartition(rule)
    waiver = (
        '[policy.waiver]\nprotection = "pqc"\napproved_by = ["ann"]\nreason = "works"\nexpires = 2099-01-01T00:00:00Z\n'
    )
    file.write_text(head + rule + waiver + tail)
    config = load_site(file)
    more = set(key_flows(config)) - set(before)
    (hybrid,) = [f for f in before if f.initiator == "gateway-bravo"]
    wanted = {replace(hybrid, protection="pqc", link=""), replace(hybrid, protection="qkd")}
    assert replace(hybrid, protection="pqc", link="") in more
    assert more <= wanted
    assert consumers(config) == {"gateway-alpha": "gateway"}
    assert str(Flow(kind="fills", link="ab")) == "link ab fills the pool"
