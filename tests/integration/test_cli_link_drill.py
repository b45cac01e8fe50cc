"""Faults and attacks on a running pair, as a user orders them: two real modules in this process, both with their monitors."""

import json

from click.testing import CliRunner

from keystrand.cli import link


def test_a_drill_runs_with_vacuum_beside_the_weak_decoys():
    """A second of more dark counts, which no monitor may call an attack; afterwards key comes to both ends again."""
    arguments = ["drill", "dark-count-rise", "--km", "1", "--seconds", "1", "--vacuum", "--json"]
    done = CliRunner().invoke(link.command, arguments, catch_exceptions=False)
    facts = json.loads(done.stdout.strip().splitlines()[-1])
    assert done.exit_code == 0
    assert facts["intensities"] == [0.4, 0.15, 0.0]
    assert facts["health"] != "attack"
    assert facts["back_after_s"] is not None
