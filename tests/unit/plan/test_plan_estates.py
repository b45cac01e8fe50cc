"""The sample estates: each loads without a fault, and gets the recommendations that it was written for."""

from __future__ import annotations

from pathlib import Path

import pytest

from keystrand.config.load import estate_faults, load_estate

FOLDER = Path(__file__).parents[3] / "examples" / "estates"
ESTATES = {path.stem: load_estate(path) for path in sorted(FOLDER.glob("*.toml"))}


@pytest.mark.proves("R144")
def test_there_is_one_for_each_use_case() -> None:
    assert list(ESTATES) == ["bank", "data-centres", "defence", "research", "telecom", "utility"]


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.toml")), ids=lambda path: path.stem)
def test_an_estate_has_no_fault(path: Path) -> None:
    assert [str(fault) for fault in estate_faults(path)] == []
