"""Whom one has to trust: for each pair of sites the ways of its keys, who sees what in clear, and what shows it is guarded.

Every sentence follows from the network's file and from nothing else: it cannot claim what the topology does not support.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date
from itertools import chain
from textwrap import wrap
from typing import Any, Final

from keystrand.relay.atlas import Atlas, RelayedLink, SiteFacts
from keystrand.relay.crossings import lines as crossing_lines
from keystrand.relay.crossings import passages
from keystrand.relay.routes import Route

UNDOCUMENTED: Final = "trust undocumented"
HIDDEN: Final = "not published"
LAST: Final = "QKD protects how keys come to both ends of one hop. It does nothing for a site that is broken into."


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """One pair of sites. needed: of the routes' parts; with one route, every relay on it sees the whole key material."""

    pair: tuple[str, str]
    routes: tuple[tuple[str, ...], ...]
    needed: int
    paths: int  # that its terms ask for
    gaps: Mapping[str, tuple[str, ...]]  # relay -> what nobody has stated
    barred: bool  # sites with gaps carry nothing until they are documented
    others: tuple[str, ...]  # sites that relay only where a hop of these routes fails
    alone: Mapping[str, tuple[str, ...]]  # owner, or law -> its sites, where they are on so many routes as give a block

    @property
    def relays(self) -> tuple[str, ...]:
        return tuple(sorted({site for route in self.routes for site in route[1:-1]}))

    @property
    def is_documented(self) -> bool:
        return not self.gaps

    @property
    def is_possible(self) -> bool:
        return len(self.routes) >= self.paths

    def words(self) -> Iterator[str]:
        """Plain sentences."""
        one, other = self.pair
        if not self.is_possible:
            have = f"{len(self.routes)} of the {self.paths} routes"
            yield f"There are {have} that {one} and {other} need: they share no keys over relays."
            return
        if not self.relays:
            yield f"{one} and {other} are neighbours: the bits of their QKD link are in clear at these two sites only."
            return
        if self.needed == 1:
            for relay in self.relays:
                yield f"{relay} sees key material between {one} and {other} in clear: who controls it has the QKD strand."
        else:
            yield (
                f"Each block goes in {self.paths} parts over routes that share no site. One relay sees a part, which says "
                f"nothing about the block; relays on {self.needed} different routes who join forces see it whole."
            )
            for whose, sites in self.alone.items():
                yield f"{whose} has {' and '.join(sites)}, on {self.needed} of these routes: alone it can see the block whole."
        if self.others:
            yield f"So it is while every hop is up. When one fails, blocks may go over {', '.join(self.others)} instead."
        yield (
            "Keys of protection hybrid are woven with an ML-KEM secret that the two end sites agree directly: a relay that "
            "has the QKD strand would have to break ML-KEM as well. Keys of protection qkd do not have that strand."
        )

    def plain(self) -> dict[str, Any]:
        return {
            "pair": list(self.pair),
            "routes": [list(route) for route in self.routes],
            "parts_needed": self.needed,
            "parts": self.paths,
            "possible": self.is_possible,
            "documented": self.is_documented,
            "missing": {site: list(missing) for site, missing in self.gaps.items()},
            "carries_undocumented": not self.barred,
            "others": list(self.others),
            "seen_whole_by": {whose: list(sites) for whose, sites in self.alone.items()},
            "statement": list(self.words()),
        }


def trust_of(atlas: Atlas, today: date) -> list[Trust]:
    """Every pair that shares keys of QKD: neighbours first, then relayed links."""
    return [_direct(hop) for hop in atlas.hops] + [_relayed(atlas, link, today) for link in atlas.links.values()]


def _direct(hop: tuple[str, str]) -> Trust:
    return Trust(pair=hop, routes=(hop,), needed=1, paths=1, gaps={}, barred=True, others=(), alone={})


