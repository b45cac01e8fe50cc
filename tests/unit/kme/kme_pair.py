"""Two key services over stores in memory, and the wire between them, which a test may cut, delay or shake.

After every transaction the books of that site must balance (invariant I9) and no block may have two owners (I13).
"""

from __future__ import annotations

import json
import random
from collections import deque
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, TypeVar

from keystrand.core.errors import KeystrandError, PeerFault
from keystrand.core.events import Event
from keystrand.core.key import Block, Key, Provenance
from keystrand.core.limits import Limits
from keystrand.core.policy import Policy, Rule, Waiver
from keystrand.core.pool import Account
from keystrand.core.protection import Protection
from keystrand.core.secret import Secret
from keystrand.crypto.combine import StrandCombiner
from keystrand.kme.service import Kme
from keystrand.kme.site import Emit, Link, Refuse, Reply, Send, Site
from keystrand.observe.audit import AuditLog
from keystrand.store.memory import MemoryStore
from keystrand.testing.clock import EPOCH_S, SeededEntropy, VirtualClock
from keystrand.testing.kem import ToyKem
from keystrand.wire.peer import Message, decode, encode

T = TypeVar("T")

LINK = "link"
BLOCK_BITS = 16_384
WAIVER_S = 900.0  # how long the waiver of a3 -> b1 lasts
BRAVO_SAES = tuple(f"b{number}" for number in range(1, 11))
SITE_OF = {"a1": "alpha", "a2": "alpha", "a3": "alpha", "z1": "zulu"} | dict.fromkeys(BRAVO_SAES, "bravo")
WAIVER = Waiver(protection=Protection.PQC, approved_by=("ann",), reason="fibre works", expires_s=EPOCH_S + WAIVER_S)
RULES = (
    *(Rule(initiator="a1", responder=sae) for sae in BRAVO_SAES),
    Rule(initiator="a1", responder="a2"),
    Rule(initiator="a1", responder="z1"),
    Rule(initiator="a2", responder="b1", require=Protection.QKD),
    Rule(initiator="a2", responder="b2", require=Protection.PQC),
    Rule(initiator="a2", responder="b3", require=Protection.CLASSICAL),
    Rule(initiator="a3", responder="b1", waiver=WAIVER),
    Rule(initiator="a3", responder="b2", quota_bps=256.0, quota_burst_bits=1024),
    Rule(initiator="b1", responder="a1"),
)
LIMITS = Limits(block_size_bits=2048)


class Side:
    """One site: what is durable, and the process that runs on it."""

    def __init__(self, pair: Pair, name: str, peer: str, policy: Policy, limits: Limits) -> None:
        self.pair, self.name, self.peer, self.policy, self.limits = pair, name, peer, policy, limits
        self.store = MemoryStore()
        self.starts = count()
        self.start()

    def start(self, *, restored: bool = False) -> None:
        """A new process over what is durable."""
        entropy = SeededEntropy(f"{self.name}/{next(self.starts)}")
        site = Site(
            name=self.name,
            kme_id=f"kme-{self.name}",
            peer_kme_ids={self.peer: f"kme-{self.peer}"},
            links=(Link(name=LINK, peer=self.peer),),
            policy=self.policy,
            limits=self.limits,
            store=self.store,
            audit_trail=AuditLog(self.store, self.pair.clock, self.name),
            kem=ToyKem(entropy),
            combiner=StrandCombiner(),
            clock=self.pair.clock,
            entropy=entropy,
        )
        self.kme = Kme(site)
        if restored:
            self.run(lambda kme: kme.begin_epoch())
        self.run(lambda kme: kme.recover())

    def run(self, operation: Callable[[Kme], T]) -> T:
        """One operation in one transaction, as the engine does it; its effects leave after the commit."""
        try:
            with self.store.transaction():
                return self.kme.attempt(lambda: operation(self.kme))
        finally:
            self.pair.let_out(self)
            self.check()

    def check(self) -> None:
        assert self.kme.check_ledger() == [], "I9"
        for block in self.store.blocks():
            far = self.pair.sides[self.peer].store.block(block.block_id) if self.peer in self.pair.sides else None
            both = far is not None and block.owner == self.name and far.owner == self.peer
            assert not both, f"I13: {block.block_id} has two owners"

    def ledger(self, account: Account) -> int:
        return self.store.ledger(LINK)[account]

    def records(self, kind: str) -> list[dict[str, Any]]:
        """Audit records of one kind."""
        rows = [json.loads(record) for _, record, _ in self.store.audit_rows(0, 2**31)]
        return [row for row in rows if row["kind"] == kind]

    def events(self, kind: str) -> list[Event]:
        return [event for name, event in self.pair.events if name == self.name and event.kind == kind]


