"""The SDN controller's view of a node: names, types and encodings of the model, spelt out here once more."""

from __future__ import annotations

import json
import re
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keystrand.wire import etsi015 as wire
from keystrand.wire.etsi015 import (
    Application,
    AppStatus,
    AppType,
    Interface,
    InterfaceStatus,
    Link,
    LinkStatus,
    LinkType,
    Node,
    NodeStatus,
    Role,
    entity_id,
)

LAB, PAIR, HERE, THERE = (
    entity_id("link", "lab"),
    entity_id("pair", "a/b"),
    entity_id("kme", "a"),
    entity_id("kme", "b"),
)
UINT32 = range(2**32)
UUID_TEXT = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
DECIMAL = re.compile(r"-?\d+\.\d{3}")
URI = re.compile(r"[a-z]+:\S+")
TEXT = re.compile(r".*", re.DOTALL)


def one_of(words: str) -> re.Pattern[str]:
    return re.compile("etsi-qkd-node-types:(" + "|".join(words.split()) + ")")


END = {"qkdn_id": UUID_TEXT, "qkdi_id": UINT32}
MODEL: dict[str, Any] = {
    "qkdn_id": UUID_TEXT,
    "qkdn_status": one_of("NEW OPERATING DOWN FAILURE OUT"),
    "qkdn_version": TEXT,
    "qkdn_location_id": TEXT,
    "qkdn_capabilities": {
        "link_stats_support": bool,
        "application_stats_support": bool,
        "key_relay_mode_enable": bool,
    },
    "qkd_applications": {
        "qkd_app": [
            {
                "app_id": UUID_TEXT,
                "app_status": one_of("ON DISCONNECTED OUT-OF-TIME ZOMBIE"),
                "app_type": one_of("CLIENT INTERNAL"),
                "server_app_id": URI,
                "client_app_id": [URI],
                "app_priority": UINT32,
                "creation_time": DATE,
                "expiration_time": DATE,
                "app_statistics": {"statistics": [{"end_time": DATE, "start_time": DATE, "consumed_bits": UINT32}]},
                "app_qos": {"max_bandwidth": UINT32, "min_bandwidth": UINT32, "jitter": UINT32, "ttl": UINT32},
                "backing_qkdl_id": [UUID_TEXT],
                "local_qkdn_id": UUID_TEXT,
                "remote_qkdn_id": UUID_TEXT,
            }
        ]
    },
    "qkd_interfaces": {
        "qkd_interface": [
            {
                "qkdi_id": UINT32,
                "qkdi_model": TEXT,
                "qkdi_type": one_of("CV-QKD DV-QKD DV-QKD-COW DV-QKD-2Ws"),
                "qkdi_status": one_of("ENABLED DISABLED FAILED"),
                "qkdi_capabilities": {
                    "role_support": one_of("TRANSMITTER RECEIVER TRANSCEIVER"),
                    "max_absorption": DECIMAL,
                },
            }
        ]
    },
    "qkd_links": {
        "qkd_link": [
            {
                "qkdl_id": UUID_TEXT,
                "qkdl_status": one_of("ACTIVE PASSIVE PENDING OFF"),
                "qkdl_enable": bool,
                "qkdl_local": END,
                "qkdl_remote": END,
                "qkdl_type": one_of("VIRT PHYS"),
                "qkdl_applications": [UUID_TEXT],
                "qkdl_performance": {"expected_consumption": UINT32, "skr": UINT32, "eskr": UINT32},
            }
        ]
    },
}


def check(value: Any, model: Any, place: str = "") -> None:
    if isinstance(model, dict):
        assert set(value) <= set(model), place
        for name, inner in value.items():
            check(inner, model[name], f"{place}/{name}")
    elif isinstance(model, list):
        assert isinstance(value, list), place
        for inner in value:
            check(inner, model[0], place)
    elif isinstance(model, range):
        assert type(value) is int, place
        assert value in model, place
    elif isinstance(model, re.Pattern):
        assert isinstance(value, str), place
        assert model.fullmatch(value), (place, value)
    else:
        assert type(value) is model, place


