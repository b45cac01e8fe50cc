"""Sealing: any byte flipped, any other column or row refuses; passphrase files and salts are checked."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystrand.core.errors import ConfigError, Tampered
from keystrand.crypto import seal
from keystrand.crypto.seal import RootKey, Sealer, Stretch

LIGHT = Stretch(iterations=1, lanes=1, memory_kib=64)


@pytest.fixture
def passphrase(tmp_path: Path) -> Path:
    path = tmp_path / "passphrase"
    path.write_text("correct horse battery\n")
    path.chmod(0o600)
    return path


@given(st.binary(max_size=200), st.binary(max_size=60))
def test_what_is_sealed_opens_in_its_place_only(plaintext: bytes, row: bytes) -> None:
    sealer = Sealer(RootKey.generate())
    sealed = sealer.seal("blocks", row, plaintext)
    assert sealer.open("blocks", row, sealed).reveal() == plaintext
    for column, other in (("copies", row), ("blocks", row + b"x"), ("block", b"s" + row)):
        with pytest.raises(Tampered):
            sealer.open(column, other, sealed)


def test_every_flipped_bit_and_every_cut_is_refused() -> None:
    sealer = Sealer(RootKey.generate())
    sealed = sealer.seal("blocks", b"row", b"material")
    for at in range(8 * len(sealed)):
        broken = bytearray(sealed)
        broken[at // 8] ^= 1 << at % 8
        with pytest.raises(Tampered):
            sealer.open("blocks", b"row", bytes(broken))
    for length in range(len(sealed)):
        with pytest.raises(Tampered):
            sealer.open("blocks", b"row", sealed[:length])


def test_no_nonce_comes_twice_and_the_subkey_is_renewed_at_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seal, "SEALS_PER_SUBKEY_MAX", 100)
    root = RootKey.generate()
    sealer = Sealer(root)
    sealed = [sealer.seal("c", b"", b"same") for _ in range(450)]
    assert len({value[1:29] for value in sealed}) == 450
    subkeys = [value[1:17] for value in sealed]
    assert len(set(subkeys)) == 5
    assert max(subkeys.count(one) for one in set(subkeys)) == 100
    later = Sealer(root)
    assert all(later.open("c", b"", value).reveal() == b"same" for value in sealed)


def test_the_cache_of_subkeys_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seal, "SUBKEYS_CACHED_MAX", 3)
    root = RootKey.generate()
    sealed = [Sealer(root).seal("c", b"", bytes([number])) for number in range(10)]
    reader = Sealer(root)
    assert [reader.open("c", b"", value).reveal()[0] for value in sealed * 2] == list(range(10)) * 2
    assert len(reader._ciphers) <= 3


def test_the_passphrase_gives_the_same_root_again(passphrase: Path, tmp_path: Path) -> None:
    salt = tmp_path / "salt"
    sealed = Sealer(RootKey.from_passphrase_file(passphrase, salt, stretch=LIGHT)).seal("c", b"r", b"x")
    assert salt.stat().st_mode & 0o777 == 0o600
    again = RootKey.from_passphrase_file(passphrase, salt)  # the parameters come from the file
    assert Sealer(again).open("c", b"r", sealed).reveal() == b"x"
    assert "correct horse" not in salt.read_text()


def test_a_passphrase_fits_its_own_salt_and_no_other(passphrase: Path, tmp_path: Path) -> None:
    RootKey.from_passphrase_file(passphrase, tmp_path / "salt", stretch=LIGHT)
    assert RootKey.fits(passphrase, tmp_path / "salt")
    passphrase.write_text("another that is long enough\n")
    assert not RootKey.fits(passphrase, tmp_path / "salt")


def test_the_default_cost_is_that_of_rfc_9106(passphrase: Path, tmp_path: Path) -> None:
    RootKey.from_passphrase_file(passphrase, tmp_path / "salt")
    assert '"memory_kib": 65536' in (tmp_path / "salt").read_text()


def test_two_stores_with_one_passphrase_have_unrelated_keys(passphrase: Path, tmp_path: Path) -> None:
    one, two = (RootKey.from_passphrase_file(passphrase, tmp_path / name, stretch=LIGHT) for name in "ab")
    assert one.subkey(bytes(16)) != two.subkey(bytes(16))


def test_another_passphrase_is_named_as_the_fault(passphrase: Path, tmp_path: Path) -> None:
    RootKey.from_passphrase_file(passphrase, tmp_path / "salt", stretch=LIGHT)
    passphrase.write_text("correct horse batterie\n")
    with pytest.raises(ConfigError, match="not the passphrase") as caught:
        RootKey.from_passphrase_file(passphrase, tmp_path / "salt")
    assert "batterie" not in str(caught.value)


def test_a_passphrase_file_that_others_can_read_is_refused(passphrase: Path, tmp_path: Path) -> None:
    for mode in (0o640, 0o604, 0o620):
        passphrase.chmod(mode)
        with pytest.raises(ConfigError) as caught:
            RootKey.from_passphrase_file(passphrase, tmp_path / "salt", stretch=LIGHT)
        assert caught.value.hint is not None
        assert caught.value.hint.startswith("chmod 600 ")
    assert not (tmp_path / "salt").exists()


@pytest.mark.parametrize("content", ["", "short\n"])
def test_a_short_passphrase_is_refused(passphrase: Path, tmp_path: Path, content: str) -> None:
    passphrase.write_text(content)
    with pytest.raises(ConfigError, match="shorter"):
        RootKey.from_passphrase_file(passphrase, tmp_path / "salt", stretch=LIGHT)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"kdf": "md5"}', "\x00"])
def test_a_broken_salt_file_is_never_replaced(passphrase: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "salt").write_text(content)
    with pytest.raises(ConfigError, match="not a salt file"):
        RootKey.from_passphrase_file(passphrase, tmp_path / "salt", stretch=LIGHT)
    assert (tmp_path / "salt").read_text() == content


def test_a_root_key_does_not_speak() -> None:
    assert repr(RootKey.generate()) == "<RootKey>"
