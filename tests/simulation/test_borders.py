"""Keys carried on between operators, in virtual time: equal at the two ends or burnt at both, whoever crashes or lies."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import Any

import pytest

from keystrand.cli.network import _kept
from keystrand.core.errors import KeystrandError, NotPermitted, StoreUnavailable
from keystrand.core.register import Scope, Tally
from keystrand.core.secret import Secret
from keystrand.kme.border import Terms
from keystrand.testing.borders import LIES, Lie, Plan, World, promises
from keystrand.wire.etsi020 import ExtKey, ExtKeys, Parties, ProblemType, Refused
from keystrand.wire.etsi020_way import UNSTATED, Stop, read_way, with_way
from keystrand.wire.handover import Stage

CHAIN = ("a", "c", "w", "z")  # a and its border c of one operator, w and z of another
TWO = {"a": "one", "c": "one", "w": "two", "z": "two"}
SEEDS = range(12)
K1 = "00000000-0000-4000-8000-000000000001"


def plan_of(**more: object) -> Plan:
    return Plan(routes=(CHAIN, ("c", "w"), ("a", "c", "w")), operators=TWO, **more)  # type: ignore[arg-type]


def drawn(world: World) -> str:
    world.draw("a", "z")
    world.pump(12, sleep_s=0.1)
    (key_id,) = world.drawn
    return key_id


@pytest.mark.parametrize("signed", [False, True], ids=["plain", "signed"])
@pytest.mark.parametrize("synchronous", [False, True], ids=["asynchronous", "synchronous"])
def test_I1_I2_I5_I10_I11_keys_carried_on_are_equal_at_the_ends_or_burnt_at_both(
    synchronous: bool, signed: bool
) -> None:
    total: Counter[str] = Counter()
    for seed in SEEDS:
        world = World(seed, plan_of(synchronous=synchronous, signed=signed))
        for _ in range(250):
            world.step()
        world.judge()
        world.settle()
        far = sum(1 for by, to, _ in world.drawn.values() if {by, to} == {"a", "z"})
        total += Counter(drawn=len(world.drawn), fetched=len(world.fetched), over_four=far)
    print(f"{len(SEEDS)} seeds: {dict(total)}, 0 violations")
    assert total["over_four"] > len(SEEDS)
    assert total["fetched"] > len(SEEDS)


def lived(dies_at: int, **more: object) -> World:
    """Two keys over two borders; z's SAE fetches one, and nobody the other. The transaction `dies_at` fails at its end."""
    world = World(7, plan_of(**more), dies_at=dies_at)
    with suppress(KeystrandError):
        world.draw("a", "z", 2)
    world.pump(12, sleep_s=0.2)
    for key_id in list(world.kmes["z"].handovers.saved)[:1]:
        with suppress(KeystrandError):
            world.fetch("z", "a", key_id)
    world.sleep(250.0)
    for kme in world.kmes.values():
        with suppress(KeystrandError):
            kme.do(lambda each: each.interdomain.collect())
    world.pump(12, sleep_s=0.5)
    return world


@pytest.mark.parametrize("synchronous", [False, True], ids=["asynchronous", "synchronous"])
def test_I2_I3_I5_I10_a_crash_at_the_end_of_any_transaction_of_any_kme(synchronous: bool) -> None:
    whole = next(lived(-1, synchronous=synchronous).transactions)
    outcomes: Counter[tuple[int, int]] = Counter()
    for number in range(whole):
        try:
            world = lived(number, synchronous=synchronous, signed=bool(number % 2))
        except StoreUnavailable:
            continue  # while it was founded
        world.settle()
        outcomes[len(world.drawn), len(world.fetched)] += 1
    print(f"{whole} crash points, (drawn, fetched): {dict(outcomes)}, 0 violations")
    assert outcomes[2, 1] > whole / 3


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("liar", ["c", "w"])
def test_I2_a_border_that_lies_costs_keys_and_never_makes_two_ends_differ(lie: Lie, liar: str) -> None:
    """With the audit key of the far end at both ends. Nor does the liar know what the SAEs got."""
    for seed in SEEDS:
        world = World(seed, plan_of(signed=True), liar=liar, lie=lie)
        for _ in range(150):
            world.step()
        world.pump()
        for key_id, (by, to, bits) in world.drawn.items():
            assert world.fetched.get(key_id, bits) == bits, "I2"
            assert world.kmes[to].told("key.reserved"), "nothing is used that the far end did not take"
            if liar not in (by, to):
                assert bits not in world.values
                assert not any(kme.knows(bits) for name, kme in world.kmes.items() if name not in (by, to))


