"""JSON of ssh-audit: one target, or a list of them. It lists what a server supports; what is negotiated is not in it."""

from __future__ import annotations

import msgspec

from keystrand.plan.estate import Family, Protocol
from keystrand.plan.fact import Source
from keystrand.plan.imports.found import Found, Names, NotReadable, decode


class _Algorithm(msgspec.Struct):
    algorithm: str


class _Banner(msgspec.Struct):
    raw: str | None = None
    protocol: str | float | None = None
    software: str | None = None


class _Target(msgspec.Struct):
    kex: list[_Algorithm] | None = None
    key: list[_Algorithm] | None = None
    enc: list[_Algorithm] | None = None
    banner: _Banner | None = None
    target: str = ""


def read(data: bytes, file: str) -> Found:
    """Raises NotReadable."""
    several = data.lstrip()[:1] == b"["
    targets = decode(data, list[_Target], "ssh-audit") if several else [decode(data, _Target, "ssh-audit")]
    source, names = Source(what=file, tool="ssh-audit"), Names()
    endpoints = {}
    for place, each in enumerate(targets):
        if each.kex is None and each.key is None:
            raise NotReadable("not a report of ssh-audit: neither kex nor key")
        at = each.target or f"ssh-{place + 1}"
        keys = [key.algorithm for key in each.key or ()]
        endpoints[names.of((at, place), at)] = Protocol(
            name=Family.SSH,
            version=str(each.banner.protocol or "") if each.banner else "",
            cipher=each.enc[0].algorithm if each.enc else "",
            supported=tuple(kex.algorithm for kex in each.kex if not is_extension(kex.algorithm))
            if each.kex is not None
            else None,
            signature=", ".join(keys),
            endpoint=at,
            source=source,
        )
    return Found("ssh-audit", endpoints=endpoints)


def is_extension(name: str) -> bool:
    """Marks in the list of key exchanges that are none (RFC 8308, OpenSSH's strict KEX)."""
    return name.startswith(("ext-info-", "kex-strict-"))
