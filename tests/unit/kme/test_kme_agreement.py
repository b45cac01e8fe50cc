"""What happens between the two services when messages are lost, late, repeated or wrong, and when a site starts again."""

from __future__ import annotations

import random

import msgspec
import pytest
from kme_pair import BLOCK_BITS, LIMITS, Pair, block_of, materials

from keystrand.core.errors import BadRequest, KeystrandError, PeerFault, PeerUnavailable, UnknownKey
from keystrand.core.pool import Account, BlockState
from keystrand.wire.peer import (
    Announce,
    Hello,
    Known,
    Lend,
    Message,
    Refused,
    Reserve,
    Reserved,
    StrandAnswer,
    StrandOffer,
    Void,
    Voided,
    WireKey,
)


def lose(*kinds: type[Message]):  # type: ignore[no-untyped-def]
    return lambda message: isinstance(message, kinds)


def last(pair: Pair, kind: type[Message]) -> Message:
    return next(message for _, message in reversed(pair.sent) if isinstance(message, kind))


# silence and late answers ------------------------------------------------------------------------------------------


@pytest.mark.proves("R098")
@pytest.mark.parametrize("lost", [Reserve, Reserved])
def test_F7_a_silent_peer_burns_the_bits_and_is_told_to_forget_until_it_confirms(
    pair: Pair, lost: type[Message]
) -> None:
    pair.lose = lose(lost, Voided)
    ticket = pair.ask("a1", "b1", number=2)
    key_ids = [key.key_id for key in last(pair, Reserve).keys]  # type: ignore[attr-defined]
    pair.pump()
    pair.advance(LIMITS.peer_reply_timeout_s + 0.5)
    assert isinstance(pair.answers[ticket], PeerUnavailable)
    assert pair.alpha.ledger(Account.BURNT) == 512
    pair.advance(5)
    assert pair.count(Void) >= 4, "said again until it is answered"
    assert [request.void for request in pair.alpha.store.requests()] == [True]
    pair.lose = lose()
    pair.advance(2)
    assert pair.alpha.store.requests() == []
    for key_id in key_ids:
        with pytest.raises(UnknownKey):
            pair.fetch("b1", "a1", key_id)
    assert pair.bravo.ledger(Account.RESERVED) == 0
    assert pair.bravo.ledger(Account.BURNT) == (512 if lost is Reserved else 0)


def test_a_reservation_is_repeated_before_it_is_given_up(pair: Pair) -> None:
    pair.lose = lose(Reserve)
    ticket = pair.ask("a1", "b1")
    pair.pump()
    pair.lose = lose()
    pair.advance(LIMITS.peer_retry_s)
    keys = pair.answers[ticket]
    assert isinstance(keys, list)
    assert materials(pair.fetch("b1", "a1", *keys)) == materials(keys)


def test_I6_a_late_reserved_after_giving_up_changes_nothing(pair: Pair) -> None:
    pair.lose = lose(Reserved)
    ticket = pair.ask("a1", "b1")
    pair.pump()
    late = last(pair, Reserved)
    pair.advance(3)
    answer, ledger = pair.answers[ticket], dict(pair.alpha.store.ledger("link"))
    pair.hear("bravo", "alpha", late)
    pair.pump()
    assert pair.answers == {ticket: answer}
    assert isinstance(answer, KeystrandError)
    assert dict(pair.alpha.store.ledger("link")) == ledger
    assert pair.alpha.records("key.delivered") == []


def test_a_void_that_overtakes_its_reserve_leaves_a_tombstone(pair: Pair) -> None:
    pair.lose = lose(Reserve)
    ticket = pair.ask("a1", "b1")
    reserve = last(pair, Reserve)
    pair.pump()
    pair.advance(4)
    assert isinstance(pair.answers[ticket], PeerUnavailable)
    pair.lose = lose()
    pair.hear("alpha", "bravo", reserve)
    refused = last(pair, Refused)
    assert isinstance(refused, Refused)
    assert refused.reason == "void"
    assert pair.bravo.ledger(Account.RESERVED) == 0


@pytest.mark.proves("R098")
@pytest.mark.parametrize("seed", range(12))
def test_I1_I2_hold_when_messages_are_repeated_and_reordered(pair: Pair, seed: int) -> None:
    pair.shake = random.Random(seed)
    for sequence in (2, 3):
        pair.fill(sequence)
    pairs = (("a1", "b1"), ("b1", "a1"), ("a2", "b1"), ("a2", "b2"))
    tickets = [(pair.ask(*who, number=2), *who) for who in pairs * 3]
    pair.pump()
    pair.advance(4)
    seen: set[bytes] = set()
    for ticket, initiator, responder in tickets:
        keys = pair.answers[ticket]
        assert isinstance(keys, list)
        assert materials(pair.fetch(responder, initiator, *keys)) == materials(keys)
        seen.update(key.material.reveal() for key in keys)
    assert len(seen) == 2 * len(tickets), "no two requests share a key"


