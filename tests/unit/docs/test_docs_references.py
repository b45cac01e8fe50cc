"""What the documents point at exists: pages, tests, files of the source, metrics, make targets."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

from keystrand.observe.metric_table import METRICS

ROOT = Path(__file__).parents[3]
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
OURS = [page for page in PAGES if page.parent.name != "reference"]
IDS = [str(page.relative_to(ROOT)) for page in OURS]

LINK = re.compile(r"\]\(([^)#\s]+)(#[^)\s]*)?\)")
TEST = re.compile(r"`(tests/[\w/]+\.py)::([\w:]+)`")
CODE = re.compile(r"`((?:docs|tests|bench|examples|src/keystrand|keystrand|\w+)/[\w/.-]+\.(?:py|md|toml|tsv))`")
METRIC = re.compile(r"`((?:qkd|pool|keys|audit|peer|strand|tls|downgrade|waivers)_[a-z_]+)`")


@pytest.mark.parametrize("page", OURS, ids=IDS)
def test_every_link_leads_to_a_file(page: Path) -> None:
    targets = [match[1] for match in LINK.finditer(page.read_text()) if "://" not in match[1]]
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing


@pytest.mark.parametrize("page", OURS, ids=IDS)
def test_every_named_test_exists(page: Path) -> None:
    for path, name in TEST.findall(page.read_text()):
        nodes = ast.walk(ast.parse((ROOT / path).read_text()))
        names = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert name.rpartition("::")[2] in names, f"{path} has no {name}"


@pytest.mark.parametrize("page", OURS, ids=IDS)
def test_every_named_file_of_the_source_exists(page: Path) -> None:
    for name in CODE.findall(page.read_text()):
        places = [ROOT / name, ROOT / "src" / name, ROOT / "src" / "keystrand" / name]
        assert any(place.exists() for place in places), f"there is no {name}"


@pytest.mark.parametrize("page", OURS, ids=IDS)
def test_every_named_metric_is_exported(page: Path) -> None:
    known = {metric.name for metric in METRICS}
    # a field of a file may begin like a metric; metrics end in what Prometheus wants
    ends = ("_total", "_ratio", "_seconds", "_records", "_bps", "_bits", "_up", "_state")
    named = {name for name in METRIC.findall(page.read_text()) if name.endswith(ends)}
    assert named <= known | {"pool_bits"}


@pytest.mark.parametrize("page", OURS, ids=IDS)
def test_every_named_make_target_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = page.read_text()
    fenced = "\n".join(re.findall(r"^ *```\w*\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL))
    named = {*re.findall(r"`make ([a-z-]+)", text), *re.findall(r"^(?:\$ )?make ([a-z-]+)", fenced, re.MULTILINE)}
    assert named <= targets


@pytest.mark.proves("R001", "R038")
@pytest.mark.parametrize("page", OURS, ids=IDS)
def test_no_page_promises_what_nobody_can_keep(page: Path) -> None:
    """Words that claim more than QKD gives; the requirements quote some of them and are left out."""
    if page.name == "requirements.md":
        return
    words = (
        r"unbreakable|unhackable|end-to-end quantum|quantum internet|instant(?:ly)? secure|100 ?% secure|military-grade"
    )
    assert not re.findall(words, page.read_text(), re.IGNORECASE)


def test_the_pages_are_found() -> None:
    assert len(OURS) > 10


def test_every_dependency_has_its_line() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [
        *project["project"]["dependencies"],
        *(name for extra in project["project"]["optional-dependencies"].values() for name in extra),
        *(name for group in project["dependency-groups"].values() for name in group),
    ]
    lines = (ROOT / "docs" / "decisions" / "dependencies.md").read_text()
    listed = set(re.findall(r"`([a-z0-9-]+)`", "\n".join(re.findall(r"^\| (.*?) \|", lines, re.MULTILINE))))
    assert listed == {re.split(r"[<>=\[ ]", name)[0] for name in wanted}
