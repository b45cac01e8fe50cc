"""Two networks in one thread: requests between their KMEs are lost, doubled and overtaken, and either KME crashes."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any, TypeVar

import pytest

from keystrand.core.errors import (
    BadRequest,
    KeystrandError,
    NotPermitted,
    StoreUnavailable,
    UnknownKey,
)
from keystrand.core.key import Key
from keystrand.core.limits import Limits
from keystrand.core.policy import Policy
from keystrand.core.protection import Protection
from keystrand.core.register import Scope
from keystrand.core.secret import Secret
from keystrand.core.states import State
from keystrand.crypto.combine import StrandCombiner
from keystrand.kme.bordering import BorderingKme
from keystrand.kme.interdomain import Domain
from keystrand.kme.site import Refuse, Reply, Site
from keystrand.observe.audit import AuditLog
from keystrand.store.memory import MemoryStore
from keystrand.testing.clock import SeededEntropy, VirtualClock
from keystrand.testing.handovers import MemoryHandovers
from keystrand.testing.kem import ToyKem
from keystrand.wire import interworking
from keystrand.wire.etsi020 import ExtKey, ExtKeys, Parties, ProblemType, Refused, Void
from keystrand.wire.handover import Answered, Handover, Outgoing, Stage, Step

T = TypeVar("T")
OTHER = {"east": "west", "west": "east"}
LIMITS = Limits(key_ttl_s=200.0, peer_retry_s=0.5)
TIMEOUT_S = 3.0
SEEDS = range(25)


class Side:
    """One KME: what is durable, and the process that runs on it."""

    def __init__(self, world: World, name: str, *, synchronous: bool) -> None:
        self.world, self.name, self.synchronous = world, name, synchronous
        self.store, self.handovers = MemoryStore(), MemoryHandovers()
        self.starts = count()
        self.start()

    @property
    def sae(self) -> str:
        return f"sae-{self.name}"

    def start(self) -> None:
        entropy = SeededEntropy(f"{self.world.seed}/{self.name}/{next(self.starts)}")
        site = Site(
            name=self.name,
            kme_id=f"kme-{self.name}",
            peer_kme_ids={},
            links=(),
            policy=Policy.of((), {self.sae: self.name, "bystander": self.name}),
            limits=LIMITS,
            store=self.store,
            audit_trail=AuditLog(self.store, self.world.clock, self.name),
            kem=ToyKem(entropy),
            combiner=StrandCombiner(),
            clock=self.world.clock,
            entropy=entropy,
        )
        there = OTHER[self.name]
        callback = None if self.synchronous else f"https://{self.name}.example/kmapi/v1/ext_keys/ack"
        saes = {f"sae-{there}": frozenset({self.sae})}
        domain = Domain(kme_id=f"kme-{there}", own_callback=callback, saes=saes)
        self.kme = BorderingKme(site, self.handovers, [domain], timeout_s=TIMEOUT_S, wake=lambda: None)
        self.do(lambda kme: kme.recover())

    def do(self, operation: Callable[[BorderingKme], T], *, dies: bool = False) -> T:
        """One transaction; effects leave after it. dies: the disk fails at its end, and the process starts anew."""
        before = dict(self.handovers.saved)
        try:
            with self.store.transaction():
                result = self.kme.attempt(lambda: operation(self.kme))
                if dies:
                    raise StoreUnavailable("disk full")
        except StoreUnavailable:
            self.handovers.saved = before
            self.start()
            raise
        for effect in self.kme.drain():
            if isinstance(effect, Reply | Refuse):
                self.world.answer(self.name, effect)
        return result

    def stage(self, key_id: str) -> Stage | None:
        return self.kme.interdomain.handovers.stage(key_id)

    def records(self, key_id: str) -> list[dict[str, Any]]:
        found = [json.loads(record) for _, record, _ in self.store.audit_rows(0, 2**31)]
        return [row for row in found if row.get("key_id") == key_id or key_id in row.get("key_ids", ())]


@dataclass
class World:
    seed: int
    synchronous: bool = True
    clock: VirtualClock = field(default_factory=VirtualClock)
    tickets: Any = field(default_factory=count)
    drawn: dict[str, tuple[str, bytes]] = field(default_factory=dict)  # key ID -> by whom, the bits
    fetched: dict[str, bytes] = field(default_factory=dict)
    answered: Counter[object] = field(default_factory=Counter)
    wire: list[tuple[str, Outgoing]] = field(default_factory=list)  # from, request

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.sides = {name: Side(self, name, synchronous=self.synchronous) for name in OTHER}

    def answer(self, name: str, effect: Reply | Refuse) -> None:
        self.answered[effect.ticket] += 1
        assert self.answered[effect.ticket] == 1, "I1: one ticket, one answer"
        for key in effect.keys if isinstance(effect, Reply) else []:
            assert key.protection is Protection.PQC
            assert key.key_id not in self.drawn, "I1"
            self.drawn[key.key_id] = name, key.material.reveal()

    def sleep(self, seconds: float) -> None:
        self.clock.move_to(self.clock.monotonic_s() + seconds)

    # what happens

    def draw(self, name: str, number: int = 1) -> object:
        ticket = next(self.tickets)
        side, other = self.sides[name], f"sae-{OTHER[name]}"
        side.do(lambda kme: kme.get_key(ticket, side.sae, other, number=number))
        return ticket

    def fetch(self, name: str, key_id: str) -> Key:
        """At the other end of whoever drew it."""
        side = self.sides[name]
        (key,) = side.do(lambda kme: kme.get_key_with_ids(side.sae, f"sae-{OTHER[name]}", (key_id,)))
        assert key_id not in self.fetched, "I1: handed out twice"
        self.fetched[key_id] = key.material.reveal()
        return key

    def send(self, name: str) -> None:
        self.wire += [(name, outgoing) for outgoing in self.sides[name].do(lambda kme: kme.interdomain.due())]

    def deliver(self, place: int, *, keep: bool, deaf: bool) -> None:
        """keep: the request comes again later. deaf: its answer is lost."""
        name, outgoing = self.wire[place] if keep else self.wire.pop(place)
        answer = self.ask(OTHER[name], f"kme-{name}", outgoing)
        if not deaf:
            self.sides[name].do(lambda kme: kme.interdomain.answered(outgoing, answer))

    def ask(self, name: str, peer: str, outgoing: Outgoing) -> Answered:
        """What the edge makes of a request."""
        side, body = self.sides[name], outgoing.body
        try:
            if isinstance(body, tuple):
                side.do(lambda kme: kme.interdomain.acknowledge(peer, body))
                return Answered()
            if isinstance(body, Void):
                acks = side.do(lambda kme: kme.interdomain.void_keys(peer, body))
            else:
                acks = side.do(lambda kme: kme.interdomain.receive_keys(peer, body)) or ()
        except Refused as problem:
            return Answered(refused=problem) if problem.status in (400, 401) else Answered(unclear=True)
        return Answered(acks=acks) if body.callback_url is None else Answered()

    def pump(self, rounds: int = 40) -> None:
        """Nothing is lost any more."""
        for _ in range(rounds):
            for name in self.sides:
                self.send(name)
            while self.wire:
                self.deliver(0, keep=False, deaf=False)
            self.sleep(1.0)

    def step(self) -> None:
        name = self.chance.choice(list(self.sides))
        side, fate = self.sides[name], self.chance.random()
        try:
            if fate < 0.2:
                self.draw(name, self.chance.choice((1, 1, 3)))
            elif fate < 0.4:
                self.send(name)
            elif fate < 0.75 and self.wire:
                place = self.chance.randrange(len(self.wire))
                self.deliver(place, keep=self.chance.random() < 0.2, deaf=self.chance.random() < 0.2)
            elif fate < 0.8 and self.wire:
                self.wire.pop(self.chance.randrange(len(self.wire)))
            elif fate < 0.88:
                self.try_fetch(name)
            elif fate < 0.91:
                side.start()
            elif fate < 0.93:
                side.do(lambda kme: kme.interdomain.due(), dies=True)
            elif fate < 0.95:
                side.do(lambda kme: kme.interdomain.collect())
            else:
                self.sleep(self.chance.choice((0.1, 1.0, 1.0, 4.0, 4.0, 150.0)))
        except KeystrandError:
            pass  # refused: what became of it is judged at the end

    def try_fetch(self, name: str) -> None:
        known = [r.key_id for r in self.sides[name].kme.interdomain.handovers.records() if not r.sends]
        if known:
            self.fetch(name, self.chance.choice(known))

    def judge(self) -> None:
        for key_id in self.drawn.keys() | self.fetched.keys():
            stages = {name: side.stage(key_id) for name, side in self.sides.items()}
            assert Stage.VOIDED not in stages.values(), f"here and not there: {stages}"
        for key_id in self.drawn.keys() & self.fetched.keys():
            assert self.drawn[key_id][1] == self.fetched[key_id], "I2"
        for name, side in self.sides.items():
            for key_id, (by, _) in self.drawn.items():
                delivered = [row for row in side.records(key_id) if row["kind"] == "key.delivered"]
                assert len(delivered) == (1 if by == name else int(key_id in self.fetched)), "I5"


@pytest.mark.parametrize("synchronous", [True, False], ids=["synchronous", "asynchronous"])
def test_I1_I2_I5_I10_no_key_is_here_and_void_there_whatever_is_lost_and_whoever_crashes(synchronous: bool) -> None:
    total: Counter[str] = Counter()
    for seed in SEEDS:
        world = World(seed, synchronous)
        for _ in range(200):
            world.step()
        world.judge()
        world.pump()
        world.judge()
        for side in world.sides.values():
            stages = Counter(record.stage for record in side.kme.interdomain.handovers.records())
            assert not stages[Stage.OFFERED], "F7: nothing waits for ever"
            assert not stages[Stage.VOIDING]
            assert not stages[Stage.HELD]
        for key_id, (by, _) in world.drawn.items():
            far = world.sides[OTHER[by]]
            if key_id not in world.fetched and far.stage(key_id) is Stage.READY:
                with suppress(UnknownKey):  # too late by now
                    world.fetch(OTHER[by], key_id)
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
            world = World(seed, synchronous=False)
            for _ in range(200):
                world.step()
            world.pump()
            world.judge()

    with pytest.raises(AssertionError):
        sit()


@pytest.fixture(params=[True, False], ids=["synchronous", "asynchronous"])
def world(request: pytest.FixtureRequest) -> World:
    return World(1, request.param)


def one_key(world: World) -> str:
    world.draw("east")
    world.pump(2)
    (key_id,) = world.drawn
    return key_id


def test_I14_after_a_restore_all_that_waited_is_given_up(world: World) -> None:
    key_id = one_key(world)
    west = world.sides["west"]
    west.do(lambda kme: kme.begin_epoch())
    with pytest.raises(UnknownKey):
        world.fetch("west", key_id)
    west.start()  # and it is not forgotten with the process
    world.pump()
    with pytest.raises(UnknownKey):
        world.fetch("west", key_id)
    assert west.stage(key_id) is Stage.RELEASED, "burnt: the other network's SAE has it"
    assert west.records(key_id)[-1]["kind"] == "key.burnt"
    assert west.kme.lifecycle.get(key_id).state is State.DEACTIVATED


def test_I6_a_suspended_key_waits_and_a_resumed_one_is_handed_out(world: World) -> None:
    key_id = one_key(world)
    west, scope = world.sides["west"], Scope(key_ids=(key_id,))
    west.do(lambda kme: kme.lifecycle.suspend(scope, actor="test", reason="test"))
    west.do(lambda kme: kme.interdomain.collect())
    with pytest.raises(UnknownKey):
        world.fetch("west", key_id)
    west.do(lambda kme: kme.lifecycle.resume(scope, actor="test", reason="test"))
    world.fetch("west", key_id)


def test_I6_a_key_that_nobody_fetched_in_time_is_given_up(world: World) -> None:
    key_id = one_key(world)
    world.sleep(LIMITS.key_ttl_s)
    with pytest.raises(UnknownKey):
        world.fetch("west", key_id)
    world.sides["west"].do(lambda kme: kme.tick())
    assert world.sides["west"].stage(key_id) is Stage.VOIDING


def test_a_key_is_for_the_two_that_share_it(world: World) -> None:
    key_id = one_key(world)
    west = world.sides["west"]
    with pytest.raises(NotPermitted):
        west.do(lambda kme: kme.get_key_with_ids("bystander", "sae-east", (key_id,)))
    with pytest.raises(NotPermitted):
        world.sides["east"].do(lambda kme: kme.get_key(9, "bystander", "sae-west"))
    with pytest.raises(BadRequest):
        world.sides["east"].do(lambda kme: kme.get_key(9, "sae-east", "sae-west", additional=("bystander",)))
    with pytest.raises(BadRequest):
        world.sides["east"].do(
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
    west = World(1).sides["west"]
    with pytest.raises(Refused) as caught:
        west.do(lambda kme: kme.interdomain.receive_keys("kme-east", keys))
    assert caught.value.status == status
    assert west.stage(K1) is None


def test_what_is_held_is_answered_from_its_record_whatever_policy_says_by_then() -> None:
    west = World(1).sides["west"]
    first = west.do(lambda kme: kme.interdomain.receive_keys("kme-east", offer([K1])))
    west.kme.interdomain.domains.clear()
    assert west.do(lambda kme: kme.interdomain.receive_keys("kme-east", offer([K1]))) == first
    with pytest.raises(Refused) as caught:  # one is held: 400 would say that none is
        west.do(lambda kme: kme.interdomain.receive_keys("kme-east", offer([K1, K2])))
    assert caught.value.status == 503
    assert caught.value.kind is ProblemType.SERVER_ERROR


def test_F7_without_an_answer_the_sae_is_refused_in_time(world: World) -> None:
    world.draw("east", 3)
    world.send("east")
    assert not world.answered
    world.sleep(TIMEOUT_S)
    world.send("east")
    assert world.answered[0] == 1
    assert not world.drawn
    stages = {record.stage for record in world.sides["east"].kme.interdomain.handovers.records()}
    assert stages == {Stage.VOIDING}
