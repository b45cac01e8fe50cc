"""Keys are suspended, resumed, revoked, compromised and destroyed at one end, and both ends come to the same."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from kme_pair import LIMITS, LINK, SITE_OF, Pair, Side, materials

from keystrand.core.errors import BadRequest, IllegalTransition, KeystrandError, NotPermitted, PeerFault, UnknownKey
from keystrand.core.key import Key
from keystrand.core.policy import Rule
from keystrand.core.pool import Account
from keystrand.core.protection import Protection
from keystrand.core.register import KeyRecord, Scope, Stage
from keystrand.core.states import Change, State, Step
from keystrand.crypto.sign import Signer
from keystrand.kme.lifecycle import Affected
from keystrand.observe.audit import AuditLog, origin
from keystrand.observe.audit_verify import custody, rows_of, verify
from keystrand.wire.peer import Changed, Heard, Message, Quarantined, Reserved

WHO: dict[str, str] = {"actor": "ann", "reason": "drill"}


def change(side: Side, what: Change, scope: Scope, **options: Any) -> Affected:
    """Do it; a trial just before told what would come of it."""
    told: Affected | KeystrandError
    try:
        told = side.run(lambda kme: kme.lifecycle.trial(what, scope, cursor=options.get("cursor", "")))
    except KeystrandError as error:
        told = error
    result = side.run(lambda kme: kme.lifecycle.change(what, scope, **(WHO | options)))
    assert isinstance(told, Affected)
    assert replace(told, records=()) == replace(result, records=())
    assert (told.key_ids, told.pairs) == (result.key_ids, result.pairs)
    side.pair.pump()
    return result


def states(pair: Pair, key_id: str) -> set[State]:
    """What the two ends say."""
    found = [side.store.register.get(key_id) for side in pair.sides.values()]
    return {record.state for record in found if record is not None}


def of(*keys: Key) -> Scope:
    return Scope(key_ids=tuple(key.key_id for key in keys))


def record(side: Side, key: Key) -> KeyRecord:
    return side.run(lambda kme: kme.lifecycle.get(key.key_id))


# the register ------------------------------------------------------------------------------------------------------


@pytest.mark.proves("R042")
def test_both_ends_know_a_key_from_the_moment_that_both_hold_it(pair: Pair) -> None:
    (key,) = pair.draw("a1", "b1")
    ours, theirs = record(pair.alpha, key), record(pair.bravo, key)
    assert (ours.peer, theirs.peer) == ("bravo", "alpha")
    assert ours._replace(peer="") == theirs._replace(peer="")
    assert (ours.state, ours.initiator, ours.responders) == (State.ACTIVE, "a1", ("b1",))
    assert (ours.link, ours.first_sequence, ours.protection) == (LINK, 0, Protection.HYBRID)
    assert ours.expires_s - ours.created_s == LIMITS.cryptoperiod_s


def test_tenant_tags_and_cryptoperiod_come_from_the_rule() -> None:
    tags = (("asset", "payroll"),)
    rule = Rule(initiator="a1", responder="b1", require=Protection.QKD, tags=tags, cryptoperiod_s=60.0)
    pair = Pair(rules=(rule,))
    pair.connect()
    pair.fill(0)
    (key,) = pair.draw("a1", "b1")
    entry = record(pair.alpha, key)
    assert (entry.tenant, entry.tags) == ("default", ("asset=payroll",))
    assert entry.expires_s == entry.created_s + 60.0
    found = pair.alpha.run(lambda kme: kme.lifecycle.find(Scope(tags=entry.tags[:1])))
    assert [one.key_id for one in found.records] == [key.key_id]
    pair.advance(61)
    with pytest.raises(UnknownKey):
        pair.fetch("b1", "a1", key)


@pytest.mark.proves("R054")
def test_keys_are_found_by_sae_peer_link_module_state_and_time_page_by_page(pair: Pair) -> None:
    first = pair.draw("a1", "b1", number=3)
    pair.advance(10)
    then_s = pair.clock.now_s()
    second = pair.draw("a2", "b1", number=2)
    pqc = pair.draw("a2", "b2")

    def found(scope: Scope) -> list[str]:
        ids, cursor = [], ""
        while True:
            page = pair.alpha.run(lambda kme: kme.lifecycle.find(scope, cursor=cursor, limit=2))  # noqa: B023
            ids += [one.key_id for one in page.records]
            cursor = page.cursor
            if not cursor:
                return ids

    def ids(*keys: Key) -> list[str]:
        return [key.key_id for key in keys]

    assert found(Scope(sae="a1")) == sorted(ids(*first))
    assert sorted(found(Scope(sae="b1"))) == sorted(ids(*first, *second))
    assert sorted(found(Scope(peer="bravo"))) == sorted(ids(*first, *second, *pqc))
    assert sorted(found(Scope(link=LINK))) == sorted(ids(*first, *second))
    assert sorted(found(Scope(source="test"))) == sorted(ids(*first, *second))
    assert found(Scope(source="other")) == []
    assert sorted(found(Scope(sae="a2", since_s=then_s))) == sorted(ids(*second, *pqc))
    assert found(Scope(states=frozenset({State.SUSPENDED}))) == []
    with pytest.raises(BadRequest):
        pair.alpha.run(lambda kme: kme.lifecycle.find(Scope(), cursor="x/y"))


# suspend and resume ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("site", ["alpha", "bravo"])
def test_I6_a_suspended_key_is_withheld_at_both_ends_until_it_is_resumed(pair: Pair, site: str) -> None:
    keys = pair.draw("a1", "b1", number=2)
    side = pair.sides[site]
    result = change(side, Change.SUSPEND, of(keys[0]))
    assert result.pairs == (("a1", "b1"),)
    assert states(pair, keys[0].key_id) == {State.SUSPENDED}
    with pytest.raises(UnknownKey):
        pair.fetch("b1", "a1", keys[0])
    assert materials(pair.fetch("b1", "a1", keys[1])) == materials(keys[1:])
    other = pair.sides[side.peer]
    change(other, Change.RESUME, of(keys[0]))
    assert states(pair, keys[0].key_id) == {State.ACTIVE}
    assert materials(pair.fetch("b1", "a1", keys[0])) == materials(keys[:1])


def test_I5_a_notice_that_is_repeated_is_recorded_once(pair: Pair) -> None:
    (key,) = pair.draw("a1", "b1")
    change(pair.alpha, Change.SUSPEND, of(key))
    (notice,) = [message for _, message in pair.sent if isinstance(message, Changed)]
    size = pair.bravo.store.audit_head()[0]
    pair.hear("alpha", "bravo", notice)
    assert pair.bravo.store.audit_head()[0] == size
    assert states(pair, key.key_id) == {State.SUSPENDED}


def test_I6_a_withheld_copy_that_is_never_resumed_expires_by_the_books(pair: Pair) -> None:
    (key,) = pair.draw("a1", "b1")
    change(pair.bravo, Change.SUSPEND, of(key))
    pair.advance(LIMITS.key_ttl_s + 2, step_s=60)
    assert pair.bravo.ledger(Account.EXPIRED) >= 256
    assert states(pair, key.key_id) == {State.DEACTIVATED}, "and the initiator hears that nobody fetched it"


def test_I6_suspensions_of_both_ends_are_each_taken_back_before_the_key_is_active(pair: Pair) -> None:
    (key,) = pair.draw("a1", "b1")
    pair.lose = lambda message: isinstance(message, Changed)
    change(pair.alpha, Change.SUSPEND, of(key))
    change(pair.alpha, Change.RESUME, of(key))
    change(pair.bravo, Change.SUSPEND, of(key))
    pair.lose = lambda message: False
    pair.advance(3)
    assert states(pair, key.key_id) == {State.SUSPENDED}, "a resumption does not undo what it did not know of"
    change(pair.alpha, Change.RESUME, of(key))
    assert states(pair, key.key_id) == {State.ACTIVE}


# revoke, compromise, destroy ---------------------------------------------------------------------------------------


@pytest.mark.proves("R042", "R044")
@pytest.mark.parametrize("what", [Change.DEACTIVATE, Change.COMPROMISE])
@pytest.mark.parametrize("site", ["alpha", "bravo"])
def test_I6_L1_a_revoked_key_is_burnt_at_both_ends_and_never_released(pair: Pair, site: str, what: Change) -> None:
    (key,) = pair.draw("a1", "b1")
    change(pair.sides[site], what, of(key))
    assert len(states(pair, key.key_id)) == 1
    with pytest.raises(UnknownKey):
        pair.fetch("b1", "a1", key)
    assert pair.bravo.ledger(Account.BURNT) == 256
    assert pair.bravo.ledger(Account.RESERVED) == 0
    for side in pair.sides.values():
        assert side.store.register.notices(side.peer, 10) == [], "the other end has confirmed"
        (entry,) = [r for kind in ("key.deactivated", "key.compromised") for r in side.records(kind)]
        assert entry["key_ids"] == [key.key_id]
        assert entry["reason"] == "drill"
        assert entry["actor"] == ("ann" if side.name == site else f"ann@{side.peer}")


def test_illegal_changes_of_a_named_key_raise_and_change_nothing(pair: Pair) -> None:
    first, second = pair.draw("a1", "b1", number=2)
    change(pair.alpha, Change.DEACTIVATE, of(second))
    for what in (Change.RESUME, Change.DESTROY, Change.ACTIVATE):
        with pytest.raises(IllegalTransition):
            change(pair.alpha, what, of(first))
    with pytest.raises(IllegalTransition):
        change(pair.alpha, Change.SUSPEND, of(first, second))
    with pytest.raises(UnknownKey):
        change(pair.alpha, Change.SUSPEND, Scope(key_ids=(first.key_id, "11111111-1111-4111-8111-111111111111")))
    assert states(pair, first.key_id) == {State.ACTIVE}
    assert materials(pair.fetch("b1", "a1", first)) == materials([first])


@pytest.mark.parametrize(
    ("scope", "options"),
    [
        (Scope(), {}),
        (Scope(key_ids=("x",), sae="a1"), {}),
        (Scope(key_ids=("x", "x")), {}),
        (Scope(sae="a1"), {"actor": " "}),
        (Scope(sae="a1"), {"reason": ""}),
        (Scope(sae="a1"), {"reason": "x" * 300}),
        (Scope(sae="a1"), {"cursor": "nonsense"}),
    ],
)
def test_an_order_that_is_not_clear_is_refused(pair: Pair, scope: Scope, options: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        change(pair.alpha, Change.SUSPEND, scope, **options)


@pytest.mark.proves("R044")
def test_destroying_names_a_record_of_the_chain_that_proves_it_at_both_ends(pair: Pair) -> None:
    (key,) = pair.draw("a1", "b1")
    pair.fetch("b1", "a1", key)
    with pytest.raises(IllegalTransition):
        pair.alpha.run(lambda kme: kme.lifecycle.destruction(key.key_id))
    change(pair.alpha, Change.DEACTIVATE, of(key))
    change(pair.alpha, Change.DESTROY, of(key))
    for side in pair.sides.values():
        proof = side.run(lambda kme: kme.lifecycle.destruction(key.key_id))
        trail = custody(rows_of(side.store), key.key_id)
        assert [one["n"] for one in trail if one["kind"] == "key.destroyed"] == [proof.number]
        signer = Signer.generate(origin(side.name))
        with side.store.transaction():
            AuditLog(side.store, pair.clock, side.name).checkpoint(signer)
        checked = verify(rows_of(side.store), side.store.checkpoints(), site=side.name, signer=signer.verifier)
        assert checked.intact
        assert checked.size > proof.number


def test_a_compromise_after_the_end_is_kept_as_a_mark(pair: Pair) -> None:
    (key,) = pair.draw("a1", "b1")
    change(pair.alpha, Change.DEACTIVATE, of(key))
    pair.lose = lambda message: isinstance(message, Changed)
    change(pair.alpha, Change.DESTROY, of(key))
    change(pair.bravo, Change.COMPROMISE, of(key))
    number = record(pair.alpha, key).destroyed_n
    pair.lose = lambda message: False
    pair.advance(3)
    assert states(pair, key.key_id) == {State.DESTROYED}
    assert record(pair.alpha, key).compromised_s > 0
    assert record(pair.bravo, key).compromised_s > 0
    assert record(pair.alpha, key).destroyed_n == number, "the proof stays where it was"


# scopes ------------------------------------------------------------------------------------------------------------


@pytest.mark.proves("R044")
def test_an_sae_is_revoked_with_all_its_keys_and_its_consumers_are_named(pair: Pair) -> None:
    mine, others = pair.draw("a1", "b1", number=3), pair.draw("a2", "b1")
    pair.alpha.run(lambda kme: kme.lifecycle.note_use("a1", mine[0].key_id, consumer="tunnel 7"))
    seen = pair.alpha.run(lambda kme: kme.lifecycle.trial(Change.DEACTIVATE, Scope(sae="a1")))
    result = change(pair.alpha, Change.DEACTIVATE, Scope(sae="a1"))
    assert set(result.key_ids) == set(seen.key_ids) == {key.key_id for key in mine}
    assert (
        [(use.sae, use.consumer) for use in result.uses]
        == [("a1", "tunnel 7")]
        == [(use.sae, use.consumer) for use in seen.uses]
    )
    assert states(pair, others[0].key_id) == {State.ACTIVE}
    assert change(pair.alpha, Change.DEACTIVATE, Scope(sae="a1")).records == (), "nothing is left to revoke"


@pytest.mark.proves("R044")
@pytest.mark.parametrize("scope", [Scope(link=LINK), Scope(source="test"), Scope(peer="alpha"), Scope(since_s=0.0)])
def test_I6_a_compromised_link_or_module_takes_keys_and_blocks_at_both_ends(pair: Pair, scope: Scope) -> None:
    keys = pair.draw("a1", "b1", number=2)
    result = change(pair.bravo, Change.COMPROMISE, scope)
    assert result.quarantined == ((LINK, 0), (LINK, 1))
    for key in keys:
        assert states(pair, key.key_id) == {State.COMPROMISED}
    for side in pair.sides.values():
        assert side.store.blocks() == []
        assert side.ledger(Account.AVAILABLE) == 0
        (alert,) = side.events("block.quarantined")
        assert (alert.fields["blocks"], alert.fields["sequences"]) == (2, "0-1"), "people are told once"
        assert [record["sequence"] for record in side.records("block.quarantined")] == [0, 1], "the log has each"
    with pytest.raises(KeystrandError):
        pair.draw("a1", "b1")
    pair.fill(2)
    assert pair.draw("a1", "b1"), "what comes later is not concerned"


def test_I6_a_window_takes_the_keys_made_of_bits_that_came_in_it(bare: Pair) -> None:
    bare.fill(0)
    bare.advance(10)
    from_s = bare.clock.now_s()
    bare.fill(1)
    bare.advance(10)
    early = bare.draw("a1", "b1", number=4)
    result = change(bare.alpha, Change.COMPROMISE, Scope(link=LINK, since_s=from_s, until_s=from_s + 5))
    assert result.quarantined == ((LINK, 1),)
    assert result.records == ()
    assert states(bare, early[0].key_id) == {State.ACTIVE}


def test_I6_shelves_and_keys_on_their_way_are_burnt_with_their_scope() -> None:
    pair = Pair(limits=replace(LIMITS, stock_from_per_s=1.0, stock_idle_s=60.0))
    pair.connect()
    pair.fill(0)
    pair.fill(1)
    for _ in range(3):
        pair.draw("a1", "b1")
    waiting = pair.bravo.store.copies_before(float("inf"), 1000)
    pair.lose = lambda message: isinstance(message, Reserved)
    ticket = pair.ask("a1", "b2")
    pair.pump()
    result = change(pair.alpha, Change.SUSPEND, Scope(sae="a1"))
    assert result.given_up > 1
    assert isinstance(pair.answers[ticket], KeystrandError)
    pair.lose = lambda message: False
    pair.advance(3)
    for copy in waiting:
        with pytest.raises(UnknownKey):
            pair.fetch("b1", "a1", copy.key_id)
    assert pair.alpha.store.requests() == []


def test_I6_a_key_revoked_where_it_waits_is_not_released_where_it_lies_on_a_shelf() -> None:
    pair = Pair(limits=replace(LIMITS, stock_from_per_s=1.0, stock_idle_s=60.0))
    pair.connect()
    pair.fill(0)
    pair.fill(1)
    drawn = {key.key_id for _ in range(3) for key in pair.draw("a1", "b1")}
    shelved = {copy.key_id for copy in pair.bravo.store.copies_before(float("inf"), 1000)} - drawn
    assert shelved, "keys wait on a shelf"
    change(pair.bravo, Change.DEACTIVATE, Scope(key_ids=(min(shelved),)))
    assert not shelved & {key.key_id for _ in range(5) for key in pair.draw("a1", "b1")}


# the peer ----------------------------------------------------------------------------------------------------------


def test_a_notice_is_repeated_until_it_is_heard_and_survives_a_restart(pair: Pair) -> None:
    (key,) = pair.draw("a1", "b1")
    pair.lose = lambda message: isinstance(message, Changed | Heard)
    change(pair.alpha, Change.DEACTIVATE, of(key))
    pair.alpha.start()
    assert states(pair, key.key_id) == {State.DEACTIVATED, State.ACTIVE}
    pair.lose = lambda message: False
    pair.connect()
    pair.advance(2)
    assert states(pair, key.key_id) == {State.DEACTIVATED}
    assert pair.alpha.store.register.notices("bravo", 9) == []


@pytest.mark.parametrize("seed", range(5))
def test_F8_notices_in_any_order_and_number_come_to_the_same(pair: Pair, seed: int) -> None:
    rng = random.Random(seed)
    pair.shake = rng
    keys = pair.draw("a1", "b1", number=4)
    for _ in range(30):
        side = pair.sides[rng.choice(("alpha", "bravo"))]
        what = rng.choice((Change.SUSPEND, Change.RESUME, Change.SUSPEND, Change.RESUME, Change.COMPROMISE))
        try:
            side.run(lambda kme: kme.lifecycle.change(what, of(rng.choice(keys)), **WHO))  # noqa: B023
        except IllegalTransition:
            continue
        if rng.random() < 0.3:
            pair.pump()
    pair.pump()
    for key in keys:
        assert len(states(pair, key.key_id)) == 1


def notice(state: str, *keys: tuple[str, int, int]) -> Changed:
    return Changed(notice_id="n", state=state, compromised=False, actor="eve", reason="x", keys=keys)


def test_a_peer_may_not_move_keys_that_are_not_shared_with_it(pair: Pair) -> None:
    (key,) = pair.draw("a1", "b1")
    foreign = record(pair.alpha, key)._replace(key_id="other", peer="zulu")
    pair.alpha.run(lambda kme: kme.site.store.register.add(foreign))
    hostile: tuple[Message, ...] = (
        notice("destroyed", ("other", 0, 0)),
        notice("destroyed", (key.key_id, 0, 0), ("other", 0, 0)),
        notice("melted", (key.key_id, 0, 0)),
        notice("pre-activation", (key.key_id, 0, 0)),
        notice("active", (key.key_id, -1, 0)),
        Quarantined(notice_id="q", link="elsewhere", sequences=(0,), actor="eve", reason="x"),
    )
    for message in hostile:
        with pytest.raises(PeerFault):
            pair.alpha.run(lambda kme: kme.receive("bravo", message))  # noqa: B023
    assert record(pair.alpha, key).state is State.ACTIVE
    assert pair.alpha.store.register.get("other") == foreign


def test_I14_a_peer_put_back_to_an_old_backup_is_told_again_what_was_revoked(pair: Pair) -> None:
    (key,) = pair.draw("a1", "b1")
    pair.fetch("b1", "a1", key)
    backup = pair.bravo.store.snapshot()
    change(pair.alpha, Change.COMPROMISE, of(key))
    pair.bravo.store.restore(backup)
    pair.bravo.start(restored=True)
    assert record(pair.bravo, key).state is State.ACTIVE
    pair.connect()
    pair.advance(12)
    assert states(pair, key.key_id) == {State.COMPROMISED}


def test_a_hybrid_key_is_drawn_at_the_first_try_after_the_peer_has_started_anew(pair: Pair) -> None:
    pair.draw("a1", "b1")
    pair.bravo.start()
    pair.connect()
    assert pair.draw("a1", "b1")[0].protection is Protection.HYBRID


# use and time ------------------------------------------------------------------------------------------------------


@pytest.mark.proves("R051")
def test_I6_a_key_whose_cryptoperiod_ends_before_it_is_fetched_is_never_fetched() -> None:
    pair = Pair(limits=replace(LIMITS, cryptoperiod_s=100.0, key_ttl_s=400.0))
    pair.connect()
    pair.fill()
    (key,) = pair.draw("a1", "b1")
    copies = pair.bravo.store.copies(key.key_id)
    assert [copy.step for copy in copies] == [Step.READY]
    pair.clock.move_to(pair.clock.monotonic_s() + 100.5)
    pair.bravo.run(lambda kme: kme.lifecycle.expire())
    assert [copy for copy in pair.bravo.store.copies(key.key_id) if copy.step is Step.READY] == []
    with pytest.raises(UnknownKey):
        pair.fetch("b1", "a1", key)


def test_a_key_in_use_is_called_for_rotation_once_and_deactivated_at_the_end_of_its_cryptoperiod() -> None:
    pair = Pair(limits=replace(LIMITS, cryptoperiod_s=100.0, register_ttl_s=50.0))
    pair.connect()
    pair.fill(0)
    used, idle = pair.draw("a1", "b1", number=2)
    pair.fetch("b1", "a1", used, idle)
    for _ in range(2):
        pair.alpha.run(lambda kme: kme.lifecycle.note_use("a1", used.key_id, consumer="tunnel", used_bytes=10))
    assert (record(pair.alpha, used).uses, record(pair.alpha, used).used_bytes) == (2, 20)
    pair.advance(91)
    assert [event.fields["key_id"] for event in pair.alpha.events("key.rotation_due")] == [used.key_id]
    pair.alpha.run(lambda kme: kme.lifecycle.note_use("a1", used.key_id, consumer="tunnel"))
    pair.advance(10)
    assert len(pair.alpha.events("key.rotation_due")) == 1
    assert states(pair, used.key_id) == states(pair, idle.key_id) == {State.DEACTIVATED}
    told = pair.alpha.run(lambda kme: kme.lifecycle.note_use("a1", used.key_id, consumer="tunnel"))
    assert told.state is State.DEACTIVATED, "whoever still uses it hears so"
    pair.advance(61)
    assert pair.alpha.store.register.get(used.key_id) is None, "forgotten, and its consumers with it"
    assert pair.alpha.store.register.uses(used.key_id) == []


@pytest.mark.parametrize(("uses", "used_bytes", "why"), [(3, 0, "uses"), (0, 1000, "bytes")])
def test_rotation_is_due_at_once_when_a_key_is_used_up(uses: int, used_bytes: int, why: str) -> None:
    pair = Pair(limits=replace(LIMITS, rotation_uses=3, rotation_bytes=1000))
    pair.connect()
    pair.fill(0)
    (key,) = pair.draw("a1", "b1")
    for _ in range(3):
        pair.alpha.run(
            lambda kme: kme.lifecycle.note_use("a1", key.key_id, consumer="t", uses=uses, used_bytes=used_bytes)
        )
    assert [event.fields["reason"] for event in pair.alpha.events("key.rotation_due")] == [why]
    assert record(pair.alpha, key).stage is Stage.EXPIRE


def test_only_the_saes_of_a_key_say_how_it_is_used(pair: Pair) -> None:
    (key,) = pair.draw("a1", "b1")
    cases: tuple[tuple[str, dict[str, Any], type[KeystrandError]], ...] = (
        ("a2", {}, UnknownKey),
        ("b1", {}, NotPermitted),
        ("a1", {"uses": -1}, BadRequest),
        ("a1", {"consumer": ""}, BadRequest),
    )
    assert SITE_OF["b1"] != "alpha"
    for caller, options, error in cases:
        with pytest.raises(error):
            pair.alpha.run(
                lambda kme: kme.lifecycle.note_use(caller, key.key_id, **({"consumer": "t"} | options))  # noqa: B023
            )
    for number in range(64):
        pair.alpha.run(lambda kme: kme.lifecycle.note_use("a1", key.key_id, consumer=f"t{number}"))  # noqa: B023
    with pytest.raises(BadRequest, match="consumers"):
        pair.alpha.run(lambda kme: kme.lifecycle.note_use("a1", key.key_id, consumer="one more"))
