"""Reports of use: what is printed is read back, and whatever else comes is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystrand.core.errors import BadRequest, PeerFault
from keystrand.core.states import State
from keystrand.wire.keyuse import KeyStand, UseReport, parse_stand, parse_use, print_stand, print_use

COUNTS = st.integers(0, 2**53 - 1)
WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=128)


@given(st.builds(UseReport, consumer=WORDS, uses=COUNTS, used_bytes=COUNTS))
def test_a_report_is_read_back(report: UseReport) -> None:
    assert parse_use(print_use(report)) == report


@given(st.sampled_from(State), st.booleans())
def test_a_stand_is_read_back_and_only_an_active_key_may_stay(state: State, due: bool) -> None:
    stand = parse_stand(print_stand(KeyStand(state=state, rotation_due=due)))
    assert (stand.state, stand.rotation_due) == (state, due)
    assert bool(stand.why_not) == (state is not State.ACTIVE or due)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    for parse, error in ((parse_use, BadRequest), (parse_stand, PeerFault)):
        try:
            parse(raw)
        except error:
            continue


def test_a_state_that_is_none_is_refused() -> None:
    with pytest.raises(PeerFault):
        parse_stand(b'{"state": "fine"}')
