"""Fair sharing of the bits towards one peer: reserved floors first, what is left over by weight.

A floor earns credit: `floor_bps` bits each second, up to a cap. A draw within one's credit (that of the pair, then that of
its tenant) passes whenever the bits are there. What goes beyond is surplus, and passes only while the pool afterwards still
covers the credit of all others.

Surplus is shared by virtual time, as in fair queueing (Demers, Keshav, Shenker 1989; Goyal, Vin, Cheng 1996), but there is no
queue: a draw is admitted or refused. Virtual time advances by new surplus over the weight of all who asked lately. Who
is not ahead of it passes; who is ahead passes while the lead stays below a multiple of the surplus at hand (the dynamic
threshold of Choudhury and Hahne, 1998); who asks alone may have it all.

All in memory: a restart fills the credit up, so that whoever is first afterwards cannot take what others reserved.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from keystrand.core.errors import QuotaExceeded
from keystrand.core.policy import Pair, Policy
from keystrand.core.pool import Drawn
from keystrand.kme.ask import Ask
from keystrand.kme.draws import Draws
from keystrand.kme.site import Site

FLOOR_S: Final = 60.0  # a floor without a stated burst holds a minute's worth
ACTIVE_S: Final = 2.0  # who asked so lately takes part in the division of the surplus
THRESHOLD: Final = 8.0  # where several ask at once, a ninth of the surplus stays for whoever comes next


@dataclass(slots=True, eq=False)
class Credit:
    """Bits that are held for one pair or one tenant. is_growing: below the cap at `at_s`."""

    floor_bps: float
    cap_bits: float
    bits: float
    at_s: float
    is_growing: bool = False
    is_queued: bool = False

    def now(self, now_s: float) -> float:
        return min(self.cap_bits, self.bits + self.floor_bps * (now_s - self.at_s))

    def full_s(self) -> float:
        """When it reaches the cap."""
        return self.at_s + (self.cap_bits - self.bits) / self.floor_bps


class Credits:
    """The sum of many credits, without walking over them: those that grow as one line, those that are full as one figure."""

    def __init__(self, credits_: Iterable[Credit]) -> None:
        self._full_bits = 0.0
        self._offset_bits = 0.0  # of the line: sum of bits - floor_bps * at_s
        self._slope_bps = 0.0
        self._heap: list[tuple[float, int, Credit]] = []
        self._number = 0
        self.caps_bits = 0.0
        for credit in credits_:
            self.caps_bits += credit.cap_bits
            if credit.bits >= credit.cap_bits:
                self._full_bits += credit.cap_bits
            else:
                self._grow(credit)

    def total(self, now_s: float) -> float:
        heap = self._heap
        while heap and heap[0][0] <= now_s:
            credit = heapq.heappop(heap)[2]
            credit.is_queued = False
            if credit.full_s() <= now_s:
                self._shrink(credit)
                credit.bits, credit.at_s = credit.cap_bits, now_s
                self._full_bits += credit.cap_bits
            else:  # it was drawn from since
                self._queue(credit)
        return self._full_bits + self._offset_bits + self._slope_bps * now_s

    def take(self, credit: Credit, bits: float, now_s: float) -> None:
        left = credit.now(now_s) - bits
        if credit.is_growing:
            self._shrink(credit)
        else:
            self._full_bits -= credit.cap_bits
        credit.bits, credit.at_s = left, now_s
        self._grow(credit)

    def _grow(self, credit: Credit) -> None:
        credit.is_growing = True
        self._offset_bits += credit.bits - credit.floor_bps * credit.at_s
        self._slope_bps += credit.floor_bps
        if not credit.is_queued:
            self._queue(credit)

    def _shrink(self, credit: Credit) -> None:
        credit.is_growing = False
        self._offset_bits -= credit.bits - credit.floor_bps * credit.at_s
        self._slope_bps -= credit.floor_bps

    def _queue(self, credit: Credit) -> None:
        credit.is_queued = True
        self._number += 1
        heapq.heappush(self._heap, (credit.full_s(), self._number, credit))


@dataclass(slots=True, eq=False)
class Claim:
    """What one pair has: its own credit, that of its tenant, a weight, and how far it is in virtual time."""

    weight: float
    own: Credit | None
    tenant: Credit | None
    virtual: float = 0.0
    active_until_s: float = 0.0
    is_active: bool = False

    def credit(self, now_s: float) -> tuple[float, float]:
        own = self.own.now(now_s) if self.own is not None else 0.0
        return own, self.tenant.now(now_s) if self.tenant is not None else 0.0


@dataclass(slots=True)
class Draw:
    """How a draw would be paid: by the pair's credit, by the tenant's, by the surplus; and whether it passes."""

    own_bits: float
    tenant_bits: float
    excess_bits: float
    passes: bool


class Share:
    """The claims on the bits towards one peer. `have_bits` is always what the pool has at this moment, before the draw."""

    def __init__(self, claims: Mapping[Pair, Claim], now_s: float) -> None:
        self.claims = dict(claims)
        held = {id(c): c for claim in self.claims.values() for c in (claim.own, claim.tenant) if c is not None}
        self._credits = Credits(held.values())
        self._active: deque[tuple[float, Claim]] = deque()
        self._active_weight = 0.0
        self._virtual = 0.0
        self._drawn_bits = 0.0  # of surplus, ever
        self._seen_bits: float | None = None  # surplus ever, as far as virtual time has counted it

    @property
    def holds_back(self) -> bool:
        """Whether anybody has a floor."""
        return self._credits.caps_bits > 0

    def claim(self, pair: Pair) -> Claim:
        claim = self.claims.get(pair)
        if claim is None:  # a pair that the policy does not know: no floor, ordinary weight
            claim = self.claims[pair] = Claim(1.0, None, None)
        return claim

    def weigh(self, claim: Claim, bits: float, have_bits: float, now_s: float, *, asks: bool = True) -> Draw:
        """Whether a draw of `bits` passes. Takes nothing; asks: an SAE waits for it, so the claim counts as active."""
        reserved_bits = self._credits.total(now_s)
        surplus_bits = have_bits - reserved_bits
        if asks:
            self._note_active(claim, now_s)
        self._advance(surplus_bits)
        own, tenant = claim.credit(now_s)
        own_bits = min(bits, own)
        tenant_bits = min(bits - own_bits, tenant)
        excess_bits = bits - own_bits - tenant_bits
        passes = bits <= have_bits
        if excess_bits and passes:
            passes = excess_bits <= surplus_bits and self._is_fair(claim, excess_bits, surplus_bits)
        return Draw(own_bits, tenant_bits, excess_bits, passes)

    def take(self, claim: Claim, draw: Draw, now_s: float) -> None:
        """Pay for a draw that is made."""
        if claim.own is not None and draw.own_bits:
            self._credits.take(claim.own, draw.own_bits, now_s)
        if claim.tenant is not None and draw.tenant_bits:
            self._credits.take(claim.tenant, draw.tenant_bits, now_s)
        if draw.excess_bits:
            claim.virtual = max(claim.virtual, self._virtual) + draw.excess_bits / claim.weight
            self._drawn_bits += draw.excess_bits

    def _is_fair(self, claim: Claim, excess_bits: float, surplus_bits: float) -> bool:
        lead = claim.virtual - self._virtual
        if lead <= 0 or self._active_weight <= claim.weight:
            return True
        return (lead + excess_bits / claim.weight) * self._active_weight <= THRESHOLD * surplus_bits

    def _advance(self, surplus_bits: float) -> None:
        """New surplus moves virtual time. What growing credit takes back must come in again before it counts anew."""
        ever_bits = surplus_bits + self._drawn_bits
        if self._seen_bits is None:
            self._seen_bits = ever_bits
        elif ever_bits > self._seen_bits:
            self._virtual += (ever_bits - self._seen_bits) / max(self._active_weight, 1e-9)
            self._seen_bits = ever_bits
        else:  # more than all credit can only be lost for good: expired, lent, quarantined
            self._seen_bits = min(self._seen_bits, ever_bits + self._credits.caps_bits)

    def _note_active(self, claim: Claim, now_s: float) -> None:
        claim.active_until_s = now_s + ACTIVE_S
        if not claim.is_active:
            claim.is_active = True
            self._active_weight += claim.weight
            self._active.append((claim.active_until_s, claim))
        while self._active and self._active[0][0] <= now_s:
            idle = self._active.popleft()[1]
            if idle.active_until_s > now_s:
                self._active.append((idle.active_until_s, idle))
            else:
                idle.is_active = False
                self._active_weight -= idle.weight


class Shares:
    """The shares of a site, one per peer; built anew when the policy changes, with the credit that is there."""

    def __init__(self, site: Site, draws: Draws | None = None) -> None:
        self._site = site
        self._draws = draws or Draws(site)
        self._draws.hear.append(self._hear)
        self._policy = site.policy
        self._credit: dict[tuple[str, ...], Credit] = {}
        self._by_peer = self._built(self._policy)
        # by the last check; spending need not repeat it
        self._weighed: tuple[Ask, int, Share, Claim, Draw] | None = None

    def check(self, ask: Ask, have_bits: int) -> None:
        """Raises QuotaExceeded when the bits are there, but for others. Takes nothing. have_bits: all links to the peer."""
        share, claim = self._find(ask)
        if share.holds_back:
            self._draws.follow()
        now_s = self._site.clock.monotonic_s()
        draw = share.weigh(claim, ask.bits, have_bits, now_s)
        if not draw.passes and ask.bits <= have_bits:
            raise self._refusal(ask, draw)
        self._weighed = ask, have_bits, share, claim, draw

    def allows(self, ask: Ask, have_bits: int) -> bool:
        """The same for keys ahead of demand, as a word."""
        share, claim = self._find(ask)
        return share.weigh(claim, ask.bits, have_bits, self._site.clock.monotonic_s(), asks=False).passes

    def spend(self, ask: Ask, have_bits: int) -> None:
        """Take what `check` or `allows` let pass. have_bits: before the draw."""
        now_s = self._site.clock.monotonic_s()
        weighed, self._weighed = self._weighed, None
        if weighed is not None and weighed[0] is ask and weighed[1] == have_bits:
            _, _, share, claim, draw = weighed
        else:
            share, claim = self._find(ask)
            draw = share.weigh(claim, ask.bits, have_bits, now_s, asks=False)
        share.take(claim, draw, now_s)
        if share.holds_back:
            paid = Drawn(own_bits=draw.own_bits, tenant_bits=draw.tenant_bits, excess_bits=draw.excess_bits)
            self._draws.note(ask, paid)

    def _hear(self, initiator: str, responders: tuple[str, ...], peer: str, more: Drawn) -> None:
        """Another replica paid for these from the same credit; no clock of two machines is quite the same."""
        share, now_s = self._share(peer), self._site.clock.monotonic_s()
        claim = share.claim((initiator, responders[0]))
        own, tenant = claim.credit(now_s)
        draw = Draw(min(more.own_bits, own), min(more.tenant_bits, tenant), more.excess_bits, passes=True)
        share.take(claim, draw, now_s)

    def reserved_bits(self, peer: str) -> float:
        """What floors hold back towards `peer` now."""
        share = self._share(peer)
        if share.holds_back:
            self._draws.follow()
        return share._credits.total(self._site.clock.monotonic_s())

    def _refusal(self, ask: Ask, draw: Draw) -> QuotaExceeded:
        rule = ask.rules[0]
        wait_s = draw.excess_bits / rule.floor_bps if rule.floor_bps else 1.0
        return QuotaExceeded(
            f"{ask.initiator} -> {ask.responders[0]}: {int(draw.excess_bits)} of {ask.bits} bits go beyond its floor, "
            "and the pool keeps them for others",
            hint=f"wait, or raise floor_bps ({rule.floor_bps:g}) or weight ({rule.weight:g}) in the policy",
            retry_after_s=min(60.0, max(1.0, wait_s)),
        )

    def _find(self, ask: Ask) -> tuple[Share, Claim]:
        share = self._share(ask.peer)
        return share, share.claim((ask.initiator, ask.responders[0]))

    def _share(self, peer: str) -> Share:
        if self._site.policy is not self._policy:
            self._policy = self._site.policy
            self._by_peer = self._built(self._policy)
        share = self._by_peer.get(peer)
        if share is None:
            share = self._by_peer[peer] = Share({}, self._site.clock.monotonic_s())
        return share

    def _built(self, policy: Policy) -> dict[str, Share]:
        """Every pair that this site serves as initiator has a claim towards the peer that serves the responder."""
        now_s = self._site.clock.monotonic_s()
        before, self._credit = self._credit, {}
        claims: dict[str, dict[Pair, Claim]] = {}
        for pair, rule in policy.rules.items():
            if policy.site_of.get(pair[0]) != self._site.name:
                continue
            peer = policy.site_of[pair[1]]
            tenant = policy.tenants.get(rule.tenant)
            own = self._credit_for(("pair", *pair), rule.floor_bps, rule.floor_burst_bits, now_s, before)
            joint = None
            if tenant is not None:
                scope = ("tenant", rule.tenant, peer)
                joint = self._credit_for(scope, tenant.floor_bps, tenant.floor_burst_bits, now_s, before)
            claims.setdefault(peer, {})[pair] = Claim(rule.weight, own, joint)
        return {peer: Share(table, now_s) for peer, table in claims.items()}

    def _credit_for(
        self,
        scope: tuple[str, ...],
        floor_bps: float,
        burst_bits: int,
        now_s: float,
        before: Mapping[tuple[str, ...], Credit],
    ) -> Credit | None:
        if not floor_bps:
            return None
        if scope not in self._credit:
            cap_bits = float(burst_bits or max(FLOOR_S * floor_bps, self._site.limits.key_size_bits_default))
            bits = min(cap_bits, before[scope].now(now_s)) if scope in before else cap_bits
            self._credit[scope] = Credit(floor_bps, cap_bits, bits, now_s)
        return self._credit[scope]