def test_without_the_far_ends_audit_key_a_border_that_lies_is_believed() -> None:
    """What signatures are for: this is what they keep out, and what a key between operators is worth without them."""
    world = World(0, plan_of(), liar="w", lie=promises)
    drawn(world)
    assert world.kmes["z"].stage(*world.drawn) is None, "the SAE at a has a key that z never saw"
    honest = World(0, plan_of(), liar="w")
    key_id = drawn(honest)
    assert honest.drawn[key_id][2] in honest.values, "who carries a key on has it in clear"


def _plain(group: Tally) -> dict[str, Any]:
    return {"link": group.link, "peer": group.peer, "strands": sorted(strand.value for strand in group.strands)}


@pytest.mark.proves("R035")
def test_the_ledger_of_each_end_names_who_had_the_key_in_clear() -> None:
    world = World(1, plan_of())
    key_id = drawn(world)
    world.fetch("z", "a", key_id)
    for end, borders in (("a", ("kme-c", "kme-w")), ("z", ("kme-w", "kme-c"))):
        lifecycle = world.kmes[end].kme.lifecycle
        for border in borders:
            seen = lifecycle.tally(Scope(relay=border))
            assert [(group.keys, group.bits) for group in seen] == [(1, 256)], (end, border)
            assert [_kept(_plain(group), border) for group in seen] == ["nothing: it carried them"]
        assert not lifecycle.tally(Scope(relay="kme-elsewhere"))
    for border, (before, after) in {"c": ("a", "w"), "w": ("c", "z")}.items():
        (row,) = world.kmes[border].told("key.carried")
        assert (row["key_ids"], row["peer"], row["onward"]) == ([key_id], f"kme-{before}", f"kme-{after}")
        assert row["bits"] == 256
        (ended,) = world.kmes[border].told("key.carry_ended")
        assert ended["outcome"] == "ready"
        assert not world.kmes[border].knows(world.drawn[key_id][2]), "let go once it is at both ends"


def test_the_ledger_names_nobody_between_ends_that_wove_the_key_with_each_other() -> None:
    world = World(1, plan_of(signed=True))
    key_id = drawn(world)
    assert world.fetch("z", "a", key_id).material.reveal() == world.drawn[key_id][2]
    lifecycle = world.kmes["a"].kme.lifecycle
    assert not lifecycle.tally(Scope(relay="kme-w"))
    (group,) = lifecycle.tally(Scope(relay="kme-c"))  # next to it, so the register has it as the peer
    assert (group.link, _kept(_plain(group), "kme-c")) == ("woven over kme-c", "ML-KEM of the two ends, signed")


def test_I6_a_key_that_nobody_fetches_is_void_along_the_whole_way_or_kept_where_its_sae_has_it() -> None:
    world = World(2, plan_of())
    world.draw("a", "z")
    for name in ("a", "c", "w"):
        world.send(name)
        while world.wire:
            world.deliver(0)
    key_id = next(iter(world.kmes["z"].handovers.saved))
    world.sleep(5.0)  # a's SAE was refused meanwhile; z holds the key, and nobody's ack came back
    world.pump()
    assert not world.drawn
    stages = {name: kme.stage(key_id) for name, kme in world.kmes.items()}
    assert set(stages.values()) == {Stage.VOIDED}, stages
    with pytest.raises(KeystrandError):
        world.fetch("z", "a", key_id)


def test_a_restored_border_goes_on_with_what_it_carries_and_gives_nothing_out() -> None:
    world = World(3, plan_of())
    key_id = drawn(world)
    backup = dict(world.kmes["c"].handovers.saved)
    world.sleep(250.0)
    world.kmes["z"].do(lambda kme: kme.interdomain.collect())  # nobody fetched it: z gives it up
    world.kmes["c"].handovers.saved = backup
    world.kmes["c"].start()
    world.kmes["c"].do(lambda kme: kme.begin_epoch())
    world.settle()
    assert world.kmes["a"].stage(key_id) is Stage.RELEASED
    assert world.kmes["z"].stage(key_id) is Stage.RELEASED, "burnt: a's SAE has it"


