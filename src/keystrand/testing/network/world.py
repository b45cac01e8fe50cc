"""A network of one seed, put together, run and judged."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

from keystrand.core.errors import KeystrandError
from keystrand.core.events import spanned
from keystrand.core.key import Block, Key, Provenance
from keystrand.core.limits import Limits
from keystrand.core.policy import Policy, Rule
from keystrand.core.protection import Protection
from keystrand.core.secret import Secret
from keystrand.kme.service import Kme
from keystrand.kme.site import Effect, Emit, Link, Refuse, Reply, Send
from keystrand.relay.atlas import Atlas
from keystrand.relay.pace import Pace
from keystrand.relay.ports import Say
from keystrand.relay.relay import Relay
from keystrand.relay.supply import Fill
from keystrand.testing.clock import VirtualClock
from keystrand.testing.network.post import FILL, PadTicket, Post, relay_sae
from keystrand.testing.world.faults import Faults
from keystrand.testing.world.judge import Judge
from keystrand.testing.world.schedule import Schedule
from keystrand.testing.world.sitting import Sitting
from keystrand.wire import peer as wire
from keystrand.wire import relay as relay_wire

LIMITS: Final = Limits(
    block_size_bits=16_384,
    peer_reply_timeout_s=3.0,
    key_ttl_s=120.0,
    strand_epoch_s=3600.0,
    stock_from_per_s=1000.0,
)
PACE: Final = Pace(block_bytes=1024, hop_s=10.0, block_s=40.0)
SLOW_LIMITS: Final = replace(LIMITS, block_ttl_s=180 * 86_400.0, strand_epoch_s=14 * 86_400.0)
PAUSE_FACTOR: Final = 3.0  # of the pauses between two ticks of a site that nothing happens to
TRIES_MAX: Final = 3  # of one draw; an SAE asks again after a refusal
AGAIN_S: Final = 5.0
HOP_BLOCK_BYTES: Final = 8192
PEACE_S: Final = 300.0
CALM: Final = Faults()
Hop = tuple[str, str]
NO_NEIGHBOURS: Final[Mapping[Hop, float]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Rhythm:
    """Mean seconds between what happens without faults.

    Sites that nothing happens to are ticked ever more seldom: after tick_s, three times that, … up to idle_s.
    advert_s: how often a relay says again what has not changed.
    """

    tick_s: float = 1.0
    idle_s: float = 1.0
    advert_s: float = 60.0
    hop_block_s: float = 60.0
    key_s: float = 20.0
    inspect_s: float = 120.0


DAY_S: Final = 86_400.0
# for years: a key a day on each link, two blocks a week on each hop; faults last as long as it takes to send somebody
SLOW: Final = Rhythm(
    tick_s=2.0, idle_s=DAY_S / 4, advert_s=7 * DAY_S, hop_block_s=3 * DAY_S, key_s=DAY_S, inspect_s=7 * DAY_S
)


@dataclass(frozen=True, slots=True)
class SaeTicket:
    site: str
    incarnation: int
    link: str
    tries: int


@dataclass(slots=True)
class Tally:
    """What a seed saw."""

    keys: int = 0
    fetched: int = 0
    refused: int = 0
    crashes: int = 0
    cuts: int = 0
    restores: int = 0
    blocks: dict[str, int] = field(default_factory=dict)  # relayed link -> blocks confirmed at its origin
    lost: int = 0  # blocks that their origin gave up
    hungry: Counter[str] = field(default_factory=Counter)  # refused, by link or hop


SLOW_FAULTS: Final = Faults(
    loss=0.01,
    duplicate=0.01,
    crash_per_operation=0.0002,
    crash_every_s=DAY_S / 2,
    down_s=1800.0,
    partition_every_s=DAY_S / 3,
    partition_s=DAY_S / 6,
    disk_full_per_commit=0.0002,
    restore_every_s=30 * DAY_S,
)


@dataclass(frozen=True, slots=True)
class Pulse:
    """When a site is ticked next, and how long after the tick before."""

    at_s: float = float("inf")
    pause_s: float = 0.0


class Network:
    """Sites, hops, relays and SAEs at both ends of every relayed link."""

    def __init__(
        self,
        seed: int,
        atlas: Atlas,
        *,
        faults: Faults = CALM,
        rhythm: Rhythm = Rhythm(),
        liars: dict[str, type[Relay]] | None = None,
        kme_type: type[Kme] = Kme,
        limits: Limits = LIMITS,
        fill: Fill = FILL,
        neighbours: Mapping[Hop, float] = NO_NEIGHBOURS,
    ) -> None:
        """neighbours: hops whose own applications draw keys, and mean seconds between two of these."""
        self.limits, self.fill = limits, fill
        self.pairs: dict[str, Hop] = {name: (link.origin, link.target) for name, link in atlas.links.items()}
        self.pairs |= {"~".join(hop): hop for hop in neighbours}
        self.key_s = dict.fromkeys(atlas.links, rhythm.key_s) | {"~".join(hop): s for hop, s in neighbours.items()}
        self.rng = random.Random(seed)  # noqa: S311
        self.atlas, self.faults, self.rhythm = atlas, faults, rhythm
        self.clock = VirtualClock()
        self.schedule = Schedule(self.clock)
        self.judge = Judge(Protection.QKD)
        self.tally = Tally()
        self.peace = self.resting = False
        self.cut: set[frozenset[str]] = set()  # hops over which nothing comes
        self.sequences = dict.fromkeys(atlas.hops, 0)
        self.pulse = dict.fromkeys(atlas.sites, Pulse())
        self.frames: list[tuple[str, str, bytes]] = []  # what crossed the wire between relays, if somebody listens
        self.listening = False
        policy = self._policy()
        self.posts = {name: self._post(name, policy, (liars or {}).get(name, Relay), kme_type) for name in atlas.sites}

    def _policy(self) -> Policy:
        site_of = {relay_sae(name): name for name in self.atlas.sites}
        rules = []
        for one, other in self.atlas.hops:
            for a, b in ((one, other), (other, one)):
                rules.append(Rule(initiator=relay_sae(a), responder=relay_sae(b), require=Protection.QKD))
        for name, (origin, target) in self.pairs.items():
            a, b = self.ends_of(name)
            site_of |= {a: origin, b: target}
            rules += [Rule(initiator=a, responder=b), Rule(initiator=b, responder=a)]
        return Policy.of(tuple(rules), site_of)

    @staticmethod
    def ends_of(link: str) -> tuple[str, str]:
        return f"app-a-{link}", f"app-b-{link}"

    def _post(self, name: str, policy: Policy, relay_type: type[Relay], kme_type: type[Kme]) -> Post:
        links = [Link(name=f"{one}~{other}", peer=other if one == name else one) for one, other in self.hops_at(name)]
        for link in self.atlas.links.values():
            if name in link.ends:
                links.append(Link(name=link.name, peer=link.target if name == link.origin else link.origin))
        sitting = Sitting(
            name=name,
            peer=links[0].peer,
            kme_type=kme_type,
            policy=policy,
            limits=self.limits,
            clock=self.clock,
            rng=self.rng,
            faults=self.faults,
            deliver=self.let_out,
            crashed=self.after_crash,
            reloaded=lambda: self.schedule.after(0.0, lambda: self.meet(name)),
            links=tuple(links),
        )
        return Post(
            sitting=sitting,
            atlas=self.atlas,
            clock=self.clock,
            rng=self.rng,
            pace=PACE,
            relay_type=relay_type,
            advert_s=self.rhythm.advert_s,
            fill=self.fill,
            rate_bps=int(8 * HOP_BLOCK_BYTES / self.rhythm.hop_block_s),
            carry=self.carry_relay,
            wake=self.wake,
            after=self.schedule.after,
        )

    def hops_at(self, name: str) -> list[tuple[str, str]]:
        return [hop for hop in self.atlas.hops if name in hop]

    def peers_of(self, name: str) -> list[str]:
        return sorted({link.peer for link in self.posts[name].sitting.links})

    # messages ------------------------------------------------------------------------------------------------------

    def reaches(self, one: str, other: str) -> bool:
        """Whether messages pass between two sites; a cut hop takes its classical channels with it."""
        return frozenset((one, other)) not in self.cut

    def _travel(self, one: str, other: str, arrive: Callable[[], None]) -> None:
        times = 2 if self.rng.random() < self.faults.duplicate and not self.peace else 1
        for _ in range(times):
            if self.reaches(one, other) and (self.peace or self.rng.random() >= self.faults.loss):
                self.schedule.after(self.rng.expovariate(1 / self.faults.delay_s), arrive)

    def carry_relay(self, one: str, other: str, said: Say) -> None:
        if not isinstance(said.message, relay_wire.SignedAdvert):
            self.wake(one)
        frame = relay_wire.encode(said.message)
        if self.listening:
            self.frames.append((one, other, frame))
        self._travel(one, other, lambda: self.posts[other].hear(one, relay_wire.decode(frame)))

    def let_out(self, site: str, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                frame = wire.encode([effect.message])  # type: ignore[list-item]
                self._travel(site, effect.peer, lambda to=effect.peer, frame=frame: self.hear(site, to, frame))  # type: ignore[misc]
            elif isinstance(effect, Emit):
                self._note(site, effect)
            elif isinstance(effect.ticket, PadTicket):
                if isinstance(effect, Reply):
                    self.judge.released(self.posts[site].sitting, relay_sae(site), effect.keys)
                self.posts[site].answer(effect)
            else:
                self._answer(site, effect)

    def _note(self, site: str, effect: Emit) -> None:
        event = effect.event
        self.schedule.trace(site, event.kind, *sorted(event.fields.items()))
        link = str(event.fields.get("link", ""))
        relay = self.posts[site].relay
        if event.kind == "block.confirmed" and link in self.atlas.links and self.atlas.links[link].origin == site:
            self.tally.blocks[link] = self.tally.blocks.get(link, 0) + 1
        elif event.kind == "block.quarantined" and relay is not None and link in relay.sender.supplies:
            for number in spanned(str(event.fields["sequences"])):
                relay.spoilt(link, number)

    def hear(self, sender: str, receiver: str, frame: bytes) -> None:
        for message in wire.decode(frame):
            self.posts[receiver].sitting.run(lambda kme, message=message: kme.receive(sender, message))  # type: ignore[misc]

    # SAEs ----------------------------------------------------------------------------------------------------------

    def draw(self, link: str) -> None:
        if self.resting:
            return
        self.schedule.after(self.rng.expovariate(1 / self.key_s[link]), lambda: self.draw(link))
        self._ask(link, 1)

    def _ask(self, link: str, tries: int) -> None:
        one, other = self.ends_of(link)
        post = self.posts[self.pairs[link][0]]
        ticket = SaeTicket(post.name, post.sitting.incarnation, link, tries)
        self.wake(post.name)
        (result,) = post.sitting.run(lambda kme: kme.get_key(ticket, one, other))
        if isinstance(result, KeystrandError):
            self._refused(ticket)

    def _refused(self, ticket: SaeTicket) -> None:
        if ticket.tries == TRIES_MAX or self.resting:
            self.tally.refused += 1
            self.tally.hungry[ticket.link] += 1
        else:
            self.schedule.after(AGAIN_S, lambda: self._ask(ticket.link, ticket.tries + 1))

    def _answer(self, site: str, effect: Reply | Refuse) -> None:
        ticket = effect.ticket
        assert isinstance(ticket, SaeTicket)
        if isinstance(effect, Refuse):
            self._refused(ticket)
            return
        one, _ = self.ends_of(ticket.link)
        self.tally.keys += len(effect.keys)
        of = ticket.link if ticket.link in self.atlas.links else self.pairs[ticket.link][1]
        self.posts[site].drawn[of] += sum(key.material.length_bits for key in effect.keys)
        self.judge.released(self.posts[site].sitting, one, effect.keys)
        ids = tuple(key.key_id for key in effect.keys)
        self.schedule.after(self.rng.expovariate(1.0), lambda: self._fetch(ticket.link, ids))

    def _fetch(self, link: str, ids: tuple[str, ...]) -> None:
        one, other = self.ends_of(link)
        sitting = self.posts[self.pairs[link][1]].sitting
        (result,) = sitting.run(lambda kme: kme.get_key_with_ids(other, one, ids))
        if isinstance(result, list):
            keys: list[Key] = result
            self.tally.fetched += len(keys)
            self.judge.released(sitting, other, keys)

    # time and faults -----------------------------------------------------------------------------------------------

    def wake(self, name: str) -> None:
        """Something happens at this site: look after it closely for a while."""
        self._beat(name, self.rhythm.tick_s)

    def _beat(self, name: str, pause_s: float) -> None:
        at_s = self.clock.monotonic_s() + pause_s
        if at_s >= self.pulse[name].at_s > self.clock.monotonic_s():
            self.pulse[name] = replace(self.pulse[name], pause_s=pause_s)
            return
        self.pulse[name] = Pulse(at_s, pause_s)
        self.schedule.after(pause_s, lambda: self.tick(name, at_s))

    def tick(self, name: str, at_s: float) -> None:
        if at_s != self.pulse[name].at_s:
            return  # it was woken since
        post = self.posts[name]
        self._beat(name, min(PAUSE_FACTOR * self.pulse[name].pause_s, self.rhythm.idle_s))
        post.sitting.run(lambda kme: kme.tick())
        post.tick([n for n in self.atlas.neighbours(name) if self.reaches(name, n) and self.posts[n].relay is not None])

    def make_block(self, hop: tuple[str, str]) -> None:
        """Both modules of a hop finish a block; a cut fibre makes none."""
        self.schedule.after(self.rhythm.hop_block_s, lambda: self.make_block(hop))
        if frozenset(hop) in self.cut or self.resting:
            return
        sequence, self.sequences[hop] = self.sequences[hop], self.sequences[hop] + 1
        material = self.rng.randbytes(HOP_BLOCK_BYTES)
        for name in hop:
            self.wake(name)
            block = Block(
                link="~".join(hop),
                sequence=sequence,
                material=Secret(material),
                provenance=Provenance(source="simulation"),
            )
            self.posts[name].sitting.run(lambda kme, block=block: kme.ingest(block))  # type: ignore[misc]

    def after_crash(self, name: str) -> None:
        self.tally.crashes += 1
        self.posts[name].stop()
        for neighbour in self.atlas.neighbours(name):
            self.wake(neighbour)
        self.schedule.after(self.rng.expovariate(1 / self.faults.down_s), lambda: self.boot(name))

    def boot(self, name: str, *, restored: bool = False) -> None:
        post = self.posts[name]
        if post.sitting.kme is None:
            post.sitting.start(restored=restored)
            post.boot()
            self.meet(name)

    def meet(self, name: str) -> None:
        """Channels between this site and those that it reaches stand."""
        self.wake(name)
        for peer in self.peers_of(name):
            if self.reaches(name, peer) and self.posts[peer].sitting.kme is not None:
                self.wake(peer)
                for a, b in ((name, peer), (peer, name)):
                    self.posts[a].sitting.run(lambda kme, b=b: kme.peer_up(b, "simulated"))  # type: ignore[misc]

    def crash_one(self) -> None:
        post = self.posts[self.rng.choice(sorted(self.posts))]
        if post.sitting.kme is not None:
            post.sitting.crash()

    def back_up(self) -> None:
        for post in self.posts.values():
            post.sitting.backups = [*post.sitting.backups[-1:], post.sitting.store.snapshot()]

    def restore_one(self) -> None:
        """An operator puts back an old backup of one site and says so, with shares in the hands of its relay."""
        post = self.posts[self.rng.choice(sorted(self.posts))]
        sitting = post.sitting
        if not sitting.backups or sitting.kme is None:
            return
        sitting.stop()
        post.stop()
        sitting.store.restore(self.rng.choice(sitting.backups))
        sitting.backups.clear()
        self.tally.restores += 1
        self.judge.restored(sitting)
        self.boot(post.name, restored=True)

    def cut_one(self) -> None:
        hop = frozenset(self.rng.choice(self.atlas.hops))
        self.cut.add(hop)
        for end in sorted(hop):
            self.wake(end)
        self.tally.cuts += 1
        self.schedule.after(self.rng.expovariate(1 / self.faults.partition_s), lambda: self.mend(hop))

    def mend(self, hop: frozenset[str]) -> None:
        self.cut.discard(hop)
        self.meet(min(hop))

    def every(self, mean_s: float, action: Callable[[], None]) -> None:
        if mean_s:
            self.schedule.after(self.rng.expovariate(1 / mean_s), lambda: self._again(mean_s, action))

    def _again(self, mean_s: float, action: Callable[[], None]) -> None:
        if not self.peace:
            action()
            self.every(mean_s, action)

    def inspect(self) -> None:
        for post in self.posts.values():
            self.judge.quiet(post.sitting)
        for link in self.atlas.links.values():
            self.judge.pair(self.posts[link.origin].sitting, self.posts[link.target].sitting)
        self.schedule.after(self.rhythm.inspect_s, self.inspect)

    # the whole -----------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        for name in self.posts:
            self.boot(name)
            self._beat(name, self.rng.random() * self.rhythm.tick_s)
        for hop in self.atlas.hops:
            self.schedule.after(self.rng.random() * 5.0, lambda hop=hop: self.make_block(hop))  # type: ignore[misc]
        for link in self.pairs:
            self.schedule.after(self.rng.random() * self.key_s[link], lambda link=link: self.draw(link))  # type: ignore[misc]
        self.inspect()
        self.every(self.faults.crash_every_s, self.crash_one)
        self.every(self.faults.partition_every_s, self.cut_one)
        self.every(self.faults.restore_every_s / 3, self.back_up)
        self.every(self.faults.restore_every_s, self.restore_one)

    def run(self, duration_s: float) -> Tally:
        """Begin, live through the faults, come to rest, and be judged."""
        self.begin()
        self.schedule.run_until(duration_s)
        self.make_peace()
        self.schedule.run_until(self.clock.monotonic_s() + PEACE_S / 2)
        self.resting = True
        self.schedule.run_until(self.clock.monotonic_s() + PEACE_S / 2)
        self.tally.lost = sum(post.told["relay.block_lost", ""] for post in self.posts.values())
        for post in self.posts.values():
            self.judge.quiet(post.sitting)
            self.judge.silent(post.sitting)
        pairs = {tuple(sorted(link.ends)) for link in self.atlas.links.values()} | set(self.atlas.hops)
        for one, other in sorted(pairs):
            self.judge.pair(self.posts[one].sitting, self.posts[other].sitting)
        return self.tally

    def make_peace(self) -> None:
        self.peace = True
        calm = replace(self.faults, crash_per_operation=0.0, disk_full_per_commit=0.0, loss=0.0)
        self.cut.clear()
        for name, post in self.posts.items():
            post.sitting.faults = calm
            self.boot(name)
        for name in self.posts:
            self.meet(name)
