"""Operators' KMEs in one thread: requests between them are lost, doubled and overtaken, any of them crashes, one may lie.

Each KME serves one SAE, `sae-NAME`, and a `bystander` that shares keys with nobody. A plan lists routes; the KMEs on one
carry keys of the SAEs at its ends, by ETSI GS QKD 020, and name them in their tables; nobody else does. Two routes between the
same ends give these a choice.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import count, pairwise
from typing import Any, Final, TypeVar

from keystrand.core.errors import KeystrandError, StoreUnavailable
from keystrand.core.key import Key
from keystrand.core.limits import Limits
from keystrand.core.policy import Policy
from keystrand.core.secret import Secret
from keystrand.crypto.combine import StrandCombiner
from keystrand.crypto.sign import Signer
from keystrand.kme.border import Terms
from keystrand.kme.bordering import BorderingKme
from keystrand.kme.ends import Ends
from keystrand.kme.site import Refuse, Reply, Site
from keystrand.kme.ways import Domain
from keystrand.observe.audit import AuditLog
from keystrand.store.memory import MemoryStore
from keystrand.testing.clock import SeededEntropy, VirtualClock
from keystrand.testing.handovers import MemoryHandovers
from keystrand.testing.kem import ToyKem
from keystrand.wire.etsi020 import Ack, AckStatus, ExtKeys, Refused, Void
from keystrand.wire.handover import Answered, Outgoing, Stage

T = TypeVar("T")
LIMITS: Final = Limits(key_ttl_s=200.0, peer_retry_s=0.5)
TIMEOUT_S: Final = 4.0
ENDED: Final = frozenset({Stage.READY, Stage.RELEASED, Stage.VOIDED})


@dataclass(frozen=True, kw_only=True)
class Plan:
    """routes: the KMEs that keys of two SAEs pass. operators: by KME, else its own name.

    terms: by KME, what is not the same at all. signed: the two ends of each route know each other's audit key. costs: by KME,
    of keys that go there, else 1. mortal: KMEs that may stand still, one at a time.
    """

    routes: tuple[tuple[str, ...], ...]
    operators: Mapping[str, str] = field(default_factory=dict)
    terms: Mapping[str, Terms] = field(default_factory=dict)
    synchronous: bool = False
    signed: bool = False
    costs: Mapping[str, int] = field(default_factory=dict)
    mortal: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for route in self.routes for name in route))

    def operator_of(self, name: str) -> str:
        return self.operators.get(name, f"operator of {name}")

    def tables(self, name: str) -> dict[str, dict[str, set[str]]]:
        """By neighbour: SAEs behind it, and who may share keys with each."""
        found: dict[str, dict[str, set[str]]] = {}
        for route in (each for way in self.routes for each in (way, way[::-1])):
            if name in route[:-1]:
                onward = route[route.index(name) + 1]
                found.setdefault(onward, {}).setdefault(f"sae-{route[-1]}", set()).add(f"sae-{route[0]}")
        return found

    def ends_of(self, name: str) -> set[str]:
        return {
            end for route in self.routes for end, own in ((route[0], route[-1]), (route[-1], route[0])) if own == name
        }


class Kme:
    """One KME: what is durable, and the process that runs on it."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name, self.plan = world, name, world.plan
        self.store, self.handovers = MemoryStore(), MemoryHandovers()
        self.starts = count()
        self.start()

    @property
    def sae(self) -> str:
        return f"sae-{self.name}"

    def start(self) -> None:
        """Anew, on what is durable."""
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
        operator = self.plan.operator_of(self.name)
        self.kme = BorderingKme(
            site,
            self.handovers,
            self._domains(),
            timeout_s=TIMEOUT_S,
            wake=lambda: None,
            terms=replace(self.plan.terms.get(self.name, Terms()), operator=operator),
            ends=self._ends(site),
        )
        self.do(lambda kme: kme.recover())

    def _domains(self) -> Iterable[Domain]:
        callback = None if self.plan.synchronous else f"https://{self.name}.example/kmapi/v1/ext_keys/ack"
        for there, saes in self.plan.tables(self.name).items():
            yield Domain(
                kme_id=f"kme-{there}",
                own_callback=callback,
                saes={sae: frozenset(partners) for sae, partners in saes.items()},
                operator=self.plan.operator_of(there),
                cost=self.plan.costs.get(there, 1),
            )

    def _ends(self, site: Site) -> Ends | None:
        if not self.plan.signed:
            return None
        signers = self.world.signers
        verify = {f"sae-{end}": signers[end].verifier.verify for end in self.plan.ends_of(self.name)}
        return Ends(site.kem, signers[self.name].sign, verify)

    def do(self, operation: Callable[[BorderingKme], T], *, dies: bool = False) -> T:
        """One transaction; effects leave after it. dies: the disk fails at its end, and the process starts anew."""
        before, number = dict(self.handovers.saved), next(self.world.transactions)
        try:
            with self.store.transaction():
                result = self.kme.attempt(lambda: operation(self.kme))
                if dies or number == self.world.dies_at:
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

    def records(self) -> list[dict[str, Any]]:
        """Of the audit log."""
        return [json.loads(record) for _, record, _ in self.store.audit_rows(0, 2**31)]

    def told(self, kind: str) -> list[dict[str, Any]]:
        return [row for row in self.records() if row["kind"] == kind]

    def knows(self, bits: bytes) -> bool:
        """Whether it has these bits, on its disk."""
        return any(
            record.material is not None and record.material.reveal() == bits for record in self.handovers.saved.values()
        )


