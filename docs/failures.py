"""What fails, what then happens, and which test shows it: `python docs/failures.py` writes reference/failures.md.

The rows stand in failures.tsv, a line each. Raises ValueError for a row whose test is not there, and for a failure that every
kind of tunnel is put through (testing.daemon_conformance) and that has no row.
"""

from __future__ import annotations

import ast
import csv
from collections.abc import Iterable
from pathlib import Path

from keystrand.testing.daemon_conformance import DAEMON_CHECKS

DOCS = Path(__file__).parent
ROOT = DOCS.parent
PAGE = DOCS / "reference" / "failures.md"
Row = dict[str, str]

HEAD = """\
# Failures and what then happens

<!-- Printed by `python docs/failures.py` from docs/failures.tsv; a test compares. -->

Each row is a failure that a test brings about, the outcome that is declared, and the tests that fail when it is another. They
are part of `make test`; a release whose tests pass had these outcomes. A test that needs what a machine lacks (namespaces, a
daemon, PostgreSQL) is skipped there and says so. What is not listed is not claimed.
"""


def rows() -> list[Row]:
    """part, failure, outcome and tests (`path::test`, with a space between two) of each."""
    with (DOCS / "failures.tsv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def check(table: Iterable[Row], tests: Path = ROOT) -> None:
    """Raises ValueError where a row names no test, or a check of the daemons is in no row."""
    told = [test for row in table for test in _tests(row)]
    for row in table:
        if not _tests(row):
            raise ValueError(f"{row['failure']}: no test shows it")
    for test in told:
        path, _, name = test.partition("::")
        name, _, case = name.removesuffix("]").partition("[")
        if name not in _functions(tests / path):
            raise ValueError(f"{test} is no test")
        if case and case not in {each.__name__ for each in DAEMON_CHECKS}:
            raise ValueError(f"{test} is no case of daemon_conformance")
    for each in DAEMON_CHECKS:
        if not any(test.endswith(f"[{each.__name__}]") for test in told):
            raise ValueError(f"{each.__name__} is in no row of failures.tsv")


def _tests(row: Row) -> list[str]:
    return row["tests"].split()


def _functions(path: Path) -> set[str]:
    if not path.is_file():
        return set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def page() -> str:
    """The whole of failures.md."""
    table = rows()
    check(table)
    lines, part = [HEAD], ""
    for row in table:
        if row["part"] != part:
            part = row["part"]
            lines.append(f"## {part}\n\n| failure | outcome | shown by |\n|---|---|---|")
        shown = "<br>".join(f"`{test}`" for test in _tests(row))
        lines.append(f"| {row['failure']} | {row['outcome']} | {shown} |")
    return "\n".join(lines).replace("\n## ", "\n\n## ").replace("\n\n\n", "\n\n") + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
