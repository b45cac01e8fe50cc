"""Which requirement is shown by which test: `python docs/requirements.py` writes docs/requirements.md.

The rows stand in requirements.tsv. A row is shown by the tests that carry `@pytest.mark.proves("Rnnn")` (on the function,
its class, or the module's `pytestmark`); the tests are read, not run, so the page can be made without installing anything.
"""

from __future__ import annotations

import ast
import csv
from collections.abc import Iterator
from pathlib import Path

DOCS = Path(__file__).parent
ROOT = DOCS.parent
PAGE = DOCS / "requirements.md"

HEAD = """\
# Requirements and what shows them

<!-- Printed by `python docs/requirements.py` from docs/requirements.tsv and the marks in tests/; a test compares. -->

What an IT team may ask of a quantum networking product, from a practical guide to the subject. P0 is needed for the
product to be what it says it is, P1 makes it good, P2 can wait. A row counts as shown only where a test of the suite
carries its mark; a row without a test is not claimed, whatever else the documents say. A mark says that the test shows
the row, or a part of it; read the test for how much.
"""


def rows() -> list[dict[str, str]]:
    """id, priority, group and text of every requirement, in order."""
    with (DOCS / "requirements.tsv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def marks(source: str) -> Iterator[tuple[str, str]]:
    """(requirement, test) of one file, by reading it. `test` is a function's name, or Class::function."""
    tree = ast.parse(source)
    everywhere = [row for node in tree.body if _is_pytestmark(node) for row in _proved(node)]
    for name, decorators in _tests(tree):
        for row in [*everywhere, *(row for decorator in decorators for row in _proved(decorator))]:
            yield row, name


def _is_pytestmark(node: ast.AST) -> bool:
    return isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "pytestmark" for t in node.targets)


def _tests(tree: ast.Module) -> Iterator[tuple[str, list[ast.expr]]]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test"):
            yield node.name, node.decorator_list
        elif isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef) and inner.name.startswith("test"):
                    yield f"{node.name}::{inner.name}", [*node.decorator_list, *inner.decorator_list]


def _proved(node: ast.AST) -> Iterator[str]:
    for call in ast.walk(node):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "proves":
            for argument in call.args:
                if not isinstance(argument, ast.Constant) or not isinstance(argument.value, str):
                    raise ValueError(f"line {call.lineno}: proves() takes the requirement as a plain string")
                yield argument.value


def proofs(tests: Path = ROOT / "tests") -> dict[str, list[str]]:
    """Requirement -> the tests that show it, as `path::test`. Raises ValueError for a mark that names no requirement."""
    known = {row["id"] for row in rows()}
    found: dict[str, list[str]] = {}
    for path in sorted(tests.rglob("test_*.py")):
        for row, name in marks(path.read_text(encoding="utf-8")):
            if row not in known:
                raise ValueError(f"{path}: {name} claims {row}, which is no requirement")
            where = f"{path.relative_to(tests.parent).as_posix()}::{name}"
            if where not in found.setdefault(row, []):
                found[row].append(where)
    return found


def page() -> str:
    """The whole of requirements.md."""
    shown, lines, group = proofs(), [HEAD], ""
    total = rows()
    lines.append(f"Shown by at least one test: {len(shown)} of {len(total)} rows.")
    for row in total:
        if row["group"] != group:
            group = row["group"]
            lines.append(f"\n## {group}\n\n| id | priority | what is asked | shown by |\n|---|---|---|---|")
        tests = "<br>".join(f"`{test}`" for test in shown.get(row["id"], [])) or "–"
        lines.append(f"| {row['id']} | {row['priority']} | {row['what is asked']} | {tests} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
