"""Two ends of a link against each other: equal blocks, nothing under attack, nothing twice after a loss."""

from __future__ import annotations

import contextlib
import math
from dataclasses import replace
from fractions import Fraction

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.qkd.pair import SMALL, Pair, Side

from keystrand.core.errors import KeystrandError, LinkUnavailable, PeerFault
from keystrand.qkd.distill import cascade, verify
from keystrand.qkd.distill.estimate import Counts, lim
from keystrand.qkd.distill.reconcile import BLOCKS_IN_WORK_MAX, blocks_in_work
from keystrand.qkd.optics_attacks import InterceptResend
from keystrand.qkd.profile import Distillation, Fibre, Proof, Source
from keystrand.qkd.session import BlockRejected, Outcome
from keystrand.qkd.stages import STAGES
from keystrand.wire import classical as wire

# asks for so little doubt about equality that what the hash and the tags add is most of what a block states
VACUUM = replace(
    SMALL,
    source=Source(mu=0.4, nu=0.15, p_mu=0.3, p_vacuum=0.3, p_key_basis=0.6),
    distillation=Distillation(block_sifted_bits=150_000, eps_sec=1e-9, eps_cor=1e-10, proof=Proof.LIM),
)
STRICT = replace(SMALL, distillation=replace(SMALL.distillation, eps_cor=1e-30))


def same(alice: Side, bob: Side) -> bool:
    pairs = list(zip(alice.blocks, bob.blocks, strict=True))
    return bool(pairs) and all(
        a.sequence == b.sequence and a.material.matches(b.material) and a.provenance == b.provenance for a, b in pairs
    )


@pytest.mark.proves("R024")
def test_I2_both_ends_distil_the_same_blocks():
    alice, bob = Side(), Side()
    Pair(alice, bob).run(blocks=3)
    assert same(alice, bob)
    assert [b.sequence for b in bob.blocks] == [0, 1, 2]
    assert alice.segments == bob.segments


@pytest.mark.proves("R024")
def test_chores_may_wait_until_what_is_heard_builds_on_them():
    alice, bob = Side(), Side()
    pair = Pair(alice, bob, busy=True)
    pair.run(2)
    assert same(alice, bob)
    assert pair.transmitter.work() == Outcome()  # nothing is left to do


def test_no_block_is_longer_than_its_bound_and_every_disclosed_bit_is_counted():
    disclosed = []

    def count(direction: str, frame: bytes) -> bytes:
        message = wire.decode(frame)
        if isinstance(message, wire.Answer):
            disclosed.append(8 * len(message.body))
        return frame

    alice, bob = Side(), Side()
    Pair(alice, bob, wire=count).run(blocks=1)
    facts = bob.blocks[0].provenance
    assert bob.blocks[0].length_bits == facts.secret_bits
    assert facts.secret_bits + facts.auth_bits <= facts.bound_bits <= facts.sifted_bits - facts.leak_ec_bits
    # answers are padded to whole bytes, so what was counted lies within 7 bits an answer, plus tag and error counts
    assert sum(disclosed) - 7 * len(disclosed) <= facts.leak_ec_bits - 128 <= sum(disclosed)


def test_a_link_with_vacuum_and_weak_decoys_distils_by_their_bound():
    alice, bob = Side(), Side()
    pair = Pair(alice, bob, profile=VACUUM)
    pair.run(blocks=2)
    assert same(alice, bob)
    assert bob.blocks[0].length_bits > 0
    pulses, counts = pair.receiver.seen
    assert (counts.intensities, counts.shares) == (VACUUM.source.intensities, VACUUM.source.shares)
    assert pair.transmitter.seen == (pulses, counts)
    assert sum(counts.key) == VACUUM.distillation.block_sifted_bits
    assert counts.key[2] < 0.01 * counts.key[1]
    facts = bob.blocks[-1].provenance
    eps = {"eps_sec": VACUUM.distillation.eps_sec, "eps_cor": VACUUM.distillation.eps_cor}
    assert facts.bound_bits == math.floor(lim(counts, leak_bits=facts.leak_ec_bits, **eps))


