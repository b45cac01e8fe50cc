"""The deterministic simulation in small: 20 seeds here, any number with `make simulate SEEDS=n`."""

import pytest

from keystrand.kme.service import Kme
from keystrand.testing.world import run_seed
from keystrand.testing.world.faults import Faults
from keystrand.testing.world.planted import PLANTED


@pytest.mark.proves("R031", "R098", "R101")
@pytest.mark.parametrize("seed", range(20))
def test_I1_to_I14_hold_for_an_hour_of_faults(seed: int) -> None:
    verdict = run_seed(seed)
    assert not verdict.violations, f"replay: python -m keystrand.testing.world --replay {seed}"
    assert verdict.keys_fetched > 100, "a world in which nothing happens proves nothing"


def test_same_seed_same_trace() -> None:
    assert run_seed(3, duration_s=600).trace_hash == run_seed(3, duration_s=600).trace_hash
    assert run_seed(3, duration_s=600).trace_hash != run_seed(4, duration_s=600).trace_hash


def test_calm_world_delivers_nearly_everything() -> None:
    verdict = run_seed(1, duration_s=600, faults=Faults())
    assert not verdict.violations
    assert verdict.keys_fetched > 0.9 * verdict.keys_drawn > 0
    assert verdict.refused < 0.05 * verdict.keys_drawn


@pytest.mark.parametrize("bug", PLANTED, ids=lambda bug: bug.__name__)
def test_planted_bug_is_found(bug: type[Kme]) -> None:
    for seed in range(60):
        if run_seed(seed, duration_s=1800, kme_type=bug).violations:
            return
    pytest.fail(f"{bug.__name__} was not found in 60 seeds")
