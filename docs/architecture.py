"""The layers and components: `python docs/architecture.py` writes docs/concepts/architecture.md from plan/data."""

from __future__ import annotations

from pathlib import Path

from keystrand.plan.layers import architecture, diagram, table

PAGE = Path(__file__).parent / "concepts" / "architecture.md"

HEAD = """\
# The layers

<!-- Printed by `python docs/architecture.py` from src/keystrand/plan/data/architecture.toml; a test compares. -->

Every component is in exactly one layer. QKD is one source of keys at the bottom; it takes no layer away. The planner holds the
devices of an estate against this table, and calls it an error where one of them is in no layer.
"""


def page() -> str:
    """The whole page."""
    found = architecture()
    return "\n".join([HEAD, diagram(found), "", table(found)]) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
