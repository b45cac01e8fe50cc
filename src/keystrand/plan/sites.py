"""From an estate to the question of placement: which sites may relay, which hops could stand, what is wanted between whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, pairwise
from typing import Final

from keystrand.plan.equipment import DEFAULTS, Equipment, Kind, rate_span, shipped
from keystrand.plan.estate import Estate, Site
from keystrand.plan.fact import Answer, Quantity, figure
from keystrand.plan.feasibility import Feasibility
from keystrand.plan.loss import fibre_db, route_km
from keystrand.plan.placement import Ends, Hop, Network, Want

NEAREST: Final = 8  # hops kept per site where there are very many
HOPS_MANY: Final = 400


def network(
    estate: Estate, found: Mapping[str, Feasibility], names: Sequence[str], untrusted_max: int | None = None
) -> Network:
    """Of the links `names`, with the devices they are planned with.

    A hop's key is what is known of it: of a link of the estate between its sites, of a part of a wanted link's own path, or
    else of the map, at its worst. A relay site counts as untrusted while its owner, facility, jurisdiction or evidence is not
    stated.
    """
    wants = tuple(_want(estate, found[name], untrusted_max) for name in names)
    ends = {end for want in wants for end in want.ends}
    relays = {n: _price(estate.tariffs.relay_site) for n, s in estate.sites.items() if s.may_relay is Answer.YES}
    known = _known(estate, found, names)
    chosen = {each.name: each for name in names for each in found[name].equipment}
    devices = list(chosen.values()) or [shipped(name) for name in DEFAULTS[Kind.DV_QKD]]
    least = min((want.bps for want in wants), default=0.0)
    hops = []
    for one, other in combinations(sorted({*ends, *relays}), 2):
        capacity = _capacity(estate, known.get(frozenset((one, other))), (one, other), devices)
        if capacity >= least:
            hops.append(Hop((one, other), capacity, _price(estate.tariffs.qkd_pair)))
    kept = hops if len(hops) <= HOPS_MANY else _nearest(hops)
    untrusted = frozenset(n for n in relays if not _documented(estate.sites[n]))
    return Network(relays, tuple(kept), wants, untrusted)


def _want(estate: Estate, found: Feasibility, untrusted_max: int | None) -> Want:
    link = estate.links[found.link]
    return Want(link.ends, max(found.wanted_bps, 1e-3), min(2, link.disjoint_paths), untrusted_max)


def _known(estate: Estate, found: Mapping[str, Feasibility], names: Sequence[str]) -> dict[frozenset[str], float]:
    """Key at least on hops that are not guessed from the map; the better figure where there are two."""
    known: dict[frozenset[str], float] = {}
    parts = [(estate.links[name].ends, each.alone_bps) for name, each in found.items()]
    for name in names:
        stops = (estate.links[name].ends[0], *(found[name].sites or ()), estate.links[name].ends[1])
        parts += [(step, found[name].skr_bps) for step in pairwise(stops) if len(stops) > 2]
    for ends, rate in parts:
        if rate is not None:
            known[frozenset(ends)] = max(rate.span.low, known.get(frozenset(ends), 0.0))
    return known


def _capacity(estate: Estate, known: float | None, ends: Ends, devices: list[Equipment]) -> float:
    if known is not None:
        return known
    km = route_km(estate.sites.get(ends[0], Site()), estate.sites.get(ends[1], Site()))
    rate = None if km is None else rate_span(devices, fibre_db(km))
    return 0.0 if rate is None else rate.low


def _nearest(hops: list[Hop]) -> list[Hop]:
    """For each site the hops that carry most, which are the shortest ones."""
    by_site: dict[str, list[Hop]] = {}
    for hop in sorted(hops, key=lambda hop: (-hop.capacity_bps, hop.ends)):
        for end in hop.ends:
            by_site.setdefault(end, []).append(hop)
    kept = {hop.ends for around in by_site.values() for hop in around[:NEAREST]}
    return [hop for hop in hops if hop.ends in kept]


def _price(stated: Quantity | None) -> float:
    """Likely tariff; one, where none is stated: then pairs and relays are counted, not priced."""
    return 1.0 if stated is None else max(figure(stated).span.likely, 1e-6)


def _documented(site: Site) -> bool:
    return bool(site.owner and site.facility and site.jurisdiction and site.evidence)


def is_priced(estate: Estate) -> bool:
    """Whether the cost of a placement is money."""
    return estate.tariffs.relay_site is not None and estate.tariffs.qkd_pair is not None
