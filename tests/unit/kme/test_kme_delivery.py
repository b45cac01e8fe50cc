"""From Get key to Get key with key IDs: who gets what, how often, and what it is refused with."""

from __future__ import annotations

import pytest
from kme_pair import BLOCK_BITS, BRAVO_SAES, LIMITS, Pair, materials

from keystrand.core.errors import (
    BadRequest,
    IllegalTransition,
    KeyUnavailable,
    NotPermitted,
    PeerFault,
    StrandUnavailable,
    UnknownKey,
)
from keystrand.core.pool import Account
from keystrand.core.protection import Protection, Strand
from keystrand.core.states import Move
from keystrand.wire.peer import Lend, Reserve, StrandOffer

STRAY = "00000000-0000-4000-8000-000000000000"


def test_I2_both_ends_of_a_key_have_the_same_bytes(pair: Pair) -> None:
    drawn = pair.draw("a1", "b1", number=5)
    assert materials(pair.fetch("b1", "a1", *drawn)) == materials(drawn)
    assert {key.protection for key in drawn} == {Protection.HYBRID}
    assert len({key.material.reveal() for key in drawn}) == 5


def test_I2_holds_in_the_other_direction_too(pair: Pair) -> None:
    drawn = pair.draw("b1", "a1", number=3)
    assert materials(pair.fetch("a1", "b1", *drawn)) == materials(drawn)


def test_keys_are_answered_only_after_the_peer_has_them(pair: Pair) -> None:
    ticket = pair.ask("a1", "b1")
    assert ticket not in pair.answers
    assert pair.alpha.ledger(Account.RESERVED) == LIMITS.key_size_bits_default
    pair.pump()
    assert ticket in pair.answers
    assert pair.alpha.ledger(Account.RESERVED) == 0
    assert pair.alpha.ledger(Account.DELIVERED) == LIMITS.key_size_bits_default


def test_I1_F8_a_recipient_gets_its_copy_once(pair: Pair) -> None:
    (key,) = pair.draw("a1", "b1")
    pair.fetch("b1", "a1", key)
    with pytest.raises(UnknownKey):
        pair.fetch("b1", "a1", key)
    with pytest.raises(KeyError):
        pair.bravo.store.copy_material(key.key_id, "b1")
    assert pair.bravo.ledger(Account.DELIVERED) == 256


def test_F1_a_second_draw_leaves_the_first_one_alone(pair: Pair) -> None:
    first, second = pair.draw("a1", "b1"), pair.draw("a1", "b1")
    assert materials(pair.fetch("b1", "a1", *second)) == materials(second)
    assert materials(pair.fetch("b1", "a1", *first)) == materials(first)


def test_F2_both_ends_draw_at_the_same_time(pair: Pair) -> None:
    there, back = pair.ask("a1", "b1", number=4), pair.ask("b1", "a1", number=4)
    pair.pump()
    for ticket, responder, initiator in ((there, "b1", "a1"), (back, "a1", "b1")):
        keys = pair.answers[ticket]
        assert isinstance(keys, list)
        assert materials(pair.fetch(responder, initiator, *keys)) == materials(keys)


def test_dec_keys_is_all_or_nothing(pair: Pair) -> None:
    keys = pair.draw("a1", "b1", number=2)
    with pytest.raises(UnknownKey):
        pair.fetch("b1", "a1", *keys, STRAY)
    assert materials(pair.fetch("b1", "a1", *keys)) == materials(keys), "the refused request took nothing"


@pytest.mark.proves("R046")
def test_F4_another_sae_of_the_site_is_not_permitted_and_learns_nothing(pair: Pair) -> None:
    (key,) = pair.draw("a1", "b1")
    with pytest.raises(NotPermitted, match="not a recipient"):
        pair.fetch("b2", "a1", key)
    with pytest.raises(UnknownKey):
        pair.fetch("b2", "a1", STRAY)
    with pytest.raises(UnknownKey):
        pair.fetch("b1", "a2", key)  # the key exists, but not of that initiator
    assert materials(pair.fetch("b1", "a1", key)) == materials([key])


@pytest.mark.proves("R026", "R046")
def test_no_verb_serves_an_sae_of_another_site_or_without_a_rule(pair: Pair) -> None:
    alpha = pair.alpha
    for caller in ("b1", "nobody"):
        with pytest.raises(NotPermitted, match="not an SAE of this site"):
            alpha.run(lambda kme, caller=caller: kme.status(caller, "b1"))
        with pytest.raises(NotPermitted, match="not an SAE of this site"):
            alpha.run(lambda kme, caller=caller: kme.get_key(0, caller, "b1"))
        with pytest.raises(NotPermitted, match="not an SAE of this site"):
            alpha.run(lambda kme, caller=caller: kme.get_key_with_ids(caller, "b1", (STRAY,)))
    with pytest.raises(NotPermitted, match="no rule allows"):
        pair.draw("a3", "b3")
    with pytest.raises(NotPermitted, match="no rule allows"):
        alpha.run(lambda kme: kme.status("a3", "b3"))
    assert pair.answers == {}


