"""Duties that are apart on a real site, and one command that gives an auditor all there is."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sqlite3
import tarfile
from pathlib import Path

import pytest
from test_admin_site import admins, drawn, found
from test_site_pair import ENC, running

from keystrand.cli import exits
from keystrand.cli.program import run
from keystrand.config.load import load_site
from keystrand.lab.pair import Pair
from keystrand.net.http_client import HttpClient
from keystrand.net.tls import TlsContexts, TlsFiles, TlsPolicy
from keystrand.testing.patience import until

WAIVER = """
[policy.waiver]
protection = "pqc"
approved_by = ["ann"]
reason = "fibre works until spring"
expires = 2099-01-01T00:00:00Z
"""


def unpacked(file: Path) -> dict[str, bytes]:
    with tarfile.open(file) as archive:
        entries = [(entry.name.removeprefix("keystrand-audit/"), archive.extractfile(entry)) for entry in archive]
        return {name: stream.read() for name, stream in entries if stream is not None}


def draws_as(pair: Pair, name: str) -> HttpClient:
    """An administrator's certificate at the door where applications draw keys."""
    config = load_site(pair.site_files["alpha"])
    folder = pair.site_files["alpha"].parent / "pki"
    files = TlsFiles(folder / f"admin-{name}.pem", folder / f"admin-{name}.key", config.tls.trust, config.tls.revoked)
    listen = config.etsi014.listen
    contexts = TlsContexts(files, TlsPolicy())
    return HttpClient(listen.host, listen.port, contexts, expect=("kme", config.site.kme_id))


@pytest.mark.proves("R029")
async def test_operators_read_no_key_and_auditors_rotate_nothing_at_a_real_site(tmp_path: Path) -> None:
    pair = found(tmp_path / "pair")
    async with running(pair) as site, admins(pair, "olga", "aud", "ann") as (olga, aud, ann):
        (key, *_) = await drawn(site)
        for path in ("/keys", f"/keys/{key}", f"/keys/{key}/use", f"/keys/{key}/consumers", "/tally"):
            assert (await olga.call("GET", path))[0] == 403, path
        for name in ("olga", "aud"):
            client = draws_as(pair, name)
            answer = await client.request("POST", ENC, b'{"number": 1, "size": 256}')
            await client.close()
            assert answer.status in (401, 403), (name, answer.status)
            assert b'"key"' not in answer.body
        turning = ("/root/rotate", "/tenants/default/rotate", "/tenants/default/seal", "/lifecycle/revoke")
        for path in (*turning, "/lifecycle/destroy", "/policy/proposals"):
            body = {"key_ids": [key], "reason": "try"} if "lifecycle" in path else {"reason": "try"}
            assert (await aud.call("POST", path, body))[0] == 403, path
        assert (await aud.call("GET", f"/keys/{key}"))[0] == 200, "what is known of it, for who may see that"
        assert (await ann.call("POST", "/lifecycle/suspend", {"key_ids": [key], "reason": "duty"}))[0] == 200


@pytest.mark.proves("R029")
async def test_one_command_packs_what_an_auditor_asks_for(tmp_path: Path) -> None:
    pair, out = found(tmp_path / "pair"), tmp_path / "pack.tar.gz"
    file = pair.site_files["alpha"]
    text = file.read_text()
    rule = 'on_exhaustion = "closed"\n'
    place = text.rindex(rule) + len(rule)
    file.write_text(text[:place] + WAIVER + text[place:])
    async with running(pair) as site:
        keys = await drawn(site)
        alpha = site.nodes["alpha"]
        await alpha.notary.checkpoint()
        await until(lambda: alpha.notary.gauge.cosigned_size)
        assert await asyncio.to_thread(run, ["audit", "pack", "--config", str(file), "--out", str(out)]) == 0
    assert out.stat().st_mode & 0o777 == 0o600
    pack = unpacked(out)
    sums = dict(reversed(line.split("  ")) for line in pack["SHA256SUMS"].decode().splitlines())
    assert sums == {name: hashlib.sha256(part).hexdigest() for name, part in pack.items() if name != "SHA256SUMS"}
    result = json.loads(pack["verification.json"])
    assert (result["site"], result["intact"], result["findings"]) == ("alpha", True, [])
    assert 0 < result["cosigned"] <= result["records"]
    custody = {line["key_id"]: line["records"] for line in map(json.loads, pack["custody.jsonl"].splitlines())}
    assert all("key.delivered" in [kind for _, kind in custody[key]] for key in keys)
    policy = json.loads(pack["policy.json"])
    assert policy["in the file now"]["digest"] in [entry.get("digest") for entry in policy["loaded"]]
    (granted,) = json.loads(pack["waivers.json"])["granted"]
    assert granted["waiver"]["approved_by"] == ["ann"]
    roles = json.loads(pack["roles.json"])
    assert "keys.read" not in roles["roles"]["operator"]
    assert "root.rotate" not in roles["roles"]["auditor"]
    notes = [part for name, part in pack.items() if name.startswith("checkpoints/")]
    assert any(note.count("\u2014 ".encode()) >= 2 for note in notes), "signed by the site and by its witness"
    lacks = " ".join(json.loads(pack["missing.json"]))
    assert "no required audit sink" in lacks
    assert "never in force" not in lacks
    # the log in the pack can be checked by itself, and a change in it shows
    log = tmp_path / "log.jsonl"
    log.write_bytes(pack["log.jsonl"])
    check = ["audit", "verify", "--config", str(file), "--export", str(log)]
    assert run(check) == 0
    log.write_bytes(pack["log.jsonl"].replace(b'"gateway-bravo"', b'"gateway-brave"', 1))
    assert run(check) == exits.TAMPERED


@pytest.mark.proves("R029")
async def test_a_pack_of_a_touched_log_says_so(tmp_path: Path) -> None:
    pair, out = found(tmp_path / "pair"), tmp_path / "pack.tar.gz"
    async with running(pair) as site:
        await drawn(site)
    config = load_site(pair.site_files["alpha"])
    with sqlite3.connect(config.store_file) as store:
        store.execute("UPDATE audit SET record = CAST(replace(record, 'gateway-bravo', 'gateway-brave') AS BLOB)")
    command = ["audit", "pack", "--config", str(pair.site_files["alpha"]), "--out", str(out)]
    assert run(command) == exits.TAMPERED
    result = json.loads(unpacked(out)["verification.json"])
    assert not result["intact"]
    assert "edited" in " ".join(result["findings"])
    assert run(command) == exits.REFUSED, "it does not write over a pack"