def test_a_repeated_reserve_is_answered_again_and_sets_nothing_aside(pair: Pair) -> None:
    pair.draw("a1", "b1")
    ledger = dict(pair.bravo.store.ledger("link"))
    pair.hear("alpha", "bravo", last(pair, Reserve))
    assert pair.count(Reserved) == 2
    assert dict(pair.bravo.store.ledger("link")) == ledger


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"epoch": 9}, "epoch"),
        ({"op": -5000}, "old"),
        ({"size_bits": 260}, "shape"),
        ({"keys": ()}, "shape"),
        ({"strands": ()}, "shape"),
        ({"strands": ("classical",)}, "shape"),
        ({"ttl_s": -1.0}, "shape"),
        ({"initiator": "b2"}, "policy"),
        ({"responders": ("b1", "x9")}, "policy"),
        ({"responders": ("a2",)}, "policy"),
        ({"strands": ("qkd",), "strand_id": ""}, "policy"),
        ({"strand_id": "unheard/of"}, "strand"),
        ({"link": "elsewhere"}, "state"),
        ({"keys": (WireKey("id", (("link/0/1", 0, 256),)),)}, "owner"),
        ({"keys": (WireKey("id", (("link/0/0", 4, 256),)),)}, "range"),
        ({"keys": (WireKey("id", (("link/0/0", 1920, 256),)),)}, "range"),
        ({"keys": (WireKey("id", (("link/0/0", -256, 256),)),)}, "range"),
        ({"keys": (WireKey("id", (("link/0/0", 0, 128), ("link/0/0", 0, 128))),)}, "taken"),
        ({"keys": (WireKey("id", (("link/9/0", 0, 256),)),)}, "gone"),
    ],
)
def test_a_peer_may_not_reserve_what_is_not_its_own_or_not_allowed(
    pair: Pair, change: dict[str, object], reason: str
) -> None:
    pair.lose = lose(Reserve)
    pair.ask("a1", "b1")
    forged = msgspec.structs.replace(last(pair, Reserve), request_id="forged", **change)  # type: ignore[type-var]
    pair.pump()
    ledger = dict(pair.bravo.store.ledger("link"))
    pair.hear("alpha", "bravo", forged)
    assert last(pair, Refused) == Refused(request_id="forged", reason=reason)
    assert dict(pair.bravo.store.ledger("link")) == ledger
    assert pair.bravo.store.is_tombstone("alpha", "forged")


# blocks ------------------------------------------------------------------------------------------------------------


@pytest.mark.proves("R016")
def test_a_block_that_differs_between_the_ends_is_quarantined_at_both(bare: Pair) -> None:
    for side, material in ((bare.alpha, b"\x01" * 512), (bare.bravo, b"\x02" * 512)):
        side.run(lambda kme, material=material: kme.ingest(block_of(0, material)))
    bare.pump()
    for side in (bare.alpha, bare.bravo):
        assert side.ledger(Account.QUARANTINED) == side.ledger(Account.INGESTED) == 4096
        assert side.store.blocks() == []
        assert len(side.events("block.quarantined")) == 1
        assert len(side.records("block.quarantined")) == 1
    with pytest.raises(KeystrandError):
        bare.draw("a2", "b1")


def test_a_block_is_not_used_before_the_peer_has_it_too(bare: Pair) -> None:
    bare.alpha.run(lambda kme: kme.ingest(block_of(0, bytes(range(256)))))
    bare.pump()
    assert bare.alpha.ledger(Account.AVAILABLE) == 0
    assert {block.state for block in bare.alpha.store.blocks()} == {BlockState.PENDING}
    bare.lose = lose(Announce, Known)
    bare.bravo.run(lambda kme: kme.ingest(block_of(0, bytes(range(256)))))
    bare.pump()
    bare.lose = lose()
    bare.advance(2)  # the announcement is repeated
    assert bare.alpha.ledger(Account.AVAILABLE) == bare.bravo.ledger(Account.AVAILABLE) == 2048


def test_a_block_that_the_other_end_will_never_have_is_burnt(bare: Pair) -> None:
    bare.alpha.run(lambda kme: kme.ingest(block_of(0, bytes(256))))
    bare.fill(1)
    bare.advance(2)
    assert bare.alpha.ledger(Account.BURNT) == 2048


