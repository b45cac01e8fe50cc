"""ML-KEM round trips and refusals; signed notes against the example of their specification."""

from __future__ import annotations

from pathlib import Path

import pytest

from keystrand.core.errors import ConfigError, PeerFault, Tampered
from keystrand.crypto.kem import CIPHERTEXT_BYTES, MlKem768, MlKem1024
from keystrand.crypto.sign import COSIGNATURE, Signer, Verifier, signers_of, split_note
from keystrand.kme.ports import Kem

TEXT = "origin\n12\nhead\n"


@pytest.mark.parametrize("kem", [MlKem768(), MlKem1024()], ids=lambda kem: kem.algorithm)
def test_both_ends_get_one_secret_and_a_changed_ciphertext_gives_another(kem: Kem) -> None:
    private, public = kem.generate()
    shared, ciphertext = kem.encapsulate(public)
    assert len(shared) == 32
    assert len(ciphertext) == CIPHERTEXT_BYTES[kem.algorithm]
    assert private.decapsulate(ciphertext).matches(shared)
    changed = bytes([ciphertext[0] ^ 1]) + ciphertext[1:]
    assert not private.decapsulate(changed).matches(shared)  # implicit rejection: another secret, no error
    assert not kem.encapsulate(public)[0].matches(shared)


@pytest.mark.parametrize("kem", [MlKem768(), MlKem1024()], ids=lambda kem: kem.algorithm)
def test_keys_and_ciphertexts_of_the_wrong_form_are_the_peers_fault(kem: Kem) -> None:
    private, public = kem.generate()
    for bad in (b"", public[:-1], public + b"\0", b"\xff" * len(public)):  # the last fails the modulus check
        with pytest.raises(PeerFault):
            kem.encapsulate(bad)
    for bad in (b"", bytes(CIPHERTEXT_BYTES[kem.algorithm] - 1), bytes(CIPHERTEXT_BYTES[kem.algorithm] + 1)):
        with pytest.raises(PeerFault):
            private.decapsulate(bad)


def test_the_vkey_of_the_signed_note_specification_reads_and_prints() -> None:
    vkey = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
    assert Verifier.parse(vkey).vkey() == vkey
    for broken in (vkey.replace("530d903a", "530d903b"), vkey[:-1] + "l", "name", "", vkey + "+", "a+b+c"):
        with pytest.raises(ConfigError):
            Verifier.parse(broken)


def test_a_note_and_its_cosignature_verify_together() -> None:
    alpha, bravo = Signer.generate("alpha"), Signer.generate("bravo")
    note = alpha.sign_note(TEXT) + bravo.cosignature_line(TEXT, 1_700_000_000)
    text, signed = signers_of(note, [alpha.verifier, bravo.verifier])
    assert text == TEXT
    assert signed == {"alpha": None, "bravo": 1_700_000_000}
    assert signers_of(note, [Verifier.parse(bravo.verifier.vkey(COSIGNATURE))])[1] == {"bravo": 1_700_000_000}


def test_every_changed_character_of_a_note_is_refused() -> None:
    alpha = Signer.generate("alpha")
    note = alpha.sign_note(TEXT)
    for at in range(len(note)):
        for other in ("A", "\n", "é"):
            if note[at] != other:
                with pytest.raises(Tampered):
                    signers_of(note[:at] + other + note[at + 1 :], [alpha.verifier])


def test_unknown_signers_do_not_count_and_impostors_are_refused() -> None:
    alpha, impostor, other = Signer.generate("alpha"), Signer.generate("alpha"), Signer.generate("other")
    with pytest.raises(Tampered, match="no signature"):
        signers_of(other.sign_note(TEXT), [alpha.verifier])
    with pytest.raises(Tampered, match="another key"):
        signers_of(impostor.sign_note(TEXT), [alpha.verifier])


@pytest.mark.parametrize(
    "note", ["", "x", "x\n", "x\n\n", "x\n\n\n", "x\n\n— \n", "x\n\n— a \n", "x\r\n\n— a AAAAAAA=\n"]
)
def test_what_is_no_note_is_refused(note: str) -> None:
    with pytest.raises(Tampered):
        split_note(note)


def test_too_many_signatures_are_refused() -> None:
    alpha = Signer.generate("alpha")
    line = alpha.sign_note(TEXT).rpartition("\n\n")[2]
    with pytest.raises(Tampered, match="more than"):
        split_note(f"{TEXT}\n{line * 17}")


def test_a_signing_key_is_kept_in_a_private_file(tmp_path: Path) -> None:
    path = tmp_path / "sign.pem"
    first = Signer.load_or_create("alpha", path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert Signer.load_or_create("alpha", path).verifier.vkey() == first.verifier.vkey()
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="others"):
        Signer.load_or_create("alpha", path)
    path.chmod(0o600)
    path.write_text("nonsense")
    with pytest.raises(ConfigError, match="PEM"):
        Signer.load_or_create("alpha", path)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\n"])
def test_names_that_a_note_cannot_hold_are_refused(name: str) -> None:
    with pytest.raises(ConfigError):
        Signer.generate(name)
