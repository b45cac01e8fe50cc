"""Fail closed: when the key in use is too old, traffic stops, at the right moment and not under a fresh key."""

from __future__ import annotations

from keystrand.transport.tunnel.agreement import Action, End, Output, Pace, Report, Verb
from keystrand.transport.tunnel.messages import Active, Confirmed, Hello, Message, Prepared, Propose

PACE = Pace(rotate_s=10.0, hold_s=30.0, repeat_s=1.0, give_up_s=100.0, retry_s=1.0)


def started(role: str = "initiator") -> End:
    """Generation 4 is in use since 0 s, and the other end is there."""
    end = End("t", role, PACE, current=4, highest=4, connected=True)  # type: ignore[arg-type]
    return end


def actions(outputs: list[Output]) -> list[Verb]:
    return [output.verb for output in outputs if isinstance(output, Action)]


def reports(outputs: list[Output]) -> list[str]:
    return [output.kind for output in outputs if isinstance(output, Report)]


def say(end: End, message: Message, now_s: float) -> list[Output]:
    return end.hear(message, now_s)


def until_activating(end: End, now_s: float) -> Action:
    """Take generation 5 to where the daemon is switching over."""
    drawn = end.done(Action(Verb.DRAW, 5), now_s, key_id="k") if actions(end.tick(now_s)) else []
    assert any(isinstance(output, Propose) for output in drawn)
    assert actions(say(end, Prepared(tunnel="t", number=5), now_s)) == [Verb.PREPARE]
    (activate,) = end.done(Action(Verb.PREPARE, 5, "k"), now_s)
    assert isinstance(activate, Action)
    assert activate.verb is Verb.ACTIVATE
    return activate


def test_an_order_to_stop_that_waits_behind_the_change_to_a_fresh_key_is_forgotten() -> None:
    end = started()
    activate = until_activating(end, 29.0)
    assert end.tick(31.0) == [], "the daemon is busy: the order waits"
    outputs = end.done(activate, 31.5)
    assert actions(outputs) == []
    assert not end.blocked


def test_a_fresh_key_that_the_other_end_never_confirms_grows_too_old_as_well() -> None:
    end = started()
    end.done(until_activating(end, 11.0), 11.0)
    assert actions(end.tick(40.0)) == []
    (block,) = [output for output in end.tick(41.0) if isinstance(output, Action)]
    assert block.verb is Verb.BLOCK
    assert reports(end.done(block, 41.0)) == ["blocked"]
    outputs = say(end, Confirmed(tunnel="t", number=5), 42.0)
    assert end.blocked, "that it was confirmed makes the key no younger"
    assert actions(outputs) == [Verb.RETIRE]
    assert actions(end.done(Action(Verb.RETIRE, 5), 42.0)) == [Verb.DRAW], "a fresh one is due at once"


def test_traffic_that_could_not_be_stopped_is_said_and_tried_again() -> None:
    end = started("responder")
    (block,) = end.tick(30.0)
    assert isinstance(block, Action)
    outputs = end.done(block, 30.1, problem="no such device")
    assert reports(outputs) == ["unblocked"]
    assert actions([*outputs, *end.tick(31.0)]) == [Verb.BLOCK]


def test_without_any_key_yet_nothing_may_pass() -> None:
    end = End("t", "initiator", PACE, since_s=-PACE.hold_s)
    (block,) = end.tick(0.0)
    assert isinstance(block, Action)
    assert block.verb is Verb.BLOCK
    assert reports(end.done(block, 0.0)) == ["blocked"]
    assert end.tick(1.0) == [], "once is enough"


def test_blocked_is_said_when_it_is_done_and_the_order_is_given_once() -> None:
    end = started("responder")
    (block,) = end.tick(30.0)
    assert isinstance(block, Action)
    assert (end.blocked, end.halting) == (False, True), "the connector has not said so yet"
    assert end.tick(30.5) == [], "one order at a time"
    end.done(block, 30.6)
    assert (end.blocked, end.halting) == (True, False)


def test_the_order_to_stop_goes_before_the_wait_for_a_key() -> None:
    end = started()
    outputs = end.tick(50.0)
    assert actions(outputs) == [Verb.BLOCK]
    assert actions(end.done(Action(Verb.BLOCK, 4), 50.0)) == [Verb.DRAW]


def test_a_responder_that_follows_lets_traffic_pass_again() -> None:
    end = started("responder")
    end.tick(30.0)
    end.done(Action(Verb.BLOCK, 4), 30.0)
    say(end, Propose(tunnel="t", number=5, key_id="k"), 31.0)
    end.done(Action(Verb.FETCH, 5, "k"), 31.0)
    end.done(Action(Verb.PREPARE, 5, "k"), 31.0)
    assert end.blocked, "prepared is not yet in use"
    (confirm,) = say(end, Active(tunnel="t", number=5), 32.0)
    assert isinstance(confirm, Action)
    end.done(confirm, 32.1)
    assert not end.blocked
    assert end.current == 5


def test_a_daemon_that_has_forgotten_gets_a_fresh_key_whichever_end_it_stands_at() -> None:
    initiator, responder = started(), started("responder")
    assert actions(initiator.lost(5.0)) == [Verb.DRAW]
    (hello,) = responder.lost(5.0)
    assert hello == Hello(tunnel="t", number=4, current=0)
    assert actions(say(started(), hello, 5.0)) == [Verb.DRAW]
