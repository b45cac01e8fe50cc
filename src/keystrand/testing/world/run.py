"""The world of one seed, put together, run and judged."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from keystrand.core.errors import BadRequest, KeystrandError
from keystrand.core.key import Block, Provenance
from keystrand.core.limits import Limits
from keystrand.core.policy import Policy, Rule
from keystrand.core.pool import Account
from keystrand.core.protection import Protection
from keystrand.core.secret import Secret
from keystrand.kme.service import Kme
from keystrand.kme.site import Effect, Emit, Send
from keystrand.testing.clock import VirtualClock
from keystrand.testing.world.faults import Faults
from keystrand.testing.world.judge import CONVERGENCE_S, Judge
from keystrand.testing.world.operators import Operators
from keystrand.testing.world.saes import PAIRS, SITE_OF, Saes
from keystrand.testing.world.schedule import Schedule
from keystrand.testing.world.sitting import Sitting
from keystrand.wire import peer as wire

SITES = ("alpha", "bravo")
PEACE_S = 2 * CONVERGENCE_S  # without faults at the end: half with traffic, half at rest
TICK_S = 0.5
OPERATION_S = 40.0  # between two acts of operators, on average
PERIOD_S = {
    "files-alpha": 0.0,
    "files-bravo": 0.0,
    "vpn-alpha": 50.0,
}  # cryptoperiods by initiator; 0: that of the site
BLOCK_S = 45.0
LIMITS = Limits(
    key_ttl_s=120.0,
    cryptoperiod_s=400.0,
    rotation_uses=3,
    register_ttl_s=1500.0,
    block_ttl_s=900.0,
    block_size_bits=2048,
    strand_epoch_s=120.0,
    peer_reply_timeout_s=2.0,
    stock_from_per_s=2.0,  # one request is demand enough, so that keys made ahead meet every fault
    stock_idle_s=60.0,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What one seed showed. `faults` says how bad its world was."""

    seed: int
    violations: tuple[str, ...]
    trace_hash: str
    keys_drawn: int
    keys_fetched: int
    refused: int
    crashes: int
    restores: int
    faults: Faults


