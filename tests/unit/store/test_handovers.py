"""Handovers in the store: they come back as they were, and a row that was changed does not open."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from keystrand.core.errors import StoreUnavailable, Tampered
from keystrand.core.secret import Secret
from keystrand.crypto.seal import RootKey, Sealer
from keystrand.store.handovers import facts_of
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
