"""Networks from planning tools and collections: lengths say what they rest on, and pixels are no degrees."""

from __future__ import annotations

import math
from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import CSV, GNPY, GRAPHML, SAMPLES, SNDLIB_XML, js

from keystrand.plan.estate import Control, Medium, PathType
from keystrand.plan.fact import Basis, Stated
from keystrand.plan.imports.detect import read
from keystrand.plan.imports.found import NotReadable
from keystrand.plan.imports.graph import EARTH_RADIUS_KM, Edge, Node, flat, great_circle_km


def stated(value: object) -> Stated:
    assert isinstance(value, Stated)
    return value


def test_graphml_of_the_topology_zoo() -> None:
    found = read(SAMPLES["graphml"], "swiss.graphml")
    assert list(found.sites) == ["Zurich", "Bern", "Bern-2"]
    assert (found.sites["Zurich"].lat, found.sites["Bern-2"].lat) == (47.37, None)
    assert found.sites["Zurich"].source.dated == date(2011, 9, 1)
    first, second, third = found.links.values()
    assert (first.ends, stated(first.rate_bps).likely) == (("Zurich", "Bern"), 1e10)
    length = stated(first.segments[0].length_km)
    assert (length.low, length.high, length.basis) == (113.7, 142.1, Basis.ASSUMED)
    assert "great circle 94.7 km" in length.source
    assert (second.segments[0].length_km, third.ends) == (None, ("Zurich", "Bern"))
    assert first.path is PathType.UNKNOWN
    assert found.remarks == (
        "Bern: an edge to itself was left out",
        "Bern - Zurich: parallel edges became links of their own",
    )


def test_an_edge_to_no_node_is_refused() -> None:
    with pytest.raises(NotReadable, match="leads to '7', which is no node"):
        read(GRAPHML.replace(b'target="2"', b'target="7"'), "x.graphml")


def test_sndlib_in_its_three_forms() -> None:
    xml, native, json = (read(SAMPLES[f"sndlib-{form}"], "net") for form in ("xml", "native", "json"))
    assert [len(found.links) for found in (xml, native, json)] == [1, 1, 1]
    assert xml.sites["Berlin"].lon == 13.48
    assert xml.remarks == ()


@pytest.mark.parametrize("sample", [SAMPLES["sndlib-native"], SNDLIB_XML.replace(b"geographical", b"pixel")])
def test_planar_coordinates_are_no_longitude_and_latitude(sample: bytes) -> None:
    found = read(sample, "norway")
    assert all(site.lat is None and site.lon is None for site in found.sites.values())
    assert all(link.segments[0].length_km is None for link in found.links.values())
    assert "coordinates are no longitude and latitude and were left out" in found.remarks[0]


def test_pixels_that_would_pass_for_degrees_are_seen_by_the_length_of_the_links() -> None:
    nodes = [Node(str(at), "", (30.0 * at - 90, 80.0 * (-1) ** at)) for at in range(7)]
    edges = [Edge(str(at), str(at + 1)) for at in range(6)]
    assert "longer than" in flat(nodes, edges)
    assert flat(nodes, edges[:2]) == ""  # two long links may be under an ocean


def test_a_net_round_the_world_keeps_its_coordinates() -> None:
    cities = {"London": (-0.1, 51.5), "New York": (-74.0, 40.7), "Tokyo": (139.7, 35.7), "Sydney": (151.2, -33.9)}
    nodes = [Node(name, name, at) for name, at in cities.items()]
    edges = [Edge(one, other) for one in cities for other in cities if one < other]
    assert flat(nodes, edges) == ""


def test_gnpy_fibres_in_a_row_are_one_link_and_both_directions_are_one() -> None:
    found = read(SAMPLES["gnpy"], "net.json")
    assert list(found.sites) == ["A", "B"]
    assert (found.sites["A"].lat, found.sites["B"].lat) == (47.0, None)  # 0, 0 is what GNPy writes for nothing
    (link,) = found.links.values()
    first, second = link.segments
    assert (link.ends, first.medium) == (("A", "B"), Medium.LIT_FIBRE)
    assert (stated(first.length_km).likely, stated(first.loss_db).likely) == (30.0, 6.75)
    assert (stated(second.length_km).likely, second.loss_db) == (12.0, None)  # its connectors are not stated
    assert "1 amplifiers on the way" in found.remarks[0]


def test_gnpy_in_its_yang_form_has_numbers_as_text() -> None:
    fibre = GNPY["elements"][3] | {"params": {"length": "30.0", "length_units": "km", "loss_coef": "0.2"}}
    net = {"elements": [*GNPY["elements"][:3], fibre, *GNPY["elements"][4:]], "connections": GNPY["connections"]}
    assert len(read(js({"gnpy-network-topology:topology": net}), "yang.json").links) == 1


def test_csv_cells_left_empty_are_unknown() -> None:
    found = read(SAMPLES["csv"], "links.csv")
    vault, other = found.links["vault"], found.links["Basel--Bern"]
    segment = vault.segments[0]
    assert (segment.control, vault.path, stated(vault.rate_bps).likely) == (Control.OWNED, PathType.DC_DC, 1e10)
    assert (stated(segment.length_km).low, stated(segment.length_km).high) == (40.0, 45.0)
    assert stated(segment.loss_db).basis is Basis.MEASURED
    assert vault.source.what == "links.csv, line 2"
    assert (other.segments, other.path, other.rate_bps) == ((), PathType.UNKNOWN, None)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b"length_km", b"lenght_km", "column 'lenght_km' is not known"),
        (b",Basel,Bern,", b",Basel,Basel,", "line 3: leads from Basel to itself"),
        (b"40-45", b"45-40", "line 2: length_km is '45-40'"),
        (b"40-45", b"far", "line 2: length_km is 'far', not a number"),
        (b"owned", b"ours", "line 2: control is 'ours'"),
        (b"9.1", b"-9.1", "line 2: loss_db"),
        (b"9.1", b"nan", "line 2: loss_db"),
        (b",Basel,Bern,", b",,Bern,", "line 3: has too many cells, or lacks"),
    ],
)
def test_csv_faults_are_told_with_their_line(old: bytes, new: bytes, reason: str) -> None:
    with pytest.raises(NotReadable, match=reason):
        read(CSV.replace(old, new, 1), "links.csv", "csv")


places = st.tuples(st.floats(-180, 180), st.floats(-90, 90))


@given(places, places)
@settings(deadline=None)
def test_great_circles_are_symmetric_and_no_longer_than_half_way_round(one: tuple, other: tuple) -> None:
    there, back = great_circle_km(one, other), great_circle_km(other, one)
    assert there == pytest.approx(back, abs=1e-6)
    assert 0 <= there <= math.pi * EARTH_RADIUS_KM + 1e-6
    assert great_circle_km(one, one) == pytest.approx(0, abs=1e-6)
