"""Which format a file has, by what stands in it and not by its name; and the one way to read any of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import msgspec

from keystrand.plan.imports import (
    cbom,
    gnpy,
    graphml,
    netbox,
    pqcscan,
    sndlib,
    sshaudit,
    sslyze,
    swanctl,
    table,
    testssl,
)
from keystrand.plan.imports.found import FILE_BYTES_MAX, Found, NotReadable

Reader = Callable[[bytes, str], Found]

READERS: Final[dict[str, Reader]] = {
    "cyclonedx": cbom.read,
    "sslyze": sslyze.read,
    "testssl": testssl.read,
    "ssh-audit": sshaudit.read,
    "pqcscan": pqcscan.read,
    "swanctl": swanctl.read,
    "netbox": netbox.read,
    "csv": table.read,
    "gnpy": gnpy.read,
    "graphml": graphml.read,
    "sndlib-xml": sndlib.read_xml,
    "sndlib-native": sndlib.read_native,
    "sndlib-json": sndlib.read_json,
}

# The first set of keys that a JSON table has tells its format
_TABLES: Final = (
    ("cyclonedx", {"bomFormat"}),
    ("sslyze", {"server_scan_results"}),
    ("testssl", {"scanResult"}),
    ("pqcscan", {"results", "scan_type"}),
    ("gnpy", {"elements", "connections"}),
    ("gnpy", {"gnpy-network-topology:topology"}),
    ("ssh-audit", {"kex"}),
    ("sndlib-json", {"nodes", "links"}),
    ("netbox", {"results"}),
)


def read(data: bytes, file: str, format: str = "") -> Found:  # noqa: A002  the user's word for it
    """What stands in a file. format: of READERS; empty: told by the content. Raises NotReadable with the reason."""
    if len(data) > FILE_BYTES_MAX:
        raise NotReadable(f"{len(data)} bytes; no more than {FILE_BYTES_MAX} are read")
    found = READERS[format or detect(data)](data, file)
    if not found.count and not found.remarks:
        raise NotReadable(f"a file of {found.format} in which there is nothing to plan with")
    return found


def detect(data: bytes) -> str:
    """Raises NotReadable where it is none of ours."""
    head = data.lstrip(b"\xef\xbb\xbf \t\r\n")
    if head[:1] in (b"{", b"["):
        return _json(data)
    if head[:1] == b"<":
        return _xml(head[:4096])
    words = data.decode("utf-8", "replace")
    if "SNDlib native format" in words[:200] and "type: network" in words[:200]:
        return "sndlib-native"
    if re.search(r"^\s*connections\s*\{", words, re.MULTILINE):
        return "swanctl"
    first = words.partition("\n")[0]
    if "," in first and {"from", "to"} <= {cell.strip(' "\r\ufeff') for cell in first.split(",")}:
        return "csv"
    raise _unknown("neither JSON, XML, SNDlib, swanctl.conf nor CSV with the columns from and to")


def _json(data: bytes) -> str:
    try:
        value: Any = msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise NotReadable(f"not JSON: {error}") from None
    if isinstance(value, list):
        first = value[0] if value and isinstance(value[0], dict) else {}
        if {"id", "finding"} <= first.keys():
            return "testssl"
        if "kex" in first:
            return "ssh-audit"
        raise _unknown("a JSON list of nothing that is known here")
    keys = value.keys()
    for name, wanted in _TABLES:
        if wanted <= keys:
            return name
    if keys & set(netbox.KINDS):
        return "netbox"
    raise _unknown(f"a JSON table with {', '.join(sorted(keys)[:6]) or 'nothing in it'}")


def _xml(head: bytes) -> str:
    root = re.search(
        rb"<(?:[\w.-]+:)?([A-Za-z][\w.-]*)", re.sub(rb"<!--.*?-->|<[?].*?[?]>", b"", head, flags=re.DOTALL)
    )
    kinds = {b"graphml": "graphml", b"network": "sndlib-xml"}
    if root is None or root[1] not in kinds:
        raise _unknown(f"XML with <{root[1].decode(errors='replace') if root else '?'}>")
    return kinds[root[1]]


def _unknown(what: str) -> NotReadable:
    return NotReadable(f"no format that is known here: {what}", hint=f"read: {', '.join(READERS)}; or say --format")
