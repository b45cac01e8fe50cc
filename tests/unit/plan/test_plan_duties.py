"""RACI, skills and the risk register."""

from __future__ import annotations

import pytest
from governed import GOVERNANCE, governed

from keystrand.plan.duties import raci, skill_gaps, skills, unowned
from keystrand.plan.governance import Duty
from keystrand.plan.layers import architecture
from keystrand.plan.register import register, risks


@pytest.mark.proves("R108")
def test_every_component_and_alarm_has_a_row_and_exactly_one_accountable_owner() -> None:
    rows = raci(governed())
    parts = architecture().components
    assert [row.name for row in rows if row.kind == "component"] == [part.name for part in parts]
    assert sorted(row.name for row in rows if row.kind == "alarm") == sorted(a for part in parts for a in part.alarms)
    assert all(row.has_one_owner for row in rows)
    assert list(unowned(governed())) == []


@pytest.mark.proves("R108")
def test_no_owner_two_owners_a_stranger_and_a_duty_for_nothing_are_found() -> None:
    duties = {
        **GOVERNANCE.duties,
        "key store": Duty(),
        "cert": Duty(accountable=("anna", "bela")),
        "audit": Duty(accountable=("nobody-we-know",)),
        "coffee": Duty(accountable=("anna",)),
    }
    told = "\n".join(finding.says for finding in unowned(governed(duties=duties)))
    assert "component key store has no accountable owner" in told
    assert "alarm cert has 2 accountable owners" in told
    assert "nobody-we-know, accountable for audit" in told
    assert "coffee is no component" in told


def test_the_nearest_duty_holds() -> None:
    duties = {**GOVERNANCE.duties, "key manager": Duty(accountable=("bela",)), "peer": Duty(accountable=("dora",))}
    rows = {row.name: row for row in raci(governed(duties=duties))}
    assert [rows[name].duty.accountable[0] for name in ("key manager", "stale", "peer", "key store")] == [
        "bela",
        "bela",
        "dora",
        "anna",
    ]
    assert rows["stale"].plain()["stated_for"] == "key manager"


@pytest.mark.proves("R127")
def test_a_skill_with_fewer_than_two_people_is_a_risk_of_the_pilot() -> None:
    assert list(skill_gaps(governed(), "core", relays=1)) == []
    people = {name: person for name, person in GOVERNANCE.people.items() if name != "dora"}
    gaps = {f.says.split(" needs ")[1].split(" (")[0] for f in skill_gaps(governed(people=people), "core", relays=1)}
    assert gaps == {"networks", "incident-response", "facility"}
    assert [s.skill.name for s in skills(governed(), relays=0) if s.skill.only_with_relays] == []


@pytest.mark.proves("R143")
def test_the_register_has_the_known_risks_each_with_measure_and_mitigation() -> None:
    wanted = {"cost", "complexity", "physical", "interoperability", "overclaiming", "skills", "theatre"}
    assert wanted <= {risk.name for risk in risks()}
    entries = register({"relays": "3"}, {"security-policy": "anna"})
    assert {(e.stands, e.owner) for e in entries if e.risk.measure == "relays"} == {("3", "anna")}
    assert all(e.risk.mitigation and e.stands for e in entries)
    assert any("unknown" in e.stands for e in entries)
