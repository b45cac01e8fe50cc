"""The verbs that show distillation: at full speed between two processes, and step by step."""

import json

import pytest
from click.testing import CliRunner

from keystrand.cli import lab, link


@pytest.mark.parametrize("reconciler", ["cascade"])
def test_link_run_distils_equal_keys_in_two_processes(reconciler):
    arguments = ["run", "--blocks", "2", "--block-bits", "131072", "--reconciler", reconciler, "--json"]
    done = CliRunner().invoke(link.command, arguments, catch_exceptions=False, standalone_mode=False)
    facts = json.loads(done.stdout.strip().splitlines()[-1])
    ends = facts["ends"]
    assert ends["transmitter"]["digest"] == ends["receiver"]["digest"]
    assert {end["blocks"] for end in ends.values()} == {2}
    assert facts["secret_mbps"] > 0
    assert 1 < facts["f_ec"] < 1.2
    for end in ends.values():
        assert all(end["stage_s"].values())


@pytest.mark.proves("R145")
def test_the_exercise_shows_every_stage_and_both_ends_agree():
    done = CliRunner().invoke(lab.command, ["exercise", "distil", "--json", "--clicks", "2000"], catch_exceptions=False)
    steps = {line["stage"]: line for line in map(json.loads, done.stdout.splitlines())}
    assert list(steps) == ["raw", "sifted", "estimated", "reconciled", "verified", "secret"]
    assert steps["verified"]["equal"]
    assert steps["secret"]["secret_bits"] > 0
    assert steps["secret"]["leak_bits"] == steps["reconciled"]["leak_bits"] + 64


def test_the_exercise_fits_a_screen():
    done = CliRunner().invoke(lab.command, ["exercise", "distil"], catch_exceptions=False)
    assert "Bob after" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100