# two ways -------------------------------------------------------------------------------------------------------------

WAYS = (("a", "c", "w", "z"), ("a", "d", "x", "z"))  # each operator has two borders
FOUR = {"a": "one", "c": "one", "d": "one", "w": "two", "x": "two", "z": "two"}
BETWEEN = ("c", "d", "w", "x")


def two_ways(**more: object) -> Plan:
    return Plan(routes=WAYS, operators=FOUR, mortal=BETWEEN, **more)  # type: ignore[arg-type]


def over(world: World, key_id: str, end: str = "a") -> list[str]:
    """The KMEs behind this end that a drawn key passed, as the end's log has it."""
    (row,) = [row for row in world.kmes[end].told("key.relayed") if key_id in row["key_ids"]]
    way: list[str] = row["way"]
    return [name[4:] for name in way]


@pytest.mark.parametrize("signed", [False, True], ids=["plain", "signed"])
@pytest.mark.parametrize("synchronous", [False, True], ids=["asynchronous", "synchronous"])
def test_I1_I2_I5_I10_I11_with_two_ways_borders_stand_still_and_keys_are_equal_or_burnt(
    synchronous: bool, signed: bool
) -> None:
    total: Counter[str] = Counter()
    for seed in range(6):
        world = World(seed, two_ways(synchronous=synchronous, signed=signed))
        for _ in range(250):
            world.step()
        world.judge()
        world.settle()
        total += Counter("".join(over(world, key_id, by)[:-1]) for key_id, (by, _, _) in world.drawn.items())
        total += Counter(fetched=len(world.fetched), refused=len(world.refused))
    print(f"6 seeds: {dict(total)}, 0 violations")
    assert min(total["cw"], total["dx"], total["wc"], total["xd"]) > 1, "every way was taken, from both ends"
    assert total["fetched"] > 10


def chosen(dies_at: int, dead: str, *, synchronous: bool) -> World:
    """Keys drawn one after the other, the second while a border stands still. The transaction `dies_at` fails at its end."""
    world = World(7, two_ways(synchronous=synchronous, signed=bool(dies_at % 2)), dies_at=dies_at)
    for standing in ({}, {dead}, {}):
        world.dead = set(standing)
        with suppress(KeystrandError):
            world.draw("a", "z")
        world.pump(16, sleep_s=0.3)
        for key_id in [each for each in world.drawn if each not in world.fetched]:
            with suppress(KeystrandError):
                world.fetch("z", "a", key_id)
    return world


@pytest.mark.parametrize("dead", ["c", "w"])
def test_I1_I2_I3_I5_I10_a_crash_at_any_transaction_while_another_way_is_taken(dead: str) -> None:
    whole = next(chosen(-1, dead, synchronous=False).transactions)
    outcomes: Counter[tuple[int, int]] = Counter()
    for number in range(0, whole, 3):
        try:
            world = chosen(number + (dead == "w"), dead, synchronous=bool(number % 3))
        except StoreUnavailable:
            continue  # while it was founded
        world.settle()
        outcomes[len(world.drawn), len(world.fetched)] += 1
    print(f"{whole // 3} crash points, (drawn, fetched): {dict(outcomes)}, 0 violations")
    assert outcomes[3, 3] > whole / 6, "a crash costs a key at most, and not because a border stands still"


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("liar", ["c", "x"])
def test_I2_where_one_way_lies_the_ends_agree_over_the_other(lie: Lie, liar: str) -> None:
    """The ends sign: what a lie spoils is not used, and the next key goes where the liar is not."""
    kept = 0
    for seed in range(4):
        world = World(seed, two_ways(signed=True), liar=liar, lie=lie)
        for _ in range(150):
            world.step()
        world.dead.clear()
        world.pump()
        for key_id, (_, to, bits) in world.drawn.items():
            assert world.fetched.get(key_id, bits) == bits, "I2"
            assert world.kmes[to].told("key.reserved"), "nothing is used that the far end did not take"
            assert bits not in world.values
            kept += 1
    assert kept > 4


