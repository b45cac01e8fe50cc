"""What is known of a network beforehand: sites with their owners and places, hops between them, and what a route may use.

A hop is a pair of neighbours with a QKD link. Sites that are joined by nothing but a network are no hop: what ML-KEM can give
them, it gives to the two ends of a route directly, so that a relay would add a place to trust and no strand.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Final

from keystrand.relay.routes import Route, disjoint_routes

STATED: Final = date.min  # on this day every document that was ever there counted


def day_of(now_s: float) -> date:
    """The day by which documents count, the same at all sites of a network: that of UTC."""
    return datetime.fromtimestamp(now_s, UTC).date()


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Something that shows how a site is guarded: what, where it lies, from when, and until when it counts."""

    what: str
    reference: str
    dated: date
    expires: date | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteFacts:
    """Whom one has to trust where a key is in clear. Empty: nobody has said."""

    name: str
    owner: str = ""
    facility: str = ""
    jurisdiction: str = ""
    evidence: tuple[Evidence, ...] = ()
    signed_off_by: str = ""
    signed_off: date | None = None
    expires: date | None = None

    def missing(self, today: date) -> tuple[str, ...]:
        """What is not documented, or is so no more."""
        gaps = [name for name in ("owner", "facility", "jurisdiction") if not getattr(self, name)]
        if not self.signed_off_by:
            gaps.append("sign-off")
        if not any(proof.expires is None or proof.expires >= today for proof in self.evidence):
            gaps.append("evidence (expired)" if self.evidence else "evidence")
        if self.expires is not None and self.expires < today:
            gaps.append("sign-off (expired)")
        return tuple(gaps)

    @property
    def until(self) -> date | None:
        """The last day on which its documents count together; None where they have no end."""
        proofs = [proof.expires for proof in self.evidence]
        ends = [self.expires, None if None in proofs or not proofs else max(filter(None, proofs))]
        return min(filter(None, ends), default=None)

    def lapses_within(self, today: date, days: int) -> bool:
        """Whether it is documented, and will be so no more in so many days."""
        return not self.missing(today) and bool(self.missing(today + timedelta(days=days)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What the routes of a relayed link must keep to. needed of `paths` parts give the block; 0: all of them."""

    paths: int = 1
    needed: int = 0
    relays_max: int = 16
    forbidden_sites: frozenset[str] = frozenset()
    forbidden_owners: frozenset[str] = frozenset()
    forbidden_jurisdictions: frozenset[str] = frozenset()
    accept_undocumented: bool = False

    @property
    def threshold(self) -> int:
        return self.needed or self.paths

    def permits(self, site: SiteFacts, today: date) -> bool:
        """Whether this site may relay on this day."""
        return (
            (self.accept_undocumented or not site.missing(today))
            and site.name not in self.forbidden_sites
            and site.owner not in self.forbidden_owners
            and site.jurisdiction not in self.forbidden_jurisdictions
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayedLink:
    """A link between two sites that are no neighbours; both KMEs know it by this name."""

    name: str
    ends: tuple[str, str]
    terms: Terms = Terms()
    expected_bps: float = 0.0  # that its applications are expected to draw

    @property
    def origin(self) -> str:
        """The end that makes the blocks."""
        return min(self.ends)

    @property
    def target(self) -> str:
        return max(self.ends)


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """Where keys go to another operator (ETSI GS QKD 020). sites: ours, whose applications share them; border: ours, whose KME

    speaks to theirs; kmes: theirs in the order of the way, and who runs each; the last serves the far applications. signed: the
    two ends know each other's audit key.
    """

    name: str
    sites: tuple[str, ...]
    border: str
    kmes: Mapping[str, str]
    signed: bool = False


@dataclass(frozen=True, slots=True)
class Atlas:
    """The whole network on paper."""

    sites: Mapping[str, SiteFacts]
    hops: tuple[tuple[str, str], ...]
    links: Mapping[str, RelayedLink] = field(default_factory=dict)
    crossings: Mapping[str, Crossing] = field(default_factory=dict)
    _neighbours: dict[str, dict[str, None]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        around: dict[str, dict[str, None]] = {name: {} for name in self.sites}
        for one, other in self.hops:
            for end in (one, other):
                if end not in around:
                    raise ValueError(f"hop {one} – {other}: {end} is not a site")
            if one == other or other in around[one]:
                raise ValueError(f"hop {one} – {other} stands there twice, or leads nowhere")
            around[one][other] = around[other][one] = None
        for link in self.links.values():
            for end in link.ends:
                if end not in around:
                    raise ValueError(f"link {link.name}: {end} is not a site")
        object.__setattr__(self, "_neighbours", around)

    def neighbours(self, site: str) -> Set[str]:
        """In the order in which the hops were given."""
        return self._neighbours.get(site, {}).keys()

    def permits(self, link: RelayedLink, site: str, today: date) -> bool:
        """Whether this site may relay for this link today; its ends may not."""
        facts = self.sites.get(site)
        return facts is not None and site not in link.ends and link.terms.permits(facts, today)

    def permitted(self, link: RelayedLink, today: date) -> frozenset[str]:
        """The sites that may relay for this link today."""
        return frozenset(name for name in self.sites if self.permits(link, name, today))

    def possible_relays(self, link: RelayedLink, today: date) -> frozenset[str]:
        """The sites over which blocks of the link may come to go, whichever hops fail: dead ends are none."""
        inner = set(self.permitted(link, today))
        while ends := {site for site in inner if len(self.neighbours(site) & (inner | {*link.ends})) < 2}:
            inner -= ends
        return frozenset(inner)

    def static_routes(self, link: RelayedLink, today: date = STATED) -> list[Route]:
        """As many routes as the terms ask for, or as there are, were every hop up."""
        inner = self.permitted(link, today) | {*link.ends}
        graph = {site: dict.fromkeys(self.neighbours(site) & inner, 1.0) for site in inner}
        found = disjoint_routes(graph, link.origin, link.target, link.terms.paths)
        return [route for route in found if self.is_route(route, link, today)]

    def is_route(self, route: Iterable[str], link: RelayedLink, today: date) -> bool:
        """Whether these sites, in this order, may carry the link's blocks today."""
        sites = tuple(route)
        inner = sites[1:-1]
        return (
            len(sites) >= 2
            and (sites[0], sites[-1]) == (link.origin, link.target)
            and len(set(sites)) == len(sites)
            and len(inner) <= link.terms.relays_max
            and all(self.permits(link, site, today) for site in inner)
            and all(other in self.neighbours(one) for one, other in pairwise(sites))
        )
