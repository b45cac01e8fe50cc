"""Handovers in the store: they come back as they were, and a row that was changed does not open."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from keystrand.core.errors import StoreUnavailable, Tampered
from keystrand.core.secret import Secret
from keystrand.crypto.seal import RootKey, Sealer
from keystrand.store.handovers import facts_of, handover_of
from keystrand.store.sqlite import SqliteStore
from keystrand.wire.etsi020 import AckStatus, Parties
from keystrand.wire.handover import Handover, Stage

ROOT = RootKey.generate()
KEY_ID = "00000000-0000-4000-8000-000000000001"


def a_record() -> Handover:
    return Handover(
        key_id=KEY_ID,
        peer="kme-west",
        parties=Parties("sae-a", ("sae-c", "sae-d")),
        sends=True,
        stage=Stage.READY,
        since_s=1.5,
        offer=KEY_ID,
        material=Secret(b"m" * 32),
        extension={"x": b'{"a":1}'},
        mandatory={"y": b"2"},
        optional={"z": b"null"},
        callback_url="https://east.example/ack",
        owes=AckStatus.RELAYED,
        accepted=True,
        unclear=True,
        alone=True,
        attempts=3,
        next_s=2.5,
        deadline_s=3.5,
        asked=True,
        kept=True,
        said={"w": b'"z"'},
        woven=True,
    )


def store_in(folder: Path) -> SqliteStore:
    return SqliteStore(folder / "store" / "site.db", Sealer(ROOT))


def test_a_record_comes_back_with_every_field_and_its_material(tmp_path: Path) -> None:
    with closing(store_in(tmp_path)) as store, store.transaction():
        store.handovers.save(replace(a_record(), attempts=1))
        store.handovers.save(a_record())
    with closing(store_in(tmp_path)) as store:
        (found,) = store.handovers.load()
        assert found == a_record()
        assert found.material is not None
        assert found.material.matches(Secret(b"m" * 32))
        with store.transaction():
            store.handovers.save(replace(a_record(), stage=Stage.RELEASED, material=None))
        (found,) = store.handovers.load()
        assert (found.stage, found.material) == (Stage.RELEASED, None)
        with store.transaction():
            store.handovers.forget(KEY_ID)
        assert list(store.handovers.load()) == []


def test_both_ways_of_a_key_that_is_carried_on_stand_under_its_id(tmp_path: Path) -> None:
    way_out = replace(a_record(), peer="kme-east", onward=True, material=Secret(b"o" * 32))
    with closing(store_in(tmp_path)) as store, store.transaction():
        store.handovers.save(a_record())
        store.handovers.save(way_out)
    with closing(store_in(tmp_path)) as store:
        found = {record.onward: record for record in store.handovers.load()}
        assert (found[False], found[True]) == (a_record(), way_out)
        with store.transaction():
            store.handovers.forget(way_out.name)
        assert [record.onward for record in store.handovers.load()] == [False]


def test_facts_of_the_release_before_are_read() -> None:
    facts = msgspec.msgpack.decode(facts_of(a_record()))
    for name in ("onward", "asked", "kept", "said", "woven"):
        del facts[name]
    found = handover_of(msgspec.msgpack.encode(facts), None)
    assert found == replace(a_record(), asked=False, kept=False, said={}, woven=False)


def test_what_a_failed_transaction_saved_is_not_there(tmp_path: Path) -> None:
    def fail(store: SqliteStore) -> None:
        with store.transaction():
            store.handovers.save(a_record())
            raise StoreUnavailable("disk full")

    with closing(store_in(tmp_path)) as store:
        with pytest.raises(StoreUnavailable):
            fail(store)
        assert list(store.handovers.load()) == []


def test_I12_material_is_sealed_in_the_file(tmp_path: Path) -> None:
    with closing(store_in(tmp_path)) as store, store.transaction():
        store.handovers.save(a_record())
    assert not any(b"m" * 32 in file.read_bytes() for file in (tmp_path / "store").iterdir())


@pytest.mark.parametrize("change", ["stage", "peer", "material", "key_id", "unreadable"])
def test_a_row_that_was_changed_does_not_open(tmp_path: Path, change: str) -> None:
    with closing(store_in(tmp_path)) as store:
        with store.transaction():
            store.handovers.save(a_record())
        forged = {
            "stage": ("record", facts_of(replace(a_record(), stage=Stage.OFFERED))),
            "peer": ("record", facts_of(replace(a_record(), peer="kme-else"))),
            "material": ("material", b"\1" * 77),
            "key_id": ("key_id", KEY_ID[:-1] + "2"),
            "unreadable": ("record", b"\xc1"),
        }
        column, value = forged[change]
        with store.transaction():
            store._db.write(f"UPDATE handovers SET {column} = ?", (value,))
        with pytest.raises(Tampered):
            store.handovers.load()
