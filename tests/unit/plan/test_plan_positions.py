"""Positions of agencies: who is bound by what, which contradict each other, and what is late."""

from __future__ import annotations

from datetime import date

import pytest

from keystrand.plan.estate import Estate, Link, Site
from keystrand.plan.fact import Answer, figure
from keystrand.plan.positions import (
    Standing,
    applying,
    catalogue,
    conflicts,
    deadlines,
    excludes_qkd,
    position_findings,
)

PLANNED = date(2026, 11, 28)
MIGRATION = figure((3.0, 5.0))


def estate(a: Site, b: Site, planned: date = PLANNED) -> Estate:
    return Estate(name="e", planned=planned, sites={"a": a, "b": b}, links={"l": Link(ends=("a", "b"))})


def test_every_row_says_who_where_how_bindingly_and_when_it_was_checked() -> None:
    known = catalogue()
    assert len(known.positions) > 30
    for row in known.positions:
        assert all((row.body, row.document, row.says))
        assert row.demand or row.due
        assert row.regimes or row.countries
        assert set(row.regimes) <= set(known.regimes)
        assert row.last_verified <= known.as_of
        assert all(code in known.countries or len(code) == 2 for code in row.countries)


@pytest.mark.parametrize(
    ("site", "body"),
    [
        (Site(regimes=("nss",)), "NSA"),
        (Site(regimes=("us-dow",)), "US Department of War"),
        (Site(regimes=("uk-gov",), jurisdiction="GB"), "UK NCSC"),
    ],
)
def test_one_end_bound_by_a_regulator_that_excludes_qkd_binds_the_link(site: Site, body: str) -> None:
    assert [p.body for p in excludes_qkd(estate(site, Site(jurisdiction="CH")), "l")] == [body]
    assert [p.body for p in excludes_qkd(estate(Site(), site), "l")] == [body]


@pytest.mark.parametrize("country", ["DE", "FR", "GB", "US", "JP", ""])
def test_guidance_alone_excludes_nothing(country: str) -> None:
    here = Site(jurisdiction=country)
    assert excludes_qkd(estate(here, here), "l") == ()


@pytest.mark.proves("R147")
def test_conflicts_between_jurisdictions_are_shown() -> None:
    found = conflicts(applying(estate(Site(regimes=("nss",), jurisdiction="US"), Site(jurisdiction="FR")), "l"))
    said = [str(clash) for clash in found]
    assert "hybrid: NSA (mandate): not-used against ANSSI (guidance): required" in said
    assert any(text.startswith("qkd: NSA (policy): excluded against European Commission") for text in said)
    assert conflicts(applying(estate(Site(jurisdiction="CH"), Site()), "l")) == ()


def test_two_dates_are_no_conflict() -> None:
    dates = [p for p in catalogue().positions if p.due]
    assert conflicts(dates) == ()


@pytest.mark.proves("R147")
def test_deadlines_are_told_apart_by_the_time_that_is_left() -> None:
    found = deadlines(estate(Site(jurisdiction="DE"), Site(jurisdiction="DE")), "l", MIGRATION, migrated=Answer.NO)
    assert [d.left_years for d in found] == sorted(d.left_years for d in found)
    standing = {(d.position.body, d.position.due): d.standing for d in found if d.position.topic != "plan"}
    assert standing["BSI", date(2030, 12, 31)] is Standing.AT_RISK
    assert standing["BSI", date(2031, 12, 31)] is Standing.IN_TIME
    slow = deadlines(estate(Site(jurisdiction="DE"), Site()), "l", figure(4.5), migrated=Answer.UNKNOWN)
    assert {d.standing for d in slow if d.position.due == date(2030, 12, 31)} == {Standing.LATE}


def test_a_link_that_has_migrated_meets_what_is_asked_of_its_key_establishment_only() -> None:
    found = deadlines(estate(Site(jurisdiction="DE"), Site()), "l", MIGRATION, migrated=Answer.YES)
    by_topic = {d.position.topic: d.standing for d in found}
    assert by_topic["key-establishment"] is Standing.MET
    assert by_topic["signatures"] is Standing.IN_TIME


def test_a_date_in_the_past_has_passed() -> None:
    found = deadlines(estate(Site(regimes=("us-federal",)), Site()), "l", MIGRATION, migrated=Answer.NO)
    assert found[0].position.topic == "plan"
    assert found[0].standing is Standing.PASSED


def test_findings_name_unknown_rule_sets_conflicts_and_age() -> None:
    here = estate(Site(regimes=("nss", "atlantis")), Site(jurisdiction="FR"), date(2028, 1, 1))
    said = [finding.says for finding in position_findings(here)]
    assert any("'atlantis' is no rule set" in text for text in said)
    assert any("at odds" in text for text in said)
    assert any("last checked" in text for text in said)
