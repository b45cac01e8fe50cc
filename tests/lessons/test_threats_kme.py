"""Threats to the key service, each with the fault that it is made of turned up, before the judges of the simulation."""

from __future__ import annotations

import base64
import itertools
import random
from collections.abc import Callable

import pytest

from keystrand.core.errors import KeystrandError
from keystrand.core.register import Scope
from keystrand.core.states import Change
from keystrand.kme.service import Kme
from keystrand.testing.world.faults import Faults
from keystrand.testing.world.run import World
from keystrand.testing.world.saes import SITE_OF, Ticket

CALM = Faults(delay_s=0.01)


def lived(seed: int, faults: Faults, duration_s: float = 900.0) -> World:
    world = World(seed, faults=faults)
    world.run(duration_s)
    assert world.saes.fetched > 50, "a world in which nothing happens proves nothing"
    return world


@pytest.mark.proves("R031", "R098")
@pytest.mark.parametrize("seed", range(2))
def test_t07_I1_no_key_is_delivered_twice_when_messages_come_twice_late_or_never_and_sites_crash(seed: int) -> None:
    faults = Faults(loss=0.2, duplicate=0.3, delay_s=0.3, crash_per_operation=0.003, crash_every_s=120.0)
    assert not lived(seed, faults).judge.violations


@pytest.mark.proves("R098")
@pytest.mark.parametrize("seed", range(2))
def test_t08_I2_I11_the_ends_agree_when_blocks_differ_come_twice_or_to_one_end_only(seed: int) -> None:
    faults = Faults(block_one_end=0.3, block_corrupt=0.2, block_repeat=0.5)
    assert not lived(seed, faults).judge.violations


@pytest.mark.proves("R049")
@pytest.mark.parametrize("seed", range(2))
def test_t12_I14_an_old_backup_brings_no_key_back(seed: int) -> None:
    world = lived(seed, Faults(restore_every_s=200.0, crash_every_s=300.0))
    assert world.restores
    assert not world.judge.violations


@pytest.mark.parametrize("seed", range(2))
def test_t16_I1_I9_clocks_that_jump_an_hour_or_a_day_give_no_key_twice(seed: int) -> None:
    assert not lived(seed, Faults(clock_jump_every_s=60.0)).judge.violations


