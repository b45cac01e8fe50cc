"""The list of connectors is whole, each has tests that are there, and none decides on policy itself."""

from __future__ import annotations

import ast
import importlib.util
import tomllib
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from types import ModuleType

import pytest

from keystrand.transport.tunnel.kinds import BUILT_IN

ROOT = Path(__file__).parents[3]
SOURCE = ROOT / "src" / "keystrand"
NO_CONNECTOR = {"admin", "exchange", "openapi", "reports", "turnstile"}  # of api: our own surface, and its parts
# who may ask a policy what it says: the key service, the language itself, and pages that show a person what would be decided
DECIDES = {"rule_for", "floor_at", "lowest_at", "require_at", "check_ask"}
MAY_ASK = ("core/", "kme/", "testing/", "config/verdict.py", "config/policy_checks.py")
SHOWS = ("api/admin_reads.py", "node/sdn.py", "node/readings.py")


@pytest.fixture(scope="module")
def printed(generator: Callable[[str], ModuleType]) -> ModuleType:
    return generator("connectors")


@pytest.mark.proves("R065")
def test_the_page_is_what_the_table_prints_and_each_test_is_about_its_connector(printed: ModuleType) -> None:
    assert printed.PAGE.read_text() == printed.page(), "run: python docs/connectors.py"
    for one in printed.CONNECTORS:
        assert importlib.util.find_spec(one.module), one.module
        assert one.tests, one.what
        for test in one.tests:
            text = (ROOT / test).read_text()
            assert "def test_" in text, test
            assert one.word in text, (test, one.word)


@pytest.mark.proves("R065")
def test_the_list_has_every_kind_of_tunnel_and_every_interface(printed: ModuleType) -> None:
    listed = {one.module for one in printed.CONNECTORS}
    assert {point.partition(":")[0] for point in BUILT_IN.values()} <= listed
    rooms = {path.stem.partition("_")[0] for path in (SOURCE / "api").glob("*.py")} - {""}
    assert rooms - NO_CONNECTOR == {name.rpartition(".")[2] for name in listed if name.startswith("keystrand.api.")}


@pytest.mark.proves("R065")
def test_policy_is_decided_in_the_key_service_and_no_connector_reads_it(printed: ModuleType) -> None:
    asking = set()
    for path in sorted(SOURCE.rglob("*.py")):
        place = path.relative_to(SOURCE).as_posix()
        used = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
        if used & DECIDES and not place.startswith(MAY_ASK):
            asking.add(place)
    assert asking <= set(SHOWS), "they decide on policy beside the key service"
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    barred = chain.from_iterable(
        contract["source_modules"]
        for contract in contracts
        if "keystrand.core.policy" in contract.get("forbidden_modules", ())
    )
    rooms = set(barred)
    for one in printed.CONNECTORS:
        if not one.module.startswith(("keystrand.crypto.", "keystrand.observe.")):  # neither hands out keys
            assert any(one.module == room or one.module.startswith(room + ".") for room in rooms), one.module
