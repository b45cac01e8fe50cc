"""What the service does by itself: each job by its own period, none harmed by another's failure, all with a status."""

from __future__ import annotations

import pytest
from kme_pair import Pair

from keystrand.core.errors import BadRequest, StoreUnavailable
from keystrand.kme.jobs import Jobs, JobStatus, Task
from keystrand.kme.service import Kme


def status(pair: Pair, name: str) -> JobStatus:
    return {job.name: job for job in pair.alpha.kme.jobs.status()}[name]


def table(pair: Pair, *tasks: Task) -> Jobs:
    return Jobs(pair.alpha.kme.site, pair.alpha.kme.attempt, tasks)


def test_each_job_runs_by_its_own_period(bare: Pair) -> None:
    runs: list[str] = []
    jobs = table(
        bare, Task("often", 0.0, lambda: runs.append("often")), Task("seldom", 10.0, lambda: runs.append("seldom"))
    )
    for _ in range(20):
        bare.alpha.run(lambda kme: jobs.tick())
        bare.clock.move_to(bare.clock.monotonic_s() + 1.0)
    assert (runs.count("often"), runs.count("seldom")) == (20, 2)
    assert [(job.name, job.runs) for job in jobs.status()] == [("often", 20), ("seldom", 2)]


@pytest.mark.proves("R042")
def test_L22_a_job_that_fails_is_undone_alone_and_tried_again(bare: Pair) -> None:
    fails = True

    def break_down() -> int:
        bare.alpha.store.set_epoch(99)
        if fails:
            raise BadRequest("no good")
        return 3

    jobs = table(bare, Task("breaking", 0.0, break_down), Task("sound", 0.0, lambda: 2))
    for _ in range(2):
        bare.alpha.run(lambda kme: jobs.tick())
    broken, sound = jobs.status()
    assert (broken.items, broken.last_error, sound.items, sound.last_error) == (0, "no good", 4, "")
    assert bare.alpha.store.epoch() == 1
    assert [event.fields["job"] for event in bare.alpha.events("job.failed")] == ["breaking"], "said once"
    fails = False
    bare.alpha.run(lambda kme: jobs.tick())
    assert (broken.items, broken.last_error) == (3, "")
    assert bare.alpha.store.epoch() == 99


def test_what_the_store_cannot_do_fails_the_whole_transaction(bare: Pair) -> None:
    def full() -> int:
        raise StoreUnavailable("no space left")

    jobs = table(bare, Task("writing", 0.0, full))
    with pytest.raises(StoreUnavailable):
        bare.alpha.run(lambda kme: jobs.tick())
    assert jobs.status()[0].last_error == "no space left"


def test_every_job_of_the_service_runs_and_says_when(pair: Pair) -> None:
    pair.advance(35)
    now_s = pair.clock.now_s()
    for job in pair.alpha.kme.jobs.status():
        assert job.runs > 0, job.name
        assert job.last_error == ""
        assert now_s - job.last_run_s <= max(job.period_s, 0.5) + 0.5, job.name
    assert status(pair, "hello").items >= 3
    assert status(pair, "probe").items == 1


def test_a_job_can_be_run_at_once_by_name(pair: Pair) -> None:
    def collect(kme: Kme) -> JobStatus:
        return kme.jobs.run("collection")

    assert pair.alpha.run(collect).runs == 1
    with pytest.raises(KeyError):
        pair.alpha.run(lambda kme: kme.jobs.run("no such job"))


def test_a_job_with_more_to_do_than_a_portion_goes_on_until_it_is_done(bare: Pair) -> None:
    left, ran = [1000], []

    def collect() -> int:
        part = min(100, left[0])
        left[0] -= part
        ran.append(part)
        return part

    jobs = table(bare, Task("collect", 60.0, collect, 100))
    assert bare.alpha.run(lambda kme: jobs.tick()), "it says that some is left"
    assert (len(ran), left) == (1, [900])  # a tick stays short
    while bare.alpha.run(lambda kme: jobs.tick()):
        assert len(ran) <= 10
    assert (ran[-1], left) == (0, [0])
    assert not bare.alpha.run(lambda kme: jobs.tick())
    assert len(ran) == 11  # and then it waits for its turn
