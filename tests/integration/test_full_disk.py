"""A disk that is really full while keys are drawn: refusal, nothing released unlogged, and recovery once there is space."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_site_pair import DEC, ENC, Running, running, settled

from keystrand.config.load import load_site
from keystrand.lab.pair import Pair, found_pair
from keystrand.net.http_client import Response
from keystrand.observe.audit_verify import rows_of, verify
from keystrand.testing.patience import PATIENCE_S
from keystrand.wire import etsi014 as wire

SIZE_BYTES = 2_097_152
LEFT_BYTES = 262_144  # a few dozen transactions
pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("mount") is None,
    reason="mounts a small file system to fill it: run as root, with mount (apt-get install mount)",
)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Pair]:
    """A pair whose alpha keeps its state on a file system of 2 MiB."""
    pair = found_pair(tmp_path / "pair")
    state = load_site(pair.site_files["alpha"]).site.state_dir
    options = f"size={SIZE_BYTES},mode=0700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "keystrand-test", str(state)], check=True)
    try:
        yield pair
    finally:
        subprocess.run(["umount", "--lazy", str(state)], check=True)


def fill(folder: Path, leave_bytes: int) -> Path:
    """A file that takes all space of the file system of `folder` but `leave_bytes`."""
    ballast = folder / "ballast"
    free_bytes = shutil.disk_usage(folder).free
    assert free_bytes > leave_bytes
    ballast.write_bytes(bytes(free_bytes - leave_bytes))
    return ballast


async def draw(site: Running) -> Response:
    return await site.clients["alpha"].request("POST", ENC, b'{"number": 8, "size": 256}')


def delivered(site: Running, name: str) -> list[str]:
    """IDs of the keys that the audit log of a site says were handed out, oldest first."""
    records = [json.loads(record) for _, record, _ in rows_of(site.nodes[name].store)]
    return [key_id for record in records if record["kind"] == "key.delivered" for key_id in record["key_ids"]]


async def drain_disk(site: Running) -> tuple[list[str], Response]:
    """Draw until the disk has no room: the keys that were handed out, and the answer of the first refusal."""
    got: list[str] = []
    for _ in range(400):
        answer = await draw(site)
        if answer.status != 200:
            return got, answer
        got += [key.key_id for key in wire.parse_container(answer.body)]
    raise AssertionError(f"{len(got)} keys did not fill the disk")


@pytest.mark.proves("R021", "R098", "R101")
async def test_I4_F7_a_full_disk_refuses_and_recovers_and_every_released_key_is_logged(small: Pair) -> None:
    async with running(small) as site:
        alpha = site.nodes["alpha"]
        await site.feeder.feed(262_144, blocks=2)
        await settled(site)
        ballast = fill(alpha.config.site.state_dir, leave_bytes=LEFT_BYTES)
        got, refusal = await drain_disk(site)
        assert got, "there was room for some keys first"
        assert refusal.status == 503
        assert b"full" in refusal.body, "it was the disk, not the pool"
        for _ in range(3):  # it stays refused, and stays alive, while the disk stays full
            assert (await draw(site)).status == 503
        ballast.unlink()
        async with asyncio.timeout(PATIENCE_S):
            while (answer := await draw(site)).status != 200:
                assert answer.status == 503
                await asyncio.sleep(0.2)
        again = [key.key_id for key in wire.parse_container(answer.body)]
        assert delivered(site, "alpha") == got + again, "what was released is logged, and what was refused is not"
        fetched = await site.clients["bravo"].request("POST", DEC, wire.print_key_ids(again))
        assert fetched.status == 200, fetched.body
        for node in site.nodes.values():
            await node.notary.checkpoint()
            assert node.engine.kme.check_ledger() == []
            report = verify(
                rows_of(node.store),
                node.store.checkpoints(),
                site=node.config.site.name,
                signer=node.notary._signer.verifier,
                witnesses=[],
            )
            assert report.intact, report.findings
