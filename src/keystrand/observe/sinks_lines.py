"""One audit record as one line, in the words of whoever collects it.

json: a line of an audit export, so that `keystrand audit verify --export` checks what a sink has received.
cef: ArcSight Common Event Format, version 1. ocsf: Open Cybersecurity Schema Framework 1.8, with the record in `unmapped`.
cadf: see sinks_cadf.
Each holds the record's number and the head of the chain after it; none holds anything that the audit log does not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Final

import msgspec

from keystrand.core.events import KINDS, Severity
from keystrand.observe.audit_verify import Row, export_jsonl
from keystrand.observe.sinks_cadf import cadf_line

Line = Callable[[Row], bytes]  # without the end of line

PRODUCT: Final = "keystrand"
_CEF_SEVERITY: Final = {
    Severity.DEBUG: 2,  # a record of the audit log is no trace of a program
    Severity.INFO: 2,
    Severity.NOTICE: 3,
    Severity.WARNING: 6,
    Severity.ALERT: 9,
}
_OCSF_SEVERITY: Final = {
    Severity.DEBUG: 1,
    Severity.INFO: 1,
    Severity.NOTICE: 1,
    Severity.WARNING: 3,
    Severity.ALERT: 4,
}
_SYSLOG_SEVERITY: Final = {
    Severity.DEBUG: 6,
    Severity.INFO: 6,
    Severity.NOTICE: 5,
    Severity.WARNING: 4,
    Severity.ALERT: 1,
}
_AUDIT_FACILITY: Final = 13

# kind of record, or the part before its dot -> class, activity
_OCSF: Final[Mapping[str, tuple[int, int]]] = {
    "key.delivered": (6003, 2),  # API Activity: Read
    "key.refused": (6003, 2),
    "key.activated": (3004, 10),  # Entity Management
    "key.deactivated": (3004, 11),
    "key.suspended": (3004, 12),
    "key.resumed": (3004, 13),
    "key.destroyed": (3004, 4),
    "key.burnt": (3004, 4),
    "key.expired": (3004, 4),
    "key": (3004, 3),
    "block": (6005, 3),  # Datastore Activity: Update
    "policy": (5019, 1),  # Device Config State Change
    "peer": (2004, 1),  # Detection Finding: Create
    "downgrade": (2003, 1),  # Compliance Finding: Create
}
_OCSF_OTHER: Final = (6002, 99)  # Application Lifecycle: Other

_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode
_encode: Final = msgspec.json.Encoder().encode


def json_line(row: Row) -> bytes:
    return next(export_jsonl([row], [])).removesuffix("\n").encode()


def cef_line(row: Row) -> bytes:
    number, record, head = row
    fields = _decode(record)
    kind = str(fields["kind"])
    keys = _keys_of(fields)
    header = (PRODUCT, PRODUCT, version(PRODUCT), kind, kind.replace(".", " "), str(_CEF_SEVERITY[_severity(kind)]))
    known = {
        "rt": int(1000 * fields["at"]),
        "externalId": number,
        "dvchost": fields["site"],
        "suser": fields.get("initiator") or fields.get("sae"),
        "duser": fields.get("recipient"),
        "dhost": fields.get("peer"),
        "reason": fields.get("reason"),
        "outcome": "failure" if _failed(kind) else "success",
        "cs1Label": "chainHead",
        "cs1": head.hex(),
        "cs2Label": "keyIds" if keys else None,
        "cs2": " ".join(keys) or None,
        "msg": record.decode(),
    }
    extension = " ".join(f"{name}={_cef_value(value)}" for name, value in known.items() if value is not None)
    return ("CEF:1|" + "|".join(map(_cef_header, header)) + "|" + extension).encode()


def _keys_of(fields: Mapping[str, Any]) -> list[str]:
    """The keys that a record names."""
    return [fields["key_id"]] if "key_id" in fields else list(fields.get("key_ids", ()))


def _cef_header(text: str) -> str:
    return _plain(text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ").replace("\r", " "))


def _cef_value(value: object) -> str:
    text = str(value).replace("\\", "\\\\").replace("=", "\\=")
    return _plain(text.replace("\n", "\\n").replace("\r", "\\r"))


def _plain(text: str) -> str:
    """CEF has no word for other controls, and whoever reads the line may heed them."""
    return "".join(char if char.isprintable() else "?" for char in text)


def ocsf_line(row: Row) -> bytes:
    number, record, head = row
    fields = _decode(record)
    kind = str(fields["kind"])
    class_uid, activity = _OCSF.get(kind) or _OCSF.get(kind.partition(".")[0]) or _OCSF_OTHER
    event: dict[str, Any] = {
        "activity_id": activity,
        "category_uid": class_uid // 1000,
        "class_uid": class_uid,
        "type_uid": class_uid * 100 + activity,
        "severity_id": _OCSF_SEVERITY[_severity(kind)],
        "status_id": 2 if _failed(kind) else 1,
        "time": int(1000 * fields["at"]),
        "message": kind,
        "metadata": {
            "product": {"name": PRODUCT, "vendor_name": PRODUCT, "version": version(PRODUCT)},
            "version": "1.8.0",
            "uid": str(number),
            "log_provider": fields["site"],
            "sequence": number,
        },
        "unmapped": {"record": fields, "chain_head": head.hex()},
    }
    if class_uid == 6003:
        caller = fields.get("recipient") or fields.get("sae") or ""
        event["actor"] = {"user": {"name": caller}}
        event["api"] = {"operation": fields.get("operation", kind)}
        event["src_endpoint"] = {"name": caller}
    if keys := _keys_of(fields):
        event["observables"] = [{"name": "key_ID", "type_id": 99, "value": key_id} for key_id in keys]
    return _encode(event)


def syslog_frame(row: Row, text: bytes) -> bytes:
    """One message of RFC 5424 in the octet counting of RFC 5425: facility 13 (log audit)."""
    fields = _decode(row[1])
    priority = 8 * _AUDIT_FACILITY + _SYSLOG_SEVERITY[_severity(str(fields["kind"]))]
    at = datetime.fromtimestamp(fields["at"], UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    host, kind = _syslog_name(fields["site"], 255), _syslog_name(fields["kind"], 32)
    message = f"<{priority}>1 {at} {host} {PRODUCT} - {kind} - ".encode() + text
    return str(len(message)).encode() + b" " + message


def _syslog_name(text: str, length: int) -> str:
    return re.sub(r"[^!-~]", "?", text)[:length] or "-"


def _severity(kind: str) -> Severity:
    return KINDS.get(kind, Severity.NOTICE)


def _failed(kind: str) -> bool:
    return kind.partition(".")[2] in ("refused", "rejected", "failed", "missing", "fault")


LINES: Final[Mapping[str, Line]] = {"json": json_line, "cef": cef_line, "ocsf": ocsf_line, "cadf": cadf_line}
