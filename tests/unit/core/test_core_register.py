"""States of both ends merge to one, whatever the order; scopes say which keys are meant."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystrand.core.errors import IllegalTransition
from keystrand.core.register import LEVEL, Origin, Scope, Turns, merged, resumed, suspended
from keystrand.core.states import Change, State, advance, changes_to, sources

LIVE = st.tuples(st.integers(0, 6), st.integers(0, 6))


def standing(turns: Turns, state: State | None) -> tuple[State, Turns]:
    """A state that a record can really have."""
    alive = State.SUSPENDED if turns[0] % 2 or turns[1] % 2 else State.ACTIVE
    return state or alive, turns


STANDINGS = st.builds(standing, LIVE, st.sampled_from([None, State.DEACTIVATED, State.COMPROMISED, State.DESTROYED]))


@given(STANDINGS, STANDINGS, STANDINGS)
def test_merging_is_commutative_associative_and_idempotent(
    one: tuple[State, Turns], two: tuple[State, Turns], three: tuple[State, Turns]
) -> None:
    assert merged(*one, *two) == merged(*two, *one)
    assert merged(*merged(*one, *two), *three) == merged(*one, *merged(*two, *three))
    assert merged(*one, *one) == one


@given(STANDINGS, STANDINGS)
def test_I6_merging_never_brings_a_key_back_to_an_earlier_stage(
    one: tuple[State, Turns], two: tuple[State, Turns]
) -> None:
    state, _ = merged(*one, *two)
    assert LEVEL[state] == max(LEVEL[one[0]], LEVEL[two[0]])
    assert changes_to(one[0], state) is not None, "there is a legal way"


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), max_size=20))
def test_I6_no_suspension_is_lost_to_a_resumption_that_did_not_know_of_it(
    steps: list[tuple[bool, bool, bool]],
) -> None:
    """Two ends act and sometimes hear of each other; a key that one end suspended last of all stays suspended."""
    ends: list[Turns] = [(0, 0), (0, 0)]
    for first, suspends, hears in steps:
        me = 0 if first else 1
        other = ends[1 - me]
        if hears:
            _, ends[me] = merged(State.ACTIVE, ends[me], State.ACTIVE, (other[1], other[0]))
        is_suspended = bool(ends[me][0] % 2 or ends[me][1] % 2)
        if suspends and not is_suspended:
            ends[me] = suspended(ends[me])
            state, _ = merged(State.SUSPENDED, ends[me], State.ACTIVE, (other[1], other[0]))
            assert state is State.SUSPENDED
        elif not suspends and is_suspended:
            ends[me] = resumed(ends[me])
            assert not ends[me][0] % 2
            assert not ends[me][1] % 2


@pytest.mark.proves("R042")
def test_every_way_between_states_is_made_of_legal_changes() -> None:
    for start in State:
        for target in State:
            try:
                way = changes_to(start, target)
            except IllegalTransition:
                continue
            at = start
            for change in way:
                at = advance(at, change)
            assert at is target
    with pytest.raises(IllegalTransition):
        changes_to(State.DESTROYED, State.ACTIVE)
    with pytest.raises(IllegalTransition):
        changes_to(State.DEACTIVATED, State.SUSPENDED)
    assert changes_to(State.ACTIVE, State.DESTROYED) == (Change.DEACTIVATE, Change.DESTROY)


@pytest.mark.parametrize("change", list(Change))
def test_sources_are_the_states_from_which_a_change_does_not_raise(change: Change) -> None:
    for state in State:
        if state in sources(change):
            advance(state, change)
        else:
            with pytest.raises(IllegalTransition):
                advance(state, change)


def test_a_scope_speaks_of_bits_only_when_it_names_nothing_else() -> None:
    assert Scope(link="l").is_of_bits
    assert Scope(source="s", since_s=1.0).is_of_bits
    assert not Scope(link="l", sae="a").is_of_bits
    assert not Scope(link="l", tenant="").is_of_bits
    assert not Scope().is_of_bits
    assert Scope().is_empty


def test_a_scope_of_a_relay_means_the_blocks_that_it_could_have_seen() -> None:
    relayed = Origin("a-d", 0, "relay 1/1: a>r>d", 5.0)
    shared = Origin("a-d", 1, "relay 2/2: a>r>d, a>s>d", 5.0)
    direct = Origin("a-r", 2, "simulated-bb84", 5.0)
    of_r = Scope(relay="r")
    assert of_r.covers_block(relayed, "d")
    assert not Scope(relay="s").covers_block(relayed, "d")
    assert not of_r.covers_block(shared, "d"), "a part alone says nothing"
    assert of_r.covers_block(direct, "r"), "as the other end of its link"
    assert not of_r.covers_block(direct, "d")


def test_a_scope_in_time_begins_with_its_first_moment_and_ends_before_its_last() -> None:
    scope = Scope(since_s=5.0, until_s=6.0)
    assert [scope.in_window(at_s) for at_s in (4.9, 5.0, 5.9, 6.0)] == [False, True, True, False]
