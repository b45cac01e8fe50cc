"""Take a backup of a site while it runs, and put one back so that nothing used is ever used again.

A backup calls keys unused that were handed out after it was taken. Therefore a restore begins a new epoch: everything of
before is quarantined here at once, and at each neighbour as soon as the two have greeted each other. What a restore must not
do unseen is take the audit log back: it goes on from the newest copy of the log that can be had and verified, and where that
is older than what a neighbour has cosigned, an operator has to say so.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import sqlite3
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from keystrand.config.audit import Audit
from keystrand.config.schema import SiteConfig
from keystrand.core.errors import BadRequest, ConfigError, KeystrandError, NotPermitted, StoreUnavailable, Tampered
from keystrand.core.files import sync_folder
from keystrand.core.release import release
from keystrand.node.backup_file import BackupReader, Manifest, part_of, write_backup
from keystrand.node.journal import CLAIMED
from keystrand.node.keep import STORE, Keep, kept_in
from keystrand.node.outlets import MARKS
from keystrand.node.rollback import (
    GIVEN_UP,
    RESTORING,
    Standing,
    Witnessed,
    ask_witnesses,
    beside,
    give_up,
    is_ahead,
    mark_file,
    mark_of,
    next_epoch,
    read_mark,
    standing_of,
    write_mark,
)
from keystrand.node.site import SiteNode
from keystrand.observe.audit import link
from keystrand.observe.audit_verify import Row, read_jsonl
from keystrand.store.sql import SqlStore
from keystrand.store.sqlite import SqliteAuditFile

if TYPE_CHECKING:
    from keystrand.node.replicas import AuditPart

STATE_FILES: Final = ("root.salt", "tenants.keys")  # beside the store, where they are there
CONFIG: Final = "site.toml"  # states secrets by path only


def take(config: SiteConfig, config_file: Path, target: Path, passphrase_file: Path | None = None) -> Manifest:
    """A consistent backup of a site, whether it runs or not.

    passphrase_file: what seals the backup; left out, the site's own. Raises ConfigError, StoreUnavailable.
    """
    return _take(config, config_file, target, _passphrase(config, passphrase_file), moved=False)


def move(config: SiteConfig, config_file: Path, target: Path, passphrase_file: Path | None = None) -> Manifest:
    """A last backup of a stopped site, which does not start here any more. Raises StoreUnavailable while it runs."""
    keep = kept_in(config)
    with keep.held():
        manifest = _take(config, config_file, target, _passphrase(config, passphrase_file), moved=True)
        keep.leave(int(time.time()))
    return manifest


def _take(config: SiteConfig, config_file: Path, target: Path, passphrase_file: Path, *, moved: bool) -> Manifest:
    snapshot = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        standing = kept_in(config).snapshot(snapshot)
        state = config.site.state_dir
        files = {STORE: snapshot, CONFIG: config_file}
        files |= {name: state / name for name in STATE_FILES if (state / name).exists()}
        manifest = Manifest(
            backup_id=secrets.token_hex(8),
            site=config.site.name,
            kme_id=config.site.kme_id,
            created_s=time.time(),
            release=release(),
            schema=standing.schema,
            epoch=standing.epoch,
            audit_size=standing.size,
            audit_head=standing.head.hex(),
            ops=standing.ops,
            moved=moved,
            files={name: part_of(path) for name, path in files.items()},
        )
        write_backup(target, manifest, files, passphrase_file)
    finally:
        for suffix in ("", "-wal", "-shm", "-journal"):
            snapshot.with_name(snapshot.name + suffix).unlink(missing_ok=True)
    return manifest


def _passphrase(config: SiteConfig, given: Path | None) -> Path:
    found = given or config.site.root_key_file
    if found is None:
        raise ConfigError("nothing is named to seal the backup with", hint="state --passphrase-file")
    return found


# putting back --------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Restored:
    """What a restore did. audit_size: records of the log now; recovered: how many of them the backup lacked."""

    manifest: Manifest
    epoch: int
    audit_size: int
    recovered: int
    aside: Path | None
    rollback: str = ""
    witnesses: list[Witnessed] = field(default_factory=list)


def restore(
    config: SiteConfig,
    source: Path,
    passphrase_file: Path | None = None,
    *,
    accept_rollback: str = "",
    audit_copy: Path | None = None,
) -> Restored:
    """Put a backup in the place of the site's store, under a new epoch. The files of before are kept aside.

    audit_copy: an export of the audit log or what a sink of format json has received, newer than the backup. accept_rollback:
    why it is right that the log goes back behind what was known of it. Raises StoreUnavailable while the site runs, BadRequest
    for a backup of another site, Tampered for one that was changed, NotPermitted where the log would go back unexplained.
    """
    reader, keep = BackupReader(source, _passphrase(config, passphrase_file)), kept_in(config)
    with contextlib.closing(reader), keep.held():
        manifest = reader.manifest
        if manifest.site != config.site.name:
            raise BadRequest(f"this is a backup of {manifest.site}, not of {config.site.name}")
        staging = _fresh_staging(config)
        reader.unpack(staging)
        _check_store(staging / STORE, manifest)
        recovered = _extend_audit(keep, staging / STORE, audit_copy)
        with beside(staging / STORE) as connection:
            standing = standing_of(connection)
        witnesses = asyncio.run(ask_witnesses(config, standing.size, standing.head))
        objections = _objections(config, standing, witnesses)
        if objections and not accept_rollback:
            shutil.rmtree(staging)
            hint = "give a newer copy of the log by --audit-copy, or state --accept-rollback REASON; see the runbook"
            raise NotPermitted("the audit log would go back: " + "; ".join(objections), hint=hint)
        done = Restored(
            manifest=manifest,
            epoch=next_epoch(_epochs(config, keep, standing), time.time()),
            audit_size=standing.size,
            recovered=recovered,
            aside=None,
            rollback=accept_rollback if objections else "",
            witnesses=witnesses,
        )
        _begin_epoch(config, staging, done)
        done.aside = _put_in_place(config, keep, staging)
    return done


def _fresh_staging(config: SiteConfig) -> Path:
    staging = config.site.state_dir / RESTORING
    if staging.exists():
        shutil.rmtree(staging)
    staging.mkdir(mode=0o700)
    return staging


def _check_store(store_file: Path, manifest: Manifest) -> None:
    """The unpacked store is sound, and its audit log is the chain that the manifest states."""
    with beside(store_file) as connection:
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise Tampered(f"the store in the backup is damaged: {verdict}", hint="take an older backup")
    with contextlib.closing(SqliteAuditFile(store_file)) as audit:
        size, head = _end_of_chain(_rows(audit, 0), 0, bytes(32))
    if (size, head.hex()) != (manifest.audit_size, manifest.audit_head):
        raise Tampered("the audit log in the backup does not verify", hint="take an older backup")


def _rows(audit: AuditPart, first: int) -> Iterator[Row]:
    while rows := audit.audit_rows(first, 10_000):
        yield from rows
        first = rows[-1][0] + 1


def _end_of_chain(rows: Iterable[Row], size: int, head: bytes) -> tuple[int, bytes]:
    """Follow a chain as far as it holds."""
    for number, record, claimed in rows:
        computed = link(head, sha256(record).digest())
        if number != size or computed != claimed:
            break
        size, head = size + 1, computed
    return size, head


def _extend_audit(keep: Keep, staged: Path, audit_copy: Path | None) -> int:
    """Append the records since the backup from the store that is there, and from a copy: as far as they follow on."""
    before = _size_of(staged)
    with (
        contextlib.suppress(KeystrandError, sqlite3.Error),
        contextlib.closing(keep.audit()) as old,
    ):
        _append(staged, _rows(old, before))
    if audit_copy is not None:
        with audit_copy.open(encoding="utf-8") as lines:
            _append(staged, read_jsonl(lines)[0])
    return _size_of(staged) - before


def _size_of(staged: Path) -> int:
    with beside(staged) as connection:
        return standing_of(connection).size


def _append(staged: Path, rows: Iterable[Row]) -> None:
    with contextlib.closing(sqlite3.connect(staged)) as connection:
        standing = standing_of(connection)
        size, head = standing.size, standing.head
        for number, record, claimed in rows:
            if number < size:
                continue
            if number > size or link(head, sha256(record).digest()) != claimed:
                break
            connection.execute("INSERT INTO audit VALUES (?, ?, ?)", (number, record, claimed))
            size, head = size + 1, claimed
        connection.commit()


def _objections(config: SiteConfig, standing: Standing, witnesses: list[Witnessed]) -> list[str]:
    """Who knows of records that the log lacks, or cannot be asked."""
    found = []
    with contextlib.suppress(Tampered):
        mark = read_mark(config)
        if mark is not None and mark.size > standing.size:
            found.append(f"this site had {mark.size} records, the restored log has {standing.size}")
    for witnessed in witnesses:
        if witnessed.size is None:
            found.append(f"{witnessed.peer} cannot be asked: {witnessed.problem}")
        elif is_ahead(witnessed, standing.size):
            words = f"{witnessed.peer} has cosigned {witnessed.size} records, the restored log has {standing.size}"
            found.append(f"{words} ({witnessed.problem})")
    return found


def _epochs(config: SiteConfig, keep: Keep, standing: Standing) -> list[int]:
    found = [standing.epoch]
    with contextlib.suppress(Tampered):
        mark = read_mark(config)
        found += [mark.epoch] if mark is not None else []
    with contextlib.suppress(StoreUnavailable, Tampered):
        found.append(keep.standing().epoch)
    return found


def _begin_epoch(config: SiteConfig, staging: Path, done: Restored) -> None:
    """Quarantine what the backup calls unused, and say in the log what happened."""
    site = msgspec.structs.replace(config.site, state_dir=staging, store=None)
    staged = msgspec.structs.replace(config, site=site, audit=Audit())
    node = SiteNode(staged)
    try:
        _recover_claims(node.store, done.manifest.audit_size)
        node.begin_epoch(done.epoch)
        with node.store.transaction():
            node.engine.kme.site.record(
                "site.restored",
                backup=done.manifest.backup_id,
                taken_s=done.manifest.created_s,
                epoch=done.epoch,
                records_of_backup=done.manifest.audit_size,
                records_recovered=done.recovered,
                rollback=done.rollback,
                cosigned=[f"{w.peer} {'?' if w.size is None else w.size}" for w in done.witnesses],
            )
        mark = mark_of(staged, node.store)
        write_mark(staged, mark)
        if done.rollback:
            give_up(staged, mark, done.witnesses)
        done.audit_size = mark.size
    finally:
        node.store.close()


def _recover_claims(store: SqlStore, first: int) -> None:
    """Keys of devices that were used or burnt since the backup: as the recovered part of the log tells (invariant I14)."""
    while rows := store.audit_rows(first, 10_000):
        with store.transaction():
            for record in (msgspec.json.decode(row[1]) for row in rows if CLAIMED.encode() in row[1]):
                if record["kind"] == CLAIMED:
                    claims = list(zip(record["names"], map(bytes.fromhex, record["marks"]), strict=True))
                    store.sources.adopt(record["link"], record["sequence"], claims)
        first = rows[-1][0] + 1


def _put_in_place(config: SiteConfig, keep: Keep, staging: Path) -> Path | None:
    """Swap the files. A start between the first and the last step is refused, because the staging folder is still there."""
    state = config.site.state_dir
    aside = state / f"before-restore-{time.strftime('%Y%m%dT%H%M%S')}-{secrets.token_hex(2)}"
    aside.mkdir(mode=0o700)
    keep.set_aside(aside)
    for name in (*STATE_FILES, mark_file(config).name, MARKS, GIVEN_UP):
        if (state / name).exists() and (name not in STATE_FILES or (staging / name).exists()):
            os.rename(state / name, aside / name)
    _set_sinks_aside(config, aside.name)
    for name in (*STATE_FILES, mark_file(config).name, GIVEN_UP):
        if (staging / name).exists():
            os.rename(staging / name, state / name)
    keep.take_in(staging / STORE)
    sync_folder(state)
    with contextlib.suppress(OSError):
        sync_folder(aside)
    shutil.rmtree(staging)
    if not any(aside.iterdir()):
        aside.rmdir()
        return None
    return aside


def _set_sinks_aside(config: SiteConfig, suffix: str) -> None:
    """Copies of the log in files tell of records that the log may not have any more: they end here, new ones begin."""
    for sink in config.audit.sink:
        if sink.kind == "file" and sink.path is not None and sink.path.is_file():
            os.rename(sink.path, sink.path.with_name(f"{sink.path.name}.{suffix}"))