def _relayed(atlas: Atlas, link: RelayedLink, today: date) -> Trust:
    """Any permitted site may come to lie on a route, so all of them count for what is not documented.

    Those that only a lapsed document keeps away count as well: they are told as barred.
    """
    open_to_all = replace(link, terms=replace(link.terms, accept_undocumented=True))
    allowed = atlas.permitted(open_to_all, today)
    gaps = {site: missing for site in sorted(allowed) if (missing := atlas.sites[site].missing(today))}
    routes = atlas.static_routes(link, today)
    return Trust(
        pair=(link.origin, link.target),
        routes=tuple(routes),
        needed=link.terms.threshold,
        paths=link.terms.paths,
        gaps=gaps,
        barred=not link.terms.accept_undocumented,
        others=tuple(sorted(atlas.possible_relays(link, today).difference(*routes))),
        alone=_alone(atlas, link, routes),
    )


def _alone(atlas: Atlas, link: RelayedLink, routes: list[Route]) -> dict[str, tuple[str, ...]]:
    """Owners, and laws, with sites on enough of the routes: no other has to join them. Those of an end have the keys anyway."""
    needed, on = link.terms.threshold, dict[str, dict[int, list[str]]]()
    for number, route in enumerate(routes):
        for name in route[1:-1]:
            for whose in _powers(atlas.sites[name]):
                on.setdefault(whose, {}).setdefault(number, []).append(name)
    at_ends = {whose for end in link.ends for whose in _powers(atlas.sites[end])}
    found = {whose: there for whose, there in on.items() if whose not in at_ends and len(there) >= needed > 1}
    return {whose: tuple(sorted(chain(*there.values()))) for whose, there in found.items()}


def _powers(facts: SiteFacts) -> list[str]:
    law = f"The law of {facts.jurisdiction}" if facts.jurisdiction else ""
    return [whose for whose in (facts.owner, law) if whose]


# on paper -------------------------------------------------------------------------------------------------------------


def document(atlas: Atlas, name: str, today: date, *, redacted: bool = False) -> dict[str, Any]:
    """The whole statement for machines. redacted: owners by letters, no facility, no reference, for publication."""
    letters = _letters(atlas)
    sites = [_site(facts, today, letters if redacted else None) for facts in atlas.sites.values()]
    if redacted:
        shown = {name: replace(facts, owner=letters.get(facts.owner, "")) for name, facts in atlas.sites.items()}
        atlas = Atlas(shown, atlas.hops, atlas.links, atlas.crossings)
    pairs = [trust.plain() for trust in trust_of(atlas, today)]
    crossings = list(passages(atlas.crossings, atlas.sites, today, letters if redacted else None))
    whole = {"network": name, "date": today.isoformat(), "redacted": redacted, "sites": sites, "pairs": pairs}
    return whole | {"crossings": crossings}


def _letters(atlas: Atlas) -> dict[str, str]:
    owners = dict.fromkeys(facts.owner for facts in atlas.sites.values() if facts.owner)
    owners |= dict.fromkeys(whose for crossing in atlas.crossings.values() for whose in crossing.kmes.values())
    return {owner: f"Owner {number}" for number, owner in enumerate(owners, 1)}


def _site(facts: SiteFacts, today: date, letters: Mapping[str, str] | None) -> dict[str, Any]:
    missing = facts.missing(today)
    told: dict[str, Any] = {
        "site": facts.name,
        "owner": facts.owner if letters is None else letters.get(facts.owner, ""),
        "facility": facts.facility if letters is None else HIDDEN,
        "jurisdiction": facts.jurisdiction,
        "signed_off_by": facts.signed_off_by if letters is None else HIDDEN,
        "signed_off": facts.signed_off.isoformat() if facts.signed_off else "",
        "expires": facts.expires.isoformat() if facts.expires else "",
        "evidence": [
            {
                "what": proof.what,
                "reference": proof.reference if letters is None else HIDDEN,
                "dated": proof.dated.isoformat(),
                "expires": proof.expires.isoformat() if proof.expires else "",
            }
            for proof in facts.evidence
        ],
        "missing": list(missing),
        "until": facts.until.isoformat() if facts.until else "",
    }
    return told | {"trust": UNDOCUMENTED if missing else "documented"}


