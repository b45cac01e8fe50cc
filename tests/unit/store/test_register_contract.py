"""The register of keys, in memory and in SQL: one contract, and one is the model of the other."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from keystrand.core.errors import IllegalTransition
from keystrand.core.protection import Strand
from keystrand.core.register import KeyRecord, Origin, Scope, Stage, Use
from keystrand.core.states import State
from keystrand.crypto.seal import RootKey, Sealer
from keystrand.kme.ports import KeyRegister
from keystrand.store.memory import MemoryStore
from keystrand.store.sqlite import SqliteStore

Store = MemoryStore | SqliteStore


def made(kind: str, folder: Path) -> Store:
    folder.chmod(0o700)
    return MemoryStore() if kind == "memory" else SqliteStore(folder / "site.db", Sealer(RootKey.generate()))


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    opened = made(request.param, tmp_path)
    yield opened
    opened.close()


def record(number: int, rng: random.Random | None = None) -> KeyRecord:
    """A record whose facts follow from `number`, or from chance."""
    pick = rng.choice if rng else lambda choices: choices[number % len(choices)]
    first = pick((-1, 0, 3))
    created_s = float(number if rng is None else rng.randrange(40))
    return KeyRecord(
        key_id=f"key-{number:04}",
        initiator=pick(("a", "a_", "b")),
        responders=pick((("c",), ("c", "d"), ("a.b", "c_d"))),
        peer=pick(("bravo", "carol")),
        link=pick(("l1", "l2")),
        first_sequence=first,
        last_sequence=first + (pick((0, 2)) if first >= 0 else 0),
        strands=pick((frozenset({Strand.QKD}), frozenset({Strand.QKD, Strand.PQC}))),
        size_bits=256,
        tenant=pick(("default", "acme")),
        tags=pick(((), ("asset=x",), ("asset=x y", "geography=eu"))),
        created_s=created_s,
        activated_s=created_s,
        expires_s=created_s + 100,
        stage=pick((Stage.EXPIRE, Stage.ROTATE)),
        due_s=created_s + pick((10, 100)),
        state=pick((State.ACTIVE, State.ACTIVE, State.SUSPENDED, State.COMPROMISED)),
        turn=pick((0, 1)),
        actor=pick(("ann", "clock")),
    )


def test_a_record_comes_back_as_it_was_put(store: Store) -> None:
    with store.transaction():
        for number in range(30):
            store.register.add(record(number))
            assert store.register.get(f"key-{number:04}") == record(number), "seen before the commit too"
    later = record(3)._replace(
        state=State.DESTROYED, turn=4, stage=Stage.COLLECT, due_s=7.5, actor="bob", reason="end", destroyed_n=9, uses=3
    )
    with store.transaction():
        store.register.put(later)
    assert store.register.get("key-0003") == later
    assert store.register.get("key-0004") == record(4)
    assert store.register.get("nobody") is None
    assert sum(store.register.count().values()) == 30


def test_a_known_key_id_keeps_its_first_record(store: Store) -> None:
    with store.transaction():
        store.register.add(record(1))
    with store.transaction():
        store.register.add(record(1)._replace(state=State.DESTROYED))
    assert store.register.get("key-0001") == record(1)


def test_keys_of_one_request_are_added_together(store: Store) -> None:
    with store.transaction():
        fresh = record(4)._replace(state=State.ACTIVE, turn=0, actor="")
        store.register.add_alike(fresh, [("one", 3, 4), ("two", -1, -1), ("one", 9, 9)])
    assert store.register.get("one") == fresh._replace(key_id="one", first_sequence=3, last_sequence=4)
    assert store.register.get("two") == fresh._replace(key_id="two", first_sequence=-1, last_sequence=-1)


def test_many_keys_of_one_request_are_added_together(store: Store) -> None:
    fresh = record(4)._replace(state=State.ACTIVE, turn=0, actor="")
    keys = [(f"key-{number}", number, number + 1) for number in range(85)]  # in several statements
    with store.transaction():
        store.register.add_alike(fresh, keys)
    for key_id, first, last in keys:
        assert store.register.get(key_id) == fresh._replace(key_id=key_id, first_sequence=first, last_sequence=last)
    assert store.register.count() == {"active": len(keys)}


def test_what_a_failed_part_added_is_gone(store: Store) -> None:
    with store.transaction():
        with suppress(KeyError), store.savepoint():
            store.register.add(record(1))
            store.register.put_notice("bravo", "n1", b"x")
            raise KeyError
        store.register.add(record(2))
    assert store.register.get("key-0001") is None
    assert store.register.get("key-0002") == record(2)
    assert store.register.notices("bravo", 10) == []


def test_notices_come_oldest_first_until_they_are_dropped(store: Store) -> None:
    with store.transaction():
        for notice_id in ("z", "a", "m"):
            store.register.put_notice("bravo", notice_id, notice_id.encode())
        store.register.put_notice("carol", "a", b"other")
    assert store.register.notices("bravo", 2) == [("z", b"z"), ("a", b"a")]
    with store.transaction():
        store.register.drop_notice("bravo", "z")
        store.register.drop_notice("bravo", "never")
    assert [notice_id for notice_id, _ in store.register.notices("bravo", 9)] == ["a", "m"]
    assert store.register.notices("carol", 9) == [("a", b"other")]


def test_uses_belong_to_their_key_and_go_with_it(store: Store) -> None:
    with store.transaction():
        store.register.add(record(1))
        for at_s in (1.0, 5.0):
            store.register.put_use(Use("key-0001", "c", "tunnel 2", at_s))
        store.register.put_use(Use("key-0001", "a", "tunnel 1", 2.0))
    assert store.register.uses("key-0001") == [
        Use("key-0001", "a", "tunnel 1", 2.0),
        Use("key-0001", "c", "tunnel 2", 5.0),
    ]
    with store.transaction():
        store.register.drop("key-0001")
    assert store.register.uses("key-0001") == []
    assert store.register.get("key-0001") is None


def test_the_origin_of_a_block_is_said_once(store: Store) -> None:
    with store.transaction():
        for sequence in (0, 3, 4):
            store.register.add_origin(Origin("l1", sequence, "box", float(sequence)))
        with pytest.raises(IllegalTransition), store.savepoint():
            store.register.add_origin(Origin("l1", 3, "other", 9.0))
    assert [o.sequence for o in store.register.origins("l1", 1, 10**9)] == [3, 4]
    assert store.register.origins("l2", 0, 9) == []


SCOPES = (
    Scope(),
    Scope(key_ids=("key-0003", "key-0005", "none")),
    Scope(states=frozenset({State.SUSPENDED, State.COMPROMISED})),
    Scope(tags=("asset=x",)),
    Scope(tags=("asset=x y", "geography=eu")),
    Scope(tenant="acme"),
    Scope(sae="a"),
    Scope(sae="c"),
    Scope(sae="c_d"),
    Scope(sae="a%"),
    Scope(peer="bravo", link="l2"),
    Scope(source="box"),
    Scope(link="l1", source="other"),
    Scope(since_s=12.0, until_s=30.0),
    Scope(since_s=39.5, sae="b"),
    Scope(source="box", until_s=2.0),
    Scope(relay="x"),
    Scope(relay="y"),
    Scope(relay="bravo", since_s=5.0),
)


SOURCES = ("box", "other", "relay 1/1: a>x>b", "relay 2/2: a>x>b, a>y>z>b", "relay 1/2: a>y>b, a>x>b")


def fill(register: KeyRegister, seed: int) -> None:
    rng = random.Random(seed)
    for number in range(120):
        register.add(record(number, rng))
    for link in ("l1", "l2"):
        for sequence in range(6):
            register.add_origin(Origin(link, sequence, rng.choice(SOURCES), float(rng.randrange(40))))


def after_of(page: list[KeyRecord]) -> tuple[float, str] | None:
    return (page[-1].created_s, page[-1].key_id) if page else None


@pytest.mark.parametrize("seed", range(4))
def test_both_registers_find_the_same_keys_by_every_scope_page_by_page(seed: int, tmp_path: Path) -> None:
    stores = [made("memory", tmp_path), made("sqlite", tmp_path)]
    for one in stores:
        with one.transaction():
            fill(one.register, seed)
    for scope in SCOPES:
        found = [one.register.find(scope, None, 1000) for one in stores]
        assert found[0] == found[1], scope
        paged, after = [], None
        while page := stores[1].register.find(scope, after, 7):
            paged += page
            after = (page[-1].created_s, page[-1].key_id)
        assert paged == found[0], scope
        for one in stores:
            half = one.register.find(scope, None, len(paged) // 2, newest=True)
            rest = one.register.find(scope, after_of(half), 1000, newest=True)
            assert half + rest == paged[::-1], scope
        assert stores[0].register.tally(scope) == stores[1].register.tally(scope), scope
    assert any(len(stores[0].register.find(scope, None, 1000)) not in (0, 120) for scope in SCOPES)
    for stage in Stage:
        due = [one.register.due(stage, 60.0, 25) for one in stores]
        assert due[0] == due[1]
    changed = [one.register.changed("bravo", (5.0, "key-0010"), 20) for one in stores]
    assert changed[0] == changed[1]
    assert changed[0]
    for one in stores:
        one.close()