def test_a_border_that_stands_still_is_left_at_once_avoided_and_taken_again() -> None:
    world = World(1, two_ways(costs={"d": 2}))
    assert over(world, drawn(world)) == ["c", "w", "z"], "the cheaper one"
    world.dead = {"c"}
    world.drawn.clear()
    assert over(world, drawn(world)) == ["d", "x", "z"]
    offers = [row["peer"] for row in world.kmes["a"].told("key.offered")]
    assert offers == ["kme-c", "kme-c", "kme-d"], "it was tried, and did not answer"
    world.drawn.clear()
    assert over(world, drawn(world)) == ["d", "x", "z"]
    assert [row["peer"] for row in world.kmes["a"].told("key.offered")][3:] == ["kme-d"], "and is not asked again"
    world.dead.clear()
    world.sleep(60.0)
    world.pump(10)  # it answers what is still asked of it
    world.drawn.clear()
    assert over(world, drawn(world)) == ["c", "w", "z"]


def test_a_border_whose_way_on_stands_still_takes_a_part_of_the_time_only() -> None:
    """It says that it has the key, and no more."""
    world = World(1, two_ways(costs={"d": 2}))
    world.dead = {"w"}
    world.draw("a", "z")
    world.pump(20, sleep_s=0.2)
    (key_id,) = world.drawn
    assert over(world, key_id) == ["d", "x", "z"]
    assert not world.refused
    assert world.fetch("z", "a", key_id).material.reveal() == world.drawn[key_id][2]


def test_when_no_way_is_left_whoever_waits_is_refused_once() -> None:
    world = World(1, two_ways())
    world.dead = {"c", "d"}
    world.draw("a", "z", 3)
    world.pump(3, sleep_s=0.1)
    assert not world.drawn
    world.pump(20, sleep_s=0.5)
    assert len(world.refused) == 1
    assert not world.drawn


def test_a_border_with_two_ways_on_takes_the_one_that_is_well_and_not_forbidden() -> None:
    plan = Plan(routes=(CHAIN, ("a", "c", "x", "z")), operators={**TWO, "x": "three"}, costs={"x": 2})
    world = World(1, plan)
    assert over(world, drawn(world)) == ["c", "w", "z"]
    world.dead = {"w"}
    world.draw("a", "z")
    world.pump(10, sleep_s=0.5)  # given up: a has no other way, and c found out that w does not answer
    world.drawn.clear()
    assert over(world, drawn(world)) == ["c", "x", "z"]
    strict = World(1, Plan(**{**vars(plan), "terms": {"a": Terms(forbidden=frozenset({"two", "three"}))}}))
    strict.draw("a", "z")
    strict.pump(10, sleep_s=0.2)
    assert "forbidden" in strict.refused[0]


def test_a_forbidden_operator_on_one_way_leaves_the_other() -> None:
    operators = {**FOUR, "w": "three"}
    plan = Plan(routes=WAYS, operators=operators, terms={"a": Terms(forbidden=frozenset({"three"}))}, costs={"d": 2})
    world = World(1, plan)
    assert over(world, drawn(world)) == ["d", "x", "z"]
    (given_up,) = world.kmes["a"].told("key.given_up")
    assert "forbidden" in given_up["reason"]
    world.pump(10)
    (key_id,) = given_up["key_ids"]
    assert {kme.stage(key_id) for name, kme in world.kmes.items() if name in WAYS[0]} == {Stage.VOIDED}, (
        "by all, at once"
    )


# what is refused -------------------------------------------------------------------------------------------------------


def offered(
    world: World, at: str, by: str, *way: Stop, initiator: str = "sae-a", target: str = "sae-z"
) -> Refused | None:
    keys = (ExtKey(key_id=K1, material=Secret(bytes(range(32)))),)
    optional = with_way({}, way) if way else {}
    body = ExtKeys(keys=keys, parties=Parties(initiator, (target,)), callback_url="https://x/ack", optional=optional)
    try:
        world.kmes[at].do(lambda kme: kme.interdomain.receive_keys(f"kme-{by}", body))
    except Refused as problem:
        assert world.kmes[at].stage(K1) is None, "refused by 400: nothing of it is here"
        return problem
    return None


A, C, W = Stop("kme-a", "one"), Stop("kme-c", "one"), Stop("kme-w", "two")


