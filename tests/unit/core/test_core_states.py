"""A key's life is a table: closed, without a way back, and no way through it delivers twice."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keystrand.core.errors import IllegalTransition
from keystrand.core.states import STEPS, TRANSITIONS, Change, Move, State, Step, advance, advance_step

pytestmark = pytest.mark.proves("R042")


def test_states_have_the_names_of_sp_800_57() -> None:
    assert {state.value for state in State} == {
        "pre-activation",
        "active",
        "suspended",
        "deactivated",
        "compromised",
        "destroyed",
    }


def test_the_tables_are_closed() -> None:
    assert TRANSITIONS.keys() == set(State)
    assert STEPS.keys() == set(Step)
    assert {state for moves in TRANSITIONS.values() for state in moves.values()} | {State.PRE_ACTIVATION} == set(State)
    assert {step for moves in STEPS.values() for step in moves.values()} | {Step.RESERVED} == set(Step)


@pytest.mark.parametrize(("state", "change"), list(itertools.product(State, Change)))
def test_what_the_table_of_states_does_not_list_raises(state: State, change: Change) -> None:
    if change in TRANSITIONS[state]:
        assert advance(state, change) is TRANSITIONS[state][change]
        return
    with pytest.raises(IllegalTransition, match=change.value):
        advance(state, change)


@pytest.mark.parametrize(("step", "move"), list(itertools.product(Step, Move)))
def test_what_the_table_of_steps_does_not_list_raises(step: Step, move: Move) -> None:
    if move in STEPS[step]:
        assert advance_step(step, move) is STEPS[step][move]
        return
    with pytest.raises(IllegalTransition, match=move.value):
        advance_step(step, move)


@settings(max_examples=500, derandomize=True)
@given(st.lists(st.sampled_from(Move), max_size=20))
def test_I1_no_history_delivers_twice_or_after_an_end(history: list[Move]) -> None:
    step, done = Step.RESERVED, []
    for move in history:
        try:
            step = advance_step(step, move)
        except IllegalTransition:
            continue
        done.append(move)
    assert done.count(Move.DELIVER) <= 1
    if Move.DELIVER in done:
        assert done == [Move.AGREE, Move.DELIVER], "agreed first, and nothing after"


@settings(max_examples=500, derandomize=True)
@given(st.lists(st.sampled_from(Change), max_size=20))
def test_I6_a_compromised_or_destroyed_key_is_never_active_again(history: list[Change]) -> None:
    state, seen = State.PRE_ACTIVATION, []
    for change in history:
        if change in TRANSITIONS[state]:
            state = advance(state, change)
            seen.append(state)
    for end in (State.DEACTIVATED, State.COMPROMISED, State.DESTROYED):
        if end in seen:
            after = seen[seen.index(end) :]
            assert State.ACTIVE not in after
            assert State.SUSPENDED not in after
