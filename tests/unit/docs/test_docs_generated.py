"""Pages that are printed from code say what the code says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import pytest

from keystrand.core.limits import Limits
from keystrand.core.states import STEPS, TRANSITIONS

DOCS = Path(__file__).parents[3] / "docs"


Generator = Callable[[str], ModuleType]


def test_the_page_of_limits_is_what_the_code_prints_and_explains_every_limit(generator: Generator) -> None:
    limits = generator("limits")
    assert {limit.name for limit in fields(Limits)} == limits.MEANINGS.keys()
    assert (DOCS / "limits.md").read_text() == limits.page(), "run: python docs/limits.py"


def test_a_limit_without_a_meaning_is_noticed(generator: Generator) -> None:
    limits = generator("limits")
    del limits.MEANINGS["key_ttl_s"]
    with pytest.raises(KeyError):
        limits.page()


def test_the_diagrams_of_a_keys_life_are_drawn_from_the_tables(generator: Generator) -> None:
    text = (DOCS / "concepts" / "key-life.md").read_text()
    assert text == generator("states").with_diagrams(text), "run: python docs/states.py"


def test_a_diagram_has_every_move_of_its_table(generator: Generator) -> None:
    for table in (STEPS, TRANSITIONS):
        drawn = generator("states").diagram(table)
        assert drawn.count(" --> ") - drawn.count("[*]") == sum(len(moves) for moves in table.values())


def test_the_page_of_requirements_is_what_the_marks_say(generator: Generator) -> None:
    page = generator("requirements").page()
    assert (DOCS / "requirements.md").read_text() == page, "run: python docs/requirements.py"


def test_marks_are_read_from_functions_classes_and_modules(generator: Generator) -> None:
    source = """
import pytest
pytestmark = pytest.mark.proves("R001")

@pytest.mark.proves("R002", "R003")
async def test_one(): ...

@pytest.mark.proves("R004")
class TestTwo:
    @pytest.mark.proves("R005")
    def test_three(self): ...

def helper(): ...
"""
    assert sorted(generator("requirements").marks(source)) == [
        ("R001", "TestTwo::test_three"),
        ("R001", "test_one"),
        ("R002", "test_one"),
        ("R003", "test_one"),
        ("R004", "TestTwo::test_three"),
        ("R005", "TestTwo::test_three"),
    ]


def test_a_mark_that_cannot_be_read_or_names_nothing_is_refused(generator: Generator, tmp_path: Path) -> None:
    requirements = generator("requirements")
    with pytest.raises(ValueError, match="plain string"):
        list(requirements.marks("@pytest.mark.proves(ROW)\ndef test_one(): ..."))
    (tmp_path / "test_odd.py").write_text('@pytest.mark.proves("R999")\ndef test_one(): ...')
    with pytest.raises(ValueError, match="R999"):
        requirements.proofs(tmp_path)


def test_every_requirement_has_an_id_of_its_own_a_priority_and_words(generator: Generator) -> None:
    rows = generator("requirements").rows()
    assert [row["id"] for row in rows] == [f"R{number:03}" for number in range(1, 151)]
    assert {row["priority"] for row in rows} == {"P0", "P1", "P2"}
    assert all(row["what is asked"].strip() for row in rows)


@pytest.mark.proves("R023")
def test_the_page_of_layers_is_drawn_from_the_table(generator: Generator) -> None:
    page = generator("architecture").page()
    assert (DOCS / "concepts" / "architecture.md").read_text() == page, "run: python docs/architecture.py"
