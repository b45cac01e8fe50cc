"""A key that was handed to an enterprise key manager is ended there when it is ended here: PyKMIP's server is the manager."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kmip_estate import HERE, LEGACY, Estate
from test_admin_site import admins, found
from test_site_pair import Running, running, settled

from keystrand.cli.program import run
from keystrand.config.load import site_faults
from keystrand.core.errors import UnknownKey
from keystrand.core.register import Scope
from keystrand.core.states import Change
from keystrand.lab.pair import Pair
from keystrand.lab.ports import free_base_port
from keystrand.testing.patience import until, wait_until_listening
from keystrand.transport.kmip import KmipClient
from keystrand.wire import kmip_attributes as attributes
from keystrand.wire.kmip_names import State

pytest.importorskip("kmip", reason="PyKMIP, the peer of these tests, is not installed")

SECTION = """
[kms.vault]
address = "127.0.0.1:{port}"
certificate = "{home}/sae-vpn-a.pem"
private_key = "{home}/sae-vpn-a.key"
trust = "{home}/ca.pem"
name = "kme-a"
minimum = "1.2"
require_pqc_group = false
annotate = "application"
"""


class Manager:
    """PyKMIP's server over one database, started and killed at will."""

    def __init__(self, folder: Path) -> None:
        self.estate, self.folder, self.port = Estate(folder), folder / "kms", free_base_port(1)
        self.folder.mkdir()
        self._program: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        home = self.estate.home
        files = [home / "kme-kme-a.pem", home / "kme-kme-a.key", home / "ca.pem", self.folder]
        script = str(Path(__file__).with_name("kmip_kms.py"))
        with (self.folder / "output").open("ab") as output:
            command = [sys.executable, script, str(self.port), *map(str, files)]
            self._program = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
        wait_until_listening(self.port, self._program)

    def kill(self) -> None:
        if self._program is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._program.pid, signal.SIGKILL)  # it has a child that outlives it
            self._program.wait()

    def state_of(self, key_id: str) -> State | None:
        """None: no object of that name."""
        contexts = self.estate.contexts("sae-vpn-a", LEGACY)
        with KmipClient(HERE, self.port, contexts, expect=("kme", "kme-a")) as client:
            try:
                uids = client.locate(attributes.named(key_id))
                return client.state(uids[0]) if uids else None
            except UnknownKey:
                return None


async def stands(manager: Manager, key_id: str, state: State | None) -> None:
    """Until the manager has the key in this state."""

    async def holds() -> bool:
        return await asyncio.to_thread(manager.state_of, key_id) is state

    await until(holds)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(tmp_path)
    try:
        made.start()
        yield made
    finally:
        made.kill()


@pytest.fixture
def pair(tmp_path: Path, manager: Manager) -> Pair:
    founded = found(tmp_path / "pair")
    file = founded.site_files["alpha"]
    file.write_text(file.read_text() + SECTION.format(port=manager.port, home=manager.estate.home))
    return founded


async def exported(pair: Pair, capsys: pytest.CaptureFixture[str]) -> str:
    words = ["key", "export", "--sae", "gateway-alpha", "--to", "gateway-bravo", "--to-kms", "vault"]
    capsys.readouterr()
    status = await asyncio.to_thread(run, [*words, "--config", str(pair.site_files["alpha"])])
    told = capsys.readouterr()
    assert status == 0, told.err
    lines = [json.loads(line) for line in told.out.splitlines() if line.startswith('{"key_id"')]
    return str(lines[-1]["key_id"])


async def order(site: Running, change: Change, key_id: str, name: str = "alpha") -> None:
    def do(kme: Any) -> None:
        kme.lifecycle.change(change, Scope(key_ids=(key_id,)), actor="ann", reason="drill")

    await site.nodes[name].engine.call(do)


@pytest.mark.proves("R042", "R044", "R060", "R062")
async def test_L1_what_ends_here_ends_at_the_manager(
    pair: Pair, manager: Manager, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running(pair) as site, admins(pair, "ann", "olga") as (ann, olga):
        await site.feeder.feed(131_072, blocks=2)
        await settled(site)
        revoked, compromised, destroyed, far, kept = [await exported(pair, capsys) for _ in range(5)]
        assert manager.state_of(revoked) is State.ACTIVE
        _, trial, _ = await ann.call("POST", "/lifecycle/trials", {"change": "revoke", "key_ids": [revoked]})
        assert [use["consumer"] for use in trial["consumers"]] == ["kms vault"]
        await order(site, Change.DEACTIVATE, revoked)
        await order(site, Change.COMPROMISE, compromised)
        await order(site, Change.DEACTIVATE, destroyed)
        await order(site, Change.DESTROY, destroyed)
        await order(site, Change.COMPROMISE, far, name="bravo")  # the other end says so, this end hears of it
        await stands(manager, revoked, State.DEACTIVATED)
        await stands(manager, compromised, State.COMPROMISED)
        await stands(manager, destroyed, None)
        await stands(manager, far, State.COMPROMISED)
        assert manager.state_of(kept) is State.ACTIVE
        records = [json.loads(raw) for _, raw, _ in site.nodes["alpha"].store.audit_rows(0, 2**31)]
        told = {(r["key_id"], r["state"]) for r in records if r["kind"] == "kms.told"}
        assert {(revoked, "deactivated"), (compromised, "compromised"), (destroyed, "destroyed")} <= told
        jobs = {job["name"]: job for job in (await olga.call("GET", "/jobs"))[1]["jobs"]}
        assert jobs["kms-withdrawal"]["items"] >= 4
        assert jobs["kms-withdrawal"]["last_error"] == ""


@pytest.mark.proves("R048", "R098")
async def test_a_manager_that_is_away_hears_of_it_later_also_after_a_restart_of_the_site(
    pair: Pair, manager: Manager, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running(pair) as site, admins(pair, "olga") as (olga,):
        await site.feeder.feed(131_072, blocks=2)
        await settled(site)
        first, second = await exported(pair, capsys), await exported(pair, capsys)
        manager.kill()
        await order(site, Change.COMPROMISE, first)
        await order(site, Change.DEACTIVATE, second)
        job = site.nodes["alpha"].withdrawals
        assert job is not None
        await until(lambda: job.job.status.last_error)
        assert "vault" in job.job.status.last_error
        assert (await olga.call("POST", "/jobs/kms-withdrawal/run"))[0] == 200
    manager.start()
    async with running(pair):
        await stands(manager, first, State.COMPROMISED)
        await stands(manager, second, State.DEACTIVATED)


def test_a_manager_that_cannot_be_is_a_fault_with_its_line(pair: Pair, manager: Manager) -> None:
    file = pair.site_files["alpha"]
    sound = file.read_text()
    for old, new, words in (
        ("require_pqc_group = false\nannotate", "annotate", "no ML-KEM group"),
        ("sae-vpn-a.pem", "nobody.pem", "no such file"),
        ("[kms.vault]", '[kms."a b"]', "a b"),
    ):
        file.write_text(sound.replace(old, new))
        (fault, *_) = site_faults(file)
        assert words in str(fault)
        assert f"{file.name}:" in str(fault)
