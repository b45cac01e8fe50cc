"""Where keys went, as the audit log has it: one `Flow` for every way that key material took, however often it took it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from keystrand.core.errors import Tampered
from keystrand.observe.audit_verify import Row
from keystrand.wire.decoding import UNREADABLE


@dataclass(frozen=True, slots=True, order=True, kw_only=True)
class Flow:
    """fills: bits of `link` come into the pool. gives: keys of `protection`, with bits of `link` ("": none), that
    `initiator` shares with `responder` of the site or network `peer`, come to `recipient` at this site. exports: a key is
    known to the key manager `recipient`. carries: keys that come from the KME `recipient` go on to the KME `peer`.
    """

    kind: Literal["fills", "gives", "exports", "carries"]
    link: str = ""
    peer: str = ""
    initiator: str = ""
    responder: str = ""
    recipient: str = ""
    protection: str = ""

    def __str__(self) -> str:
        if self.kind == "fills":
            return f"link {self.link} fills the pool"
        if self.kind == "exports":
            return f"keys are known to key manager {self.recipient}"
        if self.kind == "carries":
            pair = f"{self.initiator} -> {self.responder}"
            return f"{self.protection} keys of {pair} from {self.recipient} are carried on to {self.peer}"
        way = f"link {self.link}" if self.link else "no QKD link"
        pair = f"{self.initiator} -> {self.responder}"
        return f"{self.protection} keys of {pair} over {way} with {self.peer} come to {self.recipient}"


@dataclass(slots=True)
class Seen:
    """first: number of the first record; times: keys, or blocks where a link fills the pool."""

    first: int
    times: int = 0


@dataclass(slots=True)
class Comparison:
    """unmapped: seen, and not in the map: the log and the configuration contradict each other. unused: not seen so far."""

    seen: dict[Flow, Seen] = field(default_factory=dict)
    unmapped: list[Flow] = field(default_factory=list)
    unused: list[Flow] = field(default_factory=list)


def observed(rows: Iterable[Row]) -> dict[Flow, Seen]:
    """Every flow of these records, in the order in which they came up. Raises Tampered for what is no record."""
    seen: dict[Flow, Seen] = {}
    for number, record, _ in rows:
        try:
            for flow, times in _flows(msgspec.json.decode(record, type=dict[str, Any])):
                seen.setdefault(flow, Seen(number)).times += times
        except (*UNREADABLE, KeyError, TypeError):
            raise Tampered(f"record {number} is none of ours", hint="keystrand audit verify") from None
    return seen


def compare(mapped: Iterable[Flow], seen: dict[Flow, Seen]) -> Comparison:
    known = dict.fromkeys(mapped)
    return Comparison(seen, [flow for flow in seen if flow not in known], [flow for flow in known if flow not in seen])


def _flows(record: dict[str, Any]) -> Iterator[tuple[Flow, int]]:
    kind = record.get("kind")
    if kind == "block.ingested":
        yield Flow(kind="fills", link=record["link"]), 1
    elif kind == "kms.told":
        yield Flow(kind="exports", recipient=record["kms"]), 1
    elif kind == "key.carried":
        yield (
            Flow(
                kind="carries",
                peer=record["onward"],
                initiator=record["initiator"],
                responder=record["responders"][0],
                recipient=record["peer"],
                protection=record["protection"],
            ),
            len(record["key_ids"]),
        )
    elif kind == "key.delivered":
        recipient, initiator = record.get("recipient", ""), record["initiator"]
        for responder in record["responders"] if recipient == initiator else [recipient]:
            flow = Flow(
                kind="gives",
                link=record.get("link", ""),
                peer=record["peer"],
                initiator=initiator,
                responder=responder,
                recipient=recipient,
                protection=record["protection"],
            )
            yield flow, len(record["key_ids"])
