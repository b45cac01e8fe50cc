"""The doctor on a real site: quiet where all is well, and naming each thing that is not, with the next step."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from test_site_pair import ENC, Running, running, settled

from keystrand.cli import exits
from keystrand.cli.doctor import line_of, status_of
from keystrand.config.load import load_site
from keystrand.config.schema import SiteConfig
from keystrand.core.errors import ConfigError, PeerUnavailable, Tampered
from keystrand.lab.pair import Pair, found_pair
from keystrand.net import plain
from keystrand.node.doctor import Check, Finding, examine, ok, run
from keystrand.node.doctor_checks import listeners
from keystrand.testing.faultysink import SINK_TOML
from keystrand.testing.patience import until


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return found_pair(tmp_path / "pair", extra=SINK_TOML)


async def draws(site: Running) -> None:
    """A sink that is late on a busy machine refuses, and catches up."""

    async def draw() -> bool:
        return (await site.clients["alpha"].request("GET", ENC)).status == 200

    await until(draw, pause_s=0.5)


async def lived(pair: Pair) -> None:
    """Both sites have run, and have keys."""
    async with running(pair) as site:
        await site.feeder.feed(131_072)
        await settled(site)
        await draws(site)


def failures(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.check: finding for finding in findings if finding.verdict == "fail"}


@pytest.mark.proves("R067", "R098")
async def test_beside_a_running_site_everything_is_looked_at_and_sound(pair: Pair) -> None:
    async with running(pair) as site:
        await site.feeder.feed(131_072)
        await settled(site)
        await draws(site)
        alpha = site.nodes["alpha"]
        await alpha.notary.checkpoint()
        await until(lambda: alpha.notary.gauge.cosigned_size >= alpha.notary.gauge.last_checkpoint_size)
        findings = await asyncio.to_thread(examine, pair.site_files["alpha"])
        await draws(site)  # it was not disturbed
    assert failures(findings) == {}
    looked = {finding.check for finding in findings}
    expected = "config files disk certificates revocation store ledger rollback seals audit peers clock modules sinks"
    assert looked >= {*expected.split(), "listeners"}
    assert status_of(findings) == exits.OK
    assert all(finding.next for finding in findings if finding.verdict != "ok")


async def test_without_a_running_site_it_says_what_is_away(pair: Pair) -> None:
    await lived(pair)
    findings = await asyncio.to_thread(examine, pair.site_files["alpha"])
    assert failures(findings).keys() == {"peers"}
    assert status_of(findings) == exits.UNAVAILABLE
    assert any("does not run" in finding.words for finding in findings)


def edit_ledger(config: SiteConfig) -> None:
    with sqlite3.connect(config.store_file) as store:
        store.execute("UPDATE ledger SET bits = bits + 8 WHERE account = 'available'")


def edit_audit(config: SiteConfig) -> None:
    with sqlite3.connect(config.store_file) as store:
        edited = "CAST(replace(CAST(record AS TEXT), '\"alpha\"', '\"alphb\"') AS BLOB)"
        store.execute(f"UPDATE audit SET record = {edited} WHERE number = 4")


def swap_rows(config: SiteConfig) -> None:
    with sqlite3.connect(config.store_file) as store:
        store.execute("UPDATE blocks SET owner = 'mallory' WHERE rowid = (SELECT min(rowid) FROM blocks)")


def cut_pages(config: SiteConfig) -> None:
    with config.store_file.open("r+b") as file:
        file.seek(4096 * 3)
        file.write(os.urandom(4096 * 6))


def roll_back(config: SiteConfig) -> None:
    with sqlite3.connect(config.store_file) as store:
        store.execute("DELETE FROM audit WHERE number > 3")


def open_to_others(config: SiteConfig) -> None:
    config.store_file.chmod(0o644)


def lose_salt(config: SiteConfig) -> None:
    config.salt_file.unlink()


def block_sink(config: SiteConfig) -> None:
    path = config.audit.sink[0].path
    assert path is not None
    path.unlink()
    path.mkdir()


FAULTS: list[tuple[Callable[[SiteConfig], None], str, int]] = [
    (edit_ledger, "ledger", exits.TAMPERED),
    (edit_audit, "audit", exits.TAMPERED),
    (swap_rows, "seals", exits.TAMPERED),
    (cut_pages, "store", exits.TAMPERED),
    (roll_back, "rollback", exits.TAMPERED),
    (open_to_others, "files", exits.CONFIG),
    (lose_salt, "seals", exits.CONFIG),
    (block_sink, "sinks", exits.UNAVAILABLE),
]


@pytest.mark.parametrize(("harm", "check", "status"), FAULTS, ids=[harm.__name__ for harm, _, _ in FAULTS])
async def test_each_harm_is_named_with_a_next_step(
    pair: Pair, harm: Callable[[SiteConfig], None], check: str, status: int
) -> None:
    await lived(pair)
    harm(load_site(pair.site_files["alpha"]))
    findings = await asyncio.to_thread(examine, pair.site_files["alpha"])
    found = failures(findings)
    assert check in found, [line_of(finding) for finding in findings]
    assert found[check].next
    assert status_of(findings) == status


async def test_another_program_on_our_address_is_found(pair: Pair) -> None:
    await lived(pair)
    listen = load_site(pair.site_files["alpha"]).etsi014.listen
    with socket.create_server((listen.host, listen.port)):
        findings = await asyncio.to_thread(examine, pair.site_files["alpha"])
    assert "another program" in failures(findings)["listeners"].words


async def test_a_site_that_hangs_is_not_said_to_answer(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its kernel takes connections as before: seen with a real site that was stopped (SIGSTOP)."""
    monkeypatch.setattr(plain, "TIMEOUT_S", 0.3)
    await lived(pair)
    config = load_site(pair.site_files["alpha"])
    sections = (config.etsi014, config.peer, config.device, config.status)
    with contextlib.ExitStack() as held:
        lock = held.enter_context(config.store_file.with_name("site.db.lock").open())
        fcntl.flock(lock, fcntl.LOCK_EX)
        for listen in (section.listen for section in sections if section is not None):
            held.enter_context(socket.create_server((listen.host, listen.port)))
        (found,) = await asyncio.to_thread(lambda: list(listeners(config)))
    assert (found.verdict, found.next) == ("fail", "docs/runbooks/site-unsound.md")
    assert "takes connections and does not answer" in found.words