class Pair:
    """alpha and bravo. `lose` decides which messages vanish; `shake` repeats and reorders the rest."""

    def __init__(self, *, limits: Limits = LIMITS, rules: tuple[Rule, ...] = RULES) -> None:
        self.clock = VirtualClock()
        self.wire: deque[tuple[str, str, Message]] = deque()
        self.sent: list[tuple[str, Message]] = []
        self.answers: dict[object, list[Key] | KeystrandError] = {}
        self.events: list[tuple[str, Event]] = []
        self.faults: list[PeerFault] = []
        self.lose: Callable[[Message], bool] = lambda message: False
        self.shake: random.Random | None = None
        self.tickets: Iterator[int] = count()
        self.sides: dict[str, Side] = {}
        policy = Policy.of(rules, SITE_OF)
        for name, peer in (("alpha", "bravo"), ("bravo", "alpha")):
            self.sides[name] = Side(self, name, peer, policy, limits)
        self.alpha, self.bravo = self.sides["alpha"], self.sides["bravo"]

    def let_out(self, side: Side) -> None:
        for effect in side.kme.drain():
            if isinstance(effect, Send):
                self.sent.append((side.name, effect.message))
                self.wire.append((side.name, effect.peer, decode(encode([effect.message]))[0]))  # type: ignore[list-item]
            elif isinstance(effect, Reply):
                assert effect.ticket not in self.answers, "I1: one ticket, one answer"
                self.answers[effect.ticket] = effect.keys
            elif isinstance(effect, Refuse):
                assert effect.ticket not in self.answers
                self.answers[effect.ticket] = effect.error
            elif isinstance(effect, Emit):
                self.events.append((side.name, effect.event))

    def pump(self) -> None:
        """Carry messages until the wire is empty."""
        repeated = 0
        while self.wire:
            if self.shake is not None:
                self.wire.rotate(self.shake.randrange(len(self.wire)))
            sender, receiver, message = self.wire.popleft()
            if self.lose(message):
                continue
            if self.shake is not None and repeated < 500 and self.shake.random() < 0.3:
                self.wire.append((sender, receiver, message))
                repeated += 1
            self.hear(sender, receiver, message)

    def hear(self, sender: str, receiver: str, message: Message) -> None:
        try:
            self.sides[receiver].run(lambda kme: kme.receive(sender, message))
        except PeerFault as fault:
            self.faults.append(fault)

    def connect(self) -> None:
        for side in self.sides.values():
            side.run(lambda kme, peer=side.peer: kme.peer_up(peer, "X25519MLKEM768"))  # type: ignore[misc]
        self.pump()

    def advance(self, seconds: float, step_s: float = 0.5) -> None:
        end_s = self.clock.monotonic_s() + seconds
        while self.clock.monotonic_s() < end_s:
            self.clock.move_to(min(end_s, self.clock.monotonic_s() + step_s))
            for side in self.sides.values():
                side.run(lambda kme: kme.tick())
                self.pump()

    def fill(self, sequence: int = 0, bits: int = BLOCK_BITS) -> bytes:
        """The modules deliver one block at both ends; its bits."""
        material = random.Random(sequence).randbytes(bits // 8)
        for side in self.sides.values():
            side.run(lambda kme: kme.ingest(block_of(sequence, material)))
        self.pump()
        return material

    def ask(self, initiator: str, responder: str, **options: Any) -> int:
        """Get key, begun; the ticket of the answer."""
        ticket = next(self.tickets)
        side = self.sides[SITE_OF[initiator]]
        side.run(lambda kme: kme.get_key(ticket, initiator, responder, **options))
        return ticket

    def draw(self, initiator: str, responder: str, **options: Any) -> list[Key]:
        """Get key, to its end. Raises what the SAE is told."""
        ticket = self.ask(initiator, responder, **options)
        self.pump()
        answer = self.answers[ticket]
        if isinstance(answer, KeystrandError):
            raise answer
        return answer

    def fetch(self, caller: str, initiator: str, *keys: Key | str) -> list[Key]:
        """Get key with key IDs."""
        key_ids = tuple(key if isinstance(key, str) else key.key_id for key in keys)
        return self.sides[SITE_OF[caller]].run(lambda kme: kme.get_key_with_ids(caller, initiator, key_ids))

    def count(self, kind: type[Message]) -> int:
        return sum(isinstance(message, kind) for _, message in self.sent)


def block_of(sequence: int, material: bytes, link: str = LINK) -> Block:
    return Block(
        link=link, sequence=sequence, material=Secret(material), provenance=Provenance(source="test", qber=0.02)
    )


def materials(keys: list[Key]) -> list[tuple[str, bytes]]:
    return [(key.key_id, key.material.reveal()) for key in keys]
