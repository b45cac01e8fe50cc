"""keystrand plan verify against a pair of sites that run: figures come from what they measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_cli_two_sites import Operator, found, operators  # noqa: F401

from keystrand.cli import exits
from keystrand.config.load import load_site
from keystrand.core.errors import Unavailable
from keystrand.net.plain import fetch

ESTATE = """
name = "lab"
planned = 2026-11-28

[classes.records]
horizon_years = [20.0, 30.0]
impact = "high"

[sites.alpha]
owner = "Lab"
[sites.bravo]
owner = "Lab"

[links.lab]
ends = ["alpha", "bravo"]
carries = ["records"]
path = "dc-dc"
rekey_s = 3600.0
protocols = [{ name = "ipsec", cipher = "AES-256-GCM" }]
outage_h = 1.0
profile = "class-ingaas"

[[links.lab.segments]]
medium = "dark-fibre"
control = "owned"
loss_db = 0.2
length_km = 1.0
"""


def status(person: Operator) -> dict[str, Any]:
    listen = load_site(person.folder / "site.toml").status.listen  # type: ignore[union-attr]
    try:
        told: dict[str, Any] = json.loads(fetch(listen.host, listen.port))
    except Unavailable:
        return {"peers": [], "links": [], "series": {}}
    return told


def has_key(person: Operator) -> bool:
    told = status(person)
    met = any(peer["up"] and peer["strand_age_s"] is not None for peer in told["peers"])
    return met and any(link["owned_free_bits"] >= 16_384 for link in told["links"])


def wait(what: str, person: Operator, ready: Callable[[Operator], bool]) -> None:
    person.waits(what, lambda: ready(person))


@pytest.mark.timeout(900)
def test_a_running_pair_is_held_against_its_plan(operators: dict[str, Operator], tmp_path: Path) -> None:  # noqa: F811
    found(operators)
    for person in operators.values():
        person.starts("kme", "serve")
        person.starts("module", "module", str(person.folder / "links" / "lab" / "module.toml"))
    for person in operators.values():
        wait("key", person, has_key)
    alpha = operators["alpha"]
    for _ in range(3):
        alpha.types("key", "get", "--sae", "vpn-alpha", "--to", "vpn-bravo")
    estate = tmp_path / "estate.toml"
    estate.write_text(ESTATE)
    sites = [word for person in operators.values() for word in ("--site", str(person.folder / "site.toml"))]
    done = alpha.tries("plan", "verify", str(estate), *sites, "--json")
    assert done.returncode == exits.REFUSED, done.stderr  # keys were drawn far more often than once an hour
    told = {(line["site"], line["figure"]): line for line in map(json.loads, done.stdout.splitlines())}
    assert len(told) == 24
    assert told["alpha", "rotation"]["verdict"] == "drift: below"
    assert told["alpha", "rotation"]["measured"] < 3600 / 2
    assert told["alpha", "delivery p95"]["verdict"] == "as planned"
    assert 0 < told["alpha", "delivery p95"]["measured"] < 360
    assert told["alpha", "keys given"]["measured"] == "hybrid"
    for site in operators:
        assert 0 < told[site, "error rate"]["measured"] < 0.11
        assert told[site, "pool age p95"]["measured"] >= 0
        assert (told[site, "policy asks"]["planned"], told[site, "policy asks"]["measured"]) == (
            "pqc or more",
            "hybrid",
        )
        assert (told[site, "relays"]["measured"], told[site, "relays"]["verdict"]) == ("none", "as planned")
        assert (told[site, "owners"]["measured"], told[site, "owners"]["verdict"]) == ("Lab", "as planned")
        assert told[site, "tunnels"]["verdict"] == told[site, "suites"]["verdict"] == "not measured"
        rate = told[site, "key rate"]
        assert rate["measured"] > 0
        assert rate["basis"] == "simulated"
        assert rate["planned"][0] < rate["planned"][2]
    estate.write_text(ESTATE.replace("alpha", "gamma").replace("links.lab", "links.far"))
    strange = alpha.tries("plan", "verify", str(estate), *sites)
    assert strange.returncode == exits.REFUSED
    assert "the estate knows none such" in strange.stderr
