"""keystrand link simulate and profiles, as their user runs them."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from keystrand.cli.link import command
from keystrand.config.load import load_profile
from keystrand.core.errors import ConfigError


def run(*words: str) -> str:
    result = CliRunner().invoke(command, list(words), catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_a_curve_falls_with_distance_and_stays_below_the_bound():
    lines = [json.loads(line) for line in run("simulate", "--to-km", "100", "--step-km", "25", "--json").splitlines()]
    assert [p["km"] for p in lines] == [0, 25, 50, 75, 100]
    rates = [p["skr_bps"] for p in lines]
    assert rates == sorted(rates, reverse=True)
    assert all(p["figures"] == "simulated" and (p["plob_bps"] is None or p["skr_bps"] < p["plob_bps"]) for p in lines)


@pytest.mark.parametrize("picture", ["curve.png", "curve.svg"])
def test_a_curve_is_drawn(tmp_path, picture):
    pytest.importorskip("matplotlib", reason="matplotlib is in the extra `report`")
    run("simulate", "--to-km", "60", "--plot", str(tmp_path / picture))
    assert (tmp_path / picture).stat().st_size > 5000


def test_every_figure_of_a_profile_has_a_source():
    for line in run("profiles", "--json").splitlines():
        for fact in run("profiles", json.loads(line)["profile"], "--json").splitlines():
            assert json.loads(fact)["source"].startswith(("measured: ", "published: ", "assumed: "))


@pytest.mark.parametrize(
    ("find", "put", "line_holds"),
    [
        ("mu = 0.4", "mu = 4.0", "mu = 4.0"),
        ('"source.mu" = "assumed: best of a search for this link"\n', "", "mu = 0.4"),
        ('"assumed: gated InGaAs"', '"believe me"', "believe me"),
        ("mu = 0.4", "my = 0.4", "my = 0.4"),
    ],
)
def test_a_faulty_profile_is_refused_with_its_line(tmp_path, find, put, line_holds):
    from keystrand.config.linkprofile import path_of

    text = path_of("class-ingaas").read_text().replace(find, put, 1)
    file = tmp_path / "own.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_profile(str(file))
    assert line_holds in text.splitlines()[caught.value.line - 1]


def test_the_commands_of_the_guide_run(tmp_path, monkeypatch):
    import shlex
    from pathlib import Path

    page = (Path(__file__).parents[3] / "docs/guides/link-planning.md").read_text()
    commands = [line[2:] for line in page.splitlines() if line.startswith("$ keystrand link ")]
    assert len(commands) >= 6
    monkeypatch.chdir(tmp_path)
    for line in commands:
        run(*shlex.split(line)[2:])
    assert (tmp_path / "curve.svg").exists()
