"""GraphML, as the Internet Topology Zoo has it: labels, Latitude and Longitude of nodes, LinkSpeedRaw of edges."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from keystrand.plan.fact import Source
from keystrand.plan.imports.found import Found, NotReadable, day
from keystrand.plan.imports.graph import Edge, Graph, Node
from keystrand.plan.imports.xml import child, children, local, parse, text

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element


def read(data: bytes, file: str) -> Found:
    """Raises NotReadable."""
    root = parse(data, "GraphML")
    body = child(root, "graph")
    if local(root) != "graphml" or body is None:
        raise NotReadable("not GraphML: no <graphml> with a <graph> in it")
    keys = {key.get("id", ""): key.get("attr.name", "") for key in children(root, "key")}
    about = _data(body, keys)
    source = Source(
        what=file,
        tool=about.get("Creator", ""),
        version=about.get("ToolsetVersion", about.get("Version", "")),
        dated=day(about.get("LastProcessed", "").replace("_", "-")),
    )
    graph = Graph("graphml", source)
    for node in children(body, "node"):
        facts = _data(node, keys)
        key = node.get("id", "")
        graph.nodes.append(Node(key, facts.get("label") or key, _at(facts)))
    for edge in children(body, "edge"):
        facts = _data(edge, keys)
        rate = _number(facts.get("LinkSpeedRaw"))
        ends = edge.get("source", ""), edge.get("target", "")
        graph.edges.append(Edge(*ends, facts.get("LinkLabel", ""), rate_bps=rate if rate and rate > 0 else None))
    return graph.found()


def _data(element: Element, keys: dict[str, str]) -> dict[str, str]:
    return {keys.get(each.get("key", ""), ""): text(each) for each in children(element, "data")}


def _at(facts: dict[str, str]) -> tuple[float, float] | None:
    lon, lat = _number(facts.get("Longitude")), _number(facts.get("Latitude"))
    return None if lon is None or lat is None else (lon, lat)


def _number(words: str | None) -> float | None:
    try:
        value = float(words) if words else None
    except ValueError:
        return None
    return value if value is not None and math.isfinite(value) else None
