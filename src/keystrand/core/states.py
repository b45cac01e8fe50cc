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
    WITHHELD = "withheld"  # as ready, but its key is suspended
    DELIVERED = "delivered"  # handed out; the material is gone from the store
    BURNT = "burnt"  # ambiguous after a fault: never handed out
    EXPIRED = "expired"  # nobody came in time
    REVOKED = "revoked"  # taken back before delivery


class Move(StrEnum):
    """What moves a recipient's copy."""

    AGREE = "agree"
    DELIVER = "deliver"
    WITHHOLD = "withhold"
    RESTORE = "restore"
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
        Move.WITHHOLD: Step.WITHHELD,
        Move.BURN: Step.BURNT,
        Move.EXPIRE: Step.EXPIRED,
        Move.REVOKE: Step.REVOKED,
    },
    Step.WITHHELD: {
        Move.RESTORE: Step.READY,
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


def sources(change: Change) -> frozenset[State]:
    """The states in which `change` is legal."""
    return frozenset(state for state, table in TRANSITIONS.items() if change in table)


def changes_to(state: State, target: State) -> tuple[Change, ...]:
    """The shortest legal way from one state to another. Raises IllegalTransition when there is none."""
    ways: list[tuple[State, tuple[Change, ...]]] = [(state, ())]
    seen = {state}
    for at, way in ways:
        if at is target:
            return way
        for change, following in TRANSITIONS[at].items():
            if following not in seen:
                seen.add(following)
                ways.append((following, (*way, change)))
    raise IllegalTransition(f"no way from {state.value} to {target.value}")


def advance_step(step: Step, move: Move) -> Step:
    """The next delivery step of one recipient's copy. Raises IllegalTransition for what the table does not list."""
    try:
        return STEPS[step][move]
    except KeyError:
        raise IllegalTransition(f"{move.value} is not allowed in {step.value}") from None
