"""Backups put back on real pairs: nothing that was ever handed out is handed out again, and nothing goes back unseen."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sqlite3
from pathlib import Path

import msgspec
import pytest
from test_site_pair import DEC, ENC, Running, only, running, settled

from keystrand.cli import exits
from keystrand.cli.program import run
from keystrand.config.load import load_site
from keystrand.config.schema import SiteConfig
from keystrand.core.errors import BadRequest, ConfigError, NotPermitted, StoreUnavailable, Tampered
from keystrand.core.files import write_whole
from keystrand.crypto.sign import Signer
from keystrand.lab.pair import LINK, Pair, found_pair
from keystrand.node.backup import Restored, move, restore, take
from keystrand.node.backup_file import BackupReader
from keystrand.node.doctor_checks import peers
from keystrand.node.rollback import GIVEN_UP, ask_witnesses, check_before_start, check_site, mark_file
from keystrand.observe.audit import origin
from keystrand.observe.audit_verify import rows_of, verify
from keystrand.store.sqlite import SqliteAuditFile
from keystrand.testing.faultysink import SINK_TOML
from keystrand.testing.patience import PATIENCE_S, until
from keystrand.wire import etsi014 as wire

CYCLES = 20


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return found_pair(tmp_path / "pair")


def config_of(pair: Pair, name: str) -> SiteConfig:
    return load_site(pair.site_files[name])


async def taken(pair: Pair, name: str, target: Path) -> None:
    await asyncio.to_thread(take, config_of(pair, name), pair.site_files[name], target)


async def put_back(pair: Pair, name: str, source: Path, **options: str) -> Restored:
    return await asyncio.to_thread(restore, config_of(pair, name), source, accept_rollback=options.get("reason", ""))


async def cosigned(site: Running) -> None:
    """Until bravo has cosigned the log of alpha as it is now."""
    alpha = site.nodes["alpha"]
    await alpha.notary.checkpoint()
    await until(lambda: alpha.notary.gauge.cosigned_size >= alpha.notary.gauge.last_checkpoint_size)


def lose(config: SiteConfig) -> None:
    """The disk of the state is gone; the rest of the site is not."""
    shutil.rmtree(config.site.state_dir)


async def verifies(pair: Pair, name: str) -> None:
    """The whole log is one chain that its own key has signed."""
    config = config_of(pair, name)
    signer = Signer.load_or_create(origin(name), config.site.audit_key_file).verifier
    store = SqliteAuditFile(config.store_file)
    report = verify(rows_of(store), store.checkpoints(), site=name, signer=signer)
    store.close()
    assert report.intact, report.findings[:3]


async def drawn(site: Running, number: int, materials: set[bytes] | None = None) -> list[str]:
    """IDs of fresh keys from alpha, none of whose material is among those of before."""
    order = f'{{"number": {number}, "size": 256}}'.encode()
    async with asyncio.timeout(PATIENCE_S):  # a peer that began anew refuses the strand of before, once
        while (answer := await site.clients["alpha"].request("POST", ENC, order)).status == 503:
            await asyncio.sleep(0.2)
    assert answer.status == 200, answer.body
    keys = wire.parse_container(answer.body)
    if materials is not None:
        fresh = {key.material.reveal() for key in keys}
        assert len(fresh) == number
        assert not fresh & materials, "no bits are handed out twice"
        materials |= fresh
    return [key.key_id for key in keys]


def delivered(config: SiteConfig) -> set[str]:
    """IDs of the keys that the log of a site that stands still says were handed out."""
    store = SqliteAuditFile(config.store_file)
    records = [json.loads(record) for _, record, _ in rows_of(store)]
    store.close()
    return {key_id for record in records if record["kind"] == "key.delivered" for key_id in record["key_ids"]}


async def fetched(site: Running, key_ids: list[str]) -> list[str]:
    """Those that bravo hands out."""
    got: list[str] = []
    for key_id in key_ids:
        answer = await site.clients["bravo"].request("GET", f"{DEC}?key_ID={key_id}")
        assert answer.status in (200, 400, 503), answer.body
        got += [key_id] if answer.status == 200 else []
    return got


@pytest.mark.proves("R049")
@pytest.mark.timeout(900)  # each backup stretches its passphrase
async def test_I14_twenty_restores_hand_out_nothing_twice(pair: Pair, tmp_path: Path) -> None:
    released: dict[str, int] = {}
    materials: set[bytes] = set()
    old: list[str] = []
    done: Restored | None = None
    for cycle in range(CYCLES):
        there, backup = ("bravo", "alpha")[cycle % 2], tmp_path / f"backup-{cycle}"
        async with running(pair) as site:
            if done is not None:
                await greeted(site, done)
                await fetched_once(site, old, released)
            await site.feeder.feed(131_072)
            await settled(site)
            old = await drawn(site, 4, materials)
            await fetched_once(site, old[:1], released)
            await taken(pair, there, backup)
            await fetched_once(site, old[1:3], released)
            await drawn(site, 2, materials)
            for node in site.nodes.values():
                assert node.engine.kme.check_ledger() == []
        done = await put_back(pair, there, backup, reason="a test")
        backup.unlink()
    assert len(released) >= 3 * CYCLES, "keys were handed out"
    assert set(released.values()) == {1}


async def fetched_once(site: Running, key_ids: list[str], released: dict[str, int]) -> None:
    for key_id in await fetched(site, key_ids):
        released[key_id] = released.get(key_id, 0) + 1


async def greeted(site: Running, done: Restored) -> None:
    """Until the neighbour of the restored site has heard of its epoch, and all bits of before are put away at both."""
    name = done.manifest.site
    other = "alpha" if name == "bravo" else "bravo"
    await until(lambda: site.nodes[other].store.peer(name).epoch == done.epoch)
    await until(lambda: not any(node.engine.kme.pool.owned_bits(LINK) for node in site.nodes.values()))


# what may not pass unseen --------------------------------------------------------------------------------------------


@pytest.mark.proves("R049")
async def test_a_restore_recovers_the_log_from_the_store_that_is_there_and_needs_no_excuse(
    pair: Pair, tmp_path: Path
) -> None:
    backup = tmp_path / "backup"
    async with running(pair) as site:
        await site.feeder.feed(131_072)
        await settled(site)
        await taken(pair, "alpha", backup)
        key_ids = [key_id for _ in range(3) for key_id in await drawn(site, 2)]  # one record for each request
        size = site.nodes["alpha"].store.audit_head()[0]
    async with only(pair, "bravo"):
        done = await put_back(pair, "alpha", backup)
    assert done.rollback == ""
    assert done.recovered >= 3
    assert delivered(config_of(pair, "alpha")) == set(key_ids)
    assert done.audit_size > size
    await verifies(pair, "alpha")


async def test_I4_a_lost_log_comes_back_from_a_required_sink(tmp_path: Path) -> None:
    """The store is gone, the backup is old; the sink has every record."""
    pair = found_pair(tmp_path / "pair", extra=SINK_TOML)
    backup = tmp_path / "backup"
    async with running(pair) as site:
        await site.feeder.feed(131_072)
        await settled(site)
        await taken(pair, "alpha", backup)
        key_ids = [key_id for _ in range(3) for key_id in await drawn(site, 2)]
        await cosigned(site)
    lose(config_of(pair, "alpha"))
    copy = tmp_path / "pair" / "alpha" / "copy.jsonl"
    async with only(pair, "bravo"):
        config = config_of(pair, "alpha")
        with pytest.raises(NotPermitted, match="would go back"):
            await asyncio.to_thread(restore, config, backup)
        done = await asyncio.to_thread(restore, config, backup, audit_copy=copy)
    assert done.rollback == ""
    assert done.recovered >= 3
    assert delivered(config_of(pair, "alpha")) == set(key_ids)
    await verifies(pair, "alpha")
    async with running(pair) as site:  # the sink begins a new copy, which has everything
        await site.feeder.feed(131_072)
        await settled(site)
        await drawn(site, 1)
        assert len(copy.read_text().splitlines()) >= done.audit_size


async def test_a_rollback_is_refused_until_somebody_answers_for_it_and_then_it_is_in_the_log(
    pair: Pair, tmp_path: Path
) -> None:
    backup = tmp_path / "backup"
    async with running(pair) as site:
        await site.feeder.feed(131_072)
        await settled(site)
        await taken(pair, "alpha", backup)
        for _ in range(12):  # a record each: more than the restored log will have
            await drawn(site, 1)
        await cosigned(site)
    config = config_of(pair, "alpha")
    lose(config)
    with pytest.raises(NotPermitted, match="bravo cannot be asked"):
        await asyncio.to_thread(restore, config, backup)
    async with only(pair, "bravo"):
        with pytest.raises(NotPermitted, match="bravo has cosigned"):
            await asyncio.to_thread(restore, config, backup)
        assert not (config.site.state_dir / "restoring").exists()
        done = await asyncio.to_thread(restore, config, backup, accept_rollback="the disk burnt down")
        for _ in range(2):
            assert await check_site(config, restored=False) > 0, (
                "it starts as ever, beside a peer that has cosigned more"
            )
        doctor = [f for f in await asyncio.to_thread(lambda: list(peers(config))) if "accepted" in f.words]
        assert [finding.verdict for finding in doctor] == ["warn"]
        await _goes_back_once_more(config)
    assert done.rollback == "the disk burnt down"
    with sqlite3.connect(config.store_file) as store:
        records = b"".join(row[0] for row in store.execute("SELECT record FROM audit"))
    assert b'"kind":"site.restored"' in records
    assert b"the disk burnt down" in records


async def _goes_back_once_more(config: SiteConfig) -> None:
    """What was accepted holds for the log that went on from there; not for an older one that somebody puts in its place."""
    older = config.site.state_dir.with_name("older")
    shutil.copytree(config.site.state_dir, older)
    (older / mark_file(config).name).unlink()
    with sqlite3.connect(older / config.store_file.name) as store:
        store.execute("DELETE FROM audit WHERE number = (SELECT max(number) FROM audit)")
    old = msgspec.structs.replace(config, site=msgspec.structs.replace(config.site, state_dir=older))
    with pytest.raises(Tampered, match="bravo has cosigned"):
        await check_site(old, restored=False)
    note = older / GIVEN_UP
    note.write_text(note.read_text().replace("\nbravo ", "\nbravo 9"))
    with pytest.raises(Tampered):
        await check_site(old, restored=False)


async def test_a_running_site_is_not_restored_over_nor_moved(pair: Pair, tmp_path: Path) -> None:
    async with running(pair) as site:
        await taken(pair, "alpha", tmp_path / "backup")
        for action in (
            lambda: restore(config_of(pair, "alpha"), tmp_path / "backup"),
            lambda: move(config_of(pair, "alpha"), pair.site_files["alpha"], tmp_path / "last"),
        ):
            with pytest.raises(StoreUnavailable, match="is open in process"):
                await asyncio.to_thread(action)
        assert site.nodes["alpha"].store.epoch() == 1


async def test_an_old_store_does_not_start_as_if_nothing_had_happened(pair: Pair, tmp_path: Path) -> None:
    config = config_of(pair, "alpha")
    async with running(pair) as site:
        await site.feeder.feed(131_072)
        await settled(site)
    old = tmp_path / "old"
    shutil.copytree(config.site.state_dir, old)
    async with running(pair) as site:
        await site.feeder.feed(131_072)
        await settled(site)
        await drawn(site, 3)
        await cosigned(site)
    assert check_before_start(config) is not None
    shutil.copy(old / "site.db", config.store_file)
    with pytest.raises(Tampered, match="older than it was"):
        check_before_start(config)
    assert check_before_start(config, restored=True) is not None
    shutil.copy(old / mark_file(config).name, mark_file(config))  # the whole folder went back: the peer knows
    standing = check_before_start(config)
    assert standing is not None
    async with only(pair, "bravo"):
        (witnessed,) = await ask_witnesses(config, standing.size, standing.head)
        assert witnessed.problem.startswith("shorter")
        with pytest.raises(Tampered, match="bravo has cosigned"):
            await check_site(config, restored=False)
        assert await check_site(config, restored=True) > 1_700_000_000
    assert await check_site(config, restored=False) > 0, "with every neighbour away nobody knows"


async def test_a_moved_site_serves_at_its_new_host_only(pair: Pair, tmp_path: Path) -> None:
    config = config_of(pair, "alpha")
    async with running(pair) as site:
        await site.feeder.feed(131_072)
        await settled(site)
        await drawn(site, 1)
    last = tmp_path / "last"
    await asyncio.to_thread(move, config, pair.site_files["alpha"], last)
    with pytest.raises(Tampered, match="moved to another host"):
        check_before_start(config)
    with pytest.raises(Tampered, match="moved to another host"):
        check_before_start(config, restored=True)
    shutil.rmtree(config.site.state_dir)  # the new host
    async with only(pair, "bravo"):
        done = await asyncio.to_thread(restore, config, last)
    assert done.rollback == ""
    assert done.manifest.moved
    async with running(pair) as site:
        await site.feeder.feed(131_072)
        await settled(site)
        assert await fetched(site, await drawn(site, 2))


# the file ------------------------------------------------------------------------------------------------------------


async def test_a_backup_that_was_changed_anywhere_is_refused(pair: Pair, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    async with running(pair):
        await taken(pair, "alpha", backup)
    assert backup.stat().st_mode & 0o777 == 0o600
    config = config_of(pair, "alpha")
    whole = backup.read_bytes()
    places = [*range(40), *range(40, len(whole), len(whole) // 40)]
    for place in places:
        backup.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises((Tampered, BadRequest, ConfigError)):
            read_all(config, backup, tmp_path / "out")
    for length in (0, 10, 200, len(whole) // 2, len(whole) - 1):
        backup.write_bytes(whole[:length])
        with pytest.raises((Tampered, BadRequest, ConfigError)):
            read_all(config, backup, tmp_path / "out")
    backup.write_bytes(whole + b"x")
    with pytest.raises(Tampered):
        read_all(config, backup, tmp_path / "out")
    backup.write_bytes(whole)
    passphrase, other = config.site.root_key_file, tmp_path / "other.pass"
    write_whole(other, b"another passphrase, of somebody else")
    with pytest.raises(ConfigError, match="not the passphrase that the backup was sealed with"):
        await asyncio.to_thread(restore, config, backup, other)
    assert run(["backup", str(backup), "--config", str(pair.site_files["alpha"])]) == exits.REFUSED
    assert backup.read_bytes() == whole, "a backup is not written over unasked"
    with pytest.raises(BadRequest, match="of alpha, not of bravo"):
        await asyncio.to_thread(restore, config_of(pair, "bravo"), backup, passphrase)


def read_all(config: SiteConfig, backup: Path, out: Path) -> None:
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    assert config.site.root_key_file is not None
    reader = BackupReader(backup, config.site.root_key_file)
    try:
        reader.unpack(out)
    finally:
        reader.close()


async def test_I12_a_backup_shows_nothing_of_the_store(pair: Pair, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    async with running(pair) as site:
        await site.feeder.feed(131_072)
        await settled(site)
        (key_id,) = await drawn(site, 1)
        await taken(pair, "alpha", backup)
    sealed = backup.read_bytes()
    passphrase = config_of(pair, "alpha").site.root_key_file
    assert passphrase is not None
    for word in (b"SQLite format", key_id.encode(), b"gateway-bravo", passphrase.read_bytes().strip(), b"[site]"):
        assert word not in sealed
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")], "no snapshot is left behind"
