"""A site on PostgreSQL is backed up while it runs, put back under a new epoch, and moved between database and file."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from tests.unit.store.test_aftermath import record_of
from tests.unit.store.test_store_contract import copy

from keystrand.config.load import load_site
from keystrand.config.schema import SiteConfig
from keystrand.core.errors import NotPermitted, StoreUnavailable, Tampered
from keystrand.core.key import Segment
from keystrand.core.pool import Account, BlockState, PoolBlock
from keystrand.core.register import Scope
from keystrand.core.secret import Secret
from keystrand.core.states import State, Step
from keystrand.lab.pair import LINK, Pair, found_pair
from keystrand.node.backup import move, restore, take
from keystrand.node.keep import kept_in
from keystrand.node.rollback import check_before_start
from keystrand.node.site import SiteNode, open_store
from keystrand.observe.audit_verify import rows_of, verify
from keystrand.store.sql import SqlStore
from keystrand.testing.postgres import postgres_server, why_not

if reason := why_not():
    pytest.skip(reason, allow_module_level=True)

REASON = "bravo is not there in this test"


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return found_pair(tmp_path / "pair")


def on_postgres(pair: Pair) -> SiteConfig:
    """The configuration of alpha, over a database that is empty."""
    file = pair.site_files["alpha"]
    address = postgres_server().new_database()
    own = file.with_name("alpha-1.toml")
    own.write_text(file.read_text().replace("[site]\n", f'[site]\nstore = "{address}"\nreplica = "alpha-1"\n', 1))
    return load_site(own)


def served(config: SiteConfig) -> None:
    """A life of the site that leaves keys behind: one waits for its recipient, one has gone; and a block has bits."""
    node = SiteNode(config)
    with closing(node.store), node.store.transaction():
        for key_id in ("k1", "k2"):
            place = (Segment(f"{LINK}/0/0", 0, 256),)
            node.store.add_copies(copy(link=LINK), [(key_id, place, Secret(b"k" * 32))])
            node.store.register.add(record_of(key_id, LINK, State.ACTIVE))
            node.store.move_bits(LINK, Account.INGESTED, Account.RESERVED, 256)
        node.store.finish_copies([("k2", copy().recipient, Step.DELIVERED)])
        node.store.move_bits(LINK, Account.RESERVED, Account.DELIVERED, 256)
        node.store.add_block(block_of_link(), Secret(bytes(8)))
        node.store.move_bits(LINK, Account.INGESTED, Account.AVAILABLE, 64)
        node.store.register.put_notice("bravo", "n1", b"frame")
        node.engine.kme.site.record("key.reserved", key_ids=["k1"])
    node.replica.leave()


def block_of_link() -> PoolBlock:
    return PoolBlock(
        block_id=f"{LINK}/0/0",
        link=LINK,
        sequence=0,
        index=0,
        length_bits=64,
        state=BlockState.CONFIRMED,
        owner="alpha",
        ingested_s=1.0,
    )


def content(store: SqlStore) -> list[object]:
    return [
        store.epoch(),
        store.copies("k1"),
        store.copies("k2"),
        store.copy_material("k1", copy().recipient).reveal(),
        store.register.find(Scope(), None, 9),
        dict(store.ledger(LINK)),
        store.free_bits(LINK, "alpha"),
        store.block_material(f"{LINK}/0/0").reveal(),
        store.audit_rows(0, 999),
        store.register.notices("bravo", 9),
    ]


def test_a_store_file_made_of_a_database_has_every_row_of_it_and_the_way_back(pair: Pair, tmp_path: Path) -> None:
    config = on_postgres(pair)
    served(config)
    with closing(open_store(config)) as store:
        expected = content(store)
    snapshot = tmp_path / "snapshot.db"
    standing = kept_in(config).snapshot(snapshot)
    assert standing.size == len(expected[-2])  # type: ignore[arg-type]
    other = on_postgres(pair)
    kept_in(other).take_in(snapshot)
    with closing(open_store(other)) as store:
        assert content(store) == expected
        with store.transaction():
            store.register.put_notice("bravo", "n2", b"later")
        assert [name for name, _ in store.register.notices("bravo", 9)] == ["n1", "n2"]


@pytest.mark.proves("R101")
def test_i14_a_site_on_postgresql_is_put_back_under_a_new_epoch_and_nothing_of_before_is_used(
    pair: Pair, tmp_path: Path
) -> None:
    config, backup = on_postgres(pair), tmp_path / "alpha.backup"
    served(config)
    manifest = take(config, pair.site_files["alpha"], backup)
    assert b"k" * 32 not in backup.read_bytes()
    node = SiteNode(config)  # life goes on: a key is fetched that the backup calls unused
    with closing(node.store):
        with node.store.transaction():
            node.store.finish_copies([("k1", copy().recipient, Step.DELIVERED)])
            node.engine.kme.site.record("key.delivered", key_id="k1")
        with pytest.raises(StoreUnavailable, match="alpha-1"):
            restore(config, backup)
    node.replica.leave()
    size = kept_in(config).standing().size
    with pytest.raises(NotPermitted, match="bravo"):
        restore(config, backup)
    done = restore(config, backup, accept_rollback=REASON)
    assert done.recovered == size - manifest.audit_size > 0
    assert done.epoch > manifest.epoch
    assert done.aside is not None
    with closing(sqlite3.connect(done.aside / "site.db")) as aside:
        assert aside.execute("SELECT max(number) + 1 FROM audit").fetchone() == (size,)
    check_before_start(config)
    node = SiteNode(config)
    with closing(node.store) as store:
        assert store.epoch() == done.epoch
        assert store.copies_before(float("inf"), 9) == []
        assert store.free_bits(LINK, "alpha") == 0
        with store.transaction():
            assert node.engine.kme.check_ledger() == []
        verify(rows_of(store), store.checkpoints(), site="alpha", signer=node.notary._signer.verifier)
    node.replica.leave()


def test_a_backup_of_a_database_can_be_put_back_as_a_file_and_the_other_way(pair: Pair, tmp_path: Path) -> None:
    config, first, second = on_postgres(pair), tmp_path / "first.backup", tmp_path / "second.backup"
    served(config)
    take(config, pair.site_files["alpha"], first)
    file = load_site(pair.site_files["alpha"])
    done = restore(file, first, accept_rollback=REASON)
    assert kept_in(file).standing().epoch == done.epoch
    take(file, pair.site_files["alpha"], second)
    other = on_postgres(pair)
    again = restore(other, second, accept_rollback=REASON)
    assert kept_in(other).standing().epoch == again.epoch > done.epoch


def test_a_site_that_moved_away_from_its_database_does_not_start_there(pair: Pair, tmp_path: Path) -> None:
    config = on_postgres(pair)
    served(config)
    manifest = move(config, pair.site_files["alpha"], tmp_path / "moved.backup")
    assert manifest.moved
    with pytest.raises(Tampered, match="moved to another host"):
        check_before_start(config)


def test_what_is_put_back_is_all_or_nothing(pair: Pair, tmp_path: Path) -> None:
    config, snapshot = on_postgres(pair), tmp_path / "snapshot.db"
    served(config)
    kept_in(config).snapshot(snapshot)
    with closing(open_store(config)) as store:
        expected = content(store)
    with closing(sqlite3.connect(snapshot)) as damaged:
        damaged.execute("DROP TABLE uses")
        damaged.execute("CREATE TABLE uses (key_id TEXT, nobody TEXT)")
        damaged.commit()
    with pytest.raises(StoreUnavailable):
        kept_in(config).take_in(snapshot)
    with closing(open_store(config)) as store:
        assert content(store) == expected


async def test_a_replica_that_serves_notices_that_its_rows_were_replaced(pair: Pair, tmp_path: Path) -> None:
    """It was left running by mistake and is refused, whatever it remembers."""
    config, snapshot = on_postgres(pair), tmp_path / "snapshot.db"
    served(config)
    kept_in(config).snapshot(snapshot)
    node = SiteNode(config)
    with closing(node.store):
        node.replica.leave()  # as if it had not been heard of
        await asyncio.to_thread(kept_in(config).take_in, snapshot)
        with pytest.raises(StoreUnavailable, match="given this one up"), node.store.transaction():
            node.store.set_epoch(99)
