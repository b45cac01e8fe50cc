"""Two sites of two replicas each, fed by a device that pushes: one replica draws, another takes over, nothing comes twice."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import signal
import time
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from keystrand.config.founding import append
from keystrand.config.load import load_site
from keystrand.core.errors import KeystrandError
from keystrand.crypto import pki
from keystrand.lab.ports import free_base_port
from keystrand.lab.processes import read_status
from keystrand.net.http_client import HttpClient
from keystrand.net.tls import TlsContexts, TlsFiles, TlsPolicy
from keystrand.node.site import open_store
from keystrand.store.sources import BURNT
from keystrand.testing.patience import PATIENCE_S, until
from keystrand.testing.postgres import postgres_server, why_not
from keystrand.testing.replicas import Estate, ReplicaProcess, found_estate, running_estate

if reason := why_not():
    pytest.skip(reason, allow_module_level=True)

LINK = "trial"
SOURCE = """
[links.trial]
peer = "{peer}"

[sources.trial]
kind = "push"
keys_per_block = 8

[sources.trial.device]
maker = "Keystrand"
interfaces = ["push"]
trust = "simulated"

[sources.trial.push]
module = "pusher"

[push]
listen = "127.0.0.1:{port}"
"""
Keys = list[tuple[str, bytes]]


def fed_estate(folder: Path) -> Estate:
    estate = found_estate(folder, postgres_server())
    port = free_base_port(4)
    for place, replica in enumerate(estate.all_replicas()):
        peer = "bravo" if replica.config.site.name == "alpha" else "alpha"
        append(replica.file, SOURCE.format(peer=peer, port=port + place))
        replica.config = load_site(replica.file)
    return estate


async def push(replica: ReplicaProcess, keys: Keys) -> int:
    """To the door of this replica; the answer's status."""
    home = replica.file.parent / "pki"
    if not (home / "module-pusher.pem").exists():
        pki.issue(home, kind="module", name="pusher", hosts=("localhost",))
    files = TlsFiles(home / "module-pusher.pem", home / "module-pusher.key", replica.config.tls.trust)
    section = replica.config.push
    assert section is not None
    host, port, kme_id = section.listen.host, section.listen.port, replica.config.site.kme_id
    client = HttpClient(host, port, TlsContexts(files, TlsPolicy()), expect=("kme", kme_id), connections_max=1)
    body = json.dumps({"keys": [{"key_ID": i, "key": base64.b64encode(k).decode()} for i, k in keys]}).encode()
    try:
        async with asyncio.timeout(20):
            return (await client.request("POST", f"/keystrand/v1/sources/{LINK}/keys", body)).status
    except (KeystrandError, TimeoutError):
        return 503  # it heard nothing
    finally:
        await client.close()


def asked(estate: Estate, name: str, sql: str) -> list[Any]:
    import psycopg

    with psycopg.connect(estate.addresses[name], autocommit=True) as line:
        return line.execute(sql.encode()).fetchall()


def holder(estate: Estate) -> ReplicaProcess | None:
    """The replica of alpha, which leads, that has the source."""
    sql = "SELECT replica FROM leases JOIN replicas USING (incarnation) WHERE job = 'source trial'"
    names = [name for (name,) in asked(estate, "alpha", sql)]
    return next((replica for replica in estate.replicas["alpha"] if [replica.name] == names), None)


def ingested(estate: Estate, name: str) -> int:
    sql = "SELECT bits FROM ledger WHERE link = 'trial' AND account = 'ingested'"
    return sum(bits for (bits,) in asked(estate, name, sql))


def made(number: int) -> Keys:
    return [(str(uuid.uuid4()), secrets.token_bytes(32)) for _ in range(number)]


@pytest.mark.proves("R019")
@pytest.mark.timeout(240)
async def test_I1_I3_one_replica_draws_and_another_takes_over_from_a_frozen_and_a_dead_one(tmp_path: Path) -> None:
    estate, bits = fed_estate(tmp_path / "pair"), 0

    async def fed(alpha: ReplicaProcess, bravo: ReplicaProcess, keys: Keys) -> None:
        """As a device would: repeated until it hears that they are durable. alpha leads, and offers what bravo has then."""
        for replica in (bravo, alpha):
            async with asyncio.timeout(PATIENCE_S):
                while (status := await push(replica, keys)) != 200:
                    assert status == 503, "it was given up, and joins anew, or the machine is slow"
                    await asyncio.sleep(0.5)

    async def taken() -> None:
        await until(lambda: ingested(estate, "alpha") == ingested(estate, "bravo") == bits)

    async with running_estate(estate):
        (one, other), bravos = estate.replicas["alpha"], estate.replicas["bravo"]
        await fed(one, bravos[0], made(16))
        await fed(other, bravos[1], made(16))
        bits += 32 * 256
        await taken()
        first = holder(estate)
        assert first is not None
        second = other if first is one else one
        first.signal(signal.SIGSTOP)
        await fed(second, bravos[0], made(16))
        bits += 16 * 256
        await taken()
        await until(lambda: holder(estate) is second)
        first.signal(signal.SIGCONT)  # it believes that the source is its own, and may hold keys that it offered
        await first.ready()
        await fed(first, bravos[1], made(16))
        bits += 16 * 256
        await taken()
        bravos[0].kill()
        second.kill()
        began_s = time.monotonic()
        await fed(first, bravos[1], made(16))
        bits += 16 * 256
        await taken()
        print(f"taken in {time.monotonic() - began_s:.1f} s after one replica of either site was killed")
        assert holder(estate) is first
        status = read_status(str(first.config.status.listen)) if first.config.status else None
        assert status is not None
    blocks = []
    for name, (replica, _) in estate.replicas.items():
        with closing(open_store(replica.config)) as store:
            following = store.next_sequence(LINK)
            blocks.append({n: block.digest for n in range(following) if (block := store.device_block(LINK, n))})
        sequences = [
            sequence for (sequence,) in asked(estate, name, "SELECT sequence FROM claims WHERE link = 'trial'")
        ]
        assert len(sequences) == bits // 256, "each key was claimed"
        assert BURNT not in sequences, "and none burnt"
        assert asked(estate, name, "SELECT count(*) FROM blocks WHERE link = 'trial' AND state = 'quarantined'") == [
            (0,)
        ]
    assert blocks[0] == blocks[1], "I2"
