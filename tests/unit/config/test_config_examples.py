"""The examples are sound but for the files that only an operator has."""

from __future__ import annotations

from pathlib import Path

from keystrand.config.load import module_faults, site_faults

EXAMPLES = Path(__file__).parents[3] / "examples"


def test_the_examples_lack_nothing_but_the_operators_own_files() -> None:
    faults = [*site_faults(EXAMPLES / "site.toml"), *module_faults(EXAMPLES / "module.toml")]
    assert faults
    for fault in faults:
        assert str(fault).endswith("no such file"), str(fault)
