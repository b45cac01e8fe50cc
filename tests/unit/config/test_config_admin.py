"""[admin]: who may administer, and the faults that a file may have."""

from __future__ import annotations

from pathlib import Path

import pytest

from keystrand.config.founding import found_site
from keystrand.config.load import load_site, site_faults
from keystrand.govern.roles import Role

GOOD = """
[admin]
listen = "127.0.0.1:9444"
[[admin.grants]]
role = "security-officer"
names = ["ann", "bob"]
tenants = ["*"]
saes = ["*"]
[[admin.grants]]
role = "viewer"
names = ["ann"]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return found_site(tmp_path / "alpha", "alpha")


def faults(file: Path, text: str) -> str:
    file.write_text(file.read_text() + text)
    return "\n".join(f"{fault} | {fault.hint}" for fault in site_faults(file))


def test_grants_are_read_by_name(file: Path) -> None:
    assert not faults(file, GOOD)
    admin = load_site(file).admin
    assert admin is not None
    assert [grant.role for grant in admin.by_name()["ann"]] == [Role.SECURITY_OFFICER, Role.VIEWER]
    assert admin.by_group() == {}


@pytest.mark.proves("R061")
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[[admin.grants]]\nrole = "auditor"\nnames = ["ann"]\ntenants = ["*"]\nsaes = ["*"]\n', "at once"),
        ('[[admin.grants]]\nrole = "viewer"\nnames = ["ANN"]\n', "look the same"),
        ('[[admin.grants]]\nrole = "viewer"\n', "names nobody"),
        ('[[admin.grants]]\nrole = "root"\nnames = ["x"]\n', "role"),
        ('[[admin.grants]]\nrole = "viewer"\ngroups = ["g"]\n', r"admin.oidc"),
        ('[[admin.grants]]\nrole = "auditor"\nnames = ["x"]\n', "reaches no key"),
        ('[[admin.grants]]\nrole = "auditor"\nnames = ["x"]\ntenants = ["none"]\nsaes = ["*"]\n', "no tenant"),
        ('[[admin.grants]]\nrole = "auditor"\nnames = ["x"]\ntenants = ["*"]\nsaes = ["*", "a"]\n', "stands alone"),
        ('[[admin.grants]]\nrole = "viewer"\nnames = ["x y"]\n', "letters, digits"),
        (
            '[admin.oidc]\nissuer = "http://idp"\naudience = "a"\ntrust = "pki/ca.pem"\nclients = ["c"]\n',
            "issuer",
        ),
        (
            '[admin.oidc]\nissuer = "https://idp"\naudience = "a"\ntrust = "none.pem"\nclients = ["c"]\n',
            "no such file",
        ),
    ],
)
def test_what_is_off_is_said_with_its_line(file: Path, text: str, words: str) -> None:
    told = faults(file, GOOD + text)
    assert words in told
    assert ".toml:" in told


def test_its_address_is_its_own(file: Path) -> None:
    assert "clashes" in faults(file, GOOD.replace("9444", "8440"))