Lie = Callable[["World", str, Outgoing], "Outgoing | Answered | None"]


@dataclass
class World:
    """liar: a KME whose requests `lie` changes, or which `lie` answers for; it gets what leaves it and what comes to it.

    dies_at: the transaction, counted over all KMEs, whose disk fails at its end.
    """

    seed: int
    plan: Plan
    liar: str = ""
    lie: Lie | None = None
    dies_at: int = -1
    clock: VirtualClock = field(default_factory=VirtualClock)
    drawn: dict[str, tuple[str, str, bytes]] = field(default_factory=dict)  # key ID -> by whom, for whom, the bits
    fetched: dict[str, bytes] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    wire: list[tuple[str, Outgoing]] = field(default_factory=list)  # from, request
    values: set[bytes] = field(default_factory=set)  # what the liar read
    dead: set[str] = field(default_factory=set)  # KMEs that stand still

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)  # noqa: S311
        self.transactions = count()
        self.tickets, self._asked, self.answered = count(), dict[object, tuple[str, str]](), Counter[object]()
        seeds = {name: SeededEntropy(f"{self.seed}/sign/{name}").bytes(32) for name in self.plan.names}
        self.signers = {name: Signer(f"keystrand/{name}", seed) for name, seed in seeds.items()}
        self.kmes = {name: Kme(self, name) for name in self.plan.names}

    def answer(self, name: str, effect: Reply | Refuse) -> None:
        self.answered[effect.ticket] += 1
        assert self.answered[effect.ticket] == 1, "I1: one ticket, one answer"
        if isinstance(effect, Refuse):
            self.refused.append(str(effect.error))
        for key in effect.keys if isinstance(effect, Reply) else []:
            assert key.key_id not in self.drawn, "I1"
            self.drawn[key.key_id] = (*self._asked[effect.ticket], key.material.reveal())

    def sleep(self, seconds: float) -> None:
        self.clock.move_to(self.clock.monotonic_s() + seconds)

    def draw(self, name: str, other: str, number: int = 1) -> None:
        """An SAE asks for keys shared with another's."""
        ticket = next(self.tickets)
        self._asked[ticket] = name, other
        self.kmes[name].do(lambda kme: kme.get_key(ticket, f"sae-{name}", f"sae-{other}", number=number))

    def fetch(self, name: str, other: str, key_id: str) -> Key:
        """At the far end of whoever drew it."""
        (key,) = self.kmes[name].do(lambda kme: kme.get_key_with_ids(f"sae-{name}", f"sae-{other}", (key_id,)))
        assert key_id not in self.fetched, "I1: handed out twice"
        self.fetched[key_id] = key.material.reveal()
        return key

    def send(self, name: str, *, dies: bool = False) -> None:
        if name in self.dead:
            return
        self.wire += [(name, each) for each in self.kmes[name].do(lambda kme: kme.interdomain.due(), dies=dies)]

    def deliver(self, place: int, *, keep: bool = False, deaf: bool = False, dies: bool = False) -> None:
        """keep: the request comes again later. deaf: its answer is lost. dies: whoever it comes to fails while it takes it."""
        name, outgoing = self.wire[place] if keep else self.wire.pop(place)
        answer = self._lied(name, outgoing) if self.liar in (name, outgoing.peer[4:]) else None
        if not isinstance(answer, Answered):
            answer = self.ask(outgoing.peer[4:], f"kme-{name}", answer or outgoing, dies=dies)
        if answer is None:
            self.wire.append((name, outgoing))
            return
        if not deaf and name not in self.dead:
            self.kmes[name].do(lambda kme: kme.interdomain.answered(outgoing, answer))

    def _lied(self, name: str, outgoing: Outgoing) -> Outgoing | Answered | None:
        if isinstance(outgoing.body, ExtKeys):
            self.values |= {key.material.reveal() for key in outgoing.body.keys}
        return self.lie(self, name, outgoing) if self.lie is not None else None

    def ask(self, name: str, peer: str, outgoing: Outgoing, *, dies: bool = False) -> Answered | None:
        """What the edge makes of a request. None: whoever asked has to wait until keys are settled that are carried on."""
        if name in self.dead:
            return Answered(unclear=True)
        kme, body = self.kmes[name], outgoing.body
        acks: tuple[Ack, ...] | None
        try:
            if isinstance(body, tuple):
                kme.do(lambda each: each.interdomain.acknowledge(peer, body), dies=dies)
                return Answered()
            if isinstance(body, Void):
                acks = kme.do(lambda each: each.interdomain.void_keys(peer, body), dies=dies)
            else:
                acks = kme.do(lambda each: each.interdomain.receive_keys(peer, body), dies=dies)
        except Refused as problem:
            return Answered(refused=problem) if problem.status in (400, 401) else Answered(unclear=True)
        except StoreUnavailable:
            return Answered(unclear=True)
        if body.callback_url is not None:
            return Answered()
        if acks is None:
            return None if isinstance(body, ExtKeys) else Answered(unclear=True)
        return Answered(acks=acks)

    def pump(self, rounds: int = 40, *, sleep_s: float = 1.0) -> None:
        """Nothing is lost any more."""
        for _ in range(rounds):
            for name in self.kmes:
                with suppress(StoreUnavailable):
                    self.send(name)
            for _ in range(len(self.wire)):
                with suppress(StoreUnavailable):
                    self.deliver(0)
            self.sleep(sleep_s)

    def step(self) -> None:
        """Something happens."""
        name, fate = self.chance.choice(list(self.kmes)), self.chance.random()
        with suppress(KeystrandError):  # refused: what became of it is judged at the end
            if fate < 0.06:
                self.pump(self.chance.randint(1, 6), sleep_s=0.1)
            elif fate < 0.15:
                route = self.chance.choice(self.plan.routes)
                ends = (route[0], route[-1]) if self.chance.random() < 0.5 else (route[-1], route[0])
                self.draw(*ends, self.chance.choice((1, 1, 3)))
            elif fate < 0.35:
                self.send(name)
            elif fate < 0.75 and self.wire:
                place, luck = self.chance.randrange(len(self.wire)), self.chance.random
                self.deliver(place, keep=luck() < 0.15, deaf=luck() < 0.15, dies=luck() < 0.05)
            elif fate < 0.78 and self.wire:
                self.wire.pop(self.chance.randrange(len(self.wire)))
            elif fate < 0.84:
                self._try_fetch(name)
            elif fate < 0.87:
                self.kmes[name].start()
            elif fate < 0.89:
                self.send(name, dies=True)
            elif fate < 0.91:
                self.kmes[name].do(lambda kme: kme.interdomain.collect())
            elif fate < 0.93 and self.plan.mortal:
                self.dead = set() if self.dead else {self.chance.choice(self.plan.mortal)}
            else:
                self.sleep(self.chance.choice((0.1, 0.5, 0.5, 1.0, 4.0, 60.0)))

    def _try_fetch(self, name: str) -> None:
        handovers = self.kmes[name].kme.interdomain.handovers
        known = [
            record for record in handovers.records() if not record.sends and handovers.onward(record.key_id) is None
        ]
        if known:
            record = self.chance.choice(known)
            self.fetch(name, record.parties.initiator[4:], record.key_id)

    def judge(self) -> None:
        """Whatever happened so far."""
        for key_id, (by, to, bits) in self.drawn.items():
            stages = {name: self.kmes[name].stage(key_id) for name in (by, to)}
            assert Stage.VOIDED not in stages.values(), f"here and not there: {stages}"
            assert self.fetched.get(key_id, bits) == bits, "I2"
        for name, kme in self.kmes.items():
            given = Counter(key_id for row in kme.told("key.delivered") for key_id in row["key_ids"])
            assert not [key_id for key_id, times in given.items() if times > 1], f"I5: {name}"

    def settle(self) -> None:
        """Let everything end, and judge that it has (I11)."""
        self.dead.clear()
        self.pump()
        self.judge()
        for name, kme in self.kmes.items():
            records = kme.handovers.saved.values()
            open_ones = [record for record in records if record.stage not in ENDED or record.asked]
            assert not open_ones, f"F7: nothing waits for ever: {name}: {open_ones[:2]}"
            kept = [record for record in records if record.onward and record.material is not None]
            assert not kept, f"{name} keeps what it carried"


