"""The rules between networks one by one: what a refusal, a silence, a crash and a stranger's message each lead to."""

from __future__ import annotations

from itertools import pairwise, product

import pytest

from keystrand.core.errors import UnknownKey
from keystrand.core.limits import Limits
from keystrand.core.secret import Secret
from keystrand.testing.handovers import MemoryHandovers
from keystrand.wire.etsi020 import Ack, AckStatus, ExtKey, ExtKeys, Parties, ProblemType, Refused, Void
from keystrand.wire.handover import TOMBSTONE_S, TRANSITIONS, Answered, Outgoing, Stage, Step
from keystrand.wire.interworking import RETRY_S_MAX, Interworking

PARTIES = Parties("sae-a", ("sae-c",))
K1, K2, K3 = (f"00000000-0000-4000-8000-00000000000{number}" for number in (1, 2, 3))
URL = "https://x.example/ack"
NOT_THERE = Answered(refused=Refused(ProblemType.KEY_NOT_PRESENT, "none"))
NO_ROUTE = Answered(refused=Refused(ProblemType.KEY_ROUTING_ERROR, "no"))
SILENCE = Answered(unclear=True)


def keys(*key_ids: str, url: str | None = URL, bits: bytes = b"\1" * 32) -> ExtKeys:
    made = tuple(ExtKey(key_id=key_id, material=Secret(bits)) for key_id in key_ids)
    return ExtKeys(keys=made, parties=PARTIES, callback_url=url)


def ack(status: AckStatus, *key_ids: str) -> tuple[Ack, ...]:
    return (Ack(key_ids=key_ids, status=status, parties=PARTIES),)


def engine(disk: MemoryHandovers | None = None, **limits: int) -> Interworking:
    return Interworking(disk or MemoryHandovers(), {"y": URL, "z": None}, Limits(peer_retry_s=1, **limits))  # type: ignore[arg-type]


def offered(*key_ids: str, deadline_s: float = 100.0) -> tuple[Interworking, Outgoing]:
    x = engine()
    x.offer("y", keys(*key_ids), now_s=0, deadline_s=deadline_s)
    (request,) = x.due(0)
    return x, request


def received(*key_ids: str, relayed: bool = True) -> Interworking:
    y = engine()
    y.receive_keys("y", keys(*key_ids), now_s=0)
    y.settle(key_ids, relayed=relayed, now_s=0)
    return y


def test_every_step_of_every_stage_is_in_the_table_or_old_news() -> None:
    assert set(TRANSITIONS) == set(Stage)
    assert TRANSITIONS[Stage.RELEASED] == TRANSITIONS[Stage.VOIDED] == {}
    into_released = [stage for stage, step in product(Stage, Step) if TRANSITIONS[stage].get(step) is Stage.RELEASED]
    assert into_released == [Stage.READY]


def test_a_first_refusal_ends_it_without_a_void() -> None:
    x, request = offered(K1)
    x.answered(request, NO_ROUTE, now_s=1)
    assert x.stage(K1) is Stage.VOIDED
    assert x.due(1e9) == []


def test_a_refusal_after_a_silence_has_to_be_voided_as_the_first_request_may_still_arrive() -> None:
    x, request = offered(K1)
    x.answered(request, SILENCE, now_s=1)
    (again,) = x.due(2)
    assert again.body == request.body
    x.answered(again, NO_ROUTE, now_s=3)
    assert x.stage(K1) is Stage.VOIDING
    (void,) = x.due(3)
    assert void.body == Void(key_ids=(K1,), parties=PARTIES, callback_url=URL)


def test_I10_after_a_crash_an_offer_is_repeated_and_its_refusal_voided() -> None:
    disk = MemoryHandovers()
    x = engine(disk)
    x.offer("y", keys(K1, K2), now_s=0, deadline_s=100)
    before = x.due(0)
    x = engine(disk)
    (request,) = x.due(1)
    assert [request] == before
    assert isinstance(request.body, ExtKeys)
    assert all(key.material.reveal() == b"\1" * 32 for key in request.body.keys)
    x.answered(request, NO_ROUTE, now_s=2)
    assert x.stage(K1) is Stage.VOIDING


