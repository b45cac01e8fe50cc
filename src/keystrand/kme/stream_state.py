"""What a KME knows of one key stream. In memory; the chunks themselves are in the store."""

from __future__ import annotations

from dataclasses import dataclass, field

from keystrand.core.policy import Policy, Rule
from keystrand.kme.chunks import chunk_id
from keystrand.wire.etsi004 import Qos
from keystrand.wire.peer import StreamEnd

Pair = tuple[str, str]


@dataclass(slots=True)
class Stream:
    """One stream as this KME sees it: our SAE's end, and what the peer last said of the other one."""

    ksid: str
    local: str
    remote: str
    peer: str
    qos: Qos
    ours: Pair | None = None  # source and destination as our SAE names them
    theirs: Pair | None = None
    instance: str = ""
    is_open: bool = False
    is_remote_open: bool = False
    was_connected: bool = False
    turn: int = 0
    is_heard: bool = True
    remote_turn: int = 0
    repeat_s: float = 0.0
    next_index: int = 0
    told_index: int = 0
    remote_index: int = 0
    wanted: int = 0  # one above the highest index that either end has asked for
    agreed: int = 0  # one above the highest index that was ever asked of the peer
    lost: set[int] = field(default_factory=set)  # places that will never be filled
    again_s: float = 0.0  # no request before
    failures: int = 0
    touched_s: float = 0.0

    @property
    def is_connected(self) -> bool:
        return self.is_open and self.is_remote_open and bool(self.instance)

    def key_id(self, index: int) -> str:
        return chunk_id(self.ksid, self.instance, index)


def rule_of(policy: Policy, *named: Pair | None) -> Rule:
    """The rule that says who initiates: as the ends are named; the other way round where only that is allowed.

    Both KMEs come to the same end, whoever spoke first. Raises NotPermitted.
    """
    forward = sorted({pair for pair in named if pair is not None})
    for pair in forward + [(responder, initiator) for initiator, responder in forward]:
        if pair in policy.rules:
            return policy.rules[pair]
    return policy.rule_for(*forward[0])


def qos_of(message: StreamEnd) -> Qos:
    """What the other end has settled."""
    return Qos(chunk_bytes=message.chunk_bytes, min_bps=message.min_bps, ttl_s=message.ttl_s)
