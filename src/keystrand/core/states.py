"""A key's life as a table: NIST SP 800-57 Part 1 Rev. 5 section 7 names, and one writer.

The delivery view of one recipient stands beside it: a key is RESERVED between the two KMEs, then delivered once per
recipient. `advance` and `advance_step` are the only functions that move a state; what the tables do not list raises.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from keystrand.core.errors import IllegalTransition


class State(StrEnum):
    """State of a key (SP 800-57)."""

    PRE_ACTIVATION = "pre-activation"
    ACTIVE = "active"
    SUSPENDED = "suspended"
    DEACTIVATED = "deactivated"
    COMPROMISED = "compromised"
    DESTROYED = "destroyed"


class Change(StrEnum):
    """What can happen to a key."""

    ACTIVATE = "activate"
    SUSPEND = "suspend"
    RESUME = "resume"
    DEACTIVATE = "deactivate"
    COMPROMISE = "compromise"
    DESTROY = "destroy"


S, C = State, Change

TRANSITIONS: Final[dict[State, dict[Change, State]]] = {
    S.PRE_ACTIVATION: {C.ACTIVATE: S.ACTIVE, C.COMPROMISE: S.COMPROMISED, C.DESTROY: S.DESTROYED},
    S.ACTIVE: {C.SUSPEND: S.SUSPENDED, C.DEACTIVATE: S.DEACTIVATED, C.COMPROMISE: S.COMPROMISED},
    S.SUSPENDED: {C.RESUME: S.ACTIVE, C.DEACTIVATE: S.DEACTIVATED, C.COMPROMISE: S.COMPROMISED},
    S.DEACTIVATED: {C.COMPROMISE: S.COMPROMISED, C.DESTROY: S.DESTROYED},
    S.COMPROMISED: {C.DESTROY: S.DESTROYED},
    S.DESTROYED: {},
}


class Step(StrEnum):
    """Where one recipient's copy of a key stands."""

    RESERVED = "reserved"  # bits set aside at this KME, the peer not yet heard
    READY = "ready"  # durable at both KMEs, waiting for this recipient
    DELIVERED = "delivered"  # handed out; the material is gone from the store
    BURNT = "burnt"  # ambiguous after a fault: never handed out
    EXPIRED = "expired"  # nobody came in time
    REVOKED = "revoked"  # taken back before delivery


class Move(StrEnum):
    """What moves a recipient's copy."""

    AGREE = "agree"
    DELIVER = "deliver"
    BURN = "burn"
    EXPIRE = "expire"
    REVOKE = "revoke"


STEPS: Final[dict[Step, dict[Move, Step]]] = {
    Step.RESERVED: {
        Move.AGREE: Step.READY,
        Move.BURN: Step.BURNT,
        Move.EXPIRE: Step.EXPIRED,
        Move.REVOKE: Step.REVOKED,
    },
    Step.READY: {
        Move.DELIVER: Step.DELIVERED,
        Move.BURN: Step.BURNT,
        Move.EXPIRE: Step.EXPIRED,
        Move.REVOKE: Step.REVOKED,
    },
    Step.DELIVERED: {},
    Step.BURNT: {},
    Step.EXPIRED: {},
    Step.REVOKED: {},
}


def advance(state: State, change: Change) -> State:
    """The next state of a key. Raises IllegalTransition for what the table does not list."""
    try:
        return TRANSITIONS[state][change]
    except KeyError:
        raise IllegalTransition(f"{change.value} is not allowed in {state.value}") from None


def advance_step(step: Step, move: Move) -> Step:
    """The next delivery step of one recipient's copy. Raises IllegalTransition for what the table does not list."""
    try:
        return STEPS[step][move]
    except KeyError:
        raise IllegalTransition(f"{move.value} is not allowed in {step.value}") from None