@pytest.mark.proves("R027", "R057")
def test_I5_every_delivery_is_in_the_audit_log_once_and_holds_no_material(pair: Pair) -> None:
    keys = pair.draw("a1", "b1", number=3)
    pair.fetch("b1", "a1", *keys)
    for side, recipient in ((pair.alpha, "a1"), (pair.bravo, "b1")):
        records = side.records("key.delivered")
        assert sorted(key_id for record in records for key_id in record["key_ids"]) == sorted(
            key.key_id for key in keys
        )
        assert {record["recipient"] for record in records} == {recipient}
        written = b"".join(record for _, record, _ in side.store.audit_rows(0, 10_000))
        assert not any(key.material.reveal().hex().encode() in written for key in keys)


def test_multicast_reaches_additional_saes_at_the_peer_and_at_this_site(pair: Pair) -> None:
    drawn = pair.draw("a1", "b1", number=2, additional=("b2", "a2"))
    for sae in ("b1", "b2", "a2"):
        assert materials(pair.fetch(sae, "a1", *drawn)) == materials(drawn)
        with pytest.raises(UnknownKey):
            pair.fetch(sae, "a1", *drawn)
    with pytest.raises(NotPermitted):
        pair.fetch("b3", "a1", *drawn)
    assert pair.bravo.ledger(Account.DELIVERED) == 512, "the bits of a key count once, however many recipients it has"


def test_multicast_has_at_most_eight_additional_saes(pair: Pair) -> None:
    assert len(pair.draw("a1", "b1", additional=BRAVO_SAES[1:9])) == 1
    with pytest.raises(BadRequest, match="at most 8"):
        pair.draw("a1", "b1", additional=BRAVO_SAES[1:10])