class Replayed(World):
    """Every frame that was ever sent between the sites comes again, at random times, days of it."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, faults=CALM)
        self.recorded: list[tuple[str, str, bytes]] = []
        self.replayed = 0

    def carry(self, sender: str, receiver: str, frame: bytes) -> None:
        self.recorded.append((sender, receiver, frame))
        super().carry(sender, receiver, frame)
        if self.peace:
            return
        for sender_, receiver_, frame_ in random.Random(len(self.recorded)).sample(
            self.recorded, min(3, len(self.recorded))
        ):
            self.replayed += 1
            self.schedule.after(0.5, lambda a=sender_, b=receiver_, f=frame_: self.arrive(a, b, f))  # type: ignore[misc]


@pytest.mark.proves("R098")
def test_t15_I1_I13_messages_that_are_replayed_release_and_lend_nothing_again() -> None:
    world = Replayed(1)
    world.run(600.0)
    assert world.replayed > 1000
    assert not world.judge.violations
    assert world.saes.fetched > 0.8 * world.saes.answered


# one key, at one site ---------------------------------------------------------------------------------------------------


def with_a_key(seed: int) -> tuple[World, str, Ticket]:
    """A calm world and a key that waits for its responder."""
    world = World(seed, faults=CALM)
    found: list[tuple[str, Ticket]] = []
    world.saes.told = [lambda sae, key_id: found.append((key_id, Ticket("alpha", 1, sae, "files-bravo")))]
    for name in ("alpha", "bravo"):
        world.sites[name].start()
        world.tick(name)
    world.connect()
    world.make_block()
    world.schedule.run_until(10.0)
    while not found:
        world.saes._draw("files-alpha", "files-bravo")
        world.schedule.run_until(world.clock.monotonic_s() + 0.1)
        found = [
            (k, t) for k, t in found if t.initiator == "files-alpha" and (k, t.responder) not in world.judge.delivered
        ]
    return world, *found[0]


def fetch(key_id: str) -> Callable[[Kme], object]:
    return lambda kme: kme.get_key_with_ids("files-bravo", "files-alpha", (key_id,))


def change(what: Change, key_id: str) -> Callable[[Kme], object]:
    return lambda kme: kme.lifecycle.change(what, Scope(key_ids=(key_id,)), actor="a", reason="test")


@pytest.mark.proves("R042")
@pytest.mark.parametrize("what", [Change.SUSPEND, Change.DEACTIVATE, Change.COMPROMISE, Change.DESTROY])
@pytest.mark.parametrize("site", ["alpha", "bravo"])
def test_l01_I6_what_is_taken_back_at_one_site_is_refused_at_both_within_a_second(site: str, what: Change) -> None:
    world, key_id, _ = with_a_key(4)
    (done,) = world.sites[site].run(change(Change.DEACTIVATE if what is Change.DESTROY else what, key_id))
    assert not isinstance(done, KeystrandError), done
    if what is Change.DESTROY:
        world.sites[site].run(change(what, key_id))
    world.schedule.run_until(world.clock.monotonic_s() + 1.0)
    (result,) = world.sites["bravo"].run(fetch(key_id))
    assert isinstance(result, KeystrandError)


@pytest.mark.proves("R042")
@pytest.mark.parametrize("batched", [True, False])
def test_l03_I1_I6_every_order_of_fetches_and_changes_releases_a_key_once_at_most_and_never_after_its_end(
    batched: bool,
) -> None:
    """All 120 orders of two fetches, a suspension, a return and an end, in one transaction and in five."""
    steps = ("fetch", "fetch", Change.SUSPEND, Change.RESUME, Change.DEACTIVATE)
    total = 0
    for order in itertools.permutations(range(5)):
        world, key_id, _ = with_a_key(4)
        asked = [steps[place] for place in order]
        calls = [fetch(key_id) if step == "fetch" else change(step, key_id) for step in asked]  # type: ignore[arg-type]
        site = world.sites["bravo"]
        results = list(site.run(*calls)) if batched else [site.run(call)[0] for call in calls]
        released, suspended, ended = 0, False, False
        for step, result in zip(asked, results, strict=True):
            if isinstance(result, KeystrandError):
                continue
            if step == "fetch":
                assert not suspended, asked
                assert not ended, asked
                released += 1
            suspended = step is Change.SUSPEND or (suspended and step is not Change.RESUME)
            ended = ended or step is Change.DEACTIVATE
        assert released <= 1, asked
        total += released
    assert 0 < total < 120, "some orders release it, some end it first"


@pytest.mark.proves("R055")
def test_l08_I12_no_event_holds_key_bytes_in_any_spelling() -> None:
    world = World(6, faults=Faults(loss=0.05, crash_every_s=200.0))
    world.schedule.lines = []
    world.run(300.0)
    said = "\n".join(world.schedule.lines)
    assert len(world.judge.owner_of) > 50
    assert len(world.schedule.lines) > 500
    for text in world.judge.owner_of:
        raw = bytes.fromhex(text)
        for spelling in (text, text.upper(), base64.b64encode(raw).decode(), str(list(raw))[1:-1], repr(raw)[2:-1]):
            assert spelling not in said


@pytest.mark.proves("R056")
def test_t05_I4_guesses_are_counted_and_take_nothing() -> None:
    world, key_id, _ = with_a_key(4)
    site = world.sites["bravo"]
    rng = random.Random(1)
    for _ in range(300):
        guess = f"{key_id[:24]}{rng.getrandbits(48):012x}"
        (result,) = site.run(fetch(guess))
        assert isinstance(result, KeystrandError)
        site.run(lambda kme, error=result: kme.note_refusal("dec_keys", "files-bravo", "files-alpha", error))  # type: ignore[misc]
    (keys,) = site.run(fetch(key_id))
    assert isinstance(keys, list)
    assert SITE_OF["files-bravo"] == "bravo"
    assert site.kme is not None
    assert site.kme.check_ledger() == []
