"""A gateway tells its KME how a transfer goes, a connector what becomes of its tunnel: telemetry, never a decision.

The SAE's words are checked and bounded, and the event names the SAE of the certificate, so that an SAE can speak
only for itself.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec

from keystrand.core.errors import BadRequest
from keystrand.core.events import Event, Scalar
from keystrand.core.identity import check_key_id, check_name
from keystrand.wire.decoding import PLAIN, UNREADABLE
from keystrand.wire.tunnelreport import TunnelReport, parse_report

_COUNT_MAX: Final = 2**53 - 1  # what a browser can count
Count = Annotated[int, msgspec.Meta(ge=0, le=_COUNT_MAX)]
Text = Annotated[str, msgspec.Meta(max_length=128, pattern=PLAIN)]


class TransferReport(msgspec.Struct, frozen=True, kw_only=True):
    """One report. `bytes_total` is absent or null where the size is not known (a pipe)."""

    state: Literal["started", "progress", "rotated", "waiting", "resumed", "finished", "failed"]
    peer: Text
    bytes_done: Count
    bytes_total: Count | None = None
    rotations: Count = 0
    throughput_bytes_per_s: Annotated[float, msgspec.Meta(ge=0, le=1e15)] = 0.0
    protection: Literal["none", "classical", "pqc", "qkd", "hybrid", "unknown"] = "unknown"
    key_id: Text = ""
    direction: Literal["sending", "receiving"] = "sending"
    name: Text = ""
    message: Text = ""


_DECODER: Final = msgspec.json.Decoder(TransferReport)
# A transfer that waits for keys still runs; the message says what it waits for.
_KINDS: Final = {"waiting": "transfer.progress"}
TAKING_UP: Final = frozenset({"transfer.started", "transfer.rotated"})  # from now on under the key that is named


def transfer_event(caller: str, transfer_id: str, body: bytes, *, at_s: float) -> Event:
    """The event that a report stands for. Raises BadRequest."""
    check_name(transfer_id, what="transfer ID")
    try:
        report = _DECODER.decode(body)
    except UNREADABLE:
        raise BadRequest("the report has a member that is missing, of another type or out of bounds") from None
    check_name(report.peer, what="peer")
    if report.key_id:
        check_key_id(report.key_id)
    fields: dict[str, Scalar] = {"transfer_id": transfer_id, "sae": caller}
    members: dict[str, Any] = msgspec.structs.asdict(report)
    fields.update({name: value for name, value in members.items() if value is not None})
    return Event(_KINDS.get(report.state, f"transfer.{report.state}"), at_s, fields)


def tunnel_report(tunnel: str, body: bytes) -> TunnelReport:
    """Raises BadRequest."""
    check_name(tunnel, what="tunnel name")
    report = parse_report(body)
    check_name(report.peer_sae, what="peer")
    if report.key_id:
        check_key_id(report.key_id)
    return report


def tunnel_event(caller: str, tunnel: str, report: TunnelReport, *, at_s: float) -> Event:
    """The event that a report stands for, at the time at which it happened."""
    fields: dict[str, Scalar] = {"tunnel": tunnel, "sae": caller}
    members: dict[str, Any] = msgspec.structs.asdict(report)
    fields.update({name: value for name, value in members.items() if name not in ("happened", "late_s")})
    fields["entropy"] = "fresh" if report.fresh else "derived"
    return Event(f"tunnel.{report.happened}", at_s - report.late_s, fields)