def test_silence_is_asked_again_later_and_later_and_given_up_at_the_deadline() -> None:
    x, request = offered(K1, deadline_s=40)
    at_s, asked = 0.0, []
    while at_s < 39:
        x.answered(request, SILENCE, now_s=at_s)
        at_s += 0.5
        for again in x.due(at_s):
            asked.append(at_s)
            assert again.body == request.body
    assert asked == [1, 3, 7, 15, 31]
    (void,) = x.due(40)
    assert isinstance(void.body, Void)
    gaps = [at_s for at_s in range(41, 1000) if x.due(at_s)]
    assert max(b - a for a, b in pairwise(gaps)) == RETRY_S_MAX


def test_after_202_it_waits_for_the_ack_and_gives_up_at_the_deadline() -> None:
    x, request = offered(K1)
    x.answered(request, Answered(), now_s=1)
    assert [x.due(at_s) for at_s in (5, 50, 99)] == [[], [], []]
    (void,) = x.due(100)
    assert isinstance(void.body, Void)


@pytest.mark.parametrize("stage", ["offered", "voiding", "voided"])
def test_I6_nothing_is_released_before_the_ack_nor_after_a_void(stage: str) -> None:
    x, _ = offered(K1)
    if stage != "offered":
        x.acknowledge("y", ack(AckStatus.RELAYED, K1), now_s=1)
        x.give_up([K1], now_s=1)
    if stage == "voided":
        x.answered(x.due(1)[0], Answered(acks=ack(AckStatus.VOIDED, K1)), now_s=2)
    with pytest.raises(UnknownKey):
        x.release(K1, now_s=3)
    assert x.stage(K1) is Stage(stage)


def test_I1_a_key_is_released_once_and_its_material_gone() -> None:
    disk = MemoryHandovers()
    y = engine(disk)
    y.receive_keys("y", keys(K1), now_s=0)
    y.settle([K1], relayed=True, now_s=0)
    assert y.release(K1, now_s=1).material.reveal() == b"\1" * 32
    assert disk.saved[K1].material is None
    for again in (y, engine(disk)):
        with pytest.raises(UnknownKey):
            again.release(K1, now_s=2)
    with pytest.raises(UnknownKey):
        y.release(K2, now_s=2)


def test_an_ack_for_several_keys_that_is_refused_is_asked_for_each_and_the_absent_one_voided() -> None:
    y = received(K1, K2)
    (both,) = y.due(0)
    y.answered(both, NOT_THERE, now_s=1)
    assert {y.stage(key_id) for key_id in (K1, K2)} == {Stage.READY}
    first, second = y.due(1)
    assert (first.key_ids, second.key_ids) == ((K1,), (K2,))
    y.answered(first, NOT_THERE, now_s=2)
    y.answered(second, Answered(), now_s=2)
    assert (y.stage(K1), y.stage(K2)) == (Stage.VOIDING, Stage.READY)
    (void,) = y.due(3)
    y.answered(void, NOT_THERE, now_s=4)
    assert y.stage(K1) is Stage.VOIDED


def test_a_void_of_several_keys_that_is_refused_proves_nothing_of_each() -> None:
    y = received(K1, K2)
    y.due(0)
    y.give_up([K1, K2], now_s=1)
    for request in y.due(1):  # the acks first
        y.answered(request, Answered(), now_s=1)
    (both,) = y.due(2)
    assert both.key_ids == (K1, K2)
    y.answered(both, NOT_THERE, now_s=3)
    assert {y.stage(key_id) for key_id in (K1, K2)} == {Stage.VOIDING}
    assert [request.key_ids for request in y.due(3)] == [(K1,), (K2,)]


