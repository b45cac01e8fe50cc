"""A row that was put back, deleted, copied or moved is found among thousands, by the sum of all of them."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keystrand.core.errors import Tampered
from keystrand.core.secret import Secret
from keystrand.crypto.seal import RootKey, Sealer
from keystrand.store.seal_set import SealSet

TABLES = ("blocks", "copies")
KEY = bytes(range(32))
ROWS = st.tuples(st.text(max_size=8), st.integers(0, 2**40), st.binary(max_size=40))


def fresh(key: bytes = KEY) -> SealSet:
    return SealSet(Secret(key), TABLES)


def of(rows: list[tuple[object, ...]], key: bytes = KEY) -> SealSet:
    kept = fresh(key)
    for row in rows:
        kept.add("blocks", row)
    return kept


@settings(derandomize=True, max_examples=200, deadline=None)
@given(rows=st.lists(ROWS, unique=True, min_size=2, max_size=20), seed=st.integers(0, 99))
def test_any_order_and_any_way_to_the_same_rows_has_the_same_sum(rows: list[tuple[object, ...]], seed: int) -> None:
    kept, shuffled = of(rows), list(rows)
    random.Random(seed).shuffle(shuffled)
    assert kept.check("blocks", shuffled) == len(rows)
    for row in rows[1:]:
        kept.remove("blocks", row)
    assert kept.check("blocks", rows[:1]) == 1
    assert kept.check("copies", []) == 0


@settings(derandomize=True, max_examples=200, deadline=None)
@given(rows=st.lists(ROWS, unique=True, min_size=2, max_size=20), other=ROWS)
def test_T3_every_other_set_of_rows_is_refused(rows: list[tuple[object, ...]], other: tuple[object, ...]) -> None:
    kept = of(rows)
    wrong = [rows[1:], [*rows, rows[0]], [rows[0], *rows[:-1]], [*rows[:-1], (*rows[-1], b"")]]
    wrong += [[*rows[1:], other]] if other not in rows else []
    for found in wrong:
        with pytest.raises(Tampered, match="blocks is not what was written last"):
            kept.check("blocks", found)
    with pytest.raises(Tampered):
        kept.check("copies", rows)


@pytest.mark.proves("R096")
def test_T3_an_old_row_put_back_is_found_among_ten_thousand() -> None:
    rows: list[tuple[object, ...]] = [(f"block-{n}", n, b"seal of term 1") for n in range(10_000)]
    kept = of(rows)
    newer = ("block-777", 777, b"seal of term 2")
    kept.remove("blocks", rows[777])
    kept.add("blocks", newer)
    with pytest.raises(Tampered):
        kept.check("blocks", rows)
    rows[777] = newer
    assert kept.check("blocks", rows) == 10_000


def test_what_fails_alone_is_taken_back_alone() -> None:
    kept = of([("a",)])
    kept.settle()
    kept.add("blocks", ("b",))
    mark = kept.mark()
    kept.remove("blocks", ("a",))
    kept.add("copies", ("c",))
    kept.undo(mark)
    assert kept.check("blocks", [("a",), ("b",)]) == 2
    kept.undo()
    assert kept.check("blocks", [("a",)]) == 1
    assert kept.check("copies", []) == 0


def test_the_kept_sums_open_at_their_own_moment_only() -> None:
    sealer = Sealer(RootKey.generate())
    rows: list[tuple[object, ...]] = [("a", 1), ("b", 2)]
    kept = of(rows)
    at_8, at_9 = kept.sealed(sealer, b"8 records"), kept.sealed(sealer, b"9 records")
    again = fresh()
    again.load(sealer, b"9 records", at_9)
    assert again.check("blocks", rows) == 2
    for bound, sealed in ((b"9 records", at_8), (b"9 records", at_9[:-1]), (b"", at_9), (b"9 records", b"")):
        with pytest.raises(Tampered):
            fresh().load(sealer, bound, sealed)
    assert at_8[-64:] != at_9[-64:], "equal sums are not seen to be equal"


def test_without_the_key_a_sum_cannot_be_made() -> None:
    with pytest.raises(Tampered):
        _move(of([("a",)], bytes(32)), fresh()).check("blocks", [("a",)])


def _move(source: SealSet, target: SealSet) -> SealSet:
    sealer = Sealer(RootKey.generate())
    target.load(sealer, b"", source.sealed(sealer, b""))
    return target


def test_it_costs_a_few_microseconds_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    row = ("01a208b0-5d0e-760e-93e3-91c34822ab62", "alpha-bravo", 7, 3, 65_536, "confirmed", "alpha", 1, bytes(180))
    kept, best_s = fresh(), 1.0
    for _ in range(20):
        began_s = time.perf_counter()
        for _ in range(1000):
            kept.add("blocks", row)
        best_s = min(best_s, time.perf_counter() - began_s)
        kept.settle()
    with capsys.disabled():
        print(f"\nseal set: {best_s * 1000:.2f} us a row")
    assert best_s < 1000 * 20e-6, "an order of magnitude above what it costs"
