"""Topologies of GNPy, in its own JSON and in the YANG one: ROADMs and terminals are sites, fibres in a row are one link's path.

Amplifiers on the way are told: light of a QKD module does not pass them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from keystrand.plan.estate import Link, Medium, Segment, Site
from keystrand.plan.fact import Basis, Source, Stated
from keystrand.plan.imports.found import Found, Names, NotReadable, decode, shortened

FIBRES: Final = ("Fiber", "RamanFiber")
PASSED: Final = (*FIBRES, "Edfa", "Multiband_amplifier", "Fused")
ENDS: Final = ("Roadm", "Transceiver")
KM: Final = {"km": 1.0, "m": 0.001}


class _Place(msgspec.Struct):
    city: Any = None
    latitude: float | None = None
    longitude: float | None = None


class _About(msgspec.Struct):
    location: _Place = msgspec.field(default_factory=_Place)


class _Params(msgspec.Struct):
    length: Annotated[float, Meta(ge=0)] | None = None
    length_units: str = "km"
    loss_coef: Any = None
    con_in: float | None = None
    con_out: float | None = None
    att_in: float | None = None


class _Element(msgspec.Struct):
    uid: str
    type: str
    type_variety: str = ""
    params: _Params | None = None
    metadata: _About = msgspec.field(default_factory=_About)


class _Step(msgspec.Struct):
    from_node: str
    to_node: str


class _Topology(msgspec.Struct):
    elements: list[_Element]
    connections: list[_Step]


class _Net(msgspec.Struct, rename={"topology": "gnpy-network-topology:topology"}):
    topology: _Topology | None = None
    elements: list[_Element] | None = None
    connections: list[_Step] | None = None


def read(data: bytes, file: str) -> Found:
    """Raises NotReadable."""
    net = decode(data, _Net, "a GNPy topology", strict=False)
    topology = net.topology or _Topology(net.elements or [], net.connections or [])
    elements = {element.uid: element for element in topology.elements}
    ahead: dict[str, list[str]] = {}
    for step in topology.connections:
        if step.from_node not in elements or step.to_node not in elements:
            raise NotReadable(f"a connection names {step.from_node!r} and {step.to_node!r}, and one is no element")
        ahead.setdefault(step.from_node, []).append(step.to_node)
    return _Walk(elements, ahead, Source(what=file, tool="GNPy topology")).found()


class _Walk:
    """From every end along the fibres to the next one."""

    def __init__(self, elements: dict[str, _Element], ahead: dict[str, list[str]], source: Source) -> None:
        self.elements, self.ahead, self.source = elements, ahead, source
        self.names = Names()
        self.remarks: list[str] = []

    def found(self) -> Found:
        sites: dict[str, Site] = {}
        for each in self.elements.values():
            name = self._name(each) if each.type in ENDS else ""
            if name and (name not in sites or sites[name].lat is None):
                sites[name] = self._site(each)
        if not sites:
            raise NotReadable("a GNPy topology without ROADM or transceiver")
        links: dict[str, Link] = {}
        labels, both = Names(), set[tuple[str, ...]]()
        for start in self.elements.values():
            for path in self._paths(start) if start.type in ENDS else ():
                ends = (self._name(start), self._name(self.elements[path[-1]]))
                fibres = [self.elements[uid] for uid in path if self.elements[uid].type in FIBRES]
                if ends[0] == ends[1] or not fibres:
                    continue
                lengths = tuple(str(_km(fibre)) for fibre in (fibres if ends[0] < ends[1] else fibres[::-1]))
                pair = (*sorted(ends), *lengths)
                if pair not in both:  # a fibre pair is two chains of one length
                    both.add(pair)
                    links[labels.of(pair, "--".join(end[:30] for end in ends))] = self._link(ends, fibres, path)
        return Found("gnpy", sites=sites, links=links, remarks=shortened(self.remarks))

    def _paths(self, start: _Element) -> Iterator[list[str]]:
        """Chains of passed elements from `start` to the next end; a chain that ends nowhere or in a circle is none."""
        for first in self.ahead.get(start.uid, ()):
            path = [first]
            while self.elements[path[-1]].type in PASSED and len(path) <= len(self.elements):
                following = self.ahead.get(path[-1], [])
                onward = [uid for uid in following if uid not in path]
                if not onward:
                    break
                path.append(onward[0])
            if self.elements[path[-1]].type in ENDS:
                yield path

    def _name(self, element: _Element) -> str:
        """Terminal and ROADM of one city are one site."""
        stated = element.metadata.location.city
        city = stated if isinstance(stated, str) and stated else element.uid
        return self.names.of(city, city)

    def _site(self, element: _Element) -> Site:
        place = element.metadata.location
        lat, lon = place.latitude, place.longitude
        if lat is None or lon is None or not (-90 <= lat <= 90 and -180 <= lon <= 180) or lat == lon == 0:
            return Site(source=self.source)  # GNPy writes 0, 0 where nothing is known
        return Site(lat=lat, lon=lon, source=self.source)

    def _link(self, ends: tuple[str, str], fibres: list[_Element], path: list[str]) -> Link:
        amplifiers = [uid for uid in path if self.elements[uid].type in ("Edfa", "Multiband_amplifier")]
        if amplifiers:
            says = f"{' - '.join(ends)}: {len(amplifiers)} amplifiers on the way; QKD needs a way around them"
            self.remarks.append(says)
        segments = tuple(self._segment(fibre) for fibre in fibres)
        return Link(ends=ends, segments=segments, source=self.source)

    def _segment(self, fibre: _Element) -> Segment:
        km, loss = _km(fibre), _loss_db(fibre)
        return Segment(
            medium=Medium.LIT_FIBRE,
            fibre_id=fibre.uid,
            length_km=self._stated(km) if km is not None else None,
            loss_db=self._stated(loss) if loss is not None else None,
        )

    def _stated(self, value: float) -> Stated:
        return Stated(likely=round(value, 4), basis=Basis.ASSUMED, source=self.source.what, tool=self.source.tool)


def _km(fibre: _Element) -> float | None:
    if fibre.params is None or fibre.params.length is None:
        return None
    if fibre.params.length_units not in KM:
        raise NotReadable(f"{fibre.uid}: a length in {fibre.params.length_units!r}", hint="km or m")
    return fibre.params.length * KM[fibre.params.length_units]


def _loss_db(fibre: _Element) -> float | None:
    """Of fibre and connectors, where the file states all of it; otherwise the planner takes it from the length."""
    km, params = _km(fibre), fibre.params
    if km is None or params is None or params.con_in is None or params.con_out is None:
        return None
    coefficient = _coefficient(params.loss_coef)
    return None if coefficient is None else km * coefficient + params.con_in + params.con_out + (params.att_in or 0.0)


def _coefficient(stated: Any) -> float | None:
    """dB/km; of a curve over frequency, the largest."""
    if isinstance(stated, dict):
        stated = stated.get("value")
    values = stated if isinstance(stated, list) else [stated]
    try:
        numbers = [float(value) for value in values if isinstance(value, int | float | str)]
    except ValueError:
        return None
    return max((number for number in numbers if 0 <= number < math.inf), default=None)
