"""Dual control."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from keystrand.core.clock import SystemEntropy
from keystrand.core.errors import BadRequest, IllegalTransition, NotPermitted
from keystrand.govern.approval import PENDING_MAX, DualControl, Proposal, Stand, UnknownProposal
from keystrand.govern.roles import Operation
from keystrand.testing.administration import MemoryProposals
from keystrand.testing.clock import VirtualClock


def control(needed: int = 2, ttl_s: float = 100.0) -> tuple[DualControl, MemoryProposals, VirtualClock]:
    clock = VirtualClock()
    return DualControl(clock=clock, entropy=SystemEntropy(), needed=needed, ttl_s=ttl_s), MemoryProposals(), clock


def proposed(desk: DualControl, kept: MemoryProposals, who: str = "ann", needed: int = 0) -> Proposal:
    return desk.propose(kept, Operation.POLICY_CHANGE, "{}", requester=who, reason="why", needed=needed)


@pytest.mark.proves("R061")
def test_it_happens_with_the_last_approval_and_once() -> None:
    desk, kept, _ = control()
    first = desk.approve(kept, (asked := proposed(desk, kept).proposal_id), "bob")
    assert (first.stand, first.approved_by) == (Stand.PENDING, ("bob",))
    last = desk.approve(kept, asked, "cat")
    assert (last.stand, last.approved_by, last.closed_by) == (Stand.EXECUTED, ("bob", "cat"), "cat")
    with pytest.raises(IllegalTransition, match="executed"):
        desk.approve(kept, asked, "dan")
    with pytest.raises(IllegalTransition):
        desk.reject(kept, asked, "dan")


@pytest.mark.proves("R061")
@pytest.mark.parametrize("who", ["ann", "ANN", "Ann"])
def test_nobody_approves_what_they_proposed(who: str) -> None:
    desk, kept, _ = control(needed=1)
    asked = proposed(desk, kept).proposal_id
    with pytest.raises(NotPermitted):
        desk.approve(kept, asked, who)
    assert desk.get(kept, asked).approved_by == ()


@pytest.mark.proves("R061")
@pytest.mark.parametrize(("name", "over"), [("7f3a", "ann"), ("ann", "7f3a"), ("7f3a", "Ann"), ("bob", "ann")])
def test_T14_nobody_approves_their_own_wish_by_a_token_over_their_certificate(name: str, over: str) -> None:
    """A person with a certificate and an account of the provider has two names, and is one person."""
    desk, kept, _ = control(needed=1)
    wish = desk.propose(kept, Operation.POLICY_CHANGE, "{}", requester="ann", over="ann", reason="why")
    with pytest.raises(NotPermitted):
        desk.approve(kept, wish.proposal_id, name, over)
    assert desk.approve(kept, wish.proposal_id, "cat", "cat").stand is Stand.EXECUTED


def test_T14_nobody_approves_their_own_wish_by_certificate_after_a_token() -> None:
    desk, kept, _ = control(needed=1)
    wish = desk.propose(kept, Operation.POLICY_CHANGE, "{}", requester="7f3a", over="ann", reason="why")
    with pytest.raises(NotPermitted):
        desk.approve(kept, wish.proposal_id, "ann", "ann")


@pytest.mark.parametrize(("name", "over"), [("7f3a", "bob"), ("bob", "laptop"), ("8e2b", "BOB")])
def test_T14_nobody_approves_twice_once_by_each_of_their_names(name: str, over: str) -> None:
    desk, kept, _ = control(needed=2)
    wish = desk.propose(kept, Operation.POLICY_CHANGE, "{}", requester="ann", over="ann", reason="why")
    desk.approve(kept, wish.proposal_id, "bob", "bob")
    with pytest.raises(IllegalTransition, match="already"):
        desk.approve(kept, wish.proposal_id, name, over)
    assert desk.approve(kept, wish.proposal_id, "cat", "cat").stand is Stand.EXECUTED


def test_nobody_approves_twice_under_a_name_that_looks_the_same() -> None:
    desk, kept, _ = control()
    asked = proposed(desk, kept).proposal_id
    desk.approve(kept, asked, "bo1")
    for twin in ("bo1", "bol", "BO1"):
        with pytest.raises(IllegalTransition, match="already"):
            desk.approve(kept, asked, twin)


def test_time_ends_it_to_the_second() -> None:
    desk, kept, clock = control(needed=1)
    asked = proposed(desk, kept).proposal_id
    clock.move_to(clock.monotonic_s() + 99.9)
    assert desk.get(kept, asked).stand is Stand.PENDING
    clock.move_to(clock.monotonic_s() + 0.2)
    assert desk.get(kept, asked).stand is Stand.EXPIRED
    with pytest.raises(IllegalTransition, match="expired"):
        desk.approve(kept, asked, "bob")


def test_one_rejection_ends_it() -> None:
    desk, kept, _ = control()
    asked = proposed(desk, kept).proposal_id
    desk.approve(kept, asked, "bob")
    assert desk.reject(kept, asked, "cat").stand is Stand.REJECTED
    with pytest.raises(IllegalTransition, match="rejected"):
        desk.approve(kept, asked, "dan")


def test_what_waits_is_bounded_and_needs_a_reason() -> None:
    desk, kept, clock = control()
    for _ in range(PENDING_MAX):
        proposed(desk, kept)
    with pytest.raises(BadRequest, match="wait"):
        proposed(desk, kept)
    clock.move_to(clock.monotonic_s() + 101)
    proposed(desk, kept)  # what has expired waits no more
    with pytest.raises(BadRequest, match="reason"):
        desk.propose(kept, Operation.KEYS_DESTROY, "", requester="ann", reason=" ")
    with pytest.raises(UnknownProposal):
        desk.approve(kept, "none", "bob")
    for needed, ttl_s in ((0, 1.0), (1, 0.0)):
        with pytest.raises(ValueError, match="at least one"):
            control(needed=needed, ttl_s=ttl_s)


PEOPLE = st.sampled_from(["ann", "bob", "cat", "dan"])


class Approvals(RuleBasedStateMachine):
    """Whatever people do, in whatever order: executed means enough others, in time, and once."""

    def __init__(self) -> None:
        super().__init__()
        self.desk, self.kept, self.clock = control()
        self.ids: list[str] = []
        self.executed: list[str] = []

    @rule(who=PEOPLE, needed=st.integers(0, 3))
    def propose(self, who: str, needed: int) -> None:
        self.ids.append(proposed(self.desk, self.kept, who, needed).proposal_id)

    @precondition(lambda self: self.ids)
    @rule(data=st.data(), who=PEOPLE)
    def approve(self, data: st.DataObject, who: str) -> None:
        asked = data.draw(st.sampled_from(self.ids))
        try:
            if self.desk.approve(self.kept, asked, who).stand is Stand.EXECUTED:
                self.executed.append(asked)
        except (NotPermitted, IllegalTransition):
            pass

    @precondition(lambda self: self.ids)
    @rule(data=st.data(), who=PEOPLE)
    def reject(self, data: st.DataObject, who: str) -> None:
        with contextlib.suppress(IllegalTransition):
            self.desk.reject(self.kept, data.draw(st.sampled_from(self.ids)), who)

    @rule(seconds=st.floats(0, 60))
    def wait(self, seconds: float) -> None:
        self.clock.move_to(self.clock.monotonic_s() + seconds)

    @invariant()
    def executed_means_enough_others_and_once(self) -> None:
        assert len(self.executed) == len(set(self.executed))
        for proposal in self.kept.proposals():
            done = proposal.proposal_id in self.executed
            assert done is (proposal.stand is Stand.EXECUTED)
            assert proposal.requester not in proposal.approved_by
            assert len(set(proposal.approved_by)) == len(proposal.approved_by)
            assert not done or len(proposal.approved_by) == proposal.needed >= 2


TestApprovals = Approvals.TestCase
TestApprovals.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_a_proposal_has_no_second_beyond_its_time() -> None:
    desk, kept, clock = control(needed=1, ttl_s=100.0)
    wish = proposed(desk, kept)
    assert wish.stand_at(wish.expires_s - 0.001) is Stand.PENDING
    assert wish.stand_at(wish.expires_s) is Stand.EXPIRED
    clock.move_to(100.0)
    with pytest.raises(IllegalTransition, match="expired"):
        desk.approve(kept, wish.proposal_id, "bob")


def test_one_approval_within_a_day_is_what_is_asked_for_where_nothing_is_stated() -> None:
    desk = DualControl(clock=VirtualClock(), entropy=SystemEntropy())
    wish = proposed(desk, kept := MemoryProposals())
    assert (wish.needed, wish.expires_s - wish.created_s) == (1, 86_400.0)
    assert desk.approve(kept, wish.proposal_id, "bob").stand is Stand.EXECUTED


@pytest.mark.parametrize(("needed", "ttl_s"), [(0, 100.0), (-1, 100.0), (1, 0.0), (1, -1.0)])
def test_dual_control_without_an_approval_or_without_time_is_none(needed: int, ttl_s: float) -> None:
    with pytest.raises(ValueError, match="dual control"):
        control(needed, ttl_s)
    control(1, 0.5)
