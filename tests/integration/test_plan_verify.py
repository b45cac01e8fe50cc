"""keystrand plan verify against a pair of sites that run: figures come from what they measured."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from test_cli_two_sites import Operator, found, operators  # noqa: F401

from keystrand.cli import exits

ESTATE = """
name = "lab"
planned = 2026-11-28

[classes.records]
horizon_years = [20.0, 30.0]
impact = "high"

[sites.alpha]
[sites.bravo]

[links.lab]
ends = ["alpha", "bravo"]
carries = ["records"]
path = "dc-dc"
rekey_s = {rekey_s}
outage_h = 1.0
profile = "class-ingaas"

[[links.lab.segments]]
medium = "dark-fibre"
control = "owned"
loss_db = 0.2
length_km = 1.0
"""


@pytest.mark.proves("R052")
def test_a_running_pair_is_held_against_its_plan(
    operators: dict[str, Operator],  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("test_cli_two_sites.READY_S", 150.0)  # only the waiting; nothing here asserts on time
    found(operators)
    for person in operators.values():
        person.starts("serve", "serve")
        person.starts("module", "module", str(person.folder / "links" / "lab" / "module.toml"))
    for person in operators.values():
        person.waits("key", person.can_draw)
    alpha = operators["alpha"]
    for _ in range(4):
        alpha.types("key", "get", "--sae", "vpn-alpha", "--to", "vpn-bravo")
        time.sleep(0.2)
    alpha.waits("figures", lambda: all(link["skr_bps"] for link in alpha.facts("status", "--json")[0]["links"]))
    (tmp_path / "estate.toml").write_text(ESTATE.format(rekey_s=3600.0))
    sites = [word for person in operators.values() for word in ("--site", str(person.folder / "site.toml"))]
    done = alpha.tries("plan", "verify", str(tmp_path / "estate.toml"), *sites, "--json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == exits.REFUSED, done.stderr  # keys were drawn far more often than once an hour
    told = {(line["site"], line["figure"]): line for line in lines}
    assert len(told) == 8
    assert told["alpha", "rotation"]["verdict"] == "drift: below"
    assert told["alpha", "rotation"]["measured"] < 60
    for site in operators:
        rate = told[site, "key rate"]
        assert rate["measured"] > 0
        assert rate["basis"] == "simulated"
        assert rate["planned"][0] < rate["planned"][2]
    shown = alpha.tries("plan", "verify", str(tmp_path / "estate.toml"), *sites)
    assert "drift" in shown.stdout
    (tmp_path / "other.toml").write_text(
        ESTATE.format(rekey_s=3600.0).replace("alpha", "gamma").replace("links.lab", "links.far")
    )
    strange = alpha.tries("plan", "verify", str(tmp_path / "other.toml"), *sites)
    assert strange.returncode == exits.REFUSED
    assert "the estate knows none such" in strange.stderr