def test_a_failed_relay_is_acked_as_failed_and_never_given_out() -> None:
    y = received(K1, relayed=False)
    (request,) = y.due(0)
    assert request.body == ack(AckStatus.FAILED, K1)
    with pytest.raises(UnknownKey):
        y.release(K1, now_s=1)


def test_an_ack_for_what_is_void_here_is_refused_so_that_the_peer_voids_too() -> None:
    x, _ = offered(K1)
    assert x.void_keys("y", Void(key_ids=(K1,), parties=PARTIES), now_s=1) == ack(AckStatus.VOIDED, K1)
    with pytest.raises(Refused) as caught:
        x.acknowledge("y", ack(AckStatus.RELAYED, K1), now_s=2)
    assert (caught.value.kind, caught.value.status) == (ProblemType.KEY_NOT_PRESENT, 400)


@pytest.mark.parametrize(
    ("peer", "parties", "key_ids"),
    [("z", PARTIES, (K1,)), ("y", Parties("sae-a", ("sae-d",)), (K1,)), ("y", PARTIES, (K1, K3))],
)
def test_acks_are_taken_as_a_whole_and_only_from_the_peer_of_the_key(
    peer: str, parties: Parties, key_ids: tuple[str, ...]
) -> None:
    x, _ = offered(K1, K2)
    with pytest.raises(Refused):
        x.acknowledge(peer, (Ack(key_ids=key_ids, status=AckStatus.RELAYED, parties=parties),), now_s=1)
    assert x.stage(K1) is Stage.OFFERED


def test_only_the_sender_hears_that_a_key_was_relayed() -> None:
    y = engine()
    y.receive_keys("y", keys(K1), now_s=0)
    y.acknowledge("y", ack(AckStatus.RELAYED, K1), now_s=1)
    y.acknowledge("y", ack(AckStatus.KEY_NOT_PRESENT, K1), now_s=1)
    assert y.stage(K1) is Stage.HELD


def test_a_key_that_comes_back_to_its_sender_is_refused_and_untouched() -> None:
    x, _ = offered(K1)
    with pytest.raises(Refused) as caught:
        x.receive_keys("y", keys(K1), now_s=1)
    assert caught.value.status == 503
    assert x.stage(K1) is Stage.OFFERED


def test_known_key_IDs_and_strangers_are_not_offered() -> None:
    x, _ = offered(K1)
    for peer, key_id in (("y", K1), ("q", K2)):
        with pytest.raises(ValueError, match="not a peer"):
            x.offer(peer, keys(key_id), now_s=1, deadline_s=2)


def test_memory_is_bounded_and_what_ended_is_forgotten_after_a_day() -> None:
    disk = MemoryHandovers()
    y = engine(disk, tombstones_max=2)
    y.void_keys("y", Void(key_ids=(K1,), parties=PARTIES), now_s=0)
    for ask in (
        lambda: y.void_keys("y", Void(key_ids=(K2, K3), parties=PARTIES), now_s=1),
        lambda: y.receive_keys("y", keys(K2, K3), now_s=1),
    ):
        with pytest.raises(Refused) as caught:
            ask()
        assert caught.value.status == 503
    y.receive_keys("y", keys(K2), now_s=1)
    y.sweep(TOMBSTONE_S)
    assert set(disk.saved) == {K1, K2}
    y.sweep(TOMBSTONE_S + 1)
    assert set(disk.saved) == {K2}
    assert y.stage(K1) is None


def test_an_ack_names_at_most_1024_keys() -> None:
    y = engine()
    names = [f"00000000-0000-4000-8000-{number:012x}" for number in range(1500)]
    for start in (0, 750):
        y.receive_keys("y", keys(*names[start : start + 750]), now_s=0)
    acks = y.void_keys("y", Void(key_ids=(), parties=PARTIES, all_confirmed=True), now_s=1)
    assert [len(each.key_ids) for each in acks] == [1024, 476]