def markdown(statement: Mapping[str, Any]) -> str:
    """`document` for people who publish it."""
    lines = [f"# Whom the keys of {statement['network']} trust", "", f"As of {statement['date']}.", ""]
    lines += ["| site | owner | facility | law | signed off | evidence | missing |", "|---|---|---|---|---|---|---|"]
    for site in statement["sites"]:
        missing = ", ".join(site["missing"]) or "nothing"
        cells = (site["site"], site["owner"], site["facility"], site["jurisdiction"], _signed(site), _proofs(site))
        lines.append(f"| {' | '.join(cell or '?' for cell in (*cells, missing))} |")
    for pair in statement["pairs"]:
        lines += ["", f"## {' – '.join(pair['pair'])}", "", " ".join(pair["statement"])]
        lines += [f"- {' > '.join(route)}" for route in pair["routes"]]
        if pair["missing"]:
            lines += ["", f"**{UNDOCUMENTED.capitalize()}**: {_gaps(pair)}"]
    lines += [line for passage in statement["crossings"] for line in crossing_lines(passage, UNDOCUMENTED)]
    return "\n".join([*lines, "", LAST]) + "\n"


def plain_words(statement: Mapping[str, Any], width: int) -> str:
    """`document` for people at a terminal of so many columns."""
    lines = [f"Whom the keys of {statement['network']} trust, as of {statement['date']}", ""]
    for site in statement["sites"]:
        cells = (
            site["owner"] or "owner unknown",
            site["facility"].replace(HIDDEN, "facility not published") or "facility unknown",
            site["jurisdiction"] or "law unknown",
        )
        lines += _wrapped(f"{site['site']}: {'; '.join(cells)}", width)
        lines += _wrapped(f"signed off by {_signed(site)}; shown by {_proofs(site)}", width, 4)
        if site["missing"]:
            lines += _wrapped(f"{UNDOCUMENTED}, missing: {', '.join(site['missing'])}", width, 4)
        elif site["until"]:
            lines.append(f"    documented until {site['until']}")
    near = [" – ".join(pair["pair"]) for pair in statement["pairs"] if max(map(len, pair["routes"]), default=0) == 2]
    if near:
        lines += [
            "",
            *_wrapped(
                f"Neighbours, the bits of whose QKD link are in clear at these two only: {', '.join(near)}.", width
            ),
        ]
    for pair in statement["pairs"]:
        if " – ".join(pair["pair"]) not in near:
            lines += ["", " – ".join(pair["pair"]), *_wrapped(" ".join(pair["statement"]), width, 2, hang=0)]
            for route in pair["routes"]:
                lines += _wrapped(" > ".join(route), width, 4)
            if pair["missing"]:
                lines += _wrapped(f"{UNDOCUMENTED.capitalize()}: {_gaps(pair)}", width, 2)
    for passage in statement["crossings"]:
        for line in crossing_lines(passage, UNDOCUMENTED):
            lines += _wrapped(line.removeprefix("## ").replace("**", ""), width) or [""]
    return "\n".join([*lines, "", *_wrapped(LAST, width)]) + "\n"


def _wrapped(text: str, width: int, indent: int = 0, hang: int = 2) -> list[str]:
    return wrap(text, width, initial_indent=" " * indent, subsequent_indent=" " * (indent + hang))


def _signed(site: Mapping[str, Any]) -> str:
    until = f"until {site['expires']}" if site["expires"] else ""
    by = site["signed_off_by"].replace(HIDDEN, "somebody whose name is not published")
    return " ".join(word for word in (by, site["signed_off"], until) if word) or "nobody"


def _proofs(site: Mapping[str, Any]) -> str:
    told = []
    for proof in site["evidence"]:
        until = f", until {proof['expires']}" if proof["expires"] else ""
        told.append(f"{proof['what']} ({proof['dated']}{until})")
    return "; ".join(told) or "nothing"


def _gaps(pair: Mapping[str, Any]) -> str:
    gaps = "; ".join(f"{site}: {', '.join(missing)}" for site, missing in pair["missing"].items())
    carries = "They may carry this link's blocks." if pair["carries_undocumented"] else "They carry none of it."
    return f"{gaps}. {carries}"
