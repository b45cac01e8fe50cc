"""JSON of sslyze. Its scan of curves sees no hybrid group, so nothing is concluded from it about post-quantum ones;
only the plugin for post-quantum key exchange, where it ran, answers that."""

from __future__ import annotations

from base64 import b64decode
from typing import Any, Final

import msgspec

from keystrand.plan.estate import Certificate, Family, Protocol
from keystrand.plan.fact import Answer, Source
from keystrand.plan.imports.found import Found, Names, day, decode, shortened

VERSIONS: Final = ("1.3", "1.2", "1.1", "1.0")


class _Attempt(msgspec.Struct):
    status: str = ""
    result: dict[str, Any] | None = None


class _Location(msgspec.Struct):
    hostname: str
    port: int


class _Server(msgspec.Struct):
    server_location: _Location
    connectivity_status: str = ""
    scan_result: dict[str, _Attempt] | None = None


class _Report(msgspec.Struct):
    server_scan_results: list[_Server]
    sslyze_version: str = ""
    date_scans_completed: str = ""
    date_scans_started: str = ""


def read(data: bytes, file: str) -> Found:
    """Raises NotReadable."""
    report = decode(data, _Report, "a report of sslyze")
    dated = day(report.date_scans_completed or report.date_scans_started)
    source = Source(what=file, tool="sslyze", version=report.sslyze_version, dated=dated)
    names, remarks = Names(), []
    endpoints, certificates = {}, {}
    for server in report.server_scan_results:
        at = f"{server.server_location.hostname}:{server.server_location.port}"
        if server.scan_result is None:
            remarks.append(f"{at}: not reached ({server.connectivity_status or 'no result'}); all of it stays unknown")
        scan = server.scan_result or {}
        leaf = _leaf(scan)
        endpoints[names.of(at, at)] = _protocol(at, scan, leaf, source)
        if leaf:
            certificates[names.of(("certificate", at), f"{at}-certificate")] = _certificate(at, leaf, source)
        if _result(scan, "elliptic_curves") is not None and _quantum(scan) is Answer.UNKNOWN:
            remarks.append(f"{at}: this sslyze cannot see post-quantum groups; key exchange stays unknown")
    return Found("sslyze", endpoints=endpoints, certificates=certificates, remarks=shortened(remarks))


def _result(scan: dict[str, _Attempt], name: str) -> dict[str, Any] | None:
    """None where it was not scheduled or failed: not looked at."""
    attempt = scan.get(name)
    return attempt.result if attempt is not None and attempt.status == "COMPLETED" else None


def _protocol(at: str, scan: dict[str, _Attempt], leaf: dict[str, Any], source: Source) -> Protocol:
    version, cipher = _best(scan)
    return Protocol(
        name=Family.TLS,
        version=version,
        cipher=cipher,
        supported=_supported(scan),
        pqc=_quantum(scan),
        signature=_signed_by(leaf),
        certificate_expires=day(_text(leaf.get("not_valid_after_utc") or leaf.get("not_valid_after"))),
        endpoint=at,
        source=source,
    )


def _best(scan: dict[str, _Attempt]) -> tuple[str, str]:
    """The highest version with an accepted suite, and its first suite."""
    for version in VERSIONS:
        result = _result(scan, f"tls_{version.replace('.', '_')}_cipher_suites") or {}
        for suite in _list(result.get("accepted_cipher_suites")):
            inner = suite.get("cipher_suite")
            return version, _text(inner.get("name")) if isinstance(inner, dict) else ""
    return "", ""


def _quantum(scan: dict[str, _Attempt]) -> Answer:
    """What the plugin for post-quantum key exchange says, if it ran: null groups mean that TLS 1.3 is not spoken, so that the
    question does not apply. Without it only the refusal of TLS 1.3 tells anything."""
    if (result := _result(scan, "pq_key_exchange")) is not None:
        if result.get("supported_pq_groups") is None:
            return Answer.NOT_APPLICABLE
        told = result.get("supports_pq_key_exchange")
        return Answer.UNKNOWN if told is None else Answer.YES if told else Answer.NO
    suites = _result(scan, "tls_1_3_cipher_suites")
    if suites is not None and suites.get("is_tls_version_supported") is False:
        return Answer.NOT_APPLICABLE
    return Answer.UNKNOWN


def _supported(scan: dict[str, _Attempt]) -> tuple[str, ...] | None:
    """Only where curves and hybrid groups were both looked at: half a list would be taken for the whole."""
    hybrid = (_result(scan, "pq_key_exchange") or {}).get("supported_pq_groups")
    curves = (_result(scan, "elliptic_curves") or {}).get("supported_curves")
    if not isinstance(hybrid, list) or not isinstance(curves, list):
        return None
    return (*map(str, hybrid), *(_text(curve.get("name")) for curve in _list(curves)))


def _leaf(scan: dict[str, _Attempt]) -> dict[str, Any]:
    """The server's own certificate, of the first deployment."""
    result = _result(scan, "certificate_info") or {}
    for deployment in _list(result.get("certificate_deployments")):
        for certificate in _list(deployment.get("received_certificate_chain")):
            return certificate
    return {}


def _certificate(at: str, leaf: dict[str, Any], source: Source) -> Certificate:
    key = _inner(leaf, "public_key")
    size = key.get("key_size")
    return Certificate(
        subject=_text(_inner(leaf, "subject").get("rfc4514_string")),
        issuer=_text(_inner(leaf, "issuer").get("rfc4514_string")),
        signature=_signed_by(leaf),
        public_key=f"{_text(key.get('algorithm'))} {size if isinstance(size, int) else ''}".strip(),
        expires=day(_text(leaf.get("not_valid_after_utc") or leaf.get("not_valid_after"))),
        fingerprint=_hex(_text(leaf.get("fingerprint_sha256"))),
        used_at=at,
        source=source,
    )


def _signed_by(leaf: dict[str, Any]) -> str:
    return _text(_inner(leaf, "signature_algorithm_oid").get("name"))


def _hex(base64: str) -> str:
    try:
        return b64decode(base64, validate=True).hex()
    except ValueError:
        return ""


def _inner(table: dict[str, Any], name: str) -> dict[str, Any]:
    value = table.get(name)
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