class World:
    """Two sites, one link, SAEs, faults; everything by one random stream."""

    def __init__(self, seed: int, *, kme_type: type[Kme] = Kme, faults: Faults | None = None) -> None:
        self.rng = random.Random(seed)  # noqa: S311
        self.faults = Faults.drawn(self.rng) if faults is None else faults
        self.clock = VirtualClock()
        self.schedule = Schedule(self.clock)
        self.judge = Judge(Protection.HYBRID)
        self.peace = False
        self.cut = 0  # partitions in force
        self.crashes = self.restores = self.sequence = 0
        self.acked: dict[str, set[int]] = {name: set() for name in SITES}
        policy = Policy.of(tuple(Rule(initiator=a, responder=b, cryptoperiod_s=PERIOD_S[a]) for a, b in PAIRS), SITE_OF)
        self.sites = {
            name: Sitting(
                name=name,
                peer=peer,
                kme_type=kme_type,
                policy=policy,
                limits=LIMITS,
                clock=self.clock,
                rng=self.rng,
                faults=self.faults,
                deliver=self.let_out,
                crashed=self.after_crash,
                reloaded=lambda: self.schedule.after(0.0, self.connect),
            )
            for name, peer in (SITES, SITES[::-1])
        }
        self.saes = Saes(schedule=self.schedule, rng=self.rng, sites=self.sites, judge=self.judge)
        self.operators = Operators(schedule=self.schedule, rng=self.rng, sites=self.sites, judge=self.judge)
        self.saes.told = [lambda sae, key_id: self.operators.recent.append(key_id), self.operators.use]
        self.saes.steady_clock = not self.faults.clock_jump_every_s

    # effects and messages ------------------------------------------------------------------------------------------

    def let_out(self, site: str, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                self.carry(site, effect.peer, wire.encode([effect.message]))  # type: ignore[list-item]
            elif isinstance(effect, Emit):
                self.schedule.trace(site, effect.event.kind, *sorted(effect.event.fields.items()))
            else:
                self.saes.hear(site, effect)

    def carry(self, sender: str, receiver: str, frame: bytes) -> None:
        """Lose, repeat, delay, and so overtake."""
        times = 2 if self.rng.random() < self.faults.duplicate and not self.peace else 1
        for _ in range(times):
            if self.cut or (self.rng.random() < self.faults.loss and not self.peace):
                continue
            delay_s = self.rng.expovariate(1 / self.faults.delay_s)
            self.schedule.after(delay_s, lambda: self.arrive(sender, receiver, frame))

    def arrive(self, sender: str, receiver: str, frame: bytes) -> None:
        for message in wire.decode(frame):
            (result,) = self.sites[receiver].run(lambda kme, message=message: kme.receive(sender, message))  # type: ignore[misc]
            if isinstance(result, KeystrandError):
                self.schedule.trace(receiver, "message refused", type(result).__name__)

    # time ----------------------------------------------------------------------------------------------------------

    def every(self, mean_s: float, action: Callable[[], None]) -> None:
        """Do `action` at random moments, `mean_s` apart on average, until peace comes."""
        if not mean_s:
            return

        def do() -> None:
            if not self.peace:
                action()
            self.every(mean_s, action)

        self.schedule.after(self.rng.expovariate(1 / mean_s), do)

    def tick(self, name: str) -> None:
        sitting = self.sites[name]
        sitting.run(lambda kme: kme.tick())
        self.schedule.after(TICK_S, lambda: self.tick(name))

    def inspect(self) -> None:
        for sitting in self.sites.values():
            self.judge.quiet(sitting)
        self.judge.pair(*self.sites.values())
        self.schedule.after(30.0, self.inspect)

    # faults --------------------------------------------------------------------------------------------------------

    def after_crash(self, name: str) -> None:
        self.crashes += 1
        self.schedule.trace(name, "crash")
        delay_s = self.rng.expovariate(1 / self.faults.down_s)
        self.schedule.after(delay_s, lambda: self.boot(name))

    def boot(self, name: str, *, restored: bool = False) -> None:
        sitting = self.sites[name]
        if sitting.kme is not None:
            return
        in_flight = sum(request.bits for request in sitting.store.requests())
        burnt = sitting.store.ledger("link")[Account.BURNT]
        sitting.start(restored=restored)
        if sitting.store.ledger("link")[Account.BURNT] - burnt > in_flight and not restored:
            self.judge.blame("I10", f"{name} burnt more than the {in_flight} bits in flight")
        self.schedule.trace(name, "boot", sitting.incarnation)
        self.connect()

    def connect(self) -> None:
        """Both ends notice that the channel stands."""
        if all(sitting.kme is not None for sitting in self.sites.values()) and not self.cut:
            for sitting in self.sites.values():
                sitting.run(lambda kme, peer=sitting.peer: kme.peer_up(peer, "simulated"))  # type: ignore[misc]

    def crash_one(self) -> None:
        sitting = self.sites[self.rng.choice(SITES)]
        if sitting.kme is not None:
            sitting.crash()

    def partition(self) -> None:
        self.cut += 1
        self.schedule.trace("partition")
        self.schedule.after(self.rng.expovariate(1 / self.faults.partition_s), self.heal)

    def heal(self) -> None:
        self.cut = max(0, self.cut - 1)
        self.schedule.trace("healed")
        self.connect()

    def back_up(self) -> None:
        for sitting in self.sites.values():
            sitting.backups = [*sitting.backups[-2:], sitting.store.snapshot()]

    def restore(self) -> None:
        """An operator puts back an old backup, and says so: a new epoch begins."""
        sitting = self.sites[self.rng.choice(SITES)]
        if not sitting.backups or sitting.kme is None:
            return
        sitting.stop()
        sitting.store.restore(self.rng.choice(sitting.backups))
        sitting.backups.clear()
        self.acked[sitting.name].clear()
        self.restores += 1
        self.schedule.trace(sitting.name, "restored")
        self.judge.restored(sitting)
        self.boot(sitting.name, restored=True)

    def jump(self) -> None:
        self.clock.skew_s += self.rng.choice((-3600.0, -1.0, 1.0, 3600.0, 86_400.0))

    # the link ------------------------------------------------------------------------------------------------------

    def make_block(self) -> None:
        """Both modules finish the same block; now and then one of them errs."""
        if self.saes.resting:
            return
        sequence, self.sequence = self.sequence, self.sequence + 1
        material = self.rng.randbytes(self.rng.choice((1024, 4096, 4100)))
        skipped = self.rng.choice(SITES) if self.rng.random() < self.faults.block_one_end else None
        wrong = self.rng.choice(SITES) if self.rng.random() < self.faults.block_corrupt else None
        for name in SITES:
            if name != skipped:
                bits = self.rng.randbytes(len(material)) if name == wrong else material
                self.hand_over(name, sequence, bits)
        self.schedule.after(BLOCK_S, self.make_block)

    def hand_over(self, name: str, sequence: int, bits: bytes) -> None:
        """A module repeats a block until its KME has it durably or refuses it for good."""

        def attempt() -> None:
            block = Block(
                link="link", sequence=sequence, material=Secret(bits), provenance=Provenance(source="simulation")
            )
            (result,) = self.sites[name].run(lambda kme: kme.ingest(block))
            if result is None:
                self.acked[name].add(sequence)
            if result is None and self.rng.random() < self.faults.block_repeat:
                self.schedule.after(5.0, attempt)
            elif isinstance(result, KeystrandError) and not isinstance(result, BadRequest):
                self.schedule.after(2.0, attempt)

        self.schedule.after(self.rng.expovariate(1.0), attempt)

    # the whole -----------------------------------------------------------------------------------------------------

    def run(self, duration_s: float) -> None:
        for name in SITES:
            self.sites[name].start()
            self.schedule.after(self.rng.random() * TICK_S, lambda name=name: self.tick(name))  # type: ignore[misc]
        self.connect()
        self.make_block()
        self.saes.begin()
        self.inspect()
        self.every(self.faults.crash_every_s, self.crash_one)
        self.every(self.faults.partition_every_s, self.partition)
        self.every(self.faults.clock_jump_every_s, self.jump)
        self.every(OPERATION_S, self.operators.act)
        self.every(self.faults.restore_every_s / 3, self.back_up)
        self.every(self.faults.restore_every_s, self.restore)
        self.schedule.run_until(duration_s)
        self.make_peace()
        self.schedule.run_until(self.clock.monotonic_s() + PEACE_S / 2)
        self.saes.resting = True
        self.schedule.run_until(self.clock.monotonic_s() + PEACE_S / 2)
        self.final()

    def make_peace(self) -> None:
        """No more faults; everything that is down comes up, and the two ends must find together again."""
        self.peace = True
        calm = replace(self.faults, crash_per_operation=0.0, disk_full_per_commit=0.0, loss=0.0)
        for sitting in self.sites.values():
            sitting.faults = calm
        self.cut = 0
        for name in SITES:
            self.boot(name)
        self.connect()

    def final(self) -> None:
        """Let everything that is under way come to rest, then compare the two ends."""
        one, other = self.sites.values()
        for sitting in (one, other):
            self.judge.quiet(sitting)
            self.judge.silent(sitting)
            for sequence in sorted(self.acked[sitting.name]):
                if sitting.store.device_block("link", sequence) is None:
                    self.judge.blame("I3", f"{sitting.name} acknowledged block {sequence} and forgot it")
        self.judge.pair(one, other)
        lasting = int((LIMITS.block_ttl_s - PEACE_S) / BLOCK_S)
        self.judge.converged(one, other, since=self.sequence - lasting)


def run_seed(
    seed: int, *, duration_s: float = 3600.0, kme_type: type[Kme] = Kme, faults: Faults | None = None
) -> Verdict:
    """Simulate one seed and judge it."""
    world = World(seed, kme_type=kme_type, faults=faults)
    world.run(duration_s)
    return Verdict(
        seed=seed,
        violations=tuple(world.judge.violations),
        trace_hash=world.schedule.trace_hash(),
        keys_drawn=world.saes.answered,
        keys_fetched=world.saes.fetched,
        refused=world.saes.refused,
        crashes=world.crashes,
        restores=world.restores,
        faults=world.faults,
    )
