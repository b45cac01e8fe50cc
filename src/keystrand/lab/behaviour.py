"""What a tunnel did while its quantum link was interrupted: a report that a site signs with the key of its audit log.

A C2SP signed note: a line with the label, then the report as JSON. The label keeps it apart from a checkpoint of the log.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from keystrand.core.errors import BadRequest, Tampered
from keystrand.core.labels import LABELS
from keystrand.crypto.sign import NOTE_CHARS_MAX, Signer, Verifier, signers_of

CASE: Final = "the quantum channel is interrupted"
_LABEL: Final = LABELS["lab/behaviour"].decode()
_SETUP: Final = ("kind", "note", "photons", "rotate_s", "on_exhaustion")
_KEYS: Final = ("keys_drained", "pool_empty_after_s", "tunnels")
_TRAFFIC: Final = ("traffic_went_on_for_s", "packets_passed_when_blocked", "frames_in_clear", "fallback", "recovery")


def of_tunnel(events: Iterable[Mapping[str, Any]], since_s: float) -> dict[str, float | None]:
    """When one tunnel end took its last key, fell back, stopped its traffic, and was back; seconds after `since_s` (UNIX time).

    events: of its log, in order, up to its return. None: that did not happen.
    """
    after = [(event["event"], _at_s(event) - since_s) for event in events if _at_s(event) >= since_s]
    blocked_s = next((at_s for kind, at_s in after if kind == "tunnel.blocked"), None)
    restored_s = next((at_s for kind, at_s in reversed(after) if kind == "tunnel.restored"), None)
    ends_s = blocked_s if blocked_s is not None else float("inf")
    rotated_s = [at_s for kind, at_s in after if kind == "tunnel.rotated" and at_s <= ends_s]
    found = {
        "last_key_after_s": rotated_s[-1] if rotated_s else None,
        "fallback_after_s": next((at_s for kind, at_s in after if kind == "tunnel.fallback"), None),
        "blocked_after_s": blocked_s,
        "restored_after_s": restored_s,
    }
    return {name: None if at_s is None else round(at_s, 2) for name, at_s in found.items()}


def _at_s(event: Mapping[str, Any]) -> float:
    return datetime.fromisoformat(event["time"]).timestamp()


def report_of(facts: Mapping[str, Any], now_s: float) -> dict[str, Any]:
    """The report of a run from its `facts` (of lab.tunnel): what alarms, when keys stop, what traffic does."""
    pulled = facts["link_pulled"]
    return {
        "case": CASE,
        "made": datetime.fromtimestamp(now_s, UTC).isoformat(timespec="seconds"),
        "setup": {name: facts[name] for name in _SETUP} | {n: pulled[n] for n in ("hold_s", "fallback_s")},
        "alarms": pulled["alarms"],
        "keys": {name: pulled[name] for name in _KEYS},
        "traffic": {name: pulled[name] for name in _TRAFFIC if name in pulled},
    }


def signed(report: Mapping[str, Any], signer: Signer) -> str:
    """The signed note. Raises BadRequest for a report that is too long for one."""
    note = signer.sign_note(f"{_LABEL}\n{json.dumps(report, indent=2)}\n")
    if len(note) > NOTE_CHARS_MAX:
        raise BadRequest(f"a report of {len(note)} characters is too long to sign", hint=f"limit: {NOTE_CHARS_MAX}")
    return note


def verified(note: str, verifiers: Iterable[Verifier]) -> tuple[dict[str, Any], list[str]]:
    """The report, and the names of those who signed it. Raises Tampered."""
    text, signers = signers_of(note, verifiers)
    label, _, body = text.partition("\n")
    if label != _LABEL:
        raise Tampered("signed, but not a report of a drill")
    try:
        report = json.loads(body)
    except ValueError:
        raise Tampered("signed, but not JSON") from None
    return report, [name for name, time_s in signers.items() if time_s is None]
