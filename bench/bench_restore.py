"""How long a backup and a restore take for a store with many keys that wait to be fetched.

Every key is in the register and in the audit log, as if a peer had set it aside here.

python -m bench.bench_restore --keys 1000000
"""

from __future__ import annotations

import json
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import click
import msgspec

from keystrand.config.load import load_site
from keystrand.config.schema import SiteConfig
from keystrand.core.key import Segment
from keystrand.core.pool import Account, Copy
from keystrand.core.protection import Strand
from keystrand.core.register import KeyRecord, Stage
from keystrand.core.states import Step
from keystrand.crypto.seal import Sealer
from keystrand.lab.pair import LINK, found_pair
from keystrand.node.backup import restore, take
from keystrand.node.rollback import check_before_start
from keystrand.node.sealing import sealer_of
from keystrand.node.site import SiteNode
from keystrand.observe.audit import canonical, link
from keystrand.store.register import key_row
from keystrand.store.rows import COPY_COLUMNS, copy_row, identity
from keystrand.store.sealed import COPY_COLUMN
from keystrand.store.sqlite import SqliteDatabase

KEY_BYTES = 32


def fill(config: SiteConfig, keys: int) -> None:
    """A store with `keys` keys that wait for their recipient, and a record of each in the audit log."""
    SiteNode(config).store.close()
    sealer = sealer_of(config)
    with closing(SqliteDatabase(config.store_file)) as database, database.transaction(lambda: None, lambda: None):
        many: Any = database._connection.executemany
        many(
            f"INSERT INTO copies ({COPY_COLUMNS}, living, material) VALUES ({', '.join('?' * 14)})",
            _copies(sealer, keys),
        )
        many(f"INSERT INTO register VALUES ({', '.join('?' * len(KeyRecord._fields))})", _register(keys))
        bits = 8 * KEY_BYTES * keys
        many(
            "INSERT INTO ledger VALUES (?, ?, ?)", [(LINK, a.value, bits) for a in (Account.INGESTED, Account.RESERVED)]
        )
        many("INSERT INTO audit VALUES (?, ?, ?)", _records(database, keys))


def _copies(sealer: Sealer, keys: int) -> Iterator[tuple[Any, ...]]:
    now_s = time.time()
    for place in range(keys):
        copy = Copy(
            key_id=_key_id(place),
            recipient="gateway-alpha",
            initiator="gateway-bravo",
            peer="bravo",
            link=LINK,
            request_id=f"{place // 8:08x}-0000-4000-8000-000000000001",
            length_bits=8 * KEY_BYTES,
            strands=frozenset({Strand.QKD, Strand.PQC}),
            segments=(Segment(f"{LINK}/0/0", 256 * place, 256),),
            step=Step.READY,
            reserved_s=now_s,
            expires_s=now_s + 86_400,
        )
        row = copy_row(copy)
        yield (*row, 1, sealer.seal(COPY_COLUMN, identity(row), place.to_bytes(KEY_BYTES, "big")))


def _register(keys: int) -> Iterator[tuple[Any, ...]]:
    now_s = time.time()
    alike = KeyRecord(
        key_id="",
        initiator="gateway-bravo",
        responders=("gateway-alpha",),
        peer="bravo",
        link=LINK,
        first_sequence=0,
        last_sequence=0,
        strands=frozenset({Strand.QKD, Strand.PQC}),
        size_bits=8 * KEY_BYTES,
        tenant="default",
        tags=(),
        created_s=now_s,
        activated_s=now_s,
        expires_s=now_s + 86_400,
        stage=Stage.EXPIRE,
        due_s=now_s + 86_400,
    )
    rest = key_row(alike)[1:]
    return ((_key_id(place), *rest) for place in range(keys))


def _key_id(place: int) -> str:
    return f"{place:08x}-0000-4000-8000-000000000000"


def _records(database: SqliteDatabase, keys: int) -> Iterator[tuple[Any, ...]]:
    row = database.row("SELECT number, head FROM audit ORDER BY number DESC LIMIT 1")
    assert row is not None
    number, head = row
    for place in range(keys):
        number += 1
        fields = {"n": number, "at": 1e9, "site": "alpha", "kind": "key.reserved", "key_id": f"{place:08x}"}
        record = canonical(fields)
        head = link(head, sha256(record).digest())
        yield number, record, head


def timed(report: dict[str, Any], name: str, began_s: float) -> None:
    report[name] = round(time.monotonic() - began_s, 2)


@click.command()
@click.option("--keys", default=100_000, show_default=True)
def main(keys: int) -> None:
    """Print seconds and sizes as JSON."""
    report: dict[str, Any] = {"keys": keys}
    with tempfile.TemporaryDirectory() as folder:
        pair = found_pair(Path(folder) / "pair")
        file, backup = pair.site_files["alpha"], Path(folder) / "backup"
        config = load_site(file)
        fill(config, keys)
        report["store_mb"] = round(config.store_file.stat().st_size / 1e6, 1)
        began_s = time.monotonic()
        take(config, file, backup)
        timed(report, "backup_s", began_s)
        report["backup_mb"] = round(backup.stat().st_size / 1e6, 1)
        began_s = time.monotonic()
        done = restore(config, backup, accept_rollback="a measurement")
        timed(report, "restore_s", began_s)
        began_s = time.monotonic()
        standing = check_before_start(config)
        node = SiteNode(config)
        timed(report, "start_s", began_s)
        assert standing is not None
        assert standing.epoch == done.epoch
        assert not node.store.copies_before(float("inf"), 1), "no key of before can be fetched"
        node.store.close()
    report["memory_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)
    click.echo(json.dumps(msgspec.to_builtins(report)))


if __name__ == "__main__":
    main()