def test_a_broken_file_is_told_by_its_lines(pair: Pair) -> None:
    file = pair.site_files["alpha"]
    file.write_text(file.read_text().replace("kme_id", "kme_di", 1))
    findings = examine(file)
    assert {finding.check for finding in findings} == {"config"}
    assert status_of(findings) == exits.CONFIG
    assert "did you mean kme_id" in " ".join(finding.next for finding in findings)


async def test_I12_it_prints_no_secret(pair: Pair) -> None:
    await lived(pair)
    config = load_site(pair.site_files["alpha"])
    passphrase = config.site.root_key_file
    assert passphrase is not None
    text = "\n".join(line_of(finding) for finding in await asyncio.to_thread(examine, pair.site_files["alpha"]))
    assert passphrase.read_text().strip() not in text
    assert "PRIVATE" not in text


# the deadlines -------------------------------------------------------------------------------------------------------


def test_a_check_that_hangs_costs_its_deadline_and_no_other_check(pair: Pair) -> None:
    config, free = load_site(pair.site_files["alpha"]), threading.Event()

    def hangs(_: SiteConfig) -> Iterator[Finding]:
        free.wait(10)
        yield ok("hangs", "at last")

    def raises(error: Exception) -> Callable[[SiteConfig], Iterator[Finding]]:
        def look(_: SiteConfig) -> Iterator[Finding]:
            raise error
            yield

        return look

    checks = (
        Check("hangs", hangs, 0.2),
        Check("away", raises(PeerUnavailable("gone", hint="ring them"))),
        Check("touched", raises(Tampered("seal"))),
        Check("file", raises(ConfigError("off"))),
        Check("bug", raises(ZeroDivisionError("division by zero"))),
        Check("fine", lambda _: iter([ok("fine", "yes")])),
    )
    began_s = time.monotonic()
    findings = run(config, checks)
    assert time.monotonic() - began_s < 8
    free.set()
    assert [(f.check, f.verdict, f.kind) for f in findings] == [
        ("hangs", "fail", "unavailable"),
        ("away", "fail", "unavailable"),
        ("touched", "fail", "tampered"),
        ("file", "fail", "config"),
        ("bug", "fail", "other"),
        ("fine", "ok", "other"),
    ]
    assert findings[1].next == "ring them"
    assert json.dumps(findings[0].words)
