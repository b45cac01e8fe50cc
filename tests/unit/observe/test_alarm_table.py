"""Each alarm has an owner who may see it, a severity, and a runbook that is there; one that is in no table cannot be raised."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

from keystrand.console.terminal import render_status
from keystrand.core.events import KINDS, Event, Severity
from keystrand.govern.roles import ROLES, Operation, Role
from keystrand.observe import alarms
from keystrand.observe.alarm_table import CALLS, Call, reference_page
from keystrand.observe.feed import Feed

ROOT = Path(__file__).parents[3]
ALERTS = {kind for kind, severity in KINDS.items() if severity is Severity.ALERT}


def raised(source: str) -> set[str]:
    """Names that `source` gives to `_alarm` as they stand there, and the warnings that it makes of events."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    ours = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "_alarm"]
    return {call.args[0].value for call in ours if isinstance(call.args[0], ast.Constant)}  # type: ignore[misc]


def faults(calls: dict[str, Call]) -> list[str]:
    """What keeps the table from being acted on, in words."""
    names = sorted(raised(inspect.getsource(alarms)) | ALERTS | {*alarms._WARNINGS})
    found = [f"{name}: no entry" for name in names if name not in calls]
    found += [f"{name}: never raised" for name in calls if name not in names]
    for name, call in calls.items():
        if call.severity not in ("alert", "warning") or (name in ALERTS and call.severity != "alert"):
            found.append(f"{name}: severity {call.severity!r}")
        if call.owner not in {*Role} or Operation.ALARMS_READ not in ROLES[Role(call.owner)]:
            found.append(f"{name}: owner {call.owner!r}")
        page = ROOT / call.runbook
        if not page.is_file() or f"`{name}`" not in page.read_text():
            found.append(f"{name}: {call.runbook} is not there, or does not name it")
    return found


@pytest.mark.proves("R092")
def test_every_alarm_has_a_severity_an_owner_and_a_runbook_that_names_it() -> None:
    assert faults(dict(CALLS)) == []


@pytest.mark.proves("R092")
@pytest.mark.parametrize(
    ("call", "text"),
    [
        (None, "no entry"),
        (Call("", "operator", "link-down", "x"), "severity"),
        (Call("alert", "", "link-down", "x"), "owner"),
        (Call("alert", "custodian", "link-down", "x"), "owner"),
        (Call("alert", "operator", "", "x"), "is not there"),
        (Call("alert", "operator", "tunnel-down", "x"), "does not name it"),
    ],
)
@pytest.mark.parametrize("name", ["link", "link.block_rejected"])
def test_an_alarm_that_lacks_one_is_found(name: str, call: Call | None, text: str) -> None:
    spoilt = {other: entry for other, entry in CALLS.items() if other != name} | ({name: call} if call else {})
    (found,) = faults(spoilt)
    assert found.startswith(f"{name}: ")
    assert text in found


def test_an_alarm_is_never_made_beside_the_table() -> None:
    source = inspect.getsource(alarms)
    assert source.count(" Alarm(") == 1, "use _alarm, which looks the name up"
    assert len(raised(source)) > 10


@pytest.mark.proves("R092")
def test_whoever_reads_the_status_reads_whom_it_calls_and_which_page_says_what_to_do() -> None:
    feed = Feed("alpha")
    now_s = feed.snapshot()["at_s"]
    for kind in sorted(ALERTS):
        feed.emit(Event(kind, now_s, {"reason": "test"}))
    plain = feed.snapshot()
    assert {alarm["name"] for alarm in plain["alarms"]} == ALERTS - alarms._LASTING
    text = render_status(plain)
    for alarm in plain["alarms"]:
        assert f"  {alarm['owner']}: see {alarm['runbook']}" in text.splitlines()


def test_the_page_of_alarms_is_what_the_table_says() -> None:
    assert (ROOT / "docs" / "reference" / "alarms.md").read_text() == reference_page(), "run: python docs/alarms.py"
