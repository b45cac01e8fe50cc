"""ETSI GS QKD 015 V2.1.1: a node as its SDN controller sees it, printed as RFC 7951 JSON of module etsi-qkd-sdn-node. No I/O.

A value that is not known is left out. What has a `when` on the type of its link
(attenuation, wavelength, role, hops, QBER) is left out, too: the model compares an identity without prefix there, which
libyang takes for true and yangson for false, so that the latter refuses the data.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final
from uuid import NAMESPACE_URL, UUID, uuid5

from keystrand.core.identity import URN

MODULE: Final = "etsi-qkd-sdn-node"
TYPES: Final = "etsi-qkd-node-types"
ROOT: Final = f"{MODULE}:qkd_node"
UINT32_MAX: Final = 2**32 - 1
KEYS: Final = {"qkd_app": "app_id", "qkd_interface": "qkdi_id", "qkd_link": "qkdl_id", "statistics": "end_time"}

Tree = dict[str, Any]


class NodeStatus(StrEnum):
    NEW = "NEW"
    OPERATING = "OPERATING"
    DOWN = "DOWN"
    FAILURE = "FAILURE"
    OUT = "OUT"


class LinkStatus(StrEnum):
    """ACTIVE: key is made. PASSIVE: none is made, but some is left. PENDING: none yet. OFF: none."""

    ACTIVE = "ACTIVE"
    PASSIVE = "PASSIVE"
    PENDING = "PENDING"
    OFF = "OFF"


class LinkType(StrEnum):
    VIRT = "VIRT"
    PHYS = "PHYS"


class Role(StrEnum):
    TRANSMITTER = "TRANSMITTER"
    RECEIVER = "RECEIVER"
    TRANSCEIVER = "TRANSCEIVER"


class InterfaceStatus(StrEnum):
    ENABLED = "ENABLED"
    DISABLED = "DISABLED"
    FAILED = "FAILED"


class AppType(StrEnum):
    CLIENT = "CLIENT"
    INTERNAL = "INTERNAL"


class AppStatus(StrEnum):
    ON = "ON"
    DISCONNECTED = "DISCONNECTED"
    OUT_OF_TIME = "OUT-OF-TIME"
    ZOMBIE = "ZOMBIE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """One QKD module. model: vendor and device."""

    number: int
    status: InterfaceStatus
    model: str = ""
    technology: str = "DV-QKD"
    role: Role | None = None
    absorption_db_max: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One key association. skr_bps: made; eskr_bps: left after internal use; consumption_bps: promised to applications."""

    link_id: UUID
    status: LinkStatus
    remote_node: UUID
    type: LinkType = LinkType.PHYS
    local_interface: int | None = None
    remote_interface: int | None = None
    applications: tuple[UUID, ...] = ()
    skr_bps: float | None = None
    eskr_bps: float | None = None
    enabled: bool = True
    consumption_bps: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """SAEs that share keys: `server` began it, `clients` may have them, too; all are URIs. Times in Unix seconds."""

    app_id: UUID
    server: str
    clients: tuple[str, ...]
    status: AppStatus = AppStatus.ON
    type: AppType = AppType.CLIENT
    priority: int = 0
    max_bps: int | None = None
    min_bps: int | None = None
    jitter_ms: int | None = None
    ttl_s: int | None = None
    created_s: float | None = None
    expires_s: float | None = None
    links: tuple[UUID, ...] = ()
    remote_node: UUID | None = None
    consumed: tuple[tuple[float, float, int], ...] = ()  # from, to, bits


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One site."""

    node_id: UUID
    status: NodeStatus
    version: str
    location: str = ""
    has_relay: bool = False
    interfaces: tuple[Interface, ...] = ()
    links: tuple[Link, ...] = ()
    applications: tuple[Application, ...] = ()


def entity_id(kind: str, name: str) -> UUID:
    """The UUID of what has another name here: both ends of a link and their controller come to the same (RFC 9562, v5)."""
    return uuid5(NAMESPACE_URL, f"{URN}{kind}:{name}")


# the tree ------------------------------------------------------------------------------------------------------------


def tree(node: Node) -> Tree:
    """The content of the container qkd_node."""
    return _known(
        qkdn_id=str(node.node_id),
        qkdn_status=identity_of(node.status),
        qkdn_version=node.version,
        qkdn_location_id=node.location,
        qkdn_capabilities={
            "link_stats_support": True,
            "application_stats_support": True,
            "key_relay_mode_enable": node.has_relay,
        },
        qkd_applications={"qkd_app": [_application(app, node.node_id) for app in node.applications]},
        qkd_interfaces={"qkd_interface": [interface_tree(interface) for interface in node.interfaces]},
        qkd_links={"qkd_link": [_link(link, node.node_id) for link in node.links]},
    )


def interface_tree(interface: Interface) -> Tree:
    """One entry of qkd_interface."""
    return _known(
        qkdi_id=interface.number,
        qkdi_model=interface.model or None,
        qkdi_type=identity_of(interface.technology),
        qkdi_status=identity_of(interface.status),
        qkdi_capabilities=_known(
            role_support=identity_of(interface.role),
            max_absorption=_decimal3(interface.absorption_db_max),
        ),
    )


def _link(link: Link, local: UUID) -> Tree:
    is_virtual = link.type is LinkType.VIRT
    return _known(
        qkdl_id=str(link.link_id),
        qkdl_status=identity_of(link.status),
        qkdl_enable=link.enabled,
        qkdl_local=_known(qkdn_id=str(local), qkdi_id=None if is_virtual else link.local_interface),
        qkdl_remote=_known(qkdn_id=str(link.remote_node), qkdi_id=None if is_virtual else link.remote_interface),
        qkdl_type=identity_of(link.type),
        qkdl_applications=[str(app) for app in link.applications],
        qkdl_performance=performance(link),
    )


def performance(link: Link) -> Tree:
    """Rates of a link, in bits per second."""
    return _known(
        expected_consumption=_uint32(link.consumption_bps), skr=_uint32(link.skr_bps), eskr=_uint32(link.eskr_bps)
    )


def _application(app: Application, local: UUID) -> Tree:
    return _known(
        app_id=str(app.app_id),
        app_status=identity_of(app.status),
        **application_terms(app),
        creation_time=date_of(app.created_s),
        expiration_time=date_of(app.expires_s),
        app_statistics={
            "statistics": [
                {"end_time": date_of(end_s), "start_time": date_of(start_s), "consumed_bits": _uint32(bits)}
                for start_s, end_s, bits in app.consumed
            ]
        },
        backing_qkdl_id=[str(link) for link in app.links],
        local_qkdn_id=str(local),
        remote_qkdn_id=str(app.remote_node) if app.remote_node else None,
    )


def application_terms(app: Application) -> Tree:
    """Who shares keys, and on which terms."""
    return _known(
        app_type=identity_of(app.type),
        server_app_id=app.server,
        client_app_id=list(app.clients),
        app_priority=_uint32(app.priority),
        app_qos=_known(
            max_bandwidth=_uint32(app.max_bps),
            min_bandwidth=_uint32(app.min_bps),
            jitter=_uint32(app.jitter_ms),
            ttl=_uint32(app.ttl_s),
        ),
    )


def _known(**members: object) -> Tree:
    return {name: value for name, value in members.items() if value is not None and value != {} and value != []}


def identity_of(word: str | None) -> str | None:
    """An identity of the types module, by its name there."""
    return f"{TYPES}:{word}" if word is not None else None


def _uint32(value: float | None) -> int | None:
    return None if value is None else min(max(0, round(value)), UINT32_MAX)


def _decimal3(value: float | None) -> str | None:
    return None if value is None else f"{value:.3f}"  # RFC 7951, 6.1: decimal64 is a string


def date_of(at_s: float | None) -> str | None:
    """Unix seconds as yang:date-and-time."""
    if at_s is None:
        return None
    return datetime.datetime.fromtimestamp(at_s, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# a place in the tree -------------------------------------------------------------------------------------------------


def resource(node: Node, steps: list[str]) -> Tree | None:
    """The JSON of one data resource (RFC 8040, 3.5): steps below the root, `list=key` for an entry. None: no such one."""
    name, value = "qkd_node", tree(node)
    found: Any = value
    for step in steps:
        name, equals, key = step.partition("=")
        if name.startswith(f"{MODULE}:"):
            name = name.removeprefix(f"{MODULE}:")
        if not isinstance(found, Mapping) or name not in found:
            return None
        found = found[name]
        if not equals:
            continue
        found = _entry(found, name, key)
        if found is None:
            return None
    is_entry = bool(steps) and "=" in steps[-1]
    return {f"{MODULE}:{name}": [found] if is_entry else found}


def _entry(rows: Any, name: str, key: str) -> Any:
    if not isinstance(rows, list):
        return None
    if name in KEYS:
        return next((row for row in rows if str(row[KEYS[name]]) == key), None)
    return key if key in rows else None  # a leaf-list: its value is its key
