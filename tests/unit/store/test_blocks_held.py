"""Bits taken from blocks are held back to the end of a transaction, and everything that is asked meanwhile knows of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.store.test_store_contract import Store, block
from tests.unit.store.test_store_contract import store as store

from keystrand.core.pool import BlockState
from keystrand.core.secret import Secret
from keystrand.store.sqlite import SqliteDatabase

L1 = ("l1", "alpha")


def seen(store: Store) -> list[object]:
    return [
        store.free_bits(*L1),
        [(one.index, one.taken) for one in store.free_blocks(*L1, 2)],
        [(one.index, one.taken) for one in store.free_blocks(*L1, 9)],
        [(one.index, one.taken) for one in store.blocks(link="l1")],
        [store.block(f"l1/0/{place}") for place in range(5)],
    ]


def take(store: Store) -> None:
    """A part of one block, all of another; a third one goes to the other site, a fourth is new."""
    store.put_block(replace(block(0), taken=0b11), Secret(b"\0\0" + bytes(6)))
    store.drop_block("l1/0/1")
    store.put_block(replace(block(2), owner="bravo", term=1))
    store.add_block(block(4), Secret(bytes(8)))


EXPECTED = [
    64 - 16 + 64 + 64,
    [(0, 0b11), (3, 0)],
    [(0, 0b11), (3, 0), (4, 0)],
    [(0, 0b11), (2, 0), (3, 0), (4, 0)],
]


@pytest.fixture
def filled(store: Store) -> Store:
    with store.transaction():
        for place in range(4):
            store.add_block(block(place), Secret(bytes(8)))
    return store


def test_what_was_taken_is_seen_at_once_and_after_the_commit(filled: Store) -> None:
    with filled.transaction():
        assert filled.free_bits(*L1) == 4 * 64
        take(filled)
        assert seen(filled)[:4] == EXPECTED
        assert filled.block("l1/0/1") is None
    assert seen(filled)[:4] == EXPECTED


@pytest.mark.parametrize("asked", [True, False])
def test_a_part_that_fails_gives_everything_back(filled: Store, asked: bool) -> None:
    def take_and_fail() -> None:
        with filled.savepoint():
            take(filled)
            if asked:  # some answers have to be written for
                seen(filled)
            raise ZeroDivisionError

    before = seen(filled)
    with filled.transaction():
        filled.put_block(replace(block(3), taken=0b1), Secret(bytes(8)))
        with pytest.raises(ZeroDivisionError):
            take_and_fail()
        assert filled.free_bits(*L1) == 4 * 64 - 8
        filled.put_block(block(3), Secret(bytes(8)))
        assert seen(filled) == before
    assert seen(filled) == before


def test_a_block_that_is_not_there_cannot_be_changed(filled: Store, tmp_path: Path) -> None:
    with filled.transaction():
        filled.drop_block("l1/0/0")
        with pytest.raises(KeyError):
            filled.put_block(replace(block(0), state=BlockState.QUARANTINED))


def test_many_blocks_go_at_once_with_their_bits(filled: Store) -> None:
    """A link whose blocks are quarantined: within a savepoint a statement for each block would take minutes in SQLite."""
    deletes: list[str] = []
    database = getattr(filled, "_db", None)
    if isinstance(database, SqliteDatabase):
        database._connection.set_trace_callback(lambda sql: deletes.append(sql) if sql.startswith("DELETE") else None)
    with filled.transaction(), filled.savepoint():
        for place in (0, 2, 3):
            filled.drop_block(f"l1/0/{place}")
        assert filled.free_bits(*L1) == 64
        assert [one.index for one in filled.blocks(link="l1")] == [1]
    assert [one.index for one in filled.free_blocks(*L1, 9)] == [1]
    assert filled.free_bits(*L1) == 64
    assert len(set(deletes)) == isinstance(database, SqliteDatabase)


@pytest.mark.parametrize("limit", [4, 7, 16])
def test_as_many_free_blocks_are_found_as_were_asked_for_however_many_went_meanwhile(store: Store, limit: int) -> None:
    with store.transaction():
        for place in range(24):
            store.add_block(block(place), Secret(bytes(8)))
    with store.transaction():
        for place in range(6):
            store.drop_block(f"l1/0/{place}")
        expected = list(range(6, 6 + limit))
        assert [one.index for one in store.free_blocks(*L1, limit)] == expected
        assert [one.index for one in store.free_blocks(*L1, limit)] == expected, "and again, now from what was read"
    assert [one.index for one in store.free_blocks(*L1, limit)] == expected
