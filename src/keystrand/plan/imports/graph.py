"""Graphs of networks as sites and links: coordinates that are none, lengths that nobody measured, loops and parallel edges."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Final

from keystrand.plan.estate import Link, Medium, Segment, Site
from keystrand.plan.fact import Basis, Quantity, Source, Stated
from keystrand.plan.imports.found import Found, Names, NotReadable, shortened

EARTH_RADIUS_KM: Final = 6371.0088  # mean radius, IUGG
DETOUR: Final = (1.2, 1.5)  # route length over great circle; assumed
LINK_KM_MAX: Final = 12_000.0  # median of the links: more than even a full mesh around the world has


@dataclass(frozen=True, slots=True)
class Node:
    """at: longitude and latitude in degrees, or None."""

    key: str
    label: str
    at: tuple[float, float] | None = None
    jurisdiction: str = ""


@dataclass(frozen=True, slots=True)
class Edge:
    one: str
    other: str
    label: str = ""
    length_km: float | None = None
    rate_bps: float | None = None


@dataclass(slots=True)
class Graph:
    """Nodes and edges as a file states them; `found` makes an estate of it. planar: the file itself says so."""

    format: str
    source: Source
    nodes: list[Node] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)
    planar: bool = False
    remarks: list[str] = field(default_factory=list)

    def found(self) -> Found:
        """Raises NotReadable where there is nothing to plan."""
        if not self.nodes:
            raise NotReadable("a graph without nodes")
        reason = "the file says that they are pixels" if self.planar else flat(self.nodes, self.edges)
        if reason and any(node.at for node in self.nodes):
            self.remarks.append(f"coordinates are no longitude and latitude and were left out: {reason}")
            self.nodes = [Node(node.key, node.label, None, node.jurisdiction) for node in self.nodes]
        names = Names()
        known = {node.key: node for node in self.nodes}
        sites = {names.of(node.key, node.label or node.key): self._site(node) for node in known.values()}
        return Found(self.format, sites=sites, links=self._links(known, names), remarks=shortened(self.remarks))

    def _site(self, node: Node) -> Site:
        lon, lat = node.at or (None, None)
        return Site(lat=lat, lon=lon, jurisdiction=node.jurisdiction, source=self.source)

    def _links(self, known: dict[str, Node], names: Names) -> dict[str, Link]:
        links, labels = {}, Names()
        seen: dict[tuple[str, ...], int] = {}
        for place, edge in enumerate(self.edges):
            missing = [key for key in (edge.one, edge.other) if key not in known]
            if missing:
                raise NotReadable(f"edge {place} leads to {missing[0]!r}, which is no node")
            if edge.one == edge.other:
                self.remarks.append(f"{known[edge.one].label or edge.one}: an edge to itself was left out")
                continue
            ends = (names.of(edge.one, ""), names.of(edge.other, ""))
            pair = tuple(sorted(ends))
            seen[pair] = seen.get(pair, 0) + 1
            if seen[pair] == 2:
                self.remarks.append(f"{' - '.join(pair)}: parallel edges became links of their own")
            links[labels.of(place, "--".join(end[:30] for end in ends))] = self._link(edge, ends, known)
        return links

    def _link(self, edge: Edge, ends: tuple[str, str], known: dict[str, Node]) -> Link:
        segment = Segment(medium=Medium.UNKNOWN, length_km=self._length(edge, known))
        return Link(
            ends=ends,
            segments=(segment,),
            rate_bps=self._stated(edge.rate_bps) if edge.rate_bps else None,
            source=self.source,
        )

    def _length(self, edge: Edge, known: dict[str, Node]) -> Quantity | None:
        if edge.length_km is not None:
            return self._stated(edge.length_km)
        one, other = known[edge.one].at, known[edge.other].at
        if one is None or other is None:
            return None
        straight = great_circle_km(one, other)
        low, high = (round(factor * straight, 1) for factor in DETOUR)
        words = (
            f"{self.source.what}: great circle {straight:.1f} km times {DETOUR[0]} to {DETOUR[1]} for detours, assumed"
        )
        return Stated(low=low, high=high, basis=Basis.ASSUMED, source=words, dated=self.source.dated)

    def _stated(self, value: float) -> Stated:
        origin = self.source
        return Stated(
            likely=value,
            basis=Basis.ASSUMED,
            source=origin.what,
            tool=origin.tool,
            version=origin.version,
            dated=origin.dated,
        )


def great_circle_km(one: tuple[float, float], other: tuple[float, float]) -> float:
    """Between two points of longitude and latitude in degrees (haversine formula)."""
    lon_a, lat_a, lon_b, lat_b = map(math.radians, (*one, *other))
    chord = math.sin((lat_b - lat_a) / 2) ** 2 + math.cos(lat_a) * math.cos(lat_b) * math.sin((lon_b - lon_a) / 2) ** 2
    return 2 * EARTH_RADIUS_KM * math.asin(min(1.0, math.sqrt(chord)))


def flat(nodes: Sequence[Node], edges: Iterable[Edge]) -> str:
    """Why the coordinates of a graph cannot be degrees on a globe; empty if they can."""
    known = {node.key: node.at for node in nodes if node.at is not None}
    for key, (lon, lat) in known.items():
        if not (math.isfinite(lon) and math.isfinite(lat) and -180 <= lon <= 180 and -90 <= lat <= 90):
            return f"{key} lies at longitude {lon:g}, latitude {lat:g}"
    lengths = [
        great_circle_km(known[edge.one], known[edge.other])
        for edge in edges
        if edge.one in known and edge.other in known and edge.one != edge.other
    ]
    if len(lengths) >= 5 and median(lengths) > LINK_KM_MAX:
        return f"half of its links would be longer than {median(lengths):.0f} km"
    return ""
