"""The roster of replicas: who lives, who is given up, and who does what only one may do."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from keystrand.core.errors import StoreUnavailable
from keystrand.crypto.seal import RootKey, Sealer
from keystrand.store.sql import SqlStore
from keystrand.testing.postgres import postgres_server, why_not

if reason := why_not():
    pytest.skip(reason, allow_module_level=True)

from keystrand.store import roster
from keystrand.store.postgres import PostgresAudit, PostgresDatabase
from keystrand.store.roster import Roster

Member = tuple[SqlStore, Roster]


@pytest.fixture
def address() -> str:
    return postgres_server().new_database()


@pytest.fixture
def member(address: str) -> Iterator[Callable[[str], Member]]:
    """Makes replicas by name, each with a connection of its own, not joined yet."""
    stores: list[SqlStore] = []

    def make(name: str) -> Member:
        database = PostgresDatabase(address, "alpha")
        stores.append(SqlStore(database, Sealer(RootKey.generate())))
        return stores[-1], Roster(database, name)

    yield make
    for store in stores:
        store.close()


def gone_from(store: SqlStore, one: Roster) -> list[str]:
    with store.transaction():
        return one.give_up()


def leads(store: SqlStore, one: Roster, job: str) -> bool:
    with store.transaction():
        return one.leads(job)


def test_a_replica_that_is_not_heard_of_is_given_up_and_refused(
    monkeypatch: pytest.MonkeyPatch, member: Callable[[str], Member]
) -> None:
    (first, one), (second, two) = member("a1"), member("a2")
    first_life = one.join()
    two.join()
    assert one.names() == ["a1", "a2"]
    assert gone_from(second, two) == []
    monkeypatch.setattr(roster, "GONE_S", 0.0)
    two.beat()
    assert gone_from(second, two) == ["a1"]
    assert first_life not in two.living()
    one.beat()  # too late: its place is gone
    with pytest.raises(StoreUnavailable, match="given this one up"), first.transaction():
        first.set_epoch(9)
    assert one.join() != first_life
    with first.transaction():
        assert first.epoch() == 1


def test_a_second_life_ends_the_first_at_once(member: Callable[[str], Member]) -> None:
    (first, one), (again, anew) = member("a1"), member("a1")
    one.join()
    anew.join()
    with pytest.raises(StoreUnavailable), first.transaction():
        pass
    with again.transaction():
        assert anew.names() == ["a1"]


def test_one_leads_until_it_leaves(member: Callable[[str], Member]) -> None:
    (first, one), (second, two) = member("a1"), member("a2")
    one.join()
    two.join()
    assert leads(second, two, "checkpoints")
    assert not leads(first, one, "checkpoints")
    assert leads(first, one, "another job")
    assert leads(second, two, "checkpoints")
    two.leave()
    assert gone_from(first, one) == ["a2"]
    assert leads(first, one, "checkpoints")
    two.join()
    assert not leads(second, two, "checkpoints")


def test_the_audit_part_reads_beside_running_replicas(address: str, member: Callable[[str], Member]) -> None:
    store, _ = member("a1")
    with store.transaction():
        store.audit_append(0, b"{}", b"h" * 32)
        store.put_checkpoint(1, "note")
    reader = PostgresAudit(address)
    assert reader.audit_rows(0, 9) == [(0, b"{}", b"h" * 32)]
    assert reader.checkpoints() == [(1, "note")]
    reader.close()
    with pytest.raises(StoreUnavailable, match="audit"):
        PostgresAudit(postgres_server().new_database())
