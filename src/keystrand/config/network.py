"""`network.toml`: the network on paper, the same file at all its sites: who runs each, which hops there are, which links relay.

`[relay] network = "network.toml"` in a site's file makes it one of them. Nothing in the file is secret; all of
it must be authentic.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import date
from typing import Annotated

from msgspec import Meta

from keystrand.config.faults import named
from keystrand.config.fields import alike
from keystrand.config.lines import Where
from keystrand.config.reading import Fault
from keystrand.config.section import Section
from keystrand.config.sources import DeviceEntry
from keystrand.core.errors import ConfigError
from keystrand.crypto.sign import Verifier
from keystrand.relay.atlas import STATED, Atlas, Crossing, Evidence, RelayedLink, SiteFacts, Terms
from keystrand.relay.split import PARTS_MAX
from keystrand.sources.capabilities import apart


class EvidenceEntry(Section, frozen=True, kw_only=True):
    """Something that shows how a site is guarded."""

    what: Annotated[str, Meta(description="what it shows, in a few words", min_length=1)]
    reference: Annotated[str, Meta(description="where the document lies", min_length=1)]
    dated: Annotated[date, Meta(description="from which day it is")]
    expires: Annotated[date | None, Meta(description="after this day it counts no more")] = None


class SiteEntry(Section, frozen=True, kw_only=True):
    """A site of the network. What is left out is said to be undocumented, wherever the site is named."""

    audit_key: Annotated[
        str,
        Meta(description="the key that verifies its audit log and its adverts, as in its card; a plan may lack it"),
    ] = ""
    owner: Annotated[str, Meta(description="organisation that runs it")] = ""
    facility: Annotated[str, Meta(description="building or room it stands in")] = ""
    jurisdiction: Annotated[str, Meta(description="country whose law applies, ISO 3166-1 alpha-2")] = ""
    evidence: Annotated[tuple[EvidenceEntry, ...], Meta(description="tables [[sites.NAME.evidence]]")] = ()
    signed_off_by: Annotated[str, Meta(description="who answers for these facts")] = ""
    signed_off: Annotated[date | None, Meta(description="when that was signed")] = None
    expires: Annotated[date | None, Meta(description="until when it holds")] = None


class HopEntry(Section, frozen=True, kw_only=True):
    """Two sites with a QKD link between them."""

    ends: Annotated[tuple[str, str], Meta(description="names of the two sites")]
    devices: Annotated[
        tuple[str, str] | None,
        Meta(description="the device at each of them, of [devices]: two that cannot work together are refused"),
    ] = None


class LinkEntry(Section, frozen=True, kw_only=True):
    """A link between two sites that are no neighbours, over relays."""

    ends: Annotated[tuple[str, str], Meta(description="names of the two sites")]
    paths: Annotated[
        int, Meta(description="parts of each block, one to a route; no two routes share a site", ge=1, le=PARTS_MAX)
    ] = 1
    needed: Annotated[int, Meta(description="so many parts give the block; 0: all", ge=0, le=PARTS_MAX)] = 0
    relays_max: Annotated[int, Meta(description="sites between the two ends on one route", ge=1, le=62)] = 16
    forbidden_sites: Annotated[tuple[str, ...], Meta(description="sites that may not relay for it")] = ()
    forbidden_owners: Annotated[tuple[str, ...], Meta(description="owners whose sites may not")] = ()
    forbidden_jurisdictions: Annotated[tuple[str, ...], Meta(description="jurisdictions whose sites may not")] = ()
    expected_bps: Annotated[
        float,
        Meta(description="bits per second of keys that are expected to be drawn; it is filled ahead for them", ge=0),
    ] = 0.0
    accept_undocumented: Annotated[
        bool,
        Meta(
            description="let sites relay of which owner, facility, jurisdiction or evidence is not stated, or has lapsed"
        ),
    ] = False

    def terms(self) -> Terms:
        return alike(
            Terms,
            self,
            forbidden_sites=frozenset(self.forbidden_sites),
            forbidden_owners=frozenset(self.forbidden_owners),
            forbidden_jurisdictions=frozenset(self.forbidden_jurisdictions),
        )


class CrossingEntry(Section, frozen=True, kw_only=True):
    """Keys shared with another operator's applications, ETSI GS QKD 020: for the trust statement; sites act on site.toml."""

    sites: Annotated[tuple[str, ...], Meta(description="our sites whose applications share them", min_length=1)]
    border: Annotated[str, Meta(description="our site whose KME speaks to theirs")]
    kmes: Annotated[
        Mapping[str, str],
        Meta(description="their KMEs in the order of the way, and who runs each; the last serves the far applications"),
    ]
    signed: Annotated[
        bool, Meta(description="the two ends know each other's audit key: [interdomain] ends in site.toml at both")
    ] = False


class NetworkConfig(Section, frozen=True, kw_only=True):
    """A whole `network.toml`."""

    name: Annotated[str, Meta(description="name of the network")]
    sites: Mapping[str, SiteEntry]
    hops: tuple[HopEntry, ...]
    devices: Mapping[str, DeviceEntry] = {}
    links: Mapping[str, LinkEntry] = {}
    crossings: Annotated[Mapping[str, CrossingEntry], Meta(description="tables [crossings.NAME]")] = {}

    def atlas(self) -> Atlas:
        """As the relay wants it. Raises ValueError for what cannot be."""
        facts = {name: _facts(name, entry) for name, entry in self.sites.items()}
        links = {
            name: RelayedLink(name=name, ends=entry.ends, terms=entry.terms(), expected_bps=entry.expected_bps)
            for name, entry in self.links.items()
        }
        crossings = {name: alike(Crossing, entry, name=name) for name, entry in self.crossings.items()}
        return Atlas(facts, tuple(hop.ends for hop in self.hops), links, crossings)


