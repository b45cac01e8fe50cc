"""SNDlib networks (Orlowski et al., Networks 55, 2010): its XML, its native text, and JSON made from either.

Their XML says whether coordinates are degrees or pixels; the native text and JSON do not, so both are looked at.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from keystrand.plan.fact import Source
from keystrand.plan.imports.found import Found, NotReadable, decode
from keystrand.plan.imports.graph import Edge, Graph, Node
from keystrand.plan.imports.xml import child, children, local, parse, text

_SECTION: Final = r"^{}\s*\(\s*$(.*?)^\)\s*$"
_NODE: Final = re.compile(r"^\s*(\S+)\s*(?:\(\s*(\S+)\s+(\S+)\s*\))?\s*$")
_LINK: Final = re.compile(r"^\s*(\S+)\s*\(\s*(\S+)\s+(\S+)\s*\)")


def read_xml(data: bytes, file: str) -> Found:
    """Raises NotReadable."""
    root = parse(data, "SNDlib XML")
    structure = child(root, "networkStructure")
    nodes = child(root, "networkStructure", "nodes")
    if local(root) != "network" or structure is None or nodes is None:
        raise NotReadable("not an SNDlib network: no <networkStructure> with <nodes>")
    graph = _graph(file, root.get("version", ""))
    graph.planar = nodes.get("coordinatesType") == "pixel"
    for node in children(nodes, "node"):
        place = child(node, "coordinates")
        at = (text(child(place, "x")), text(child(place, "y"))) if place is not None else None
        graph.nodes.append(_node(node.get("id", ""), at))
    links = child(structure, "links")
    for link in children(links, "link") if links is not None else ():
        ends = (text(child(link, "source")), text(child(link, "target")))
        graph.edges.append(Edge(*ends, link.get("id", "")))
    return graph.found()


def read_native(data: bytes, file: str) -> Found:
    """Raises NotReadable."""
    words = data.decode("utf-8", "replace")
    nodes, links = _section(words, "NODES"), _section(words, "LINKS")
    graph = _graph(file, "1.0")
    for line in nodes:
        if (found := _NODE.match(line)) is None:
            raise NotReadable(f"not SNDlib's native format: a node in {line.strip()[:60]!r}?")
        graph.nodes.append(_node(found[1], (found[2], found[3]) if found[2] else None))
    for line in links:
        if (found := _LINK.match(line)) is None:
            raise NotReadable(f"not SNDlib's native format: a link in {line.strip()[:60]!r}?")
        graph.edges.append(Edge(found[2], found[3], found[1]))
    return graph.found()


def _section(words: str, name: str) -> list[str]:
    found = re.search(_SECTION.format(name), words, re.MULTILINE | re.DOTALL)
    if found is None:
        raise NotReadable(f"not SNDlib's native format: no section {name}")
    return [line for line in found[1].splitlines() if line.strip() and not line.lstrip().startswith("#")]


class _JsonNode(msgspec.Struct):
    id: str
    longitude: float | None = None
    latitude: float | None = None


class _JsonLink(msgspec.Struct):
    source: str
    target: str
    id: str = ""


class _JsonNetwork(msgspec.Struct):
    nodes: list[_JsonNode]
    links: list[_JsonLink]


def read_json(data: bytes, file: str) -> Found:
    """Raises NotReadable."""
    network = decode(data, _JsonNetwork, "an SNDlib network in JSON")
    graph = _graph(file, "")
    for node in network.nodes:
        at = None if node.longitude is None or node.latitude is None else (node.longitude, node.latitude)
        graph.nodes.append(Node(node.id, node.id, at))
    graph.edges = [Edge(link.source, link.target, link.id) for link in network.links]
    return graph.found()


def _graph(file: str, version: str) -> Graph:
    return Graph("sndlib", Source(what=file, tool="SNDlib", version=version))


def _node(key: str, at: tuple[str, str] | None) -> Node:
    try:
        return Node(key, key, (float(at[0]), float(at[1])) if at else None)
    except ValueError:
        raise NotReadable(f"node {key}: {at!r} are no coordinates") from None