@pytest.mark.parametrize(
    ("at", "by", "way", "words"),
    [
        ("w", "c", (Stop("kme-w", "two"), C), "was there before"),
        ("w", "c", (Stop("kme-z", "two"), C), "was there before"),
        ("w", "c", (A, A, C), "twice"),
        ("w", "c", (A,), "does not end at"),
        ("w", "c", (A, Stop("kme-c", "three")), "another operator"),
        ("w", "c", (*(Stop(f"kme-{n}", "x") for n in range(7)), C), "more than 8 KMEs"),
    ],
)
def test_loops_long_ways_and_false_ones_are_refused_with_the_reason(
    at: str, by: str, way: tuple[Stop, ...], words: str
) -> None:
    problem = offered(World(1, plan_of()), at, by, *way)
    assert problem is not None
    assert (problem.status, problem.kind) == (400, ProblemType.KEY_ROUTING_ERROR)
    assert words in str(problem)


def test_extensions_that_are_not_ours_go_on_as_the_bytes_that_came_in() -> None:
    world, foreign = World(1, plan_of()), {"E32473_theirs": b'{ "n":1.0 }'}
    keys = (ExtKey(key_id=K1, material=Secret(bytes(range(32))), extension=foreign),)
    body = ExtKeys(keys=keys, parties=Parties("sae-a", ("sae-z",)), callback_url="https://x/ack", optional=foreign)
    world.kmes["w"].do(lambda kme: kme.interdomain.receive_keys("kme-c", body))
    (going,) = [each for each in world.kmes["w"].do(lambda kme: kme.interdomain.due()) if each.peer == "kme-z"]
    assert isinstance(going.body, ExtKeys)
    assert going.body.optional["E32473_theirs"] == going.body.keys[0].extension["E32473_theirs"] == b'{ "n":1.0 }'
    way = read_way(going.body.optional)
    assert way == (UNSTATED, Stop("kme-c", "one"), Stop("kme-w", "two")), "the one before states nothing"


def test_a_key_that_comes_back_finds_its_own_record() -> None:
    world = World(1, plan_of())
    assert offered(world, "c", "a", A) is None
    body = ExtKeys(
        keys=(ExtKey(key_id=K1, material=Secret(bytes(range(32)))),),
        parties=Parties("sae-a", ("sae-z",)),
        callback_url="https://x/ack",
    )
    with pytest.raises(Refused) as caught:
        world.kmes["c"].do(lambda kme: kme.interdomain.receive_keys("kme-w", body))
    assert caught.value.status == 503, "400 would say that nothing is held"


@pytest.mark.parametrize(
    ("initiator", "target"), [("sae-a", "sae-c"), ("sae-c", "sae-z"), ("sae-z", "sae-a"), ("sae-x", "sae-z")]
)
def test_who_is_not_in_both_tables_is_not_carried(initiator: str, target: str) -> None:
    problem = offered(World(1, plan_of()), "w", "c", C, initiator=initiator, target=target)
    assert problem is not None
    assert problem.status == 400
    with pytest.raises(NotPermitted):
        World(1, plan_of()).draw("c", "z")


@pytest.mark.parametrize(("where", "whose"), [("a", "two"), ("w", "one"), ("z", "kme-c"), ("a", "kme-z")])
def test_a_forbidden_operator_or_kme_on_the_way_is_refused_at_either_end(where: str, whose: str) -> None:
    world = World(1, plan_of(terms={where: Terms(forbidden=frozenset({whose}))}))
    world.draw("a", "z")
    world.pump(10, sleep_s=0.1)
    world.settle()
    assert not world.drawn
    assert f"forbidden: {whose}" in world.refused[0] if where == "a" else world.refused
    assert Stage.READY not in {kme.stage(key_id) for kme in world.kmes.values() for key_id in kme.handovers.saved}


def test_what_forbids_operators_refuses_a_way_that_is_not_stated() -> None:
    world = World(1, plan_of(terms={"w": Terms(forbidden=frozenset({"three"}))}))
    problem = offered(world, "w", "c")
    assert "not stated" in str(problem)
    assert offered(world, "w", "c", A, C) is None


def test_a_third_operator_carries_in_transit() -> None:
    plan = Plan(routes=(("a", "c", "w", "x", "z"),), operators={**TWO, "x": "three"})
    world = World(1, plan)
    world.draw("a", "z")
    world.pump(10, sleep_s=0.1)
    (key_id,) = world.drawn
    assert world.fetch("z", "a", key_id).material.reveal() == world.drawn[key_id][2]
    assert [group.keys for group in world.kmes["a"].kme.lifecycle.tally(Scope(relay="kme-x"))] == [1]
