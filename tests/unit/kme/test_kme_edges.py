"""The rarer ways: full pools, scraps of blocks, blocks that one end has lost, peers that come and go."""

from __future__ import annotations

from dataclasses import replace

import pytest
from kme_pair import BLOCK_BITS, LIMITS, Pair, block_of, materials

from keystrand.core.errors import KeyUnavailable, PeerFault, PeerUnavailable, Unavailable
from keystrand.core.pool import Account, BlockState
from keystrand.kme.site import Link
from keystrand.kme.strands import EPOCHS_KEPT
from keystrand.wire.peer import Borrow, Checkpoint, Known, Message, Probe, Reserve, StrandOffer, Voided


def test_a_full_pool_refuses_blocks() -> None:
    pair = Pair(limits=replace(LIMITS, pool_size_bits_max=BLOCK_BITS))
    pair.connect()
    pair.fill(0)
    with pytest.raises(KeyUnavailable, match="full"):
        pair.alpha.run(lambda kme: kme.ingest(block_of(1, bytes(range(8)))))
    pair.draw("a2", "b1")
    pair.alpha.run(lambda kme: kme.ingest(block_of(1, bytes(range(8)))))


def test_a_key_may_be_made_of_many_scraps(bare: Pair) -> None:
    for sequence in range(16):
        bare.fill(sequence, 64)
    drawn = bare.draw("a1", "b1", number=2)  # 8 blocks of 64 bits are alpha's
    assert materials(bare.fetch("b1", "a1", *drawn)) == materials(drawn)
    assert bare.alpha.kme.pool.owned_bits("link") == 0


def test_a_block_that_the_peer_used_up_unheard_does_not_linger(pair: Pair) -> None:
    pair.lose = lambda message: isinstance(message, Reserve)
    pair.ask("b1", "a1", number=8)  # one whole pool block of bravo's
    pair.pump()
    assert pair.bravo.ledger(Account.AVAILABLE) == 2 * BLOCK_BITS - 2048
    assert pair.alpha.ledger(Account.AVAILABLE) == 2 * BLOCK_BITS
    pair.advance(4)  # given up before alpha has heard of it
    pair.lose = lambda message: False
    pair.advance(35)
    assert pair.alpha.ledger(Account.BURNT) == 2048
    assert pair.alpha.ledger(Account.AVAILABLE) == pair.bravo.ledger(Account.AVAILABLE)


