"""The working set of a transaction: what is held back is written as if it had been written at once."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from keystrand.store.sqlite import SqliteDatabase
from keystrand.store.working import Journal

STEPS = st.recursive(
    st.one_of(
        st.tuples(st.just("hold"), st.integers(0, 3), st.integers(0, 9)),
        st.tuples(st.just("write"), st.integers(0, 3), st.integers(0, 9)),
    ),
    lambda inner: st.tuples(st.sampled_from(["part", "failing part"]), st.lists(inner, max_size=4)),
    max_leaves=12,
)
SQL = "INSERT OR REPLACE INTO site VALUES (?, ?)"


class PartFails(Exception):
    pass


def play(database: SqliteDatabase, steps: list[tuple], oracle: dict[str, int]) -> None:  # type: ignore[type-arg]
    for step in steps:
        if step[0] == "hold":
            database.hold("site", SQL, (str(step[1]), step[2]))
            oracle[str(step[1])] = step[2]
        elif step[0] == "write":
            database.write(SQL, (str(step[1]), step[2]))
            oracle[str(step[1])] = step[2]
        else:
            before = dict(oracle)
            with suppress(PartFails), database.savepoint():
                play(database, step[1], oracle)
                if step[0] == "failing part":
                    oracle.clear()
                    oracle.update(before)
                    raise PartFails


@settings(max_examples=150, deadline=None, derandomize=True)
@given(steps=st.lists(STEPS, max_size=8))
def test_held_writes_and_failing_parts_leave_what_immediate_writes_would(
    tmp_path_factory: object, steps: list[tuple]
) -> None:  # type: ignore[type-arg]
    path: Path = tmp_path_factory.mktemp("working") / "state" / "site.db"  # type: ignore[attr-defined]
    database, oracle = SqliteDatabase(path), {}
    with database.transaction(lambda: None, lambda: None):
        play(database, steps, oracle)
    database.close()
    assert dict(sqlite3.connect(path).execute("SELECT name, value FROM site")) == oracle


@given(st.lists(st.tuples(st.integers(0, 3), st.one_of(st.none(), st.integers())), max_size=20), st.integers(0, 20))
def test_a_journal_takes_changes_back_to_its_mark(changes: list[tuple[int, int | None]], cut: int) -> None:
    journal, table = Journal(), dict[int, int]()
    for number, (key, value) in enumerate(changes):
        if number == cut:
            kept, mark = dict(table), journal.mark()
        if value is None:
            journal.drop(table, key)
        else:
            journal.put(table, key, value)
    if cut < len(changes):
        journal.undo(mark)
        assert table == kept
