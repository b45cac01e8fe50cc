"""Rows of a bench: a goal is met on its good side only, and the JSON says so."""

import json

import pytest
from bench.report import Row, publish


@pytest.mark.parametrize(
    ("value", "better", "met"),
    [(2.0, "higher", True), (0.5, "higher", False), (0.5, "lower", True), (2.0, "lower", False)],
)
def test_goal_is_met_on_the_good_side_only(value, better, met):
    assert Row(name="x", value=value, unit="s", goal=1.0, better=better).met is met


def test_publish_writes_what_it_prints(tmp_path, capsys):
    rows = [
        Row(name="errors", value=1, unit="count", goal=0, better="lower"),
        Row(name="speed", value=5, unit="Mbit/s"),
    ]
    assert publish("demo", rows, out=tmp_path) is False
    document = json.loads((tmp_path / "demo.json").read_text())
    keys = {"name", "value", "unit", "goal", "better", "met", "reference"}
    assert set(document[0]) == keys
    assert [row["met"] for row in document] == [False, None]
    assert "NO" in capsys.readouterr().out
