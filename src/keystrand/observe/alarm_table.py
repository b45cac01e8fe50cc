"""Who is called by which alarm, how urgently, and which page says what to do. Nothing else may be raised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

RUNBOOKS: Final = "docs/runbooks"
OPERATOR: Final = "operator"  # the words of govern/roles.py
OFFICER: Final = "security-officer"


@dataclass(frozen=True, slots=True)
class Call:
    """severity: "alert" needs a person now, "warning" soon. owner: the administrators' role that acts. page: its runbook."""

    severity: str
    owner: str
    page: str
    says: str

    @property
    def runbook(self) -> str:
        return f"{RUNBOOKS}/{self.page}.md"


def _alert(owner: str, page: str, says: str) -> Call:
    return Call("alert", owner, page, says)


def _warning(owner: str, page: str, says: str) -> Call:
    return Call("warning", owner, page, says)


CALLS: Final[Mapping[str, Call]] = MappingProxyType(
    {
        # conditions, as long as they last
        "stale": _alert(OPERATOR, "site-unsound", "the figures of the site are not fresh"),
        "ledger": _alert(OFFICER, "site-unsound", "the bits of a pool do not add up"),
        "waiver": _alert(OFFICER, "policy-weakened", "keys below the required protection may leave"),
        "cert": _warning(OPERATOR, "certificate", "a certificate expires within two weeks"),
        "cosign": _warning(OFFICER, "audit-failed", "no peer signs the audit log"),
        "link": _warning(OPERATOR, "link-down", "a link brings no key"),
        "qber": _warning(OPERATOR, "link-suspect", "the error rate of a link is near its limit"),
        "drain": _warning(OPERATOR, "pool-low", "a pool is empty within minutes"),
        "auth": _warning(OPERATOR, "link-down", "few bits are left to authenticate a link's classical channel"),
        "peer": _warning(OPERATOR, "peer-down", "a peer does not answer"),
        "route": _warning(OPERATOR, "link-down", "a relayed link has no way as its terms ask"),
        "relay.documents_due": _warning(
            OFFICER, "relay-documents", "a relay site is documented for two more weeks at most"
        ),
        "relay.documents_lapsed": _alert(OFFICER, "relay-documents", "a relay site is documented no more"),
        "tunnel-silent": _warning(OPERATOR, "tunnel-down", "nothing is heard of a tunnel"),
        "tunnel-blocked": _alert(OPERATOR, "tunnel-down", "a tunnel passes no packet for want of a key"),
        "tunnel-fallback": _alert(OFFICER, "tunnel-fallback", "a tunnel runs below its protection"),
        "tunnel-down": _warning(OPERATOR, "tunnel-down", "a tunnel's daemon has no session"),
        # events, for ten minutes
        "pool.low": _warning(OPERATOR, "pool-low", "few keys of our own are left"),
        "strand.missing": _warning(OPERATOR, "peer-down", "no ML-KEM strand with a peer: no hybrid key"),
        "draw.abnormal": _warning(OFFICER, "keys-exposed", "an SAE asks for many key IDs as if it guessed"),
        "link.attack": _alert(OFFICER, "link-suspect", "the monitor of a link sees what only an attack does"),
        "link.block_rejected": _alert(OPERATOR, "link-down", "a module refused a block"),
        "block.quarantined": _alert(
            OFFICER, "link-suspect", "a block is not key: its ends differ, or it was taken back"
        ),
        "key.compromised": _alert(OFFICER, "keys-exposed", "keys are declared known to others"),
        "peer.fault": _alert(OFFICER, "peer-down", "a peer said what no sound peer says"),
        "peer.rollback": _alert(OFFICER, "peer-down", "a peer came back with an older state"),
        "policy.emergency": _alert(OFFICER, "policy-weakened", "the policy was changed outside its windows"),
        "downgrade.waived": _alert(OFFICER, "policy-weakened", "a key left below the required protection, by a waiver"),
        "downgrade.fallback": _alert(OFFICER, "policy-weakened", "a key left below the required protection, by a rule"),
        "audit.failed": _alert(
            OFFICER, "audit-failed", "the audit log cannot be written, or a peer refuses to sign it"
        ),
        "audit.sink_failed": _alert(OPERATOR, "audit-sink", "a copy of the audit log cannot be written"),
        "relay.barred": _alert(OFFICER, "site-compromised", "a site is said to be broken into"),
        "relay.tampered": _alert(OFFICER, "link-suspect", "what a neighbour relayed was changed on the way"),
        "maintenance.short": _alert(OPERATOR, "maintenance", "maintenance began although pools do not suffice"),
        "tunnel.blocked": _alert(OPERATOR, "tunnel-down", "as `tunnel-blocked`, which lasts"),
        "tunnel.unblocked": _alert(OFFICER, "tunnel-down", "traffic should stop and cannot be stopped"),
        "tunnel.fallback": _alert(OFFICER, "tunnel-fallback", "as `tunnel-fallback`, which lasts"),
        "store.failed": _alert(OPERATOR, "audit-failed", "the store cannot be written; nothing is released"),
    }
)


def reference_page() -> str:
    """docs/reference/alarms.md."""
    rows = [
        f"| `{name}` | {call.severity} | {call.owner} | {call.says} | [{call.page}](../runbooks/{call.page}.md) |"
        for name, call in CALLS.items()
    ]
    return "\n".join([*_HEAD, *rows, ""])


_HEAD: Final = (
    "# Alarms",
    "",
    "<!-- Printed by `python docs/alarms.py`; a test compares. -->",
    "",
    "Everything that calls a person, by `keystrand status`, the status page and the administration API. An alert needs",
    "somebody now, a warning soon. The owner is a role of [administrators](../guides/administrators.md): who has it is your",
    "decision. Names with a dot are events and are shown for ten minutes; the others, and `relay.documents_…`, last as long as",
    "their condition. No alarm is raised that is not in this table, and a test holds that each has an owner and a runbook.",
    "",
    "| alarm | severity | owner | what it says | runbook |",
    "|---|---|---|---|---|",
)