NODE = Node(
    node_id=HERE,
    status=NodeStatus.OPERATING,
    version="0.1.0",
    location="Vienna",
    interfaces=(
        Interface(number=0, status=InterfaceStatus.ENABLED, role=Role.TRANSMITTER, absorption_db_max=24.5),
        Interface(number=1, status=InterfaceStatus.FAILED, model="vendor/device"),
    ),
    links=(
        Link(
            link_id=LAB,
            status=LinkStatus.ACTIVE,
            remote_node=THERE,
            local_interface=0,
            applications=(PAIR,),
            skr_bps=9.6,
        ),
        Link(link_id=entity_id("link", "far"), status=LinkStatus.OFF, remote_node=THERE, type=LinkType.VIRT),
    ),
    applications=(
        Application(
            app_id=PAIR,
            server="urn:keystrand:sae:a",
            clients=("urn:keystrand:sae:b",),
            min_bps=100,
            created_s=1.8e9,
            links=(LAB,),
            remote_node=THERE,
            consumed=((1.8e9, 1.8e9 + 60, 2**40),),
        ),
    ),
)
FIGURES = st.none() | st.floats(min_value=-1e18, max_value=1e18)
LINKS = st.builds(
    Link,
    link_id=st.uuids(),
    status=st.sampled_from(LinkStatus),
    remote_node=st.uuids(),
    type=st.sampled_from(LinkType),
    local_interface=st.none() | st.integers(0, 9),
    applications=st.lists(st.uuids(), max_size=2).map(tuple),
    skr_bps=FIGURES,
    eskr_bps=FIGURES,
    consumption_bps=FIGURES,
)
APPS = st.builds(
    Application,
    app_id=st.uuids(),
    server=st.just("urn:keystrand:sae:a"),
    clients=st.just(("urn:keystrand:sae:b",)),
    status=st.sampled_from(AppStatus),
    type=st.sampled_from(AppType),
    min_bps=st.none() | st.integers(0, 2**40),
    created_s=st.none() | st.floats(0, 4e9),
)
NODES = st.builds(
    Node,
    node_id=st.uuids(),
    status=st.sampled_from(NodeStatus),
    version=st.text(max_size=8),
    links=st.lists(LINKS, max_size=3).map(tuple),
    applications=st.lists(APPS, max_size=2).map(tuple),
)


@settings(max_examples=150, derandomize=True)
@given(NODES | st.just(NODE))
def test_every_node_has_the_names_and_types_of_the_model(node: Node) -> None:
    check(json.loads(json.dumps(wire.tree(node))), MODEL)


def test_node_to_the_letter_where_it_matters() -> None:
    tree = wire.tree(NODE)
    assert tree["qkdn_status"] == "etsi-qkd-node-types:OPERATING"
    assert tree["qkd_interfaces"]["qkd_interface"][0]["qkdi_capabilities"]["max_absorption"] == "24.500"
    assert tree["qkd_links"]["qkd_link"][0]["qkdl_performance"] == {"skr": 10}
    assert tree["qkd_applications"]["qkd_app"][0]["app_statistics"]["statistics"][0] == {
        "end_time": "2027-01-15T08:01:00Z",
        "start_time": "2027-01-15T08:00:00Z",
        "consumed_bits": 2**32 - 1,
    }


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (["qkdn_id"], {"etsi-qkd-sdn-node:qkdn_id": str(HERE)}),
        (["etsi-qkd-sdn-node:qkdn_version"], {"etsi-qkd-sdn-node:qkdn_version": "0.1.0"}),
        (["qkd_links", f"qkd_link={LAB}", "qkdl_enable"], {"etsi-qkd-sdn-node:qkdl_enable": True}),
        (
            ["qkd_links", f"qkd_link={LAB}", f"qkdl_applications={PAIR}"],
            {"etsi-qkd-sdn-node:qkdl_applications": [str(PAIR)]},
        ),
        (["qkd_links", f"qkd_link={HERE}"], None),
        (["qkd_links=x"], None),
        (["qkdn_id", "deeper"], None),
        (["nothing"], None),
        (["qkd_interfaces", "qkd_interface=7"], None),
    ],
)
def test_every_place_of_the_tree_can_be_asked_for(steps: list[str], expected: object) -> None:
    assert wire.resource(NODE, steps) == expected


def test_entry_of_a_list_comes_as_a_list_of_one() -> None:
    found = wire.resource(NODE, ["qkd_interfaces", "qkd_interface=1"])
    assert found is not None
    assert [row["qkdi_model"] for row in found["etsi-qkd-sdn-node:qkd_interface"]] == ["vendor/device"]


def test_both_ends_name_one_link_alike() -> None:
    assert entity_id("link", "lab") == entity_id("link", "lab") != entity_id("kme", "lab")
    assert isinstance(LAB, UUID)
