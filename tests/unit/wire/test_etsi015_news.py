"""What a controller is told when a node changes: names and contents of the model's notifications."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from test_etsi015 import HERE, LAB, MODEL, NODE, NODES, PAIR, check

from keystrand.wire.etsi015 import Application, InterfaceStatus, Link, LinkStatus, Node, entity_id
from keystrand.wire.etsi015_news import changes, notification

LINK = Link(link_id=LAB, status=LinkStatus.ACTIVE, remote_node=entity_id("kme", "b"), skr_bps=1000.0)
LISTED = {
    "sdqkdn_application_new",
    "sdqkdn_application_qos_update",
    "sdqkdn_application_disconnected",
    "sdqkdn_interface_new",
    "sdqkdn_interface_down",
    "sdqkdn_interface_out",
    "sdqkdn_link_down",
    "sdqkdn_link_perf_update",
    "sdqkdn_link_overloaded",
    "alarm",
    "event",
}


def told(before: Link, after: Link) -> list[tuple[str, object]]:
    one, other = (replace(NODE, links=(link,)) for link in (before, after))
    return list(changes(one, other))


@pytest.mark.proves("R088")
def test_a_link_that_stops_is_told_with_what_is_left() -> None:
    ((name, content),) = told(LINK, replace(LINK, status=LinkStatus.PASSIVE))
    assert name == "sdqkdn_link_down"
    assert content == {"qkd_link": {"qkdl_id": str(LAB), "reason": "no key is made; keys are left in its pool"}}
    ((name, alarm),) = told(replace(LINK, status=LinkStatus.PASSIVE), replace(LINK, status=LinkStatus.OFF))
    assert name == "alarm"
    assert alarm["link"]["severity"] == "etsi-qkd-node-types:MAJOR"  # type: ignore[index]
    assert [name for name, _ in told(replace(LINK, status=LinkStatus.OFF), LINK)] == ["event"]


def test_performance_is_told_by_factors_of_two_and_overload_once() -> None:
    assert told(LINK, replace(LINK, skr_bps=1100.0)) == []
    ((name, content),) = told(LINK, replace(LINK, skr_bps=4000.0))
    assert (name, content["qkd_link"]["performance"]) == ("sdqkdn_link_perf_update", {"skr": 4000})  # type: ignore[index]
    busy = replace(LINK, consumption_bps=2000.0)
    assert [name for name, _ in told(LINK, busy)] == ["sdqkdn_link_overloaded"]
    assert told(busy, replace(busy, consumption_bps=3000.0)) == []


def test_a_hop_that_is_disabled_is_told() -> None:
    ((name, content),) = told(LINK, replace(LINK, enabled=False))
    assert (name, content["link"]["message"]) == ("event", "disabled")  # type: ignore[index]


def test_modules_and_applications_come_change_and_go() -> None:
    interface = NODE.interfaces[0]
    bare = replace(NODE, interfaces=(), applications=())
    app = Application(app_id=PAIR, server="urn:keystrand:sae:a", clients=("urn:keystrand:sae:b",), min_bps=5)
    full = replace(bare, interfaces=(replace(interface, status=InterfaceStatus.ENABLED),), applications=(app,))
    told = dict(changes(bare, full))
    assert told["sdqkdn_application_new"]["qkd_application"]["local_qkdn_id"] == str(NODE.node_id)
    assert told["sdqkdn_application_new"]["qkd_application"]["app_qos"] == {"min_bandwidth": 5}
    assert "qkdi_status" not in told["sdqkdn_interface_new"]["qkd_interface"]
    worse = replace(full, interfaces=(replace(interface, status=InterfaceStatus.FAILED),))
    other = replace(worse, applications=(replace(app, min_bps=9),))
    assert [name for name, _ in changes(full, other)] == ["sdqkdn_interface_down", "sdqkdn_application_qos_update"]
    assert [name for name, _ in changes(full, bare)] == ["sdqkdn_interface_out", "sdqkdn_application_disconnected"]


@settings(max_examples=100, derandomize=True)
@given(NODES, NODES)
def test_every_notification_is_one_of_the_model(before: Node, after: Node) -> None:
    for news in changes(before, after):
        message = notification(news, 1_800_000_000.0)["ietf-restconf:notification"]
        assert message.pop("eventTime") == "2027-01-15T08:00:00Z"
        ((name, content),) = message.items()
        assert name.removeprefix("etsi-qkd-sdn-node:") in LISTED
        if app := content.get("qkd_application"):
            model = MODEL["qkd_applications"]["qkd_app"][0]
            check(app, {key: model[key] for key in app})
        if link := content.get("qkd_link"):
            assert set(link) <= {"qkdl_id", "reason", "performance"}
            check(link.get("performance", {}), MODEL["qkd_links"]["qkd_link"][0]["qkdl_performance"])
    assert list(changes(after, after)) == []
    assert HERE
