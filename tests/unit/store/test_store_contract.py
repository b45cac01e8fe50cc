"""What every store must do, run against each of them; the memory store is also the model that SQLite is compared to."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from keystrand.core.errors import IllegalTransition
from keystrand.core.key import Segment
from keystrand.core.pool import Account, BlockState, Copy, DeviceBlock, OpenRequest, PeerRecord, PoolBlock
from keystrand.core.protection import Strand
from keystrand.core.secret import Secret
from keystrand.core.states import Step
from keystrand.crypto.seal import RootKey, Sealer
from keystrand.kme.ports import KeyStore
from keystrand.store.memory import MemoryStore
from keystrand.store.sql import SqlStore
from keystrand.store.sqlite import SqliteStore
from keystrand.testing.postgres import postgres_server, why_not

Store = MemoryStore | SqlStore


def as_key_store(store: Store) -> KeyStore:
    return store


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    tmp_path.chmod(0o700)
    made = {"memory": lambda _: MemoryStore(), "sqlite": sqlite_store, "postgres": postgres_store}[request.param](
        tmp_path
    )
    yield made
    made.close()


def sqlite_store(folder: Path) -> SqliteStore:
    return SqliteStore(folder / "site.db", Sealer(RootKey.generate()))


def postgres_store(folder: Path, address: str = "") -> SqlStore:
    if reason := why_not():
        pytest.skip(reason)
    from keystrand.store.postgres import PostgresDatabase

    address = address or postgres_server().new_database()
    return SqlStore(PostgresDatabase(address, "alpha"), Sealer(RootKey.generate()))


def block(index: int = 0, **changes: Any) -> PoolBlock:
    facts: dict[str, Any] = {
        "block_id": f"l1/0/{index}",
        "link": "l1",
        "sequence": 0,
        "index": index,
        "length_bits": 64,
        "state": BlockState.CONFIRMED,
        "owner": "alpha",
        "ingested_s": 10.0 + index,
    }
    return PoolBlock(**(facts | changes))


def copy(key_id: str = "k1", recipient: str = "sae-b", **changes: Any) -> Copy:
    facts: dict[str, Any] = {
        "key_id": key_id,
        "recipient": recipient,
        "initiator": "sae-a",
        "peer": "bravo",
        "link": "l1",
        "request_id": "r1",
        "length_bits": 256,
        "strands": frozenset({Strand.QKD, Strand.PQC}),
        "segments": (Segment("l1/0/0", 0, 128), Segment("l1/0/1", 64, 128)),
        "step": Step.READY,
        "reserved_s": 1.5,
        "expires_s": 100.0,
    }
    return Copy(**(facts | changes))


def add_copy(store: Store, one: Copy, material: Secret) -> None:
    store.add_copies(one, [(one.key_id, one.segments, material)])


def request_(request_id: str = "r1", **changes: Any) -> OpenRequest:
    facts: dict[str, Any] = {"request_id": request_id, "peer": "bravo", "link": "l1", "bits": 256, "op": 3}
    return OpenRequest(**(facts | changes))


def test_many_copies_are_added_and_finished_together(store: Store) -> None:
    keys = [(f"k{number:02}", (Segment("l1/0/0", number, 1),), Secret(bytes([number]) * 32)) for number in range(85)]
    with store.transaction():
        for recipient in ("sae-b", "sae-c"):
            store.add_copies(copy(recipient=recipient), keys)
    found = {(one.key_id, one.recipient): one for one in store.copies_before(1e9, 1000)}
    wanted = {(k, r): copy(k, r, segments=s) for k, s, _ in keys for r in ("sae-b", "sae-c")}
    assert found == wanted
    ends = [(key_id, "sae-b", Step.BURNT if number % 7 else Step.DELIVERED) for number, (key_id, *_) in enumerate(keys)]
    with store.transaction():
        steps = store.finish_copies(ends)
    assert [set(both) for both in steps] == [{step, Step.READY} for _, _, step in ends]
    assert [(one.key_id, one.recipient) for one in store.copies_before(1e9, 1000)] == [(k, "sae-c") for k, *_ in keys]
    for key_id, _, material in keys:
        assert store.copy_material(key_id, "sae-c").matches(material)


def test_what_is_written_reads_back_field_by_field(store: Store) -> None:
    peer = PeerRecord(peer="bravo", epoch=4, op_sent=5, op_heard=6, rolled_back=True)
    device = DeviceBlock(link="l1", sequence=7, length_bits=128, digest=b"d" * 32)
    piece = block(3, taken=0b1011, term=9, epoch=2, state=BlockState.PENDING)
    with store.transaction():
        store.set_epoch(42)
        store.put_peer(peer)
        store.add_device_block(device)
        store.add_block(piece, Secret(b"material"))
        store.add_request(request_(void=True, created_s=2.25, holder="a1"))
        add_copy(store, copy(), Secret(b"k" * 32))
        store.put_lend("bravo", "l1/0/3", 10)
    assert as_key_store(store).epoch() == 42
    assert store.peer("bravo") == peer
    assert store.peer("never heard of") == PeerRecord(peer="never heard of")
    assert store.device_block("l1", 7) == device
    assert store.device_block("l1", 8) is None
    assert store.block("l1/0/3") == piece
    assert store.block("l1/0/4") is None
    assert store.block_material("l1/0/3").reveal() == b"material"
    assert store.request("r1") == request_(void=True, created_s=2.25, holder="a1")
    assert store.requests() == [request_(void=True, created_s=2.25, holder="a1")]
    assert store.copies("k1") == [copy()]
    assert store.copy_material("k1", "sae-b").reveal() == b"k" * 32
    assert store.lends("bravo") == [("l1/0/3", 10)]


def test_a_site_is_born_in_epoch_1_without_bits(store: Store) -> None:
    assert (store.epoch(), store.free_bits("l1", "alpha"), store.links(), store.blocks()) == (1, 0, [], [])


def test_i1_a_sequence_is_never_taken_twice_even_after_its_blocks_are_gone(store: Store) -> None:
    assert store.next_sequence("l1") == 0
    with store.transaction():
        store.add_device_block(DeviceBlock(link="l1", sequence=4, length_bits=64, digest=b"x"))
        store.add_block(block(sequence=4), Secret(b"m" * 8))
        store.drop_block("l1/0/0")
    assert store.next_sequence("l1") == 5
    assert store.next_sequence("l2") == 0
    for sequence, after in ((4, 5), (2, 5), (9, 10)):
        with store.transaction():
            if sequence == 4:
                with pytest.raises(IllegalTransition), store.savepoint():
                    store.add_device_block(DeviceBlock(link="l1", sequence=4, length_bits=64, digest=b"y"))
            else:
                store.add_device_block(DeviceBlock(link="l1", sequence=sequence, length_bits=64, digest=b"y"))
        assert store.next_sequence("l1") == after
    assert store.device_block("l1", 4) == DeviceBlock(link="l1", sequence=4, length_bits=64, digest=b"x")


def test_blocks_are_filtered_and_ordered_by_place(store: Store) -> None:
    pieces = [
        block(index, block_id=f"{link}/{sequence}/{index}", link=link, sequence=sequence, state=state)
        for link, sequence, index, state in (
            ("l2", 0, 0, BlockState.CONFIRMED),
            ("l1", 10, 1, BlockState.CONFIRMED),
            ("l1", 10, 0, BlockState.QUARANTINED),
            ("l1", 9, 0, BlockState.CONFIRMED),
        )
    ]
    with store.transaction():
        for piece in pieces:
            store.add_block(piece, Secret(bytes(8)))
    ids = [piece.block_id for piece in store.blocks()]
    assert ids == ["l1/9/0", "l1/10/0", "l1/10/1", "l2/0/0"]
    assert [piece.block_id for piece in store.blocks(link="l1", sequence=10)] == ["l1/10/0", "l1/10/1"]
    assert [piece.block_id for piece in store.blocks(state=BlockState.QUARANTINED)] == ["l1/10/0"]
    assert store.blocks(link="l3") == []
    assert [piece.block_id for piece in store.free_blocks("l1", "alpha", 1)] == ["l1/9/0"]
    assert [piece.block_id for piece in store.free_blocks("l1", "alpha", 9)] == ["l1/9/0", "l1/10/1"]


def test_free_bits_follow_state_owner_and_taken_bits(store: Store) -> None:
    def change(**changes: Any) -> None:
        with store.transaction():
            store.put_block(replace(store.block("l1/0/0"), **changes))

    with store.transaction():
        store.add_block(block(), Secret(b"12345678"))
    assert store.free_bits("l1", "alpha") == 64
    change(taken=0b111)
    assert store.free_bits("l1", "alpha") == 40
    change(owner="bravo", term=1)
    assert (store.free_bits("l1", "alpha"), store.free_bits("l1", "bravo")) == (0, 40)
    change(state=BlockState.QUARANTINED)
    assert store.free_bits("l1", "bravo") == 0
    assert store.free_blocks("l1", "bravo", 5) == []
    change(state=BlockState.CONFIRMED, taken=0xFF)
    assert store.free_blocks("l1", "bravo", 5) == []
    change(taken=0x7F)
    assert store.free_bits("l1", "bravo") == 8
    with store.transaction():
        store.drop_block("l1/0/0")
    assert store.free_bits("l1", "bravo") == 0


def test_a_block_keeps_or_replaces_its_material_but_never_moves(store: Store) -> None:
    with store.transaction():
        store.add_block(block(), Secret(b"12345678"))
        store.put_block(block(taken=1))
        assert store.block_material("l1/0/0").reveal() == b"12345678"
        store.put_block(block(taken=3), Secret(b"\0\x00345678"))
    assert store.block_material("l1/0/0").reveal() == b"\0\x00345678"
    for changed in ({"sequence": 5}, {"link": "l9"}, {"index": 7}, {"ingested_s": 0.5}):
        with pytest.raises(IllegalTransition), store.transaction():
            store.put_block(replace(block(), **changed))
    with pytest.raises(KeyError), store.transaction():
        store.put_block(block(8))
    with pytest.raises(IllegalTransition), store.transaction():
        store.add_block(block(), Secret(b"12345678"))
    with pytest.raises(KeyError):
        store.block_material("l1/0/8")


def test_blocks_and_copies_come_back_oldest_first_when_due(store: Store) -> None:
    with store.transaction():
        for index in (2, 0, 1):
            store.add_block(block(index), Secret(bytes(8)))
            add_copy(store, copy(f"k{index}", expires_s=50.0 + index), Secret(bytes(32)))
    assert [piece.index for piece in store.blocks_before(12.0, 9)] == [0, 1]
    assert [piece.index for piece in store.blocks_before(99.0, 2)] == [0, 1]
    assert [one.key_id for one in store.copies_before(52.0, 9)] == ["k0", "k1"]
    assert [one.key_id for one in store.copies_before(99.0, 1)] == ["k0"]


def test_f8_a_finished_copy_has_no_material_and_is_dropped_in_time(store: Store) -> None:
    with store.transaction():
        add_copy(store, copy(), Secret(b"k" * 32))
        add_copy(store, copy(recipient="sae-c"), Secret(b"k" * 32))
        store.finish_copies([("k1", "sae-b", Step.DELIVERED)])
    assert [one.step for one in store.copies("k1")] == [Step.DELIVERED, Step.READY]
    with pytest.raises(KeyError):
        store.copy_material("k1", "sae-b")
    assert store.copy_material("k1", "sae-c").reveal() == b"k" * 32
    assert [one.recipient for one in store.copies_before(1e9, 9)] == ["sae-c"]
    with store.transaction():
        assert store.drop_finished_before(100.0, 9) == 0
    assert len(store.copies("k1")) == 2
    with store.transaction():
        assert store.drop_finished_before(100.5, 9) == 1
    assert [one.recipient for one in store.copies("k1")] == ["sae-c"]
    with pytest.raises(IllegalTransition), store.transaction():
        store.finish_copies([("k1", "sae-c", Step.RESERVED)])
    with pytest.raises(KeyError), store.transaction():
        store.finish_copies([("k9", "sae-c", Step.BURNT)])


def test_what_is_old_is_dropped_by_portions_from_the_oldest_on(store: Store) -> None:
    ages = (3.0, 1.0, 2.0, 2.0, 5.0)
    with store.transaction():
        for number, age_s in enumerate(ages):
            add_copy(store, copy(f"k{number}", expires_s=age_s), Secret(b"k" * 32))
            store.add_tombstone("bravo", f"r{number}", age_s)
        store.finish_copies([(f"k{number}", "sae-b", Step.DELIVERED) for number in range(5)])
    for limit, gone in ((1, [1]), (1, [1, 2, 3]), (1, [0, 1, 2, 3]), (1, [0, 1, 2, 3])):
        before = sum(bool(store.copies(f"k{number}")) for number in range(5))
        with store.transaction():
            dropped = store.drop_finished_before(5.0, limit), store.drop_tombstones_before(5.0, limit)
        left = [number for number in range(5) if store.copies(f"k{number}")]
        assert left == [number for number in range(5) if number not in gone], "what is as old as the last goes with it"
        assert left == [number for number in range(5) if store.is_tombstone("bravo", f"r{number}")]
        assert dropped == (before - len(left),) * 2


def test_copies_of_a_request_are_those_of_the_peer_that_made_it(store: Store) -> None:
    with store.transaction():
        for key_id, peer in (("k2", "bravo"), ("k1", "bravo"), ("k3", "charlie")):
            add_copy(store, copy(key_id, peer=peer), Secret(bytes(32)))
    assert [one.key_id for one in store.copies_of_request("bravo", "r1")] == ["k1", "k2"]
    assert [one.key_id for one in store.copies_of_request("charlie", "r1")] == ["k3"]
    assert store.copies_of_request("bravo", "r2") == []


def test_requests_change_and_go(store: Store) -> None:
    with store.transaction():
        store.add_request(request_("r2", op=1))
        store.add_request(request_("r1", op=2))
        store.put_request(request_("r1", op=2, void=True, bits=0))
    assert store.requests() == [request_("r2", op=1), request_("r1", op=2, void=True, bits=0)]
    with store.transaction():
        store.drop_request("r2")
        store.drop_request("never there")
    assert store.request("r2") is None
    with pytest.raises(KeyError), store.transaction():
        store.put_request(request_("r2"))
    with pytest.raises(IllegalTransition), store.transaction():
        store.add_request(request_("r1"))


def test_tombstones_hold_per_peer_until_they_are_old(store: Store) -> None:
    with store.transaction():
        store.add_tombstone("bravo", "r1", 5.0)
        store.add_tombstone("bravo", "r2", 6.0)
        store.add_tombstone("bravo", "r1", 7.0)  # heard of again: stays longer
    assert store.is_tombstone("bravo", "r1")
    assert not store.is_tombstone("charlie", "r1")
    with store.transaction():
        assert store.drop_tombstones_before(6.5, 9) == 1
    assert (store.is_tombstone("bravo", "r1"), store.is_tombstone("bravo", "r2")) == (True, False)


def test_i13_lends_are_kept_per_term(store: Store) -> None:
    with store.transaction():
        for term in (2, 1, 2):
            store.put_lend("bravo", "l1/0/0", term)
        store.drop_lend("bravo", "l1/0/0", 7)
    assert store.lends("bravo") == [("l1/0/0", 1), ("l1/0/0", 2)]
    with store.transaction():
        store.drop_lend("bravo", "l1/0/0", 1)
    assert store.lends("bravo") == [("l1/0/0", 2)]
    assert store.lends("charlie") == []


def test_i9_the_ledger_balances_and_cannot_be_overdrawn(store: Store) -> None:
    with store.transaction():
        store.move_bits("l1", Account.INGESTED, Account.QUARANTINED, 100)
        store.move_bits("l1", Account.QUARANTINED, Account.AVAILABLE, 90)
        store.move_bits("l1", Account.AVAILABLE, Account.DELIVERED, 40)
        store.move_bits("l2", Account.INGESTED, Account.AVAILABLE, 1)
    ledger = store.ledger("l1")
    assert ledger[Account.INGESTED] == 100
    assert sum(bits for account, bits in ledger.items() if account is not Account.INGESTED) == 100
    assert (ledger[Account.AVAILABLE], ledger[Account.DELIVERED], ledger[Account.QUARANTINED]) == (50, 40, 10)
    assert set(store.ledger("l9").values()) == {0}
    assert store.links() == ["l1", "l2"]
    for source, target, bits in (
        (Account.AVAILABLE, Account.BURNT, 51),
        (Account.AVAILABLE, Account.INGESTED, 1),
        (Account.AVAILABLE, Account.BURNT, -1),
        (Account.AVAILABLE, Account.AVAILABLE, 1),
    ):
        with pytest.raises(IllegalTransition), store.transaction():
            store.move_bits("l1", source, target, bits)
    assert store.ledger("l1") == ledger


WRITES: list[Callable[[Any], None]] = [
    lambda store: store.set_epoch(9),
    lambda store: store.put_peer(PeerRecord(peer="bravo", op_sent=1)),
    lambda store: store.add_device_block(DeviceBlock(link="l1", sequence=3, length_bits=8, digest=b"")),
    lambda store: store.add_block(block(5), Secret(b"5" * 8)),
    lambda store: store.put_block(block(taken=7), Secret(b"9" * 8)),
    lambda store: store.drop_block("l1/0/0"),
    lambda store: store.put_lend("bravo", "l1/0/5", 1),
    lambda store: store.drop_lend("bravo", "l1/0/0", 1),
    lambda store: store.add_request(request_("r5")),
    lambda store: store.put_request(request_("r1", void=True)),
    lambda store: store.drop_request("r1"),
    lambda store: store.add_tombstone("bravo", "r5", 1.0),
    lambda store: store.drop_tombstones_before(99.0, 9),
    lambda store: add_copy(store, copy("k5"), Secret(b"5" * 32)),
    lambda store: store.finish_copies([("k1", "sae-b", Step.DELIVERED)]),
    lambda store: store.drop_finished_before(1e9, 9),
    lambda store: store.move_bits("l1", Account.AVAILABLE, Account.BURNT, 5),
    lambda store: store.move_bits("l5", Account.INGESTED, Account.AVAILABLE, 5),
    lambda store: store.audit_append(1, b"{}", b"h" * 32),
    lambda store: store.put_checkpoint(1, "note"),
    lambda store: store.put_witnessed("o", 1, b"h" * 32, "note"),
]


def fill(store: Store) -> None:
    with store.transaction():
        store.add_device_block(DeviceBlock(link="l1", sequence=0, length_bits=64, digest=b"d"))
        store.add_block(block(), Secret(b"12345678"))
        store.put_lend("bravo", "l1/0/0", 1)
        store.add_request(request_())
        store.add_tombstone("bravo", "r0", 1.0)
        add_copy(store, copy(), Secret(b"k" * 32))
        add_copy(store, copy("k0"), Secret(b"k" * 32))
        store.finish_copies([("k0", "sae-b", Step.EXPIRED)])
        store.move_bits("l1", Account.INGESTED, Account.AVAILABLE, 64)
        store.audit_append(0, b"{}", b"g" * 32)


def everything(store: Store) -> list[Any]:
    """All that can be read, material included."""
    blocks, copies = store.blocks(), [one for key_id in ("k0", "k1", "k5") for one in store.copies(key_id)]
    living = [one for one in copies if one.step is Step.READY]
    return [
        store.epoch(),
        [store.peer(name) for name in ("bravo", "charlie")],
        [(store.next_sequence(link), store.device_block(link, 3)) for link in ("l1", "l5")],
        blocks,
        [store.block_material(piece.block_id).reveal() for piece in blocks],
        [(store.free_bits("l1", owner), store.free_blocks("l1", owner, 99)) for owner in ("alpha", "bravo")],
        store.blocks_before(1e9, 99),
        store.lends("bravo"),
        store.requests(),
        [store.is_tombstone("bravo", name) for name in ("r0", "r1", "r5")],
        copies,
        store.copies_before(1e9, 99),
        store.copies_of_request("bravo", "r1"),
        [store.copy_material(one.key_id, one.recipient).reveal() for one in living],
        store.links(),
        [dict(store.ledger(link)) for link in ("l1", "l5")],
        store.audit_head(),
        store.audit_rows(0, 99),
        store.checkpoints(),
        store.witnessed("o"),
    ]


@pytest.mark.parametrize("write", WRITES)
def test_every_write_is_undone_by_a_failed_transaction_and_by_a_failed_savepoint(
    store: Store, write: Callable[[Any], None]
) -> None:
    fill(store)
    before = everything(store)
    with suppress(ZeroDivisionError), store.transaction():
        write(store)
        assert everything(store) != before
        raise ZeroDivisionError
    assert everything(store) == before
    with store.transaction():
        store.move_bits("l1", Account.AVAILABLE, Account.EXPIRED, 1)
        store.set_epoch(3)
        inside = everything(store)
        with suppress(ZeroDivisionError), store.savepoint():
            write(store)
            with store.savepoint():
                store.put_lend("bravo", "nested", 1)
            raise ZeroDivisionError
        assert everything(store) == inside
    assert everything(store) == inside
    with store.transaction(), store.savepoint():
        write(store)
    assert everything(store) != inside


@pytest.mark.parametrize("write", WRITES)
def test_no_write_happens_outside_of_a_transaction(store: Store, write: Callable[[Any], None]) -> None:
    fill(store)
    before = everything(store)
    with pytest.raises(IllegalTransition):
        write(store)
    assert everything(store) == before


def test_i14_the_memory_store_goes_back_to_a_snapshot_as_often_as_asked() -> None:
    store = MemoryStore()
    fill(store)
    before, snapshot = everything(store), store.snapshot()
    for _ in range(2):
        for write in WRITES:
            with store.transaction(), store.savepoint():
                if write not in (WRITES[4], WRITES[9], WRITES[14]):  # these change what an earlier one dropped
                    write(store)
        assert everything(store) != before
        store.restore(snapshot)
        assert everything(store) == before


def test_i3_the_sqlite_store_reads_the_same_after_it_was_closed(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    root = RootKey.generate()
    store = SqliteStore(tmp_path / "site.db", Sealer(root))
    fill(store)
    before = everything(store)
    store.close()
    again = SqliteStore(tmp_path / "site.db", Sealer(root))
    assert everything(again) == before
    again.close()


class Twins(RuleBasedStateMachine):
    """Random work on both stores at once: they must never differ, and the ledger must fit the rows."""

    folder: Path

    def __init__(self) -> None:
        super().__init__()
        self.memory = MemoryStore()
        self.path = self.folder / f"{secrets.token_hex(8)}.db"
        self.sqlite = SqliteStore(self.path, Sealer(RootKey.generate()))
        self.count = 0

    def both(self, work: Callable[[Any], None], *, fails: bool) -> None:
        outcomes = []
        for store in (self.memory, self.sqlite):
            try:
                with store.transaction():
                    work(store)
                    if fails:
                        raise ZeroDivisionError
                outcomes.append("done")
            except (ZeroDivisionError, KeyError, IllegalTransition) as error:
                outcomes.append(type(error).__name__)
        assert outcomes[0] == outcomes[1]

    @rule(owner=st.sampled_from(["alpha", "bravo"]), state=st.sampled_from(list(BlockState)), fails=st.booleans())
    def ingest(self, owner: str, state: BlockState, fails: bool) -> None:
        piece = block(self.count, owner=owner, state=state)
        target = Account.AVAILABLE if state is BlockState.CONFIRMED else Account.QUARANTINED

        def work(store: Store) -> None:
            store.add_block(piece, Secret(secrets.token_bytes(8)))
            store.move_bits("l1", Account.INGESTED, target, 64)

        self.both(work, fails=fails)
        self.count += not fails

    @rule(owner=st.sampled_from(["alpha", "bravo"]), taken=st.integers(1, 255), fails=st.booleans())
    def burn(self, owner: str, taken: int, fails: bool) -> None:
        def work(store: Store) -> None:
            for piece in store.free_blocks("l1", owner, 2):
                with store.savepoint():
                    after = replace(piece, taken=piece.taken | taken)
                    store.put_block(after, Secret(bytes(8)))
                    store.move_bits("l1", Account.AVAILABLE, Account.BURNT, piece.free_bits - after.free_bits)

        self.both(work, fails=fails)

    @rule(at=st.integers(0, 20), state=st.sampled_from(list(BlockState)), owner=st.sampled_from(["alpha", "bravo"]))
    def judge(self, at: int, state: BlockState, owner: str) -> None:
        def work(store: Store) -> None:
            piece = store.block(f"l1/0/{at}")
            if piece is None:
                raise KeyError(at)
            store.put_block(replace(piece, state=state, owner=owner, term=piece.term + 1))
            was, now = piece.state is BlockState.CONFIRMED, state is BlockState.CONFIRMED
            if was and not now:
                store.move_bits("l1", Account.AVAILABLE, Account.QUARANTINED, piece.free_bits)
            if now and not was:
                store.move_bits("l1", Account.QUARANTINED, Account.AVAILABLE, piece.free_bits)

        self.both(work, fails=False)

    @invariant()
    def i9_the_ledger_is_the_sum_of_the_rows(self) -> None:
        assert self.memory.blocks() == self.sqlite.blocks()
        for store in (self.memory, self.sqlite):
            ledger, blocks = store.ledger("l1"), store.blocks()
            free = {owner: store.free_bits("l1", owner) for owner in ("alpha", "bravo")}
            confirmed = [piece for piece in blocks if piece.state is BlockState.CONFIRMED]
            for owner, bits in free.items():
                assert bits == sum(piece.free_bits for piece in confirmed if piece.owner == owner)
            assert ledger[Account.AVAILABLE] == sum(free.values())
            assert ledger[Account.INGESTED] == sum(ledger.values()) - ledger[Account.INGESTED]
            assert ledger[Account.BURNT] == sum(8 * piece.taken.bit_count() for piece in blocks)

    def teardown(self) -> None:
        self.sqlite.close()


def test_i9_both_stores_agree_under_random_work(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    Twins.folder = tmp_path
    limits = settings(
        max_examples=25,
        stateful_step_count=25,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Twins, settings=limits)
