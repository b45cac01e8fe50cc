"""Findings: where, how heavy, in which order."""

from __future__ import annotations

from keystrand.plan.finding import Finding, Severity, blocking, by_weight

NOTE = Finding(("links", "a"), "is short", "R122", Severity.NOTE)
STOP = Finding(("links", "b", "on_exhaustion"), "is unanswered", "R053", Severity.BLOCKING, "write fail-closed")
WARN = Finding(("classes", "c"), "has no owner", "R116")


def test_a_finding_names_its_place() -> None:
    assert STOP.place == "links.b.on_exhaustion"


def test_the_worst_comes_first_whatever_the_order() -> None:
    assert by_weight([NOTE, WARN, STOP]) == by_weight([STOP, NOTE, WARN]) == [STOP, WARN, NOTE]
    assert blocking([NOTE, WARN, STOP]) == (STOP,)
