"""The page on keys between networks shows the table that the code runs."""

from __future__ import annotations

import re
from pathlib import Path

from keystrand.wire.handover import TRANSITIONS, Stage, Step

PAGE = Path(__file__).parents[3] / "docs" / "concepts" / "between-networks.md"


def test_the_table_of_stages_is_the_one_in_the_code() -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in PAGE.read_text().splitlines()
        if line[:1] == "|"
    ]
    start = next(number for number, row in enumerate(rows) if row[0] == "in stage")
    assert rows[start][1:] == [step.value for step in Step]
    table = {row[0]: row[1:] for row in rows[start + 2 : start + 2 + len(Stage)]}
    assert table == {stage.value: [str(TRANSITIONS[stage].get(step, "")) for step in Step] for stage in Stage}


def test_every_stage_is_explained() -> None:
    explained = re.findall(r"^\| (\w+) \| [^|]{10,} \|$", PAGE.read_text(), re.MULTILINE)
    assert {stage.value for stage in Stage} <= set(explained)
