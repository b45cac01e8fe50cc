"""keystrand admin: a founded site has nobody and no listener for it; each invitation is a certificate and a grant."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from keystrand.cli import exits
from keystrand.cli.program import run
from keystrand.config.load import load_site
from keystrand.govern.roles import Operation

CapSys = pytest.CaptureFixture[str]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    assert run(["site", "init", "alpha", "--dir", str(tmp_path / "alpha")]) == exits.OK
    return tmp_path / "alpha" / "site.toml"


def invite(file: Path, *words: str) -> int:
    return run(["admin", "invite", *words, "--config", str(file)])


@pytest.mark.proves("R046", "R061", "R105")
def test_a_founded_site_has_no_door_until_somebody_is_invited(file: Path, capsys: CapSys) -> None:
    assert load_site(file).admin is None
    assert run(["admin", "list", "--config", str(file)]) == exits.CONFIG
    capsys.readouterr()
    assert invite(file, "ann", "--role", "security-officer") == exits.OK
    certificate, key = map(Path, capsys.readouterr().out.split())
    assert certificate.is_file()
    assert key.stat().st_mode & 0o077 == 0
    assert invite(file, "olga", "--role", "operator") == exits.OK
    assert invite(file, "tess", "--role", "tenant-administrator", "--tenant", "default") == exits.OK
    admin = load_site(file).admin
    assert admin is not None
    assert admin.listen.host == "127.0.0.1"
    ports = [load_site(file).etsi014.listen.port + place for place in range(7)]
    assert admin.listen.port not in ports
    (ann,), (olga,) = admin.by_name()["ann"], admin.by_name()["olga"]
    assert ann.permits(Operation.POLICY_CHANGE)
    assert not olga.permits(Operation.KEYS_READ)
    capsys.readouterr()
    assert run(["admin", "list", "--json", "--config", str(file)]) == exits.OK
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["name"], row["role"]) for row in rows] == [
        ("ann", "security-officer"),
        ("olga", "operator"),
        ("tess", "tenant-administrator"),
    ]
    assert all(row["certificate_until"] for row in rows)


def test_what_the_file_does_not_bear_is_refused_and_changes_nothing(file: Path) -> None:
    assert invite(file, "ann", "--role", "security-officer") == exits.OK
    before = file.read_text()
    for words, status in (
        (("tess", "--role", "tenant-administrator"), exits.REFUSED),
        (("ann", "--role", "operator"), exits.CONFIG),
        (("tom", "--role", "tenant-administrator", "--tenant", "nobody"), exits.CONFIG),
        (("olga", "--role", "operator", "--tenant", "default"), exits.REFUSED),
        (("a b", "--role", "operator"), exits.REFUSED),
        (("4nn", "--role", "viewer", "--sae", "x"), exits.REFUSED),
    ):
        assert invite(file, *words) == status, words
        assert file.read_text() == before
        assert not (file.parent / "pki" / f"admin-{words[0]}.pem").exists() or words[0] == "ann"


def test_officers_may_be_named_when_a_site_is_founded(tmp_path: Path) -> None:
    words = ["site", "init", "bravo", "--dir", str(tmp_path / "b"), "--officer", "ann", "--officer", "bob"]
    assert run(words) == exits.OK
    admin = load_site(tmp_path / "b" / "site.toml").admin
    assert admin is not None
    assert sorted(admin.by_name()) == ["ann", "bob"]


@pytest.mark.proves("R046")
def test_whoever_is_removed_is_in_no_grant_any_more_and_the_rest_of_the_file_stays(file: Path, capsys: CapSys) -> None:
    for name, role in (("ann", "security-officer"), ("bob", "security-officer"), ("olga", "operator")):
        assert invite(file, name, "--role", role) == exits.OK
    names = 'names = [\n  "carl",  # first shift\n  "dora",\n]\n'
    shared = f'\n# together\n[[admin.grants]]\nrole = "auditor"\n{names}tenants = ["*"]\nsaes = ["*"]\n# the end\n'
    file.write_text(file.read_text() + shared)
    capsys.readouterr()
    assert run(["admin", "remove", "bob", "--config", str(file)]) == exits.OK
    aside = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert [path.name for path in aside] == ["admin-bob.pem.removed", "admin-bob.key.removed"]
    assert all(path.is_file() for path in aside)
    assert run(["admin", "remove", "carl", "--config", str(file)]) == exits.OK
    admin = load_site(file).admin
    assert admin is not None
    assert sorted(admin.by_name()) == ["ann", "dora", "olga"]
    assert "# together" in file.read_text()
    assert file.read_text().endswith("# the end\n")
    assert invite(file, "bob", "--role", "auditor") == exits.OK  # under that name somebody may come again


def test_the_last_administrator_and_a_stranger_cannot_be_removed(file: Path, capsys: CapSys) -> None:
    assert invite(file, "ann", "--role", "security-officer") == exits.OK
    before = file.read_text()
    assert run(["admin", "remove", "ann", "--config", str(file)]) != exits.OK
    assert "invite another one first" in capsys.readouterr().err
    assert run(["admin", "remove", "eve", "--config", str(file)]) != exits.OK
    assert "no grant names eve" in capsys.readouterr().err
    assert file.read_text() == before