@pytest.mark.parametrize(
    ("additional", "words"),
    [(("a1",), "caller"), (("b1",), "twice"), (("b2", "b2"), "twice"), (("z1",), "zulu")],
)
def test_multicast_refuses_recipients_that_cannot_be(pair: Pair, additional: tuple[str, ...], words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        pair.draw("a1", "b1", additional=additional)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size_bits": 257}, "multiple of 8"),
        ({"size_bits": 56}, "64 to 4096"),
        ({"size_bits": 4104}, "64 to 4096"),
        ({"size_bits": 0}, "64 to 4096"),
        ({"size_bits": -256}, "64 to 4096"),
        ({"number": 0}, "1 to 128"),
        ({"number": -1}, "1 to 128"),
        ({"number": 129}, "1 to 128"),
    ],
)
def test_F3_sizes_and_numbers_outside_the_bounds_are_refused(pair: Pair, options: dict[str, int], words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        pair.draw("a1", "b1", **options)
    assert pair.alpha.ledger(Account.AVAILABLE) == 2 * BLOCK_BITS


@pytest.mark.parametrize("size_bits", [64, 1032, 4096])
def test_a_key_of_any_size_within_the_bounds_may_span_blocks(pair: Pair, size_bits: int) -> None:
    drawn = pair.draw("a1", "b1", number=2, size_bits=size_bits)
    assert {key.material.length_bits for key in drawn} == {size_bits}
    assert materials(pair.fetch("b1", "a1", *drawn)) == materials(drawn)


@pytest.mark.parametrize("other", ["b3", "x9"])
def test_I8_T14_an_sae_that_is_not_joined_and_one_that_is_not_there_get_one_answer(pair: Pair, other: str) -> None:
    """Else whoever has a certificate learns the names of all others, tenants' included, and where each is served."""
    refusals = []
    for ask in (
        lambda: pair.draw("a3", other),
        lambda: pair.alpha.run(lambda kme: kme.status("a3", other)),
    ):
        with pytest.raises(NotPermitted) as refusal:
            ask()
        refusals.append(str(refusal.value))
    assert refusals == [f"no rule allows a3 to draw keys towards {other}"] * 2


def test_I8_multicast_says_nothing_of_an_sae_that_is_not_joined(pair: Pair) -> None:
    with pytest.raises(NotPermitted, match="no rule allows a1"):
        pair.draw("a1", "b1", additional=("x9",))


@pytest.mark.parametrize(("other", "words"), [("a2", "this site"), ("z1", "not a neighbour")])
def test_keys_are_made_with_saes_of_a_neighbour_only(pair: Pair, other: str, words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        pair.draw("a1", other)


def test_key_ids_are_counted_and_not_repeated(pair: Pair) -> None:
    with pytest.raises(BadRequest, match="1 to 128"):
        pair.fetch("b1", "a1")
    with pytest.raises(BadRequest, match="twice"):
        pair.fetch("b1", "a1", STRAY, STRAY)
    with pytest.raises(BadRequest, match="1 to 128"):
        pair.fetch("b1", "a1", *(f"id-{number}" for number in range(129)))


def test_an_empty_pool_refuses_and_changes_nothing(bare: Pair) -> None:
    with pytest.raises(KeyUnavailable):
        bare.draw("a1", "b1")
    assert bare.count(Reserve) == 0
    assert bare.alpha.store.requests() == []


@pytest.mark.proves("R030", "R053")
def test_hybrid_needs_both_strands_and_falls_back_to_neither() -> None:
    alone = Pair()
    alone.lose = lambda message: isinstance(message, StrandOffer)
    alone.connect()
    alone.fill(0)
    with pytest.raises(StrandUnavailable):
        alone.draw("a1", "b1")
    assert len(alone.draw("a2", "b1")) == 1, "a rule that asks for QKD alone is served"


@pytest.mark.proves("R030")
def test_pqc_alone_spends_no_link_bits(bare: Pair) -> None:
    (key,) = drawn = bare.draw("a2", "b2")
    assert key.strands == {Strand.PQC}
    assert materials(bare.fetch("b2", "a2", key)) == materials(drawn)
    assert bare.alpha.store.links() == [] or bare.alpha.ledger(Account.DELIVERED) == 0


def test_qkd_alone_passes_the_bits_of_the_link_through_unchanged(bare: Pair) -> None:
    material = bare.fill(0)
    drawn = bare.draw("a2", "b1", number=2)
    assert [key.material.reveal() for key in drawn] == [material[:32], material[32:64]]
    assert materials(bare.fetch("b1", "a2", *drawn)) == materials(drawn)


def test_a_level_that_no_strand_gives_is_refused(pair: Pair) -> None:
    with pytest.raises(StrandUnavailable, match="classical"):
        pair.draw("a2", "b3")


def test_status_counts_what_get_key_would_deliver(pair: Pair) -> None:
    status = pair.alpha.run(lambda kme: kme.status("a1", "b1"))
    assert (status.source_kme_id, status.target_kme_id) == ("kme-alpha", "kme-bravo")
    assert status.stored_keys == BLOCK_BITS // 256  # half of two blocks is ours
    pair.draw("a1", "b1", number=10)
    assert pair.alpha.run(lambda kme: kme.status("a1", "b1")).stored_keys == status.stored_keys - 10
    assert pair.alpha.run(lambda kme: kme.status("a1", "b1")).stored_keys_max >= status.stored_keys
    with pytest.raises(KeyUnavailable):
        pair.draw("a2", "b1", number=128)


def test_I6_a_copy_that_nobody_fetched_in_time_is_destroyed(pair: Pair) -> None:
    keys = pair.draw("a1", "b1", number=2, additional=("a2",))
    pair.fetch("b1", "a1", keys[0])
    pair.clock.move_to(pair.clock.monotonic_s() + LIMITS.key_ttl_s)
    with pytest.raises(UnknownKey):
        pair.fetch("b1", "a1", keys[1])  # before any housekeeping
    pair.advance(1)
    assert pair.bravo.ledger(Account.EXPIRED) == 256
    assert pair.bravo.ledger(Account.DELIVERED) == 256
    assert len(pair.bravo.records("key.expired")) == 1
    assert len(pair.alpha.records("key.expired")) == 2
    with pytest.raises(UnknownKey):
        pair.fetch("b1", "a1", keys[1])


def test_a_delivered_copy_cannot_be_finished_again(pair: Pair) -> None:
    (key,) = pair.draw("a1", "b1")
    pair.fetch("b1", "a1", key)
    (copy,) = pair.bravo.store.copies(key.key_id)
    for move in Move:
        with pytest.raises(IllegalTransition):
            pair.bravo.run(lambda kme, move=move: kme.pickups.finish([copy], move))


def test_a_stranger_and_a_message_of_another_room_are_peer_faults(pair: Pair) -> None:
    with pytest.raises(PeerFault, match="neighbour"):
        pair.alpha.run(lambda kme: kme.receive("mallory", Lend(blocks=())))
