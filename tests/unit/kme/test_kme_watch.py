"""Quotas, waivers and warnings: who is told what before and when keys run out."""

from __future__ import annotations

from dataclasses import replace

import pytest
from kme_pair import BLOCK_BITS, LIMITS, WAIVER_S, Pair, materials

from keystrand.core.errors import KeyUnavailable, NotPermitted, QuotaExceeded, UnknownKey
from keystrand.core.pool import Account
from keystrand.core.protection import Protection, Strand
from keystrand.kme.watch import LOW_KEYS, STRAND_PATIENCE_S
from keystrand.wire.peer import Borrow, StrandOffer

STRAY = "00000000-0000-4000-8000-000000000000"


def refuse(pair: Pair, error: type[Exception], initiator: str, responder: str, **options: int) -> None:
    """A refused Get key, noted as the engine notes it."""
    with pytest.raises(error) as caught:
        pair.draw(initiator, responder, **options)
    pair.alpha.run(lambda kme: kme.note_refusal("enc_keys", initiator, responder, caught.value))  # type: ignore[arg-type]


@pytest.mark.proves("R022", "R056")
def test_a_quota_refuses_and_refills(pair: Pair) -> None:
    assert len(pair.draw("a3", "b2", number=4)) == 4  # the burst of 1024 bits
    refuse(pair, QuotaExceeded, "a3", "b2")
    assert pair.alpha.ledger(Account.DELIVERED) == 1024
    assert len(pair.draw("a1", "b2")) == 1, "the quota of one SAE is not the trouble of another"
    pair.advance(1.0)  # 256 bit/s
    assert len(pair.draw("a3", "b2")) == 1
    refuse(pair, QuotaExceeded, "a3", "b2")
    pair.advance(100.0, step_s=10.0)
    assert len(pair.draw("a3", "b2", number=4)) == 4
    refuse(pair, QuotaExceeded, "a3", "b2")  # a long pause earns the burst and no more


@pytest.mark.proves("R056")
def test_a_quota_says_when_to_come_back_and_that_it_denied(pair: Pair) -> None:
    with pytest.raises(QuotaExceeded) as caught:
        pair.draw("a3", "b2", number=8)
    assert caught.value.retry_after_s == pytest.approx(4.0)
    assert caught.value.hint
    assert "quota_bps" in caught.value.hint
    pair.alpha.run(lambda kme: kme.note_refusal("enc_keys", "a3", "b2", caught.value))
    (event,) = pair.alpha.events("quota.denied")
    assert event.fields["sae"] == "a3"
    (record,) = pair.alpha.records("key.refused")
    assert record["reason"] == "QuotaExceeded"


def test_an_empty_pool_is_no_denied_quota(bare: Pair) -> None:
    refuse(bare, KeyUnavailable, "a1", "b1")
    assert bare.alpha.events("quota.denied") == []
    assert len(bare.alpha.events("key.refused")) == 1


@pytest.mark.proves("R053")
def test_I7_a_waiver_lowers_the_level_only_when_it_must_and_only_until_it_ends(bare: Pair) -> None:
    (low,) = bare.draw("a3", "b1")
    assert low.strands == {Strand.PQC}
    (record,) = bare.alpha.records("downgrade.waived")
    assert (record["initiator"], record["required"], record["served"]) == ("a3", "hybrid", "pqc")
    assert len(bare.alpha.events("downgrade.waived")) == 1
    assert materials(bare.fetch("b1", "a3", low)) == materials([low])
    bare.fill(0)
    (high,) = bare.draw("a3", "b1")
    assert high.protection is Protection.HYBRID
    assert len(bare.alpha.records("downgrade.waived")) == 1, "nothing was lowered, nothing to record"


@pytest.mark.proves("R053")
def test_I7_when_the_waiver_has_ended_there_is_no_key(bare: Pair) -> None:
    waiting = bare.draw("a3", "b1")
    bare.advance(WAIVER_S, step_s=5.0)
    with pytest.raises(KeyUnavailable):
        bare.draw("a3", "b1")
    with pytest.raises(NotPermitted, match="asks for more"):
        bare.fetch("b1", "a3", *waiting)
    assert len(bare.alpha.records("downgrade.waived")) == 1


