"""keystrand plan: feasibility, decide, explain and place, as a user types them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from keystrand.cli import exits
from keystrand.cli.program import root

ESTATE = """\
name = "metro"
planned = 2026-11-28
pilots_max = 1
[classes.plans]
horizon_years = [15.0, 30.0]
impact = "high"
[classes.prices]
template = "live-readings"
[sites.one]
lat = 47.0
lon = 8.0
[sites.two]
lat = 47.0
lon = 9.5
[sites.hall]
[sites.between]
lat = 47.0
lon = 8.4
may_relay = "yes"
[sites.further]
lat = 47.0
lon = 8.8
may_relay = "yes"
[sites.last]
lat = 47.0
lon = 9.15
may_relay = "yes"
[links.vault]
ends = ["one", "hall"]
carries = ["plans", "prices"]
path = "dc-dc"
reroutes_per_year = 0.0
rekey_s = 60.0
tunnels = 2
outage_h = 4.0
on_exhaustion = "fail-closed"
profile = "own.toml"
rotation_tested = "yes"
certificates_listed = "yes"
transport_encrypted = "yes"
endpoints_monitored = "yes"
key_store = "yes"
authentication = "yes"
[[links.vault.segments]]
medium = "dark-fibre"
control = "owned"
length_km = 20.0
loss_db = 6.5
[[links.vault.evidence]]
what = "report of the rotation test"
dated = 2026-09-01
[links.ticker]
ends = ["one", "two"]
carries = ["prices"]
[links.far]
ends = ["one", "two"]
carries = ["plans"]
path = "dc-dc"
[governance.people.ann]
roles = ["key-owner"]
[governance.people.ben]
roles = ["key-deputy"]
"""
OWN = """\
title = "ours"
protocol = "bb84-decoy"
detector_class = "snspd"
[source]
clock_hz = 1e9
[provenance]
"source.clock_hz" = "assumed: for this test"
"""


@pytest.fixture
def estate(tmp_path: Path) -> Path:
    (tmp_path / "own.toml").write_text(OWN)
    file = tmp_path / "estate.toml"
    file.write_text(ESTATE)
    return file


def plan(verb: str, *arguments: object) -> Result:
    return CliRunner().invoke(root, ["plan", verb, *map(str, arguments)])


def told(verb: str, *arguments: object) -> list[dict[str, Any]]:
    result = plan(verb, *arguments, "--json")
    assert result.exit_code == exits.OK, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_feasibility_shows_ranges_with_their_basis_and_says_what_is_unknown(estate: Path) -> None:
    result = plan("feasibility", estate)
    assert result.exit_code == exits.OK
    assert "own.toml" not in result.stdout
    vault = next(line for line in result.stdout.splitlines() if line.startswith("vault"))
    assert vault.endswith("yes")
    assert "no segment of the path is stated" in " ".join(result.stderr.split())


@pytest.mark.proves("R093")
def test_feasibility_for_machines_prints_the_definition_beside_the_exposure(estate: Path) -> None:
    (vault,) = told("feasibility", estate, "--link", "vault")
    assert vault["devices"] == [str(estate.parent / "own.toml")]
    low, likely, high = vault["skr_bps"]
    assert low <= likely <= high <= vault["plob_bps"]
    assert vault["exposure_s"] == pytest.approx(4 * 3600, rel=0.01)
    assert vault["store_lasts_s"] == pytest.approx(4 * 3600)
    assert vault["tunnels_fed"] == int(low // (512 / 60))
    assert "birth" in vault["exposure_means"]
    assert vault["loss_found_by"] == "measured or agreed dB"


def test_published_links_are_set_beside_the_ranges(estate: Path) -> None:
    result = plan("feasibility", estate, "--published")
    assert "held out, field:" in result.stderr
    rows = told("feasibility", estate, "--published")
    assert {row["role"] for row in rows} == {"tuning", "held-out"}
    assert {row["standing"] for row in rows} == {"read", "recalled"}


def test_decide_gives_each_link_a_pattern_and_the_rule_that_led_to_it(estate: Path) -> None:
    result = plan("decide", estate, "--everywhere")
    assert result.exit_code == exits.OK
    lines = {line.split()[0]: line for line in result.stdout.splitlines()}
    assert "PQC + QKD refresh" in lines["vault"]
    assert "classical hardening" in lines["ticker"]
    assert "1. vault (waits;" in result.stderr
    assert lines["vault"].split("  ")[-1].strip() == "waits: answers, waits: figures"
    assert "QKD waits: metrics pipeline" in result.stderr or "nobody has measured it (R094)" in result.stderr
    assert "QKD on all 3 links: 1 feasible" in result.stderr
    assert max(len(line) for line in result.stdout.splitlines()) <= 100


def test_decisions_for_machines_name_every_rule_with_its_evidence(estate: Path) -> None:
    vault, ticker, far = told("decide", estate)
    assert vault["pilot"]
    assert vault["adds"][0] == "hardened classical transport"
    assert {fired["requirement"] for fired in vault["fired"]} >= {"R006", "R034", "R059", "R121", "R122"}
    assert all(fired["evidence"] for each in (vault, ticker, far) for fired in each["fired"])
    assert far["pattern"] == "PQC"
    assert [each["removes"] for each in (vault, ticker, far)] == [[], [], []]
    assert "light" in far["against_qkd"]


def test_explain_says_which_rules_fired_and_what_would_change_the_answer(estate: Path) -> None:
    result = plan("explain", estate, "vault")
    assert result.exit_code == exits.OK
    assert "key rate" in result.stdout
    assert "horizon_years" in result.stdout
    assert max(len(line) for line in result.stdout.splitlines()) <= 140
    (found,) = told("explain", estate, "vault")
    assert {"field", "now", "then", "pattern", "factor"} == set(found["flips"][0])
    assert [trade["relays"] for trade in found["trades"]] == [0, 1, 2, 3, 4]


def test_explain_of_a_link_that_is_not_there_names_those_that_are(estate: Path) -> None:
    result = CliRunner().invoke(root, ["plan", "explain", str(estate), "volt"])
    assert result.exit_code != exits.OK


def test_place_finds_relays_for_a_link_without_fibre_of_its_own(estate: Path) -> None:
    (found,) = told("place", estate, "--link", "far", "--time-s", "5")
    assert found["routes"]["far"][0][0] == "one"
    assert found["routes"]["far"][0][-1] == "two"
    assert set(found["relays"]) <= {"between", "further", "last"}
    assert found["relays"]
    assert found["gap"] == 0.0
    assert found["cost_is_money"] is False
    spoken = plan("place", estate, "--link", "far")
    assert "the best possible is at most 0.0% cheaper" in spoken.stderr


def test_place_takes_a_fibre_that_the_estate_knows_before_the_map(estate: Path) -> None:
    (found,) = told("place", estate, "--link", "vault")
    assert (found["relays"], found["routes"]) == ([], {"vault": [["one", "hall"]]})


def test_place_says_so_where_sites_of_undocumented_trust_are_not_wanted(estate: Path) -> None:
    result = plan("place", estate, "--link", "far", "--untrusted-max", "0")
    assert result.exit_code == exits.REFUSED
    assert "cannot be placed" in result.stderr


@pytest.mark.parametrize("verb", ["roadmap", "gates", "risk"])
def test_other_verbs_plan_with_the_users_own_device_files_too(estate: Path, verb: str) -> None:
    result = plan(verb, estate)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert "no device profile" not in result.output
