"""The layered model: one layer for each component, nothing left over, and no room of the source or alarm forgotten."""

from __future__ import annotations

import ast
from datetime import date
from pathlib import Path

import msgspec
import pytest

from keystrand.plan.estate import Device, Estate
from keystrand.plan.finding import Severity
from keystrand.plan.layers import architecture, diagram, orphans

SOURCE = Path(__file__).parents[3] / "src" / "keystrand"


def named_alarms() -> set[str]:
    """Names of alarms, read from the source of observe/alarms.py."""
    tree = ast.parse((SOURCE / "observe" / "alarms.py").read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    named = {str(n.args[0].value) for n in calls if n.func.id == "_alarm" and isinstance(n.args[0], ast.Constant)}  # type: ignore[attr-defined]
    warnings = next(n for n in tree.body if isinstance(n, ast.AnnAssign) and getattr(n.target, "id", "") == "_WARNINGS")
    return named | {
        str(key.value)
        for key in ast.walk(warnings)
        if isinstance(key, ast.Constant) and "." in str(key.value)[1:-1] and " " not in str(key.value)
    }


@pytest.mark.proves("R023")
def test_every_room_of_the_source_is_in_exactly_one_layer() -> None:
    rooms = {path.parent.name for path in SOURCE.glob("*/__init__.py")}
    mapped = [room for component in architecture().components for room in component.rooms]
    assert sorted(mapped) == sorted(rooms)


@pytest.mark.proves("R023")
def test_every_alarm_is_raised_by_exactly_one_component() -> None:
    mapped = [alarm for component in architecture().components for alarm in component.alarms]
    assert sorted(mapped) == sorted(named_alarms())


@pytest.mark.proves("R023")
@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"layer": "nowhere"}, "is in no layer"),
        ({"feeds": (), "name": "loose"}, "loose is an orphan"),
        ({"feeds": ("nothing",)}, "nothing is fed"),
        ({"rooms": ("kme",)}, "kme stands for 2"),
    ],
)
def test_a_fault_of_the_model_is_found(change: dict[str, object], fault: str) -> None:
    parts = architecture().components
    broken = msgspec.structs.replace(
        architecture(), components=(*parts[1:], msgspec.structs.replace(parts[0], **change))
    )
    assert any(fault in said for said in broken.faults())


def test_an_empty_layer_is_found() -> None:
    parts = tuple(part for part in architecture().components if part.layer != "applications")
    assert "layer applications has no component" in list(
        msgspec.structs.replace(architecture(), components=parts).faults()
    )


@pytest.mark.proves("R023")
def test_a_device_in_no_layer_is_an_error() -> None:
    devices = {"a": Device(kind="dv-qkd"), "b": Device(kind="teleporter")}
    (found,) = orphans(Estate(name="e", planned=date(2026, 11, 28), devices=devices))
    assert found.place == "devices.b.kind"
    assert found.severity is Severity.BLOCKING


def test_the_diagram_has_every_component_and_every_arrow() -> None:
    drawn = diagram(architecture())
    assert all(f'"{part.name}"' in drawn for part in architecture().components)
    assert drawn.count(" --> ") == sum(len(part.feeds) for part in architecture().components)