def _facts(name: str, entry: SiteEntry) -> SiteFacts:
    return alike(SiteFacts, entry, name=name, evidence=tuple(alike(Evidence, proof) for proof in entry.evidence))


def check_network(config: NetworkConfig, now_s: float) -> Iterator[Fault]:
    """Names that lead nowhere, links that no route can serve, sites that nobody answers for.

    A document that has lapsed is no fault of the file: the site starts, and its relay uses no such site (relay/atlas.py).
    """
    yield from _sites(config)
    yield from _hops(config)
    for name, entry in config.links.items():
        yield from _link(config, name, entry)
    for name, crossing in config.crossings.items():
        yield from _crossing(config, name, crossing)


def _crossing(config: NetworkConfig, name: str, entry: CrossingEntry) -> Iterator[Fault]:
    where: Where = ("crossings", name)
    for site in (*entry.sites, entry.border):
        if site not in config.sites:
            yield Fault(where, f"{site} is not a site of this network")
    if not entry.kmes:
        yield Fault((*where, "kmes"), "names no KME of the other operator", 'write kmes = { KME-ID = "operator" }')
    for kme_id, operator in entry.kmes.items():
        if not operator:
            yield Fault((*where, "kmes", kme_id), "does not say who runs it")


def _sites(config: NetworkConfig) -> Iterator[Fault]:
    for name, entry in config.sites.items():
        where: Where = ("sites", name)
        yield from named(name, where)
        if entry.jurisdiction and not re.fullmatch("[A-Z]{2}", entry.jurisdiction):
            yield Fault((*where, "jurisdiction"), "is not a country code of two letters", 'such as "CH"')
        try:
            if entry.audit_key:
                Verifier.parse(entry.audit_key)
        except ConfigError as error:
            yield Fault((*where, "audit_key"), str(error), "write what stands in the site's audit.pub")


def _hops(config: NetworkConfig) -> Iterator[Fault]:
    seen: set[frozenset[str]] = set()
    for place, hop in enumerate(config.hops):
        where: Where = ("hops", place)
        yield from _ends(config, hop.ends, (*where, "ends"))
        if hop.devices is not None:
            yield from _devices(config, hop.devices, (*where, "devices"))
        if frozenset(hop.ends) in seen:
            yield Fault(where, f"{' – '.join(hop.ends)} stands here twice")
        seen.add(frozenset(hop.ends))


def _devices(config: NetworkConfig, names: tuple[str, str], where: Where) -> Iterator[Fault]:
    """Whether the two can feed one link: no route can go over a hop whose devices lack a common interface."""
    missing = [name for name in names if name not in config.devices]
    for name in missing:
        yield Fault(where, f"{name} is no device of this network", f"add [devices.{name}]")
    if missing:
        return
    one, other = (config.devices[name].capabilities() for name in names)
    for reason in apart(one, other):
        hint = "put devices there that can feed one link together, or take the hop out"
        yield Fault(where, f"{' and '.join(names)}: {reason}", hint)


def _ends(config: NetworkConfig, ends: tuple[str, str], where: Where) -> Iterator[Fault]:
    for end in ends:
        if end not in config.sites:
            yield Fault(where, f"{end} is not a site of this network", f"add [sites.{end}]")
    if ends[0] == ends[1]:
        yield Fault(where, "leads from a site to itself")


def _link(config: NetworkConfig, name: str, entry: LinkEntry) -> Iterator[Fault]:
    where: Where = ("links", name)
    yield from named(name, where)
    faults = list(_ends(config, entry.ends, (*where, "ends")))
    if entry.needed > entry.paths:
        faults.append(Fault((*where, "needed"), f"{entry.needed} of {entry.paths} parts cannot be"))
    if frozenset(entry.ends) in {frozenset(hop.ends) for hop in config.hops}:
        faults.append(Fault((*where, "ends"), "are neighbours: their own QKD link serves them without a relay"))
    yield from faults
    if not faults:
        yield from _reach(config, name, entry)


def _reach(config: NetworkConfig, name: str, entry: LinkEntry) -> Iterator[Fault]:
    """Whether there are as many routes as the terms ask for, were every hop up; and who is on them."""
    try:
        atlas = config.atlas()
    except ValueError:
        return  # said elsewhere
    link, where = atlas.links[name], ("links", name)
    link = replace(link, terms=replace(link.terms, accept_undocumented=True))
    found = atlas.static_routes(link)
    if len(found) < entry.paths:
        hint = "lower paths, raise relays_max, or forbid less"
        yield Fault(where, f"asks for {entry.paths} routes that share no site, and {len(found)} can be had", hint)
    gaps = {site: missing for site in atlas.permitted(link, STATED) if (missing := atlas.sites[site].missing(STATED))}
    if gaps and not entry.accept_undocumented:
        told = "; ".join(f"{site} lacks {', '.join(missing)}" for site, missing in sorted(gaps.items()))
        hint = "document these sites, forbid them, or write accept_undocumented = true and see it in every statement"
        yield Fault(where, f"may go over sites that are not documented: {told}", hint)