# lies: of a KME that keys are carried over ----------------------------------------------------------------------------


def changes_values(world: World, name: str, outgoing: Outgoing) -> Outgoing | None:
    """Hands on other keys than it got."""
    body = outgoing.body
    if name != world.liar or not isinstance(body, ExtKeys):
        return None
    keys = tuple(replace(key, material=Secret(bytes(len(key.material)))) for key in body.keys)
    return replace(outgoing, body=replace(body, keys=keys))


def swaps_values(world: World, name: str, outgoing: Outgoing) -> Outgoing | None:
    """Gives keys of one container each other's value, signature and all."""
    body = outgoing.body
    if name != world.liar or not isinstance(body, ExtKeys):
        return None
    turned = (*body.keys[1:], body.keys[0])
    keys = tuple(
        replace(key, material=Secret(other.material.reveal()), extension=other.extension)
        for key, other in pairwise((*body.keys, turned[-1]))
    )
    return replace(outgoing, body=replace(body, keys=keys))


def promises(world: World, name: str, outgoing: Outgoing) -> Answered | None:
    """Says relayed of keys that it throws away."""
    body = outgoing.body
    if name == world.liar or not isinstance(body, ExtKeys):
        return None
    ack = Ack(key_ids=body.key_ids, status=AckStatus.RELAYED, parties=body.parties)
    return Answered(acks=(ack,))


def voids_alone(world: World, name: str, outgoing: Outgoing) -> Answered | None:
    """Says void of keys that it leaves with the other side."""
    return _void_answer(world, name, outgoing, AckStatus.VOIDED)


def never_voids(world: World, name: str, outgoing: Outgoing) -> Answered | None:
    """Says that an SAE has it, whatever is to be void."""
    return _void_answer(world, name, outgoing, AckStatus.FAILED_TO_VOID)


def _void_answer(world: World, name: str, outgoing: Outgoing, status: AckStatus) -> Answered | None:
    body = outgoing.body
    if name == world.liar or not isinstance(body, Void):
        return None
    return Answered(acks=(Ack(key_ids=body.key_ids, status=status, parties=body.parties),))


LIES: Final = (changes_values, swaps_values, promises, voids_alone, never_voids)
