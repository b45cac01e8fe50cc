"""Requests that wait for keys on their way to a shelf: served in their order by what comes, refused where it does not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.kme.kme_pair import LIMITS, Pair

from keystrand.core.errors import PeerUnavailable
from keystrand.core.key import Key
from keystrand.core.pool import Account
from keystrand.wire.peer import Reserve, Reserved


@pytest.fixture
def pair() -> Pair:
    """A pair of SAEs that draws often: its shelf is empty, and a batch for it is on its way."""
    pair = Pair(limits=replace(LIMITS, stock_from_per_s=1.0, stock_idle_s=60.0))
    pair.connect()
    pair.fill()
    while not coming(pair):
        pair.ask("a1", "b1")  # the wire stands still, so that nothing is answered yet
    return pair


def shelf(pair: Pair):
    (shelf,) = pair.alpha.kme.reservations.stock._shelves.values()
    return shelf


def coming(pair: Pair) -> int:
    return sum(shelf.coming for shelf in pair.alpha.kme.reservations.stock._shelves.values())


def test_I1_keys_on_their_way_serve_those_who_wait_in_their_order_and_once(pair: Pair) -> None:
    sent = pair.count(Reserve)
    waiting = [pair.ask("a1", "b1") for _ in range(coming(pair))]
    own = pair.ask("a1", "b1", number=3)
    assert pair.count(Reserve) > sent, "who finds nothing on the way reserves keys of its own"
    assert not pair.answers
    pair.pump()
    answers = [pair.answers[ticket] for ticket in (*waiting, own)]
    keys = [key for answer in answers if isinstance(answer, list) for key in answer]
    assert len({key.key_id for key in keys}) == len(waiting) + 3
    assert [ticket for ticket in pair.answers if ticket in waiting] == waiting
    for key in keys:
        (fetched,) = pair.fetch("b1", "a1", key)
        assert fetched.material.matches(key.material), "I2"
    assert not shelf(pair).waiting
    assert shelf(pair).promised == 0


def test_who_waits_for_keys_that_never_come_is_refused_and_the_bits_are_burnt(pair: Pair) -> None:
    waiting = [pair.ask("a1", "b1") for _ in range(coming(pair))]
    pair.lose = lambda message: isinstance(message, Reserved)
    pair.advance(pair.alpha.limits.peer_reply_timeout_s + 1.0)
    assert all(isinstance(pair.answers[ticket], PeerUnavailable) for ticket in waiting)
    assert not shelf(pair).waiting
    assert (shelf(pair).promised, coming(pair)) == (0, 0)
    assert pair.alpha.ledger(Account.BURNT) > 0
    pair.lose = lambda message: False
    pair.advance(5.0)
    assert isinstance(pair.draw("a1", "b1"), list), "and the next request is served"


def test_only_the_last_who_came_are_turned_away_when_a_part_comes(pair: Pair) -> None:
    first = [pair.ask("a1", "b1") for _ in range(coming(pair))]
    stock = pair.alpha.kme.reservations.stock
    fewer = shelf(pair).spare + 1
    shelf(pair).coming -= fewer  # as if one key too many had been given up
    turned = [waiter.ticket for waiter in stock.unserved()]
    assert turned == first[-1:]
    shelf(pair).coming += fewer
    pair.pump()
    served = [ticket for ticket in first if isinstance(pair.answers.get(ticket), list)]
    assert served == first[:-1]


def test_a_change_of_policy_turns_away_who_waits_for_keys_of_the_old_rule(pair: Pair) -> None:
    waiting = [pair.ask("a1", "b1") for _ in range(coming(pair))]
    policy = pair.alpha.policy
    rules = [replace(rule, weight=7.0) if rule.responder == "b1" else rule for rule in policy.rules.values()]
    changed = type(policy).of(tuple(rules), dict(policy.site_of), serial=policy.serial + 1)
    pair.alpha.run(lambda kme: kme.set_policy(changed, actor="ann"))
    refused = [ticket for ticket in waiting if isinstance(pair.answers.get(ticket), PeerUnavailable)]
    assert refused == waiting
    assert all(not isinstance(answer, list) or isinstance(answer[0], Key) for answer in pair.answers.values())
