"""The diagrams of a key's life, drawn from the tables of core/states.py: `python docs/states.py` renews them.

They stand in docs/concepts/key-life.md between marks; only what is between the marks is rewritten.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

from keystrand.core.states import STEPS, TRANSITIONS

PAGE = Path(__file__).parent / "concepts" / "key-life.md"


def diagram(table: Mapping[StrEnum, Mapping[StrEnum, StrEnum]]) -> str:
    """A Mermaid state diagram: the first state of the table is where life begins, a state without moves is an end."""
    names = {state: state.value.replace("-", "_") for state in table}
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {names[next(iter(table))]}"]
    for state, moves in table.items():
        lines += [f"    {names[state]} --> {names[target]}: {move.value}" for move, target in moves.items()]
        if not moves:
            lines.append(f"    {names[state]} --> [*]")
    return "\n".join([*lines, "```"])


def with_diagrams(text: str) -> str:
    """`text` with both diagrams as the tables are now. Raises ValueError where a mark is missing."""
    for name, table in (("steps", STEPS), ("states", TRANSITIONS)):
        begin, end = f"<!-- begin {name} -->\n", f"\n<!-- end {name} -->"
        if begin not in text or end not in text:
            raise ValueError(f"{PAGE.name} has no marks for {name}")
        before, _, rest = text.partition(begin)
        text = before + begin + diagram(table) + end + rest.partition(end)[2]
    return text


if __name__ == "__main__":
    PAGE.write_text(with_diagrams(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
