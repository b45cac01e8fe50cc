"""keystrand policy: explain says what the KME would do, diff what would change, check what deserves a look."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keystrand.cli import exits
from keystrand.cli.program import run
from keystrand.config.load import load_site
from keystrand.config.verdict import desk_of
from keystrand.core.errors import KeystrandError
from keystrand.kme.ask import check_ask
from keystrand.lab.pair import found_pair

EXTRA = """
[tenants.acme]
quota_bps = 2048.0
quota_burst_bits = 65536

[saes.vault-alpha]
site = "alpha"
tenant = "acme"
geography = "EU"

[saes.vault-bravo]
site = "bravo"
tenant = "acme"
geography = "EU"

[saes.till-bravo]
site = "bravo"

[[policy]]
from = "tenant=acme"
to = "geography=EU"
on_exhaustion = "open"
sizes_bits = [256, 512]
cryptoperiod_s = 3600.0
[policy.fallback]
protection = "pqc"
keys = 10
for_s = 60.0
approved_by = ["R. Ohm"]
reason = "the vault must open"

[[policy]]
from = "gateway-alpha"
to = "till-bravo"
on_exhaustion = "closed"
require = "pqc"
[policy.waiver]
protection = "pqc"
approved_by = ["R. Ohm"]
reason = "no fibre yet"
expires = 2099-01-01T00:00:00Z
"""

Out = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return found_pair(tmp_path_factory.mktemp("pair"), extra=EXTRA).site_files["alpha"]


def explain(site: Path, *words: str) -> int:
    return run(["policy", "explain", "--config", str(site), *words])


def told(capsys: Out) -> Any:
    return json.loads(capsys.readouterr().out)


def place_of(site: Path, sae: str) -> str:
    """file:line of the entry whose `from` this is."""
    rows = site.read_text().splitlines()
    return f"{site}:{rows.index(f'from = {json.dumps(sae)}')}"


def test_a_verdict_names_each_step_and_the_line_of_the_rule(site: Path, capsys: Out) -> None:
    assert explain(site, "--as", "vault-alpha", "--to", "vault-bravo", "--size", "512") == exits.OK
    out = capsys.readouterr().out
    assert f"({place_of(site, 'tenant=acme')})" in out
    assert "keys of 512 bits, tenant acme, geography EU" in out
    assert "fails open: pqc for at most 10 keys within 60 s" in out
    assert "quota of tenant acme: 2048 bit/s" in out
    assert "cryptoperiod: 3600 s" in out
    assert out.endswith("allowed, if there are bits\n")


def test_a_refusal_is_the_last_step_and_the_exit_status(site: Path, capsys: Out) -> None:
    assert explain(site, "--as", "vault-alpha", "--to", "vault-bravo", "--size", "128") == exits.REFUSED
    out, err = capsys.readouterr()
    assert "NO   terms" in out
    assert "refused: vault-alpha may draw keys of 256, 512 bits" in out
    assert place_of(site, "tenant=acme") in err
    assert explain(site, "--as", "till-bravo", "--to", "gateway-alpha", "--json") == exits.REFUSED
    assert told(capsys)["findings"][-1] | {"hint": ""} == {
        "check": "caller",
        "passed": False,
        "words": "till-bravo is not an SAE of this site",
        "hint": "",
        "source": "",
    }


def test_a_verdict_is_about_a_moment(site: Path, capsys: Out) -> None:
    words = ["--as", "gateway-alpha", "--to", "till-bravo", "--json", "--at"]
    assert explain(site, *words, "2030-01-01T00:00:00Z") == exits.OK
    assert told(capsys)["required"] == "pqc"
    assert explain(site, *words, "2099-01-01T00:00:00+00:00") == exits.OK
    assert told(capsys)["required"] == "hybrid", "the level below hybrid ends with its waiver"
    assert explain(site, *words, "2030-01-01T00:00:00") == exits.REFUSED
    assert explain(site, *words, "tomorrow") == exits.REFUSED


NAMES = st.sampled_from(["gateway-alpha", "gateway-bravo", "vault-alpha", "vault-bravo", "till-bravo", "nobody"])


@pytest.mark.proves("R066")
@settings(derandomize=True, deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(NAMES, NAMES, st.sampled_from([None, 1, 128, 129]), st.sampled_from([None, 256, 512, 100, 4104]))
def test_the_command_line_and_the_service_come_to_the_same_verdict(
    site: Path, capsys: Out, initiator: str, responder: str, number: int | None, size_bits: int | None
) -> None:
    words = [*(["--number", str(number)] if number else []), *(["--size", str(size_bits)] if size_bits else [])]
    capsys.readouterr()
    status = explain(site, "--as", initiator, "--to", responder, "--at", "2030-01-01T00:00:00Z", "--json", *words)
    found = told(capsys)
    try:
        check_ask(desk_of(load_site(site), 1_893_456_000.0), initiator, responder, number, size_bits, ())
        met = None
    except KeystrandError as error:
        met = error
    assert found["allowed"] is (met is None) is (status == exits.OK)
    assert found["error"] == (type(met).__name__ if met else None)
    assert met is None or found["findings"][-1]["words"] == str(met)


def test_a_dry_run_tells_what_would_change_and_for_whom(site: Path, capsys: Out) -> None:
    new = site.with_name("new.toml")
    text = site.read_text().replace("sizes_bits = [256, 512]", "sizes_bits = [256]").replace("keys = 10", "keys = 20")
    new.write_text(text.replace("policy_serial = 1", "policy_serial = 2", 1))
    assert run(["policy", "diff", str(site), str(new), "--json"]) == exits.OK
    out, err = capsys.readouterr()
    rest = "keys in 60 s, then 3600 s without"
    changes = [json.loads(row) for row in out.splitlines()]
    assert {(c["subject"], c["field"], c["before"], c["after"]) for c in changes} == {
        ("vault-alpha -> vault-bravo", "sizes_bits", "256, 512", "256"),
        ("vault-bravo -> vault-alpha", "sizes_bits", "256, 512", "256"),
        ("vault-alpha -> vault-bravo", "fallback", f"pqc, 10 {rest}", f"pqc, 20 {rest}"),
        ("vault-bravo -> vault-alpha", "fallback", f"pqc, 10 {rest}", f"pqc, 20 {rest}"),
    }
    assert "=> 2-" in err
    assert "2 pairs change" in err
    assert run(["policy", "diff", str(new), str(site)]) == exits.OK
    assert "its serial is lower" in capsys.readouterr().err
    new.write_text(text)
    assert run(["policy", "diff", str(site), str(new)]) == exits.OK
    assert "its serial is the same" in capsys.readouterr().err
    assert run(["policy", "diff", str(site), str(site)]) == exits.OK
    assert capsys.readouterr().out == ""


def test_a_check_tells_the_version_and_what_deserves_a_look(site: Path, capsys: Out) -> None:
    assert run(["policy", "check", "--config", str(site)]) == exits.OK
    out = capsys.readouterr().out
    assert out.startswith("policy 1-")
    for words in ("waived down to pqc; ends 2099", "fails open: pqc, 10 keys", "no quota; it may draw the link empty"):
        assert words in out
    assert run(["policy", "check", "--config", str(site), "--json"]) == exits.OK
    assert told(capsys)["digest"] == load_site(site).rules().digest
    broken = site.with_name("broken.toml")
    broken.write_text(site.read_text().replace('on_exhaustion = "closed"', "", 1))
    assert run(["policy", "check", "--config", str(broken)]) == exits.CONFIG
    assert "on_exhaustion is missing" in capsys.readouterr().err
