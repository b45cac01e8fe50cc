"""NetBox: answers of its REST API, saved as JSON: sites, devices, cables, circuits and their terminations, tunnels.

One file may be one answer (`{"results": [...]}`), or a table of several by the name of their endpoint, so that cables find the
sites of their devices: `{"sites": ..., "devices": ..., "cables": ..., "circuits": ..., "tunnels": ...}`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from keystrand.plan.estate import Control, Family, Link, Medium, Protocol, Segment, Site
from keystrand.plan.fact import Basis, Source, Stated
from keystrand.plan.imports.found import Found, Names, NotReadable, decode, shortened

KM: Final = {"km": 1.0, "m": 0.001, "cm": 0.00001, "mi": 1.609344, "ft": 0.0003048, "in": 0.0000254}
KINDS: Final = ("sites", "devices", "cables", "circuits", "circuit-terminations", "tunnels", "ike-proposals")
_ENDPOINT: Final = re.compile(r"/api/[a-z-]+/([a-z-]+)/")
Row = dict[str, Any]


def read(data: bytes, file: str) -> Found:
    """Raises NotReadable."""
    answer = decode(data, dict[str, Any], "an answer of NetBox")
    tables = {kind: list(_rows(answer.get(kind) or answer.get(kind.replace("-", "_")))) for kind in KINDS}
    for row in _rows(answer) if "results" in answer else ():
        kind = _ENDPOINT.search(str(row.get("url", "")))
        if kind is None or kind[1] not in KINDS:
            raise NotReadable(
                f"an answer of NetBox about {row.get('url', 'nothing')}", hint=f"read: {', '.join(KINDS)}"
            )
        tables[kind[1]].append(row)
    if not any(tables.values()):
        raise NotReadable("not an answer of NetBox: no rows of " + ", ".join(KINDS))
    return _Export(tables, Source(what=file, tool="NetBox")).found()


def _rows(answer: object) -> Iterator[Row]:
    """Of a list, or of an answer with `results`."""
    rows = answer.get("results") if isinstance(answer, dict) else answer
    return (row for row in rows if isinstance(row, dict)) if isinstance(rows, list) else iter(())


class _Export:
    def __init__(self, tables: dict[str, list[Row]], source: Source) -> None:
        self.tables, self.source = tables, source
        self.names, self.labels = Names(), Names()
        self.remarks: list[str] = []
        self.site_of_device = {row.get("id"): _words(row, "site") for row in tables["devices"]}

    def found(self) -> Found:
        sites = {self._site_name(_label(row)): self._site(row) for row in self.tables["sites"]}
        links = dict(self._cables()) | dict(self._circuits())
        for link in links.values():
            for end in link.ends:
                sites.setdefault(end, Site(source=self.source))
        return Found(
            "netbox", sites=sites, links=links, endpoints=dict(self._tunnels()), remarks=shortened(self.remarks)
        )

    def _site_name(self, words: str) -> str:
        return self.names.of(words, words)

    def _site(self, row: Row) -> Site:
        lat, lon = _number(row.get("latitude")), _number(row.get("longitude"))
        sound = lat is not None and lon is not None and -90 <= lat <= 90 and -180 <= lon <= 180
        return Site(
            owner=_words(row, "tenant"),
            facility=str(row.get("facility") or ""),
            lat=lat if sound else None,
            lon=lon if sound else None,
            source=self.source,
        )

    def _cables(self) -> Iterator[tuple[str, Link]]:
        """Cables between two sites; those within one are no links."""
        for row in self.tables["cables"]:
            ends = [self._end(row.get(side)) for side in ("a_terminations", "b_terminations")]
            label = str(row.get("label") or f"cable-{row.get('id', '')}")
            if None in ends:
                self.remarks.append(f"{label}: the site of an end is not in this file; export devices with it")
                continue
            if ends[0] != ends[1]:
                yield self.labels.of(("cable", row.get("id"), label), label), self._cable(row, ends)

    def _cable(self, row: Row, ends: list[str | None]) -> Link:
        kind = _value(row.get("type"))
        medium = Medium.DARK_FIBRE if kind.startswith(("smf", "mmf", "aoc")) else Medium.UNKNOWN
        segment = Segment(medium=medium, fibre_id=str(row.get("label") or ""), length_km=self._length(row))
        return Link(ends=(str(ends[0]), str(ends[1])), segments=(segment,), source=self.source)

    def _length(self, row: Row) -> Stated | None:
        length, unit = _number(row.get("length")), _value(row.get("length_unit"))
        if length is None or unit not in KM:
            return None
        km = round(length * KM[unit], 6)
        return Stated(likely=km, basis=Basis.ASSUMED, source=self.source.what, tool=self.source.tool)

    def _end(self, terminations: object) -> str | None:
        """The site of the first termination that leads to one."""
        for termination in _rows(terminations):
            inner = termination.get("object")
            inner = inner if isinstance(inner, dict) else termination
            device = inner.get("device")
            words = _words(inner, "site") or (
                self.site_of_device.get(device.get("id"), "") if isinstance(device, dict) else ""
            )
            if words:
                return self._site_name(words)
        return None

    def _circuits(self) -> Iterator[tuple[str, Link]]:
        sides = {(_words(row, "circuit"), row.get("term_side")): row for row in self.tables["circuit-terminations"]}
        for row in self.tables["circuits"]:
            cid = str(row.get("cid") or row.get("display") or row.get("id"))
            ends = [
                _place(row.get(f"termination_{side.lower()}")) or _place(sides.get((cid, side))) for side in ("A", "Z")
            ]
            if not all(ends):
                self.remarks.append(f"circuit {cid}: its two sites are not in this file")
            elif ends[0] != ends[1]:
                name = self.labels.of(("circuit", cid), cid)
                yield name, self._circuit(row, (self._site_name(ends[0]), self._site_name(ends[1])))

    def _circuit(self, row: Row, ends: tuple[str, str]) -> Link:
        rate_kbps = _number(row.get("commit_rate"))
        segment = Segment(
            medium=Medium.DARK_FIBRE if "dark" in _words(row, "type").lower() else Medium.SERVICE,
            control=Control.CONTRACTED,
            owner=_words(row, "provider"),
            fibre_id=str(row.get("cid") or ""),
        )
        rate = Stated(likely=rate_kbps * 1000, source=self.source.what, tool="NetBox") if rate_kbps else None
        return Link(ends=ends, segments=(segment,), rate_bps=rate, source=self.source)

    def _tunnels(self) -> Iterator[tuple[str, Protocol]]:
        for row in self.tables["tunnels"]:
            how = _value(row.get("encapsulation"))
            family = (
                Family.IPSEC if how.startswith("ipsec") else Family.WIREGUARD if how == "wireguard" else Family.OTHER
            )
            label = _label(row)
            protocol = Protocol(name=family, service="vpn", endpoint=label, source=self.source)
            yield self.labels.of(("tunnel", row.get("id"), label), label), protocol


def _place(termination: object) -> str:
    """The site that a side of a circuit ends at, in the form of NetBox 4.2 and in the one before."""
    if not isinstance(termination, dict):
        return ""
    if termination.get("termination_type") == "dcim.site":
        return _words(termination, "termination")
    return _words(termination, "site")


def _label(row: Row) -> str:
    return str(row.get("slug") or row.get("name") or row.get("display") or row.get("id"))


def _words(row: Row, name: str) -> str:
    """The name of what a row refers to, whether nested or plain."""
    inner = row.get(name)
    if isinstance(inner, dict):
        return str(inner.get("slug") or inner.get("cid") or inner.get("name") or inner.get("display") or "")
    return inner if isinstance(inner, str) else ""


def _value(choice: object) -> str:
    """A choice is `{"value": "smf-os2", "label": ...}`, or the plain value."""
    inner = choice.get("value") if isinstance(choice, dict) else choice
    return inner if isinstance(inner, str) else ""


def _number(value: object) -> float | None:
    try:
        return float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else None
    except ValueError:
        return None
