"""The page of failures: what it names is there, and nothing that every tunnel is put through is left out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).parents[3] / "docs"


@pytest.fixture
def failures(generator: Callable[[str], ModuleType]) -> ModuleType:
    return generator("failures")


@pytest.mark.proves("R103")
def test_the_page_of_failures_is_what_the_table_says_and_its_tests_are_there(failures: ModuleType) -> None:
    assert (DOCS / "reference" / "failures.md").read_text() == failures.page(), "run: python docs/failures.py"


def test_a_failure_without_its_test_is_refused(failures: ModuleType) -> None:
    table = failures.rows()
    for tests, why in (
        ("", "no test shows it"),
        ("tests/unit/docs/test_docs_failures.py::test_nothing", "is no test"),
        ("tests/unit/docs/nowhere.py::test_nothing", "is no test"),
        ("tests/integration/test_tunnel_ipsec.py::test_whatever_happens[all_is_well]", "no case"),
    ):
        with pytest.raises(ValueError, match=why):
            failures.check([{**table[0], "tests": tests}, *table[1:]])


def test_a_check_of_the_daemons_without_a_row_is_noticed(failures: ModuleType) -> None:
    with pytest.raises(ValueError, match="a_pulled_wire_costs_only_what_was_sent_meanwhile is in no row"):
        failures.check([row for row in failures.rows() if row["failure"] != "the wire is cut"])
