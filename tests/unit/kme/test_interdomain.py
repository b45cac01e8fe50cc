"""Two networks in one thread: requests between their KMEs are lost, doubled and overtaken, and either KME crashes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import pytest

from keystrand.core.errors import BadRequest, NotPermitted, UnknownKey
from keystrand.core.protection import Protection
from keystrand.core.register import Scope
from keystrand.core.secret import Secret
from keystrand.core.states import State
from keystrand.kme.site import Refuse, Reply
from keystrand.testing.borders import LIMITS, TIMEOUT_S, Plan, World
from keystrand.testing.handovers import MemoryHandovers
from keystrand.wire import interworking
from keystrand.wire.etsi020 import ExtKey, ExtKeys, Parties, ProblemType, Refused
from keystrand.wire.handover import Handover, Stage, Step

OTHER = {"east": "west", "west": "east"}
SEEDS = range(25)


class Pair(World):
    """Two KMEs that name no operator."""

    def __init__(self, seed: int, *, synchronous: bool = True) -> None:
        super().__init__(
            seed, Plan(routes=(("east", "west"),), operators=dict.fromkeys(OTHER, ""), synchronous=synchronous)
        )

    def answer(self, name: str, effect: Reply | Refuse) -> None:
        super().answer(name, effect)
        for key in effect.keys if isinstance(effect, Reply) else []:
            assert key.protection is Protection.PQC

    def judge(self) -> None:
        super().judge()
        for key_id in self.fetched:
            stages = {name: kme.stage(key_id) for name, kme in self.kmes.items()}
            assert Stage.VOIDED not in stages.values(), f"here and not there: {stages}"
        for name, kme in self.kmes.items():
            delivered = Counter(key_id for row in kme.told("key.delivered") for key_id in row["key_ids"])
            for key_id, (by, _, _) in self.drawn.items():
                assert delivered[key_id] == (1 if by == name else int(key_id in self.fetched)), "I5"


@pytest.mark.parametrize("synchronous", [True, False], ids=["synchronous", "asynchronous"])
def test_I1_I2_I5_I10_no_key_is_here_and_void_there_whatever_is_lost_and_whoever_crashes(synchronous: bool) -> None:
    total: Counter[str] = Counter()
    for seed in SEEDS:
        world = Pair(seed, synchronous=synchronous)
        for _ in range(200):
            world.step()
        world.judge()
        world.pump()
        world.judge()
        for kme in world.kmes.values():
            stages = Counter(record.stage for record in kme.kme.interdomain.handovers.records())
            assert not stages[Stage.OFFERED], "F7: nothing waits for ever"
            assert not stages[Stage.VOIDING]
            assert not stages[Stage.HELD]
        for key_id, (by, to, _) in world.drawn.items():
            far = world.kmes[to]
            if key_id not in world.fetched and far.stage(key_id) is Stage.READY:
                with suppress(UnknownKey):  # too late by now
                    world.fetch(to, by, key_id)
        world.judge()
        total += Counter(drawn=len(world.drawn), fetched=len(world.fetched))
    print(f"{len(SEEDS)} seeds: {dict(total)}, 0 violations")
    assert total["drawn"] > 5 * len(SEEDS)
    assert total["fetched"] > 5 * len(SEEDS)


def hasty(patch: pytest.MonkeyPatch) -> None:
    """Calls a key void without asking the other end."""
    table = {stage: dict(steps) for stage, steps in interworking.TRANSITIONS.items()}
    table[Stage.OFFERED] |= {Step.GIVEN_UP: Stage.VOIDED}
    patch.setattr(interworking, "TRANSITIONS", table)


def forgetful(patch: pytest.MonkeyPatch) -> None:
    """Does not make it durable that a key was handed out."""
    save = MemoryHandovers.save

    def lose(self: MemoryHandovers, record: Handover) -> None:
        if record.stage is not Stage.RELEASED:
            save(self, record)

    patch.setattr(MemoryHandovers, "save", lose)


@pytest.mark.parametrize("bug", [hasty, forgetful])
def test_the_judge_sees_a_planted_bug(
    bug: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    bug(monkeypatch)

    def sit() -> None:
        for seed in SEEDS:
            world = Pair(seed, synchronous=False)
            for _ in range(200):
                world.step()
            world.pump()
            world.judge()

    with pytest.raises(AssertionError):
        sit()


@pytest.fixture(params=[True, False], ids=["synchronous", "asynchronous"])
def world(request: pytest.FixtureRequest) -> Pair:
    return Pair(1, synchronous=request.param)


def one_key(world: Pair) -> str:
    world.draw("east", "west")
    world.pump(2)
    (key_id,) = world.drawn
    return key_id


def test_I14_after_a_restore_all_that_waited_is_given_up(world: Pair) -> None:
    key_id = one_key(world)
    west = world.kmes["west"]
    west.do(lambda kme: kme.begin_epoch())
    with pytest.raises(UnknownKey):
        world.fetch("west", "east", key_id)
    west.start()  # and it is not forgotten with the process
    world.pump()
    with pytest.raises(UnknownKey):
        world.fetch("west", "east", key_id)
    assert west.stage(key_id) is Stage.RELEASED, "burnt: the other network's SAE has it"
    mine = [row for row in west.records() if key_id in (row.get("key_id"), *row.get("key_ids", ()))]
    assert mine[-1]["kind"] == "key.burnt"
    assert west.kme.lifecycle.get(key_id).state is State.DEACTIVATED


def test_I6_a_suspended_key_waits_and_a_resumed_one_is_handed_out(world: Pair) -> None:
    key_id = one_key(world)
    west, scope = world.kmes["west"], Scope(key_ids=(key_id,))
    west.do(lambda kme: kme.lifecycle.suspend(scope, actor="test", reason="test"))
    west.do(lambda kme: kme.interdomain.collect())
    with pytest.raises(UnknownKey):
        world.fetch("west", "east", key_id)
    west.do(lambda kme: kme.lifecycle.resume(scope, actor="test", reason="test"))
    world.fetch("west", "east", key_id)


def test_I6_a_key_that_nobody_fetched_in_time_is_given_up(world: Pair) -> None:
    key_id = one_key(world)
    world.sleep(LIMITS.key_ttl_s)
    with pytest.raises(UnknownKey):
        world.fetch("west", "east", key_id)
    world.kmes["west"].do(lambda kme: kme.tick())
    assert world.kmes["west"].stage(key_id) is Stage.VOIDING


def test_a_key_is_for_the_two_that_share_it(world: Pair) -> None:
    key_id = one_key(world)
    west = world.kmes["west"]
    with pytest.raises(NotPermitted):
        west.do(lambda kme: kme.get_key_with_ids("bystander", "sae-east", (key_id,)))
    with pytest.raises(NotPermitted):
        world.kmes["east"].do(lambda kme: kme.get_key(9, "bystander", "sae-west"))
    with pytest.raises(BadRequest):
        world.kmes["east"].do(lambda kme: kme.get_key(9, "sae-east", "sae-west", additional=("bystander",)))
    with pytest.raises(BadRequest):
        world.kmes["east"].do(
            lambda kme: kme.get_key(9, "sae-east", "sae-west", number=LIMITS.keys_per_request_max + 1)
        )


def offer(key_ids: list[str], *, target: str = "sae-west", size_bytes: int = 32) -> ExtKeys:
    keys = tuple(ExtKey(key_id=key_id, material=Secret(bytes(size_bytes))) for key_id in key_ids)
    return ExtKeys(keys=keys, parties=Parties("sae-east", (target,)))


K1, K2 = (f"00000000-0000-4000-8000-00000000000{number}" for number in (1, 2))


@pytest.mark.parametrize(
    ("keys", "status"),
    [
        (offer([K1], target="nobody"), 400),
        (offer([K1], target="bystander"), 400),
        (offer([K1], size_bytes=4), 400),
        (offer([K1], size_bytes=1024), 400),
    ],
)
def test_what_is_offered_must_be_welcome_here(keys: ExtKeys, status: int) -> None:
    west = Pair(1).kmes["west"]
    with pytest.raises(Refused) as caught:
        west.do(lambda kme: kme.interdomain.receive_keys("kme-east", keys))
    assert caught.value.status == status
    assert west.stage(K1) is None


def test_what_is_held_is_answered_from_its_record_whatever_policy_says_by_then() -> None:
    west = Pair(1).kmes["west"]
    first = west.do(lambda kme: kme.interdomain.receive_keys("kme-east", offer([K1])))
    west.kme.interdomain.ways.domains.clear()
    assert west.do(lambda kme: kme.interdomain.receive_keys("kme-east", offer([K1]))) == first
    with pytest.raises(Refused) as caught:  # one is held: 400 would say that none is
        west.do(lambda kme: kme.interdomain.receive_keys("kme-east", offer([K1, K2])))
    assert caught.value.status == 503
    assert caught.value.kind is ProblemType.SERVER_ERROR


def test_F7_without_an_answer_the_sae_is_refused_in_time(world: Pair) -> None:
    world.draw("east", "west", 3)
    world.send("east")
    assert not world.answered
    world.sleep(TIMEOUT_S)
    world.send("east")
    assert world.answered[0] == 1
    assert not world.drawn
    stages = {record.stage for record in world.kmes["east"].kme.interdomain.handovers.records()}
    assert stages == {Stage.VOIDING}