@pytest.mark.proves("R053")
def test_I7_without_a_waiver_there_is_no_lower_level(bare: Pair) -> None:
    with pytest.raises(KeyUnavailable):
        bare.draw("a1", "b1")
    assert bare.alpha.records("downgrade.waived") == []


@pytest.mark.proves("R056")
def test_a_low_pool_is_said_once_until_it_was_full_again() -> None:
    pair = Pair(limits=replace(LIMITS, keys_per_request_max=256))
    pair.connect()
    for sequence in range(4):
        pair.fill(sequence, 2 * BLOCK_BITS)  # 64 keys of each are alpha's
    pair.advance(2)
    assert pair.alpha.events("pool.low") == []
    pair.lose = lambda message: isinstance(message, Borrow)  # what alpha has is what its module delivers
    pair.draw("a1", "b1", number=200)
    pair.advance(5)
    (event,) = pair.alpha.events("pool.low")
    assert event.fields == {"link": "link", "bits": 56 * 256, "enough_bits": 128 * 256}
    assert LOW_KEYS > 56
    pair.fill(4, BLOCK_BITS)  # 88 keys: more than low, not yet refilled
    pair.advance(1)
    pair.draw("a1", "b1", number=40)
    pair.advance(1)
    assert len(pair.alpha.events("pool.low")) == 1
    for sequence in (5, 6):
        pair.fill(sequence, 2 * BLOCK_BITS)
    pair.advance(1)
    pair.draw("a1", "b1", number=150)
    pair.advance(1)
    assert len(pair.alpha.events("pool.low")) == 2


def test_a_missing_strand_is_said_once_while_the_peer_is_connected() -> None:
    pair = Pair()
    pair.advance(2 * STRAND_PATIENCE_S)
    assert pair.alpha.events("strand.missing") == [], "nobody is connected"
    pair.lose = lambda message: isinstance(message, StrandOffer)
    pair.connect()
    pair.advance(STRAND_PATIENCE_S)
    assert pair.alpha.events("strand.missing") == []
    pair.advance(STRAND_PATIENCE_S)
    (event,) = pair.alpha.events("strand.missing")
    assert event.fields == {"peer": "bravo"}
    pair.lose = lambda message: False
    pair.advance(3)
    assert pair.alpha.kme.strands.usable("bravo")
    pair.lose = lambda message: isinstance(message, StrandOffer)
    pair.advance(2 * LIMITS.strand_epoch_s + 2 * STRAND_PATIENCE_S, step_s=2.0)
    assert len(pair.alpha.events("strand.missing")) == 2


def miss(pair: Pair, sae: str) -> None:
    with pytest.raises(UnknownKey) as caught:
        pair.fetch(sae, "a1", STRAY)
    pair.bravo.run(lambda kme: kme.note_refusal("dec_keys", sae, "a1", caught.value))


@pytest.mark.proves("R056", "R057")
def test_guessing_key_ids_is_noticed_once_per_burst_and_the_flood_is_not_recorded(pair: Pair) -> None:
    for _ in range(5):
        miss(pair, "b1")
    assert pair.bravo.events("draw.abnormal") == []
    for _ in range(50):
        miss(pair, "b1")
    (event,) = pair.bravo.events("draw.abnormal")
    assert event.fields == {"sae": "b1"}
    assert len(pair.bravo.records("key.refused")) == 5
    assert len(pair.bravo.events("key.refused")) == 55
    miss(pair, "b2")
    assert len(pair.bravo.records("key.refused")) == 6, "the flood of one SAE hides no other"
    pair.advance(2)
    for _ in range(7):
        miss(pair, "b1")
    assert len(pair.bravo.events("draw.abnormal")) == 2


def test_a_slow_pace_still_records_a_first_refusal() -> None:
    pair = Pair(limits=replace(LIMITS, unknown_key_rate_per_s=0.1))
    pair.connect()
    miss(pair, "b1")
    miss(pair, "b1")
    assert len(pair.bravo.records("key.refused")) == 1
    assert len(pair.bravo.events("draw.abnormal")) == 1
