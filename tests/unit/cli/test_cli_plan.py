"""keystrand plan: check and classify, as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typed import plan

from keystrand.cli import exits

ESTATE = """\
name = "metro"
planned = 2026-11-28
[classes.plans]
template = "ip-archive"
[classes.prices]
template = "live-readings"
[sites.one]
[sites.two]
[links.vault]
ends = ["one", "two"]
carries = ["plans", "prices"]
path = "dc-dc"
[links.ticker]
ends = ["one", "two"]
carries = ["prices"]
[governance.people.ann]
roles = ["key-owner"]
[governance.people.ben]
roles = ["key-deputy"]
"""


@pytest.fixture
def estate(tmp_path: Path) -> Path:
    file = tmp_path / "estate.toml"
    file.write_text(ESTATE)
    return file


def test_check_tells_gaps_in_lines_that_fit_and_blocks_on_blocking_ones_only(estate: Path) -> None:
    told = plan("check", estate)
    assert told.return_value == exits.OK, told.output
    assert "key lifecycle: empty" in told.stdout
    assert max(map(len, told.output.splitlines())) <= 100
    estate.write_text(ESTATE.replace('["key-deputy"]', "[]"))
    told = plan("check", estate)
    assert told.return_value == exits.REFUSED
    assert told.stdout.startswith("blocking  R050  nobody stands in")


def test_check_tells_faults_first(estate: Path) -> None:
    estate.write_text(ESTATE.replace("ip-archive", "ip-archiv"))
    told = plan("check", estate)
    assert told.return_value == exits.CONFIG
    assert ":4: $.classes.plans.template ip-archiv is not a template" in told.stderr
    assert "did you mean ip-archive?" in told.stderr


def test_check_as_json_has_every_finding(estate: Path) -> None:
    rows = [json.loads(line) for line in plan("check", estate, "--json").stdout.splitlines()]
    assert {"R005", "R053", "R069"} <= {row["requirement"] for row in rows}
    assert {row["severity"] for row in rows} == {"warning", "note"}


def test_classify_shows_what_each_link_is(estate: Path) -> None:
    told = plan("classify", estate)
    assert "10-25 y" in told.stdout
    assert "no quantum treatment" in told.stdout
    assert max(map(len, told.stdout.splitlines())) <= 100
    vault, ticker = (json.loads(line) for line in plan("classify", estate, "--json").stdout.splitlines())
    assert (vault["impact"], vault["horizon_years"], vault["starts_from"]) == (
        "high",
        [10, 17.5, 25],
        "PQC + QKD refresh",
    )
    assert (ticker["lifetime"], ticker["no_quantum_treatment"]) == ("hours", True)
    assert [
        json.loads(line)["link"] for line in plan("classify", estate, "--link", "ticker", "--json").stdout.splitlines()
    ] == ["ticker"]


def test_templates_are_listed() -> None:
    assert "government-records" in plan("templates").stdout
    assert len(plan("templates", "--json").stdout.splitlines()) == len(plan("templates").stdout.splitlines())


LINKS = "link,from,to,length_km\nvault,one,two,40-45\nnorth,one,three,12\n"
SSH = '{"kex": [{"algorithm": "curve25519-sha256"}], "key": [], "target": "bastion:22"}'


def test_import_prints_tables_that_are_an_estate(tmp_path: Path) -> None:
    (tmp_path / "links.csv").write_text(LINKS)
    told = plan("import", tmp_path / "links.csv")
    assert told.return_value == exits.OK, told.output
    (tmp_path / "printed.toml").write_text(told.stdout)
    assert plan("check", tmp_path / "printed.toml").return_value == exits.REFUSED  # nobody owns its keys
    assert "links.csv: csv: 3 sites, 2 links" in told.stderr


def test_import_adds_to_an_estate_and_overwrites_nothing(estate: Path, tmp_path: Path) -> None:
    (tmp_path / "links.csv").write_text(LINKS)
    (tmp_path / "bad.json").write_text("{")
    told = plan("import", tmp_path / "links.csv", tmp_path / "bad.json", "--into", estate)
    assert told.return_value == exits.REFUSED
    assert "bad.json: not JSON" in told.stderr
    assert "1 links stand in the estate already" in told.stderr
    text = estate.read_text()
    assert text.startswith(ESTATE)
    assert text.count("[links.vault]") == 1
    assert "[links.north]" in text
    assert not list(tmp_path.glob("*.new"))


def test_import_for_a_link_says_what_protects_it(estate: Path, tmp_path: Path) -> None:
    (tmp_path / "ssh.json").write_text(SSH)
    assert plan("import", tmp_path / "ssh.json", "--into", estate, "--link", "vault").return_value == exits.OK
    assert '[[links.vault.protocols]]\nname = "ssh"' in estate.read_text()
    told = plan("import", tmp_path / "ssh.json", "--into", estate, "--link", "valt")
    assert "valt is not a link" in str(told.exception)


def test_import_leaves_the_estate_alone_where_the_sum_would_not_be_sound(estate: Path, tmp_path: Path) -> None:
    estate.write_text(ESTATE + '[links.north]\nends = ["one", "two"]\nprotocols = [{ name = "tls" }]\n')
    before = estate.read_text()
    (tmp_path / "ssh.json").write_text(SSH)
    told = plan("import", tmp_path / "ssh.json", "--into", estate, "--link", "north")
    assert "nothing was written" in str(told.exception)
    assert estate.read_text() == before
    assert not list(tmp_path.glob("*.new"))


ENDS = """
[endpoints.portal]
name = "tls"
service = "browser"
negotiated = ["X25519MLKEM768"]
supported = ["X25519MLKEM768", "X25519"]
signature = "sha256WithRSAEncryption"
certificate_expires = 2027-01-31
endpoint = "portal.example:443"
[endpoints.vpn]
name = "ipsec"
"""


@pytest.mark.proves("R067", "R069")
def test_inventory_counts_unknown_ends_and_lists_certificates(estate: Path) -> None:
    estate.write_text(ESTATE + ENDS)
    told = plan("inventory", estate)
    assert told.stdout.splitlines()[:2] == [
        "ipsec   1     0 %           0    0   1        0 %         0    0   1",
        "tls     1     100 %         1    0   0        0 %         0    1   0",
    ]
    assert "portal.example:443  sha256WithRSAEncryption  2027-01-31  64    no" in told.stdout
    rows = [json.loads(line) for line in plan("inventory", estate, "--by-service", "--json").stdout.splitlines()]
    assert [row.get("coverage") for row in rows] == ["browser", "unknown", None]
    assert (rows[0]["key_exchange_share"], rows[0]["signature_share"], rows[2]["days"]) == (1.0, 0.0, 64)


def test_an_inventory_of_nothing_says_how_to_look(estate: Path) -> None:
    told = plan("inventory", estate)
    assert (told.stdout, "keystrand plan scan" in told.stderr) == ("", True)


def test_cbom_is_written_and_read_back(estate: Path, tmp_path: Path) -> None:
    estate.write_text(ESTATE + ENDS)
    out = tmp_path / "estate.cdx.json"
    told = plan("cbom", estate, "--out", out)
    assert told.return_value == exits.OK, told.output
    assert "valid against CycloneDX 1.7" in told.stderr
    back = plan("import", out, "--json")
    assert json.loads(back.stdout)["endpoints"] == 2
    assert json.loads(plan("cbom", estate).stdout) == json.loads(out.read_text())
