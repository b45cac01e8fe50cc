"""The verbs of founding and joining, run as an operator runs them."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from keystrand.cli import exits
from keystrand.cli.program import run
from keystrand.core.clock import SystemClock
from keystrand.core.secret import Secret
from keystrand.crypto.seal import RootKey, Sealer
from keystrand.observe.audit import AuditLog
from keystrand.store.sqlite import SqliteStore

KEY_ID = "3b1c2f9e-1c1b-4a1e-9d7b-0a8f3f6f2b11"


@pytest.fixture
def site(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert run(["site", "init", "alpha", "--dir", str(tmp_path / "a")]) == 0
    out, err = capsys.readouterr()
    assert Path(out.strip()) == tmp_path / "a" / "site.toml"
    assert "passphrase" in err
    return tmp_path / "a" / "site.toml"


@pytest.fixture
def card(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[Path, str]:
    """Card of another site, and its fingerprint."""
    run(["site", "init", "bravo", "--dir", str(tmp_path / "b"), "--base-port", "9440"])
    capsys.readouterr()
    assert run(["site", "export", "--config", str(tmp_path / "b" / "site.toml"), "--host", "bravo.example"]) == 0
    out, err = capsys.readouterr()
    (tmp_path / "bravo.card").write_text(out)
    return tmp_path / "bravo.card", err.partition(": ")[2].strip()


def test_a_link_needs_the_fingerprint_that_the_owner_read_out(
    site: Path, card: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["link", "add", str(card[0]), "--config", str(site), "--name", "ab", "--role", "transmitter"]
    before = site.read_text()
    assert run(words) == exits.REFUSED, "not confirmed"
    assert run([*words, "--fingerprint", "0000 " * 8]) == exits.REFUSED
    assert site.read_text() == before
    capsys.readouterr()
    assert run([*words, "--fingerprint", card[1].upper().replace(" ", "")]) == 0
    module = Path(capsys.readouterr().out.strip())
    assert run(["config", "check", str(site), str(module)]) == 0
    assert stat.S_IMODE((module.parent / "start.key").stat().st_mode) == 0o600
    capsys.readouterr()
    assert run(["link", "list", "--config", str(site), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["address"] == "bravo.example:9441"


def test_where_no_site_is_every_verb_says_where_to_look(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["status"], ["policy", "list"], ["audit", "verify"]):
        assert run([*words, "--config", str(tmp_path / "site.toml")]) == exits.CONFIG
        assert "hint: stand in the site's folder" in capsys.readouterr().err


def test_saes_and_rules_are_added_and_listed(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    c = ["--config", str(site)]
    assert run(["sae", "add", "app.1", *c]) == 0
    certificate, key = map(Path, capsys.readouterr().out.split())
    assert certificate.is_file()
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert run(["sae", "add", "app.1", *c]) == exits.CONFIG
    assert (
        run(["policy", "allow", "app.1", "gateway-alpha", *c, "--quota-bps", "256", "--quota-burst-bits", "512"]) == 0
    )
    assert run(["policy", "allow", "app.1", "gateway-alpha", *c]) == exits.CONFIG, "listed twice"
    assert run(["policy", "allow", "app.1", "nobody", *c]) == exits.CONFIG
    assert run(["policy", "allow", "app.1", 'x"\n[limits]', *c]) == exits.REFUSED
    capsys.readouterr()
    assert run(["policy", "list", *c, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "from": "app.1",
        "to": "gateway-alpha",
        "require": "hybrid",
        "waived": False,
    }
    relax = ["policy", "relax", "app.1", "gateway-alpha", *c, "--hours", "1", "--approved-by", "A", "--reason", "B"]
    before = site.read_text()
    assert run([*relax, "--pid", str(2**22 + 1)]) == exits.REFUSED
    assert site.read_text() == before, "nothing is written for a process that is not there"
    assert run(relax) == 0
    capsys.readouterr()
    assert run(["policy", "list", *c]) == 0
    told = capsys.readouterr().out
    assert "hybrid, WAIVED down to pqc until" in told
    assert " by A (B), " in told, "the runbook asks who approved it, and why"
    assert run(["policy", "restore", *relax[2:6]]) == 0
    assert run(["sae", "list", *c]) == 0
    assert "app.1  alpha" in capsys.readouterr().out
    assert run(["config", "show", str(site)]) == 0
    assert "app.1 may draw keys shared with gateway-alpha: hybrid, 256 bit/s" in capsys.readouterr().out


@pytest.mark.proves("R067")
def test_certificates_are_issued_and_revoked(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from cryptography import x509

    c = ["--config", str(site)]
    assert run(["pki", "issue", "sae", "app", *c, "--host", "app.example"]) == 0
    certificate = capsys.readouterr().out.splitlines()[0]
    assert run(["pki", "revoke", certificate, *c]) == 0
    crl = x509.load_pem_x509_crl(Path(capsys.readouterr().out.strip()).read_bytes())
    serial = x509.load_pem_x509_certificate(Path(certificate).read_bytes()).serial_number
    assert [entry.serial_number for entry in crl] == [serial]
    assert run(["pki", "renew-crl", *c]) == 0


def test_faults_of_a_file_are_told_with_line_and_hint(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site.write_text(site.read_text().replace('name = "alpha"', 'nam = "alpha"'))
    assert run(["config", "check", str(site)]) == exits.CONFIG
    err = capsys.readouterr().err
    assert f"{site}:4: $.site.nam is not a field" in err
    assert "keystrand: hint: did you mean name?" in err


@pytest.mark.parametrize("secret", ["passphrase", "audit.key", "pki/kme-kme-alpha.key", "pki/sae-gateway-alpha.key"])
@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_a_site_does_not_start_on_a_secret_that_others_may_read(
    site: Path, capsys: pytest.CaptureFixture[str], secret: str, mode: int
) -> None:
    (site.parent / secret).chmod(mode)
    assert run(["serve", str(site)]) == exits.CONFIG
    err = capsys.readouterr().err
    assert f"{site}:" in err
    assert f"chmod 600 {site.parent / secret}" in err


def test_a_module_does_not_start_on_a_secret_that_others_may_read(
    site: Path, card: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["link", "add", str(card[0]), "--config", str(site), "--name", "ab", "--fingerprint", card[1]]
    carried = site.parent / "carried.key"
    carried.write_bytes(bytes(4096))
    carried.chmod(0o644)
    assert run([*words, "--role", "receiver", "--start-key", str(carried)]) == exits.CONFIG
    assert f"chmod 600 {carried}" in capsys.readouterr().err
    carried.chmod(0o600)
    assert run([*words, "--role", "receiver", "--start-key", str(carried)]) == 0
    module = Path(capsys.readouterr().out.strip())
    for secret in (module.parent / "start.key", site.parent / "pki" / "module-ab-alpha.key"):
        secret.chmod(0o640)
        assert run(["module", str(module)]) == exits.CONFIG
        err = capsys.readouterr().err
        assert "hint: chmod 600 " in err
        assert secret.name in err
        secret.chmod(0o600)


def test_keys_of_saes_and_of_the_authority_are_for_their_owner_only(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    c = ["--config", str(site)]
    assert run(["sae", "add", "app", *c]) == 0
    key = Path(capsys.readouterr().out.split()[1])
    key.chmod(0o640)
    assert run(["key", "get", "--sae", "app", "--to", "gateway-alpha", *c]) == exits.CONFIG
    assert f"chmod 600 {key}" in capsys.readouterr().err
    authority = site.parent / "pki" / "ca.key"
    authority.chmod(0o604)
    assert run(["pki", "issue", "sae", "other", *c]) == exits.CONFIG
    assert f"chmod 600 {authority}" in capsys.readouterr().err


def test_status_of_a_site_that_does_not_run_is_unavailable(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["status", "--config", str(site)]) == exits.UNAVAILABLE
    assert "keystrand serve" in capsys.readouterr().err


def _audit(site: Path, records: int) -> Path:
    state = site.parent / "state"
    store = SqliteStore(state / "site.db", Sealer(RootKey(Secret(bytes(32)))))
    log = AuditLog(store, SystemClock(), "alpha")
    with store.transaction():
        for number in range(records):
            log.append("key.delivered", {"key_id": KEY_ID if number % 2 else "other", "size_bits": 256})
    store.close()
    return state / "site.db"


@pytest.mark.proves("R055", "R110")
def test_the_audit_log_is_verified_exported_and_searched(
    site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    c = ["--config", str(site)]
    _audit(site, 6)
    assert run(["audit", "verify", *c, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["records"] == 6
    assert run(["audit", "custody", KEY_ID, *c]) == 0
    assert [json.loads(line)["n"] for line in capsys.readouterr().out.splitlines()] == [1, 3, 5]
    assert run(["audit", "custody", KEY_ID.replace("3b", "4b"), *c]) == exits.REFUSED
    capsys.readouterr()
    assert run(["audit", "export", *c]) == 0
    exported = tmp_path / "log.jsonl"
    exported.write_text(capsys.readouterr().out)
    assert run(["audit", "verify", *c, "--export", str(exported)]) == 0
    exported.write_text(exported.read_text().replace('"size_bits":256', '"size_bits":128', 1))
    assert run(["audit", "verify", *c, "--export", str(exported)]) == exits.TAMPERED
    assert "record 0" in capsys.readouterr().err