@pytest.mark.parametrize("judges", [("transmitter",), ("receiver",), ("transmitter", "receiver")])
def test_a_block_that_the_monitor_rejects_never_refills_the_stock(judges):
    """Run after run: key that somebody may know must not sign what comes later, or he goes on unseen."""
    alice, bob = Side(), Side()
    Pair(alice, bob).run(blocks=1)
    stocks, judged = (alice.segments, bob.segments), []

    def reject(pulses: int, counts: Counts) -> None:
        judged.append(counts)
        raise BlockRejected("monitor", "planted")

    for run in range(3):
        pair = Pair(alice, bob, seed=10 + run)
        for name in judges:
            getattr(pair, name).judge = reject
        with pytest.raises(BlockRejected, match="planted"):
            pair.run(blocks=1)
        assert len(judged) == run + 1, "the first of the judges ends the run"
        assert (alice.segments, bob.segments) == stocks
        assert len(alice.blocks) == len(bob.blocks) == 1
    Pair(alice, bob, seed=20).run(blocks=1)
    assert same(alice, bob)
    assert (alice.segments, bob.segments) != stocks
    assert {segment.name for segment in bob.segments} <= {-1, *(block.sequence for block in bob.blocks)}


def test_a_block_states_what_its_hash_and_its_tags_add():
    sizes = {"to receiver": [0], "to transmitter": [0]}

    def measure(direction: str, frame: bytes) -> bytes:
        if isinstance(wire.decode(frame), wire.Authenticate):
            sizes[direction].append(0)
        else:
            sizes[direction][-1] += 8 + len(frame)
        return frame

    alice, bob = Side(), Side()
    Pair(alice, bob, wire=measure, profile=STRICT).run(blocks=2)
    for number, block in enumerate(bob.blocks):
        length_bytes = 8 + block.provenance.sifted_bits // 8
        hashed = Fraction(1, 2**64) + Fraction(8 * -(-length_bytes // 16), 2**106)
        tags = sum(Fraction(8 * -(-size[number] // 16), 2**106) for size in sizes.values())
        asked = Fraction(STRICT.distillation.eps_cor)
        assert float(asked + hashed + tags) == pytest.approx(block.provenance.eps_cor, rel=1e-12, abs=0)
        assert tags > hashed / 10**9, "too small to be seen in the sum"
        assert block.provenance.eps_sec == STRICT.distillation.eps_sec
    assert same(alice, bob)


@pytest.mark.proves("R025")
@pytest.mark.parametrize("fraction", [0.5, 1.0])
def test_an_eavesdropper_gets_the_block_dropped(fraction):
    alice, bob = Side(), Side()
    pair = Pair(alice, bob, attack=InterceptResend(fraction))
    with pytest.raises(BlockRejected) as caught:
        pair.run(blocks=1)
    assert caught.value.reason == "qber"
    assert alice.blocks == bob.blocks == []
    assert caught.value.args[0].startswith("error rate")


@pytest.mark.proves("R025")
def test_a_careful_eavesdropper_costs_key_before_the_link_stops():
    lengths = []
    for fraction in (0.0, 0.05):
        alice, bob = Side(), Side()
        Pair(alice, bob, attack=InterceptResend(fraction)).run(blocks=1)
        lengths.append(bob.blocks[0].length_bits)
    assert lengths[1] < 0.85 * lengths[0]


@pytest.mark.proves("R025")
def test_no_secret_bits_are_left_below_the_abort_threshold():
    alice, bob = Side(), Side()
    with pytest.raises(BlockRejected) as caught:
        Pair(alice, bob, attack=InterceptResend(0.3)).run(blocks=1)
    assert caught.value.reason == "no-secret"
    assert alice.blocks == bob.blocks == []


@pytest.mark.proves("R024")
def test_a_failed_verification_is_corrected_further_and_every_bit_of_it_counted(monkeypatch):
    monkeypatch.setattr(cascade.Layout, "passes", 1)  # leaves errors behind
    seen, disclosed = [], [0]

    def watch(_direction: str, frame: bytes) -> bytes:
        message = wire.decode(frame)
        seen.append(type(message))
        disclosed[0] += 8 * len(message.body) if isinstance(message, wire.Answer) else 0
        return frame

    alice, bob = Side(), Side()
    Pair(alice, bob, wire=watch, profile=STRICT).run(blocks=1)
    assert same(alice, bob)
    tries = seen.count(wire.Verify)
    assert seen.count(wire.Mismatch) == tries - 1 >= 1
    facts = bob.blocks[0].provenance
    assert 0 <= disclosed[0] - (facts.leak_ec_bits - 128 * tries) <= 7 * seen.count(wire.Answer)
    assert facts.eps_cor >= tries * verify.collision_bound(facts.sifted_bits)


def test_a_block_that_never_fits_is_rejected_at_both_ends():
    def spoil(_direction: str, frame: bytes) -> bytes:
        message = wire.decode(frame)
        return (
            wire.encode(msgspec.structs.replace(message, tag=bytes(8))) if isinstance(message, wire.Verify) else frame
        )

    alice, bob = Side(), Side()
    with pytest.raises(BlockRejected) as caught:
        Pair(alice, bob, wire=spoil).run(blocks=1)
    assert caught.value.reason == "verification"
    assert alice.blocks == bob.blocks == []


def test_the_longer_the_fibre_the_more_blocks_are_in_work():
    lengths = [replace(SMALL, fibre=Fibre(length_km=km)) for km in (0, 1, 5, 50)]
    depths = [blocks_in_work(profile) for profile in lengths]
    assert depths == sorted(depths)
    assert (depths[0], depths[-1]) == (2, BLOCKS_IN_WORK_MAX)


def test_several_blocks_are_corrected_at_once_and_delivered_in_order():
    asked = []

    def watch(_direction: str, frame: bytes) -> bytes:
        message = wire.decode(frame)
        if isinstance(message, wire.Query | wire.Delivered):
            asked.append((type(message), message.sequence))
        return frame

    alice, bob = Side(), Side()
    pair = Pair(alice, bob, wire=watch)
    pair.open()
    pair.shine(trains=30)
    first_delivered = asked.index((wire.Delivered, 0))
    assert {sequence for _, sequence in asked[:first_delivered]} == set(range(blocks_in_work(SMALL)))
    assert [sequence for kind, sequence in asked if kind is wire.Delivered] == list(range(len(bob.blocks)))
    assert len(bob.blocks) > 2
    assert same(alice, bob)
    assert set(pair.receiver.stages.spent_s) == set(STAGES)
    assert all(pair.receiver.stages.spent_s.values())


KINDS = (
    wire.Open,
    wire.Detections,
    wire.Sifting,
    wire.Query,
    wire.Answer,
    wire.Verify,
    wire.Amplify,
    wire.Authenticate,
)


@pytest.mark.proves("R024")
@given(
    kind=st.sampled_from(KINDS), skip=st.integers(0, 3), place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7)
)
@settings(max_examples=25, deadline=None, derandomize=True)
def test_a_flipped_bit_on_the_classical_channel_delivers_nothing(kind, skip, place, bit):
    left = [skip]

    def tamper(_direction: str, frame: bytes) -> bytes:
        if not isinstance(wire.decode(frame), kind):
            return frame
        left[0] -= 1
        if left[0] != -1:
            return frame
        changed = bytearray(frame)
        changed[int(place * len(changed))] ^= 1 << bit
        return bytes(changed)

    alice, bob = Side(), Side()
    with contextlib.suppress(KeystrandError):
        Pair(alice, bob, wire=tamper).run(blocks=1)
    if left[0] < 0:
        assert bob.blocks == []
        assert alice.blocks == []


def test_the_receiver_alone_delivers_when_the_last_message_is_lost_and_the_number_is_not_used_again():
    def lose(_direction: str, frame: bytes) -> bytes | None:
        return None if isinstance(wire.decode(frame), wire.Delivered) else frame

    alice, bob = Side(), Side()
    pair = Pair(alice, bob, wire=lose)
    pair.run(blocks=1)
    assert (len(alice.blocks), len(bob.blocks)) == (0, 1)
    bob.blocks.clear()
    Pair(alice, bob, seed=2).run(blocks=1)
    assert same(alice, bob)
    assert bob.blocks[0].sequence == 1
    assert alice.segments == bob.segments


def test_a_forged_delivered_leaves_the_block_at_the_transmitter_and_the_number_is_not_used_again():
    held = []

    def hold_back(direction: str, frame: bytes) -> bytes | None:
        if direction == "to receiver" and isinstance(wire.decode(frame), wire.Authenticate):
            held.append(frame)
            return None
        return frame

    alice, bob = Side(), Side()
    pair = Pair(alice, bob, wire=hold_back)
    pair.open()
    while not held:
        pair.shine()
    alice.blocks += pair.transmitter.hear(wire.encode(wire.Delivered(sequence=0))).blocks
    assert (len(alice.blocks), len(bob.blocks)) == (1, 0)
    alice.blocks.clear()
    Pair(alice, bob, seed=2).run(blocks=1)
    assert same(alice, bob)
    assert bob.blocks[0].sequence == 1
    assert alice.segments == bob.segments


@pytest.mark.proves("R101")
@given(cut=st.integers(0, 400))
@settings(max_examples=12, deadline=None, derandomize=True)
def test_a_crash_at_any_frame_uses_no_tag_key_twice(cut):
    """One end stops after `cut` frames and comes back with what it had on disk."""
    used: list[tuple[str, int, int]] = []
    seen = [0]

    def watch(direction: str, frame: bytes) -> bytes | None:
        message = wire.decode(frame)
        if isinstance(message, wire.Authenticate):
            used.append((direction, message.segment, message.offset_bytes))
        return frame

    def crash(direction: str, frame: bytes) -> bytes | None:
        seen[0] += 1
        if seen[0] > cut:
            raise ConnectionError
        return watch(direction, frame)

    alice, bob = Side(), Side()
    with pytest.raises(ConnectionError):
        Pair(alice, bob, wire=crash).run(blocks=3)
    alice.blocks.clear()
    bob.blocks.clear()
    Pair(alice, bob, seed=5, wire=watch).run(blocks=2)
    assert same(alice, bob)
    assert len(used) == len(set(used))


def test_a_wrong_start_key_delivers_nothing():
    alice, bob = Side(), Side()
    first = bob.segments[0]
    bob.segments = (msgspec.structs.replace(first, material=bytes(len(first.material))),)
    with pytest.raises(PeerFault, match="tampered"):
        Pair(alice, bob).run(blocks=1)
    assert alice.blocks == bob.blocks == []


def test_a_link_without_authentication_key_stops():
    alice, bob = Side(), Side()
    bob.segments = ()
    with pytest.raises(LinkUnavailable, match="authentication key"):
        Pair(alice, bob).open()


def test_different_profiles_are_refused():
    pair = Pair(Side(), Side())
    pair.receiver.profile = replace(SMALL, fibre=replace(SMALL.fibre, length_km=2))
    with pytest.raises(PeerFault, match="profiles"):
        pair.open()


@pytest.mark.parametrize(
    "message",
    [
        wire.Delivered(sequence=0),
        wire.Query(sequence=0, seed=bytes(32), body=b""),
        wire.Verify(sequence=0, seed=bytes(32), tag=bytes(8), leak_bits=0, errors=(0, 0)),
        wire.Authenticate(sequence=0, segment=-1, offset_bytes=0, tag=bytes(16)),
        wire.Sifting(first=0, matches=b"", intensities=b"", test_bits=b""),
        wire.Detections(first=0, count=10, offsets=b"", bases=b"", test_bits=b""),
    ],
)
def test_messages_out_of_turn_are_faults(message):
    pair = Pair(Side(), Side())
    pair.open()
    with pytest.raises(PeerFault):
        pair.transmitter.hear(wire.encode(message))


@given(frame=st.binary(max_size=200))
@settings(max_examples=200, derandomize=True)
def test_hostile_bytes_are_faults(frame):
    pair = Pair(Side(), Side())
    pair.open()
    for end in (pair.transmitter, pair.receiver):
        with pytest.raises((PeerFault, BlockRejected)):
            end.hear(frame)
