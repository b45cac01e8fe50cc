"""Notifications of ETSI GS QKD 015 V2.1.1: what changed between two pictures of a node, as RFC 8040 (6.4) spells it in JSON.

Links, modules and applications that come, go, fail or change their terms. Performance is told where a rate doubled or halved,
overload where more was promised than is made. No I/O.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final

from keystrand.wire.etsi015 import (
    MODULE,
    Application,
    Interface,
    InterfaceStatus,
    Link,
    LinkStatus,
    Node,
    Tree,
    application_terms,
    date_of,
    identity_of,
    interface_tree,
    performance,
)

MAJOR: Final = "MAJOR"
MINOR: Final = "MINOR"
News = tuple[str, Tree]  # name of the notification, its content
_DOWN: Final = frozenset({LinkStatus.PASSIVE, LinkStatus.OFF})


def notification(news: News, at_s: float) -> dict[str, Any]:
    """One message of the stream; at_s: Unix seconds."""
    name, content = news
    return {"ietf-restconf:notification": {"eventTime": date_of(at_s), f"{MODULE}:{name}": content}}


def changes(before: Node, after: Node) -> Iterator[News]:
    """In a fixed order: modules, links, applications."""
    old_interfaces = {interface.number: interface for interface in before.interfaces}
    for interface in after.interfaces:
        yield from _interface(old_interfaces.pop(interface.number, None), interface)
    for number in old_interfaces:
        yield "sdqkdn_interface_out", {"qkd_interface": {"qkdi_id": number}}
    old_links = {link.link_id: link for link in before.links}
    for link in after.links:
        yield from _link(old_links.get(link.link_id), link)
    old_apps = {app.app_id: app for app in before.applications}
    for app in after.applications:
        yield from _application(after, old_apps.pop(app.app_id, None), app)
    for app_id in old_apps:
        yield "sdqkdn_application_disconnected", {"qkd_application": {"app_id": str(app_id)}}


def _interface(before: Interface | None, after: Interface) -> Iterator[News]:
    if before is None:
        content = interface_tree(after)
        content.pop("qkdi_status", None)  # not in the notification's grouping
        yield "sdqkdn_interface_new", {"qkd_interface": content}
    elif before.status is InterfaceStatus.ENABLED is not after.status:
        content = {"qkdi_id": after.number, "reason": f"the module is {after.status.value.lower()}"}
        yield "sdqkdn_interface_down", {"qkd_interface": content}


def _link(before: Link | None, after: Link) -> Iterator[News]:
    was = before.status if before is not None else LinkStatus.PENDING
    link_id = str(after.link_id)
    if was is LinkStatus.ACTIVE and after.status in _DOWN:
        left = "keys are left in its pool" if after.status is LinkStatus.PASSIVE else "its pool is empty"
        yield "sdqkdn_link_down", {"qkd_link": {"qkdl_id": link_id, "reason": f"no key is made; {left}"}}
    elif after.status is LinkStatus.OFF is not was:
        yield "alarm", {"link": _told(after, "its pool is empty", MAJOR)}
    elif after.status is not was:
        yield "event", {"link": _told(after, f"it was {was.value}", MINOR)}
    if before is not None and before.enabled is not after.enabled:
        yield "event", {"link": _told(after, "enabled" if after.enabled else "disabled", MINOR)}
    if before is not None and after.status is LinkStatus.ACTIVE and _scale(before.skr_bps) != _scale(after.skr_bps):
        yield "sdqkdn_link_perf_update", {"qkd_link": {"qkdl_id": link_id, "performance": performance(after)}}
    if _is_overloaded(after) and not (before is not None and _is_overloaded(before)):
        yield "sdqkdn_link_overloaded", {"qkd_link": {"qkdl_id": link_id, "performance": performance(after)}}


def _told(link: Link, message: str, severity: str) -> Tree:
    return {
        "qkdl_id": str(link.link_id),
        "qkdl_status": identity_of(link.status),
        "message": message,
        "severity": identity_of(severity),
    }


def _scale(rate_bps: float | None) -> int:
    """Equal for rates within a factor of two, about."""
    return round(math.log2(rate_bps)) if rate_bps and rate_bps >= 1 else 0


def _is_overloaded(link: Link) -> bool:
    return bool(link.skr_bps is not None and (link.consumption_bps or 0) > link.skr_bps)


def _application(node: Node, before: Application | None, after: Application) -> Iterator[News]:
    terms = application_terms(after)
    if before is None:
        details = {"local_qkdn_id": str(node.node_id), **terms}
        yield "sdqkdn_application_new", {"qkd_application": details}
    elif application_terms(before) != terms:
        content = {"app_id": str(after.app_id), "app_priority": terms["app_priority"]}
        content |= {"app_qos": terms["app_qos"]} if "app_qos" in terms else {}
        yield "sdqkdn_application_qos_update", {"qkd_application": content}
