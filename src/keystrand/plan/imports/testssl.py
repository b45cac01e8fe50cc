"""JSON of testssl.sh, flat (`--jsonfile`) or pretty (`--jsonfile-pretty`): findings by id, of which a few are facts of ours.

It probes hybrid groups itself since 3.2 (`FS_KEMs`); before, what it does not list was not looked for.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from keystrand.plan.estate import Certificate, Family, Protocol
from keystrand.plan.fact import Answer, Source
from keystrand.plan.imports.found import Found, Names, NotReadable, day, decode, shortened

_VERSIONS: Final = {"TLS1_3": "1.3", "TLS1_2": "1.2", "TLS1_1": "1.1", "TLS1": "1.0"}
_GROUPS: Final = ("FS_KEMs", "FS_ECDHE_curves")
_NOTHING: Final = re.compile(r"^\s*(--|none|no |not |$)", re.IGNORECASE)
_FIELD: Final = re.compile(r"ffdhe\d+")


class _Finding(msgspec.Struct):
    id: str
    finding: str = ""
    ip: str = ""
    port: str = ""


class _Target(msgspec.Struct):
    findings: dict[str, str]


class _Head(msgspec.Struct):
    scan_result: list[dict[str, Any]] = msgspec.field(name="scanResult")
    version: str = ""
    start_time: str = msgspec.field(default="", name="startTime")


def read(data: bytes, file: str) -> Found:
    """Raises NotReadable."""
    if data.lstrip()[:1] == b"[":
        targets = _flat(decode(data, list[_Finding], "a flat report of testssl.sh"))
        return _found(targets, Source(what=file, tool="testssl.sh"))
    head = decode(data, _Head, "a report of testssl.sh")
    source = Source(what=file, tool="testssl.sh", version=head.version, dated=day(head.start_time))
    return _found(dict(_pretty(target) for target in head.scan_result), source)


def _flat(findings: list[_Finding]) -> dict[str, dict[str, str]]:
    """Findings of each target by id; those of the run itself belong to none."""
    targets: dict[str, dict[str, str]] = {}
    for each in findings:
        host = each.ip.partition("/")[0]
        if host and each.port:
            targets.setdefault(f"{host}:{each.port}", {})[each.id] = each.finding
    if not targets:
        raise NotReadable("a report of testssl.sh without a finding about a target")
    return targets


def _pretty(target: dict[str, Any]) -> tuple[str, dict[str, str]]:
    host, port = target.get("targetHost") or target.get("ip"), target.get("port")
    if not isinstance(host, str) or not isinstance(port, str | int):
        raise NotReadable("a report of testssl.sh with a target that has no host and port")
    rows = [row for part in target.values() if isinstance(part, list) for row in part if isinstance(row, dict)]
    found = {str(row["id"]): str(row.get("finding", "")) for row in rows if "id" in row}
    return f"{host}:{port}", found


def _found(targets: dict[str, dict[str, str]], source: Source) -> Found:
    names, remarks = Names(), []
    endpoints, certificates = {}, {}
    for at, found in targets.items():
        if "FS_KEMs" not in found:
            remarks.append(f"{at}: no finding about KEM groups; key exchange stays unknown")
        endpoints[names.of(at, at)] = _protocol(at, found, source)
        if signature := _of_first(found, "cert_signatureAlgorithm"):
            certificates[names.of(("certificate", at), f"{at}-certificate")] = Certificate(
                subject=_of_first(found, "cert_commonName"),
                issuer=_of_first(found, "cert_caIssuers"),
                signature=signature,
                public_key=_of_first(found, "cert_keySize").partition("(")[0].strip(),
                expires=day(_of_first(found, "cert_notAfter")),
                fingerprint=_of_first(found, "cert_fingerprintSHA256"),
                used_at=at,
                source=source,
            )
    return Found("testssl", endpoints=endpoints, certificates=certificates, remarks=shortened(remarks))


def _protocol(at: str, found: dict[str, str], source: Source) -> Protocol:
    version = next((word for key, word in _VERSIONS.items() if found.get(key, "").startswith("offered")), "")
    refused = "TLS1_3" in found and not found["TLS1_3"].startswith("offered")
    return Protocol(
        name=Family.TLS,
        version=version,
        cipher=found.get("cipher_negotiated", "").partition(",")[0],
        supported=_groups(found) if "FS_KEMs" in found else None,
        pqc=Answer.NOT_APPLICABLE if refused else Answer.UNKNOWN,
        signature=_of_first(found, "cert_signatureAlgorithm"),
        certificate_expires=day(_of_first(found, "cert_notAfter")),
        endpoint=at,
        source=source,
    )


def _groups(found: dict[str, str]) -> tuple[str, ...]:
    """All groups that the end accepts; "--" and "No ..." are testssl's words for none."""
    lists = (found.get(key, "") for key in _GROUPS)
    groups = [group for words in lists if not _NOTHING.match(words) for group in words.split()]
    if words := found.get("DH_groups", ""):
        groups += _FIELD.findall(words) or ["diffie-hellman"]  # a group of the server's own has no name
    return tuple(groups)


def _of_first(found: dict[str, str], key: str) -> str:
    """Of the only certificate, or of the first of several."""
    return found.get(key) or found.get(f"{key} <cert#1>") or ""