@pytest.mark.proves("R016")
@pytest.mark.parametrize(
    ("sequence", "length_bytes", "link", "words"),
    [
        (0, 256, "link", "delivered before"),
        (2, 256, "elsewhere", "no link"),
        (2, 0, "link", "outside the limits"),
        (2, LIMITS.device_block_size_bits_max // 8 + 1, "link", "outside the limits"),
    ],
)
def test_a_block_that_cannot_be_right_is_refused(
    pair: Pair, sequence: int, length_bytes: int, link: str, words: str
) -> None:
    ledger = dict(pair.alpha.store.ledger("link"))
    with pytest.raises(BadRequest, match=words):
        pair.alpha.run(lambda kme: kme.ingest(block_of(sequence, bytes(length_bytes), link)))
    assert dict(pair.alpha.store.ledger("link")) == ledger


def test_I1_the_same_block_again_is_taken_for_what_it_is(bare: Pair) -> None:
    """The module did not hear that it was durable; whoever sends other bits under its number is refused."""
    block = block_of(0, bytes(range(256)))
    for _ in range(2):
        bare.alpha.run(lambda kme: kme.ingest(block))
    assert bare.alpha.ledger(Account.INGESTED) == 2048
    assert len(bare.alpha.records("block.ingested")) == 1
    with pytest.raises(BadRequest, match="delivered before"):
        bare.alpha.run(lambda kme: kme.ingest(block_of(0, bytes(256))))


def test_I6_unused_bits_expire(pair: Pair) -> None:
    pair.clock.move_to(pair.clock.monotonic_s() + LIMITS.block_ttl_s + 1)
    pair.advance(2)
    for side in (pair.alpha, pair.bravo):
        assert side.ledger(Account.EXPIRED) == 2 * BLOCK_BITS
        assert side.store.blocks() == []
        assert side.events("block.expired")


def test_messages_about_another_link_are_peer_faults(bare: Pair) -> None:
    digest = bytes(16)
    for message in (
        Announce(link="elsewhere", sequence=0, length_bits=8, digest=digest, epoch=1),
        Known(link="elsewhere", sequence=0, verdict="match"),
        Known(link="link", sequence=0, verdict="perhaps"),
    ):
        with pytest.raises(PeerFault):
            bare.alpha.run(lambda kme, message=message: kme.receive("bravo", message))


# ownership ---------------------------------------------------------------------------------------------------------


def test_I13_blocks_move_to_the_end_that_needs_them_and_never_have_two_owners(pair: Pair) -> None:
    pair.draw("a1", "b1", number=56)  # of the 64 keys that alpha owns
    pair.lose = lose(Lend)
    pair.advance(2)
    lent = [block for block in pair.bravo.store.blocks() if block.owner == "alpha" and block.term == 1]
    assert lent, "given away durably before the taker hears of it"
    assert all(pair.alpha.store.block(block.block_id).owner == "bravo" for block in lent)  # type: ignore[union-attr]
    pair.lose = lose()
    pair.advance(3)
    assert pair.bravo.store.lends("alpha") == []
    assert pair.alpha.store.free_bits("link", "alpha") >= 8 * 256 + sum(block.length_bits for block in lent)
    keys = pair.draw("a1", "b1", number=16)
    assert materials(pair.fetch("b1", "a1", *keys)) == materials(keys)


def test_I13_an_old_lend_changes_nothing(pair: Pair) -> None:
    block = next(block for block in pair.alpha.store.blocks() if block.owner == "bravo")
    pair.hear("bravo", "alpha", Lend(blocks=((block.block_id, block.term), ("link/9/9", 5))))
    assert pair.alpha.store.block(block.block_id) == block


# strands -----------------------------------------------------------------------------------------------------------


def test_a_strand_is_renewed_when_it_is_old_and_when_it_is_worn(pair: Pair) -> None:
    first = pair.alpha.kme.strands.current("bravo").strand_id
    pair.advance(LIMITS.strand_epoch_s + 2)
    second = pair.alpha.kme.strands.current("bravo").strand_id
    assert first != second
    pair.alpha.kme.strands.current("bravo").keys = LIMITS.strand_epoch_keys_max
    pair.advance(2)
    assert pair.alpha.kme.strands.current("bravo").strand_id not in (first, second)
    assert len(pair.alpha.records("strand.renewed")) == 3
    keys = pair.draw("a1", "b1")
    assert materials(pair.fetch("b1", "a1", *keys)) == materials(keys)


def test_a_peer_that_lost_its_strand_refuses_once_and_then_works_again(pair: Pair) -> None:
    pair.bravo.start()
    with pytest.raises(PeerUnavailable, match="strand"):
        pair.draw("a1", "b1")
    assert pair.alpha.ledger(Account.BURNT) == 256
    keys = pair.draw("a1", "b1")
    assert materials(pair.fetch("b1", "a1", *keys)) == materials(keys)


def test_a_strand_that_the_peer_does_not_confirm_is_not_used(pair: Pair) -> None:
    pair.lose = lose(StrandAnswer)
    pair.alpha.kme.strands.forget("bravo")
    pair.advance(2)
    answer = last(pair, StrandAnswer)
    forged = msgspec.structs.replace(answer, confirm=bytes(32))  # type: ignore[type-var]
    with pytest.raises(PeerFault, match="confirm"):
        pair.alpha.run(lambda kme: kme.receive("bravo", forged))
    assert not pair.alpha.kme.strands.usable("bravo")


def test_a_strand_of_another_algorithm_is_a_peer_fault(pair: Pair) -> None:
    offer = StrandOffer(strand_id="x", algorithm="rot13", encapsulation_key=bytes(32))
    with pytest.raises(PeerFault, match="rot13"):
        pair.alpha.run(lambda kme: kme.receive("bravo", offer))


# starting again ----------------------------------------------------------------------------------------------------


@pytest.mark.proves("R101")
def test_I10_a_restart_burns_what_was_on_its_way_and_nothing_else(pair: Pair) -> None:
    pair.lose = lose(Reserve)
    pair.ask("a1", "b1", number=3)
    pair.pump()
    pair.alpha.start()
    assert pair.alpha.ledger(Account.BURNT) == 3 * 256
    assert pair.alpha.ledger(Account.AVAILABLE) == 2 * BLOCK_BITS - 3 * 256
    pair.lose = lose()
    pair.connect()
    pair.advance(2)
    assert pair.alpha.store.requests() == []
    keys = pair.draw("a1", "b1")
    assert materials(pair.fetch("b1", "a1", *keys)) == materials(keys)


def test_I14_a_restore_begins_an_epoch_in_which_nothing_old_is_used(pair: Pair) -> None:
    backup = pair.alpha.store.snapshot()
    pair.draw("a1", "b1", number=4)
    waiting = pair.draw("b1", "a1")
    pair.alpha.store.restore(backup)
    pair.alpha.start(restored=True)
    pair.connect()
    assert pair.alpha.store.epoch() == 2
    for side in (pair.alpha, pair.bravo):
        assert side.ledger(Account.AVAILABLE) == 0
        assert side.store.blocks() == []
    with pytest.raises(UnknownKey):
        pair.fetch("a1", "b1", *waiting)
    pair.fill(2)
    keys = pair.draw("a1", "b1")
    assert materials(pair.fetch("b1", "a1", *keys)) == materials(keys)


@pytest.mark.proves("R049")
def test_I14_copies_in_a_backup_are_burnt(pair: Pair) -> None:
    waiting = pair.draw("b1", "a1")
    backup = pair.alpha.store.snapshot()
    pair.fetch("a1", "b1", *waiting)
    pair.alpha.store.restore(backup)
    pair.alpha.start(restored=True)
    with pytest.raises(UnknownKey):
        pair.fetch("a1", "b1", *waiting)
    assert pair.alpha.ledger(Account.BURNT) == 256


def test_I14_a_peer_that_was_rolled_back_unseen_is_found_out_and_refused(pair: Pair) -> None:
    backup = pair.bravo.store.snapshot()
    pair.draw("b1", "a1", number=3)
    pair.draw("b1", "a1")
    pair.bravo.store.restore(backup)
    pair.bravo.start()  # nobody told it that this is an old state
    pair.connect()
    pair.advance(21)
    assert pair.alpha.store.peer("bravo").rolled_back
    assert len(pair.alpha.events("peer.rollback")) == 1
    with pytest.raises(PeerFault, match="rolled back"):
        pair.draw("a1", "b1")
    pair.bravo.start(restored=True)  # the operator says so, and a new epoch begins
    pair.connect()
    assert not pair.alpha.store.peer("bravo").rolled_back
    pair.fill(2)
    keys = pair.draw("a1", "b1")  # under a strand of its new process: the old one went with the old process
    assert materials(pair.fetch("b1", "a1", *keys)) == materials(keys)


def test_a_peer_that_was_only_restarted_is_not_taken_for_rolled_back(pair: Pair) -> None:
    pair.draw("b1", "a1", number=3)
    pair.bravo.start()
    pair.connect()
    pair.advance(21)
    assert not pair.alpha.store.peer("bravo").rolled_back
    assert not pair.bravo.store.peer("alpha").rolled_back


@pytest.mark.parametrize("change", [{"version": 2}, {"site": "mallory"}])
def test_a_hello_of_another_version_or_site_is_a_peer_fault(pair: Pair, change: dict[str, object]) -> None:
    hello = msgspec.structs.replace(last(pair, Hello), **change)  # type: ignore[type-var]
    sender = "bravo" if last(pair, Hello).site == "bravo" else "alpha"  # type: ignore[attr-defined]
    with pytest.raises(PeerFault, match=r"have version 2|speaks as"):
        pair.sides["alpha" if sender == "bravo" else "bravo"].run(lambda kme: kme.receive(sender, hello))