def half_confirmed(pair: Pair) -> None:
    """Block 0 is confirmed at alpha, and bravo has not heard of that."""
    material = bytes(range(256)) * (BLOCK_BITS // 2048)
    pair.alpha.run(lambda kme: kme.ingest(block_of(0, material)))
    pair.pump()
    pair.lose = lambda message: isinstance(message, Known)
    pair.bravo.run(lambda kme: kme.ingest(block_of(0, material)))
    pair.pump()
    assert {block.state for block in pair.alpha.store.blocks()} == {BlockState.CONFIRMED}
    assert {block.state for block in pair.bravo.store.blocks()} == {BlockState.PENDING}


def test_a_block_that_we_destroyed_is_said_to_be_gone(bare: Pair) -> None:
    half_confirmed(bare)
    bare.alpha.run(lambda kme: kme.pool.quarantine("link", (0,), "test"))
    bare.lose = lambda message: False
    bare.advance(2)
    assert Known(link="link", sequence=0, verdict="gone") in [message for _, message in bare.sent]
    assert bare.bravo.ledger(Account.BURNT) == BLOCK_BITS


def test_a_reservation_confirms_a_block_whose_confirmation_was_lost(bare: Pair) -> None:
    half_confirmed(bare)
    drawn = bare.draw("a1", "b1")
    assert materials(bare.fetch("b1", "a1", *drawn)) == materials(drawn)
    assert {block.state for block in bare.bravo.store.blocks()} == {BlockState.CONFIRMED}


@pytest.mark.parametrize(
    "message",
    [
        Borrow(link="elsewhere", bits=8),
        Probe(block_ids=("nonsense",)),
        Probe(block_ids=("elsewhere/0/0",)),
        Probe(block_ids=("link/x/0",)),
        Checkpoint(note="", first=0, digests=()),
    ],
)
def test_messages_that_make_no_sense_are_peer_faults(pair: Pair, message: Message) -> None:
    with pytest.raises(PeerFault):
        pair.alpha.run(lambda kme: kme.receive("bravo", message))


def test_requests_that_wait_for_the_peer_are_bounded() -> None:
    pair = Pair(limits=replace(LIMITS, pending_requests_max=2))
    pair.connect()
    pair.fill(0)
    pair.ask("a1", "b1")
    pair.ask("a1", "b1")
    with pytest.raises(Unavailable, match="too many requests"):
        pair.ask("a1", "b1")
    pair.pump()
    assert len(pair.draw("a1", "b1")) == 1


def test_a_new_epoch_of_the_peer_gives_up_what_is_on_its_way(pair: Pair) -> None:
    pair.lose = lambda message: isinstance(message, Reserve | Voided)
    ticket = pair.ask("a1", "b1")
    pair.pump()
    pair.bravo.start(restored=True)
    pair.connect()
    assert isinstance(pair.answers[ticket], PeerUnavailable)
    assert pair.alpha.ledger(Account.BURNT) == 256
    assert pair.alpha.ledger(Account.QUARANTINED) == 2 * BLOCK_BITS - 256


def test_a_peer_goes_down_once(pair: Pair) -> None:
    for _ in range(2):
        pair.alpha.run(lambda kme: kme.peer_down("bravo"))
    assert len(pair.alpha.events("peer.down")) == 1
    before = len(pair.sent)
    pair.alpha.run(lambda kme: kme.tick())
    assert len(pair.sent) == before, "nothing is said to a peer that is away"


@pytest.mark.proves("R097")
def test_since_when_a_peer_is_away_outlasts_everything_that_is_tried(pair: Pair) -> None:
    session = pair.alpha.kme.sessions["bravo"]
    began_s = session.since_s
    pair.clock.move_to(pair.clock.monotonic_s() + 100.0)
    pair.alpha.run(lambda kme: kme.peer_up("bravo", "again"))
    assert session.since_s == began_s, "it was up"
    pair.alpha.run(lambda kme: kme.peer_down("bravo"))
    assert session.since_s == began_s + 100.0
    pair.clock.move_to(pair.clock.monotonic_s() + 5000.0)
    pair.alpha.run(lambda kme: kme.peer_down("bravo"))
    assert session.since_s == began_s + 100.0
    pair.alpha.run(lambda kme: kme.peer_up("bravo", "again"))
    assert session.since_s == began_s + 5100.0


def test_status_without_a_strand_promises_nothing() -> None:
    pair = Pair()
    pair.lose = lambda message: isinstance(message, StrandOffer)
    pair.connect()
    pair.fill(0)
    assert pair.alpha.run(lambda kme: kme.status("a1", "b1")).stored_keys == 0
    assert pair.alpha.run(lambda kme: kme.status("a2", "b2")).stored_keys == 0
    assert pair.alpha.run(lambda kme: kme.status("a2", "b1")).stored_keys == 32
    pair.lose = lambda message: False
    pair.advance(2)
    assert pair.alpha.run(lambda kme: kme.status("a1", "b1")).stored_keys == 32
    assert pair.alpha.run(lambda kme: kme.status("a2", "b2")).stored_keys == LIMITS.keys_per_request_max


def test_secrets_of_old_strands_are_forgotten(pair: Pair) -> None:
    first = pair.alpha.kme.strands.current("bravo").strand_id
    for _ in range(EPOCHS_KEPT):
        assert pair.bravo.kme.strands.of_peer("alpha", first) is not None
        pair.alpha.kme.strands.forget("bravo")
        pair.advance(2)
    assert pair.bravo.kme.strands.of_peer("alpha", first) is None


@pytest.mark.parametrize(
    ("target", "words"), [(Account.RESERVED, "reserved by the books"), (Account.BURNT, "available by the books")]
)
def test_I9_books_that_do_not_balance_are_noticed(target: Account, words: str) -> None:
    pair = Pair()
    pair.connect()
    pair.fill(0)
    with pair.alpha.store.transaction():
        pair.alpha.store.move_bits("link", Account.AVAILABLE, target, 8)
    assert any(words in problem for problem in pair.alpha.kme.check_ledger())


def test_a_link_leads_to_a_peer(pair: Pair) -> None:
    with pytest.raises(ValueError, match="not a peer"):
        replace(pair.alpha.kme.site, links=(Link(name="x", peer="zulu"),))
