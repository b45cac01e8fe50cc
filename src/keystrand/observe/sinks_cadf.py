"""One audit record as an event of the Cloud Auditing Data Federation (DMTF DSP0262, version 1.0.0), JSON on one line.

Actions are those of its action taxonomy, resources those of its resource taxonomy. The record and the head of the chain after
it travel as attachments, so that an event can be led back to the log.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from keystrand.core.events import KINDS, Severity
from keystrand.observe.audit_verify import Row

TYPE_URI: Final = "http://schemas.dmtf.org/cloud/audit/1.0/event"
KEY, POLICY, USER = "data/security/key", "data/security/policy", "service/security/account/user"
TENANT, SERVICE, MANAGER = "data/security/project", "service/security", "service/security/keymanager"

# kind of record, or the part before its dot -> action, type of the target
_ACTIONS: Final[Mapping[str, tuple[str, str]]] = {
    "key.delivered": ("read", KEY),
    "key.refused": ("read", KEY),
    "key.suspended": ("disable", KEY),
    "key.resumed": ("enable", KEY),
    "key.deactivated": ("disable", KEY),
    "key.compromised": ("revoke", KEY),
    "key.destroyed": ("delete", KEY),
    "key.burnt": ("delete", KEY),
    "key.expired": ("delete", KEY),
    "key": ("update", KEY),
    "block.ingested": ("create", KEY),
    "block": ("update", KEY),
    "source.claimed": ("create", KEY),
    "strand": ("renew", KEY),
    "root": ("renew", KEY),
    "escrow.made": ("backup", KEY),
    "escrow.combined": ("restore", KEY),
    "escrow": ("update", KEY),
    "tenant.sealed": ("disable", TENANT),
    "tenant.unsealed": ("enable", TENANT),
    "tenant.rotated": ("renew", TENANT),
    "tenant.erased": ("delete", TENANT),
    "policy": ("configure", POLICY),
    "approval.proposed": ("create", POLICY),
    "approval.granted": ("allow", POLICY),
    "approval.rejected": ("deny", POLICY),
    "approval.executed": ("configure", POLICY),
    "downgrade": ("configure", POLICY),
    "site.restored": ("restore", MANAGER),
    "kms": ("notify", MANAGER),
    "peer": ("monitor", SERVICE),
}
_MEDIA: Final = "http://www.iana.org/assignments/media-types"
_READS: Final = ("GET", "HEAD")
_SEVERITY: Final = {Severity.WARNING: "warning", Severity.ALERT: "critical"}

_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode
_encode: Final = msgspec.json.Encoder().encode


def cadf_line(row: Row) -> bytes:
    number, record, head = row
    fields = _decode(record)
    kind, site = str(fields["kind"]), str(fields["site"])
    action, target = _action(kind, fields)
    failed = kind.partition(".")[2] in ("refused", "rejected", "failed", "missing", "fault") and action != "deny"
    event: dict[str, Any] = {
        "typeURI": TYPE_URI,
        "id": f"urn:keystrand:{site}:audit:{number}",
        "eventType": "activity",  # a monitor event would owe a measurement, a control event a policy of the collector's
        "eventTime": datetime.fromtimestamp(fields["at"], UTC).strftime("%Y-%m-%dT%H:%M:%S.%f+00:00"),
        "action": action,
        "outcome": "failure" if failed else "success",
        "initiator": _initiator(fields, site),
        "target": {"id": _target_id(fields, site), "typeURI": target},
        "observer": {"id": f"urn:keystrand:kme:{site}", "typeURI": MANAGER, "name": site},
        "severity": _SEVERITY.get(KINDS.get(kind, Severity.NOTICE), "info"),
        "tags": [f"keystrand://kind?value={kind}"],
        "attachments": [
            {"name": "record", "typeURI": f"{_MEDIA}/application/json", "content": fields},
            {"name": "chain head", "typeURI": f"{_MEDIA}/text/plain", "content": head.hex()},
        ],
    }
    if reason := fields.get("reason"):
        event["reason"] = {"reasonType": "urn:keystrand:reason", "reasonCode": str(reason)}
    return _encode(event)


def _action(kind: str, fields: Mapping[str, Any]) -> tuple[str, str]:
    if kind.startswith("admin."):
        return ("read" if fields.get("method") in _READS else "update"), MANAGER
    return _ACTIONS.get(kind) or _ACTIONS.get(kind.partition(".")[0]) or ("unknown", SERVICE)


def _initiator(fields: Mapping[str, Any], site: str) -> dict[str, str]:
    if actor := fields.get("actor"):
        return {"id": f"urn:keystrand:admin:{actor}", "typeURI": USER, "name": str(actor)}
    if sae := fields.get("recipient") or fields.get("sae") or fields.get("initiator"):
        return {"id": f"urn:keystrand:sae:{sae}", "typeURI": SERVICE, "name": str(sae)}
    return {"id": f"urn:keystrand:kme:{site}", "typeURI": MANAGER, "name": site}


def _target_id(fields: Mapping[str, Any], site: str) -> str:
    for name in ("key_id", "tenant", "peer", "link", "proposal_id", "target"):
        if value := fields.get(name):
            return f"urn:keystrand:{site}:{name}:{value}"
    return f"urn:keystrand:kme:{site}"
