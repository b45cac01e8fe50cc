"""How the connector of a tunnel tells its KME what became of it: POST /keystrand/v1/tunnels/NAME. Not of any standard.

An SAE's words, checked and bounded. They show the tunnel to whoever watches the site (metrics, alarms, status page); what
concerns its protection goes into the audit log as well. No decision of the KME hangs on them.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from keystrand.core.errors import BadRequest
from keystrand.wire.decoding import PLAIN, UNREADABLE

_COUNT_MAX: Final = 2**53 - 1
Count = Annotated[int, msgspec.Meta(ge=0, le=_COUNT_MAX)]
Span = Annotated[float, msgspec.Meta(ge=0, le=1e12)]
Name = Annotated[str, msgspec.Meta(max_length=128, pattern=PLAIN)]
Text = Annotated[str, msgspec.Meta(max_length=300, pattern=PLAIN)]
TunnelState = Literal["starting", "up", "down", "blocked", "fallback", "stopped"]

# What is recorded in the audit log: when a tunnel had less than its protection, and when it had it back.
AUDITED: Final = frozenset({"blocked", "unblocked", "fallback", "restored"})


class TunnelReport(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """happened: `status` is sent now and then, all others at once. late_s: how long ago it happened, where the KME was away.

    fresh: the key has bits of its own from a quantum link; without them keys of one ML-KEM exchange hang together. suite:
    ciphers and key exchange in use, in the daemon's words, where it tells.
    """

    happened: Literal[
        "status", "up", "down", "rotated", "missed", "blocked", "unblocked", "fallback", "restored", "fault"
    ]
    state: TunnelState
    kind: Name
    peer_sae: Name
    role: Literal["initiator", "responder"]
    number: Count = 0
    key_id: Name = ""
    protection: Literal["", "none", "classical", "pqc", "qkd", "hybrid"] = ""
    fresh: bool = False
    key_age_s: Span = 0.0
    next_rotation_s: Span = 0.0
    exposure_s: Span = 0.0
    fallback_s: Span = 0.0
    took_ms: Span = 0.0
    bytes_under_key: Count = 0
    suite: Name = ""
    reason: Text = ""
    late_s: Span = 0.0


def one_line(said: str) -> str:
    """Words of a daemon or of the system as a report takes them."""
    return " ".join("".join(c if c.isprintable() else " " for c in said).split())[:300]


_DECODER: Final = msgspec.json.Decoder(TunnelReport)


def print_report(report: TunnelReport) -> bytes:
    return msgspec.json.encode(report)


def parse_report(body: bytes) -> TunnelReport:
    """Raises BadRequest."""
    try:
        return _DECODER.decode(body)
    except UNREADABLE:
        raise BadRequest("the report has a member that is missing, unknown, of another type or out of bounds") from None
