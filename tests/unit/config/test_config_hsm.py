"""The root key in a file or in an HSM: each needs what it needs, and each fault is told with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from keystrand.config.explain import explain
from keystrand.config.load import load_site, site_faults

HSM = '\n[hsm]\nmodule = "vendor.so"\ntoken_label = "keys"\npin_file = "pin"\n'
PKCS11 = ('root_key_file = "passphrase"', 'root_key = "pkcs11"')


@pytest.fixture
def hsm_file(site_file: Path) -> Path:
    for name, mode in (("vendor.so", 0o644), ("pin", 0o600)):
        (site_file.parent / name).write_text("x")
        (site_file.parent / name).chmod(mode)
    site_file.write_text(site_file.read_text().replace(*PKCS11) + HSM)
    return site_file


def test_a_passphrase_is_the_default(site_file: Path) -> None:
    config = load_site(site_file)
    assert (config.site.root_key, config.hsm) == ("passphrase", None)


def test_an_hsm_needs_no_passphrase(hsm_file: Path) -> None:
    config = load_site(hsm_file)
    assert config.site.root_key_file is None
    assert config.hsm is not None
    place = config.hsm.place()
    assert (place.module, place.token_label) == (hsm_file.parent / "vendor.so", "keys")
    assert (place.pin_file, place.deadline_s) == (hsm_file.parent / "pin", 2.0)
    assert config.hsm.key_label == "keystrand-root"


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (HSM, "", "add a table [hsm]"),
        ('root_key = "pkcs11"\n', "", "root_key_file"),
        ('root_key = "pkcs11"', 'root_key = "tpm"', "none of 'passphrase', 'pkcs11'"),
        ('"vendor.so"', '"gone.so"', "no such file"),
        ('pin_file = "pin"', 'pin_file = "vendor.so"', "chmod 600"),
        ('token_label = "keys"\n', "", "token_label is missing"),
        ('token_label = "keys"', f'token_label = "{"k" * 33}"', "length <= 32"),
        ('pin_file = "pin"', 'pin_file = "pin"\nkey_label = "a/b"', "letters, digits"),
        ('pin_file = "pin"', 'pin_file = "pin"\ndeadline_ms = 0', ">= 50"),
        ('pin_file = "pin"', 'pin_file = "pin"\npin = "1234"', "known here"),
    ],
)
def test_every_fault_is_told(hsm_file: Path, before: str, after: str, words: str) -> None:
    text = hsm_file.read_text()
    assert before in text
    hsm_file.write_text(text.replace(before, after))
    faults = site_faults(hsm_file)
    assert faults
    assert any(words in f"{fault} {fault.hint}" for fault in faults), [str(fault) for fault in faults]


def test_a_passphrase_that_is_left_beside_an_hsm_is_a_caution(hsm_file: Path) -> None:
    hsm_file.write_text(hsm_file.read_text().replace('root_key = "pkcs11"', 'root_key = "pkcs11"\n' + PKCS11[0]))
    assert "not used under an HSM" in explain(load_site(hsm_file))
