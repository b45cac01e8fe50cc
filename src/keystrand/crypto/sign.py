"""Ed25519 signatures as C2SP signed notes: a text, a blank line, and lines `— name base64(key ID || signature)`.

Two kinds: a plain signature over the text (type 0x01), and the timestamped cosignature of a witness (type 0x04,
C2SP tlog-cosignature), which signs `cosignature/v1`, the time and the text.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from keystrand.core.errors import ConfigError, Tampered
from keystrand.core.files import create_private

ED25519: Final = 0x01
COSIGNATURE: Final = 0x04
SIGNATURES_MAX: Final = 16  # C2SP signed-note: a verifier accepts at least so many
NOTE_CHARS_MAX: Final = 16_384

_PREFIX: Final = "— "
_SIGNATURE_BYTES: Final = 64


def key_id(name: str, kind: int, public_key: bytes) -> bytes:
    """The 4 bytes that stand before a signature."""
    return hashlib.sha256(name.encode() + b"\n" + bytes([kind]) + public_key).digest()[:4]


class Verifier:
    """A name and its Ed25519 public key (32 bytes)."""

    def __init__(self, name: str, public_key: bytes) -> None:
        _check_name(name)
        self.name = name
        self.public_key = public_key
        self._key = Ed25519PublicKey.from_public_bytes(public_key)

    @classmethod
    def parse(cls, vkey: str) -> Verifier:
        """From the text form `name+hex(key ID)+base64(type || key)`. Raises ConfigError."""
        try:
            name, short, rest = vkey.strip().split("+", 2)
            packed = base64.b64decode(rest, validate=True)
            if packed[0] not in (ED25519, COSIGNATURE) or key_id(name, packed[0], packed[1:]).hex() != short:
                raise ValueError(vkey)
            return cls(name, packed[1:])
        except (ValueError, IndexError, binascii.Error):
            raise ConfigError("not an Ed25519 note verifier key", hint="expected name+hash+base64") from None

    def vkey(self, kind: int = ED25519) -> str:
        """The text form that `parse` reads."""
        short = key_id(self.name, kind, self.public_key).hex()
        return f"{self.name}+{short}+{base64.b64encode(bytes([kind]) + self.public_key).decode()}"

    def verify(self, message: bytes, signature: bytes) -> None:
        """Raises Tampered."""
        try:
            self._key.verify(signature, message)
        except InvalidSignature:
            raise Tampered(f"the signature of {self.name} does not fit") from None

    def verify_line(self, text: str, packed: bytes) -> int | None:
        """Check one signature line of a note. The time of a cosignature, None for a plain one. Raises Tampered."""
        short, body = packed[:4], packed[4:]
        if short == key_id(self.name, ED25519, self.public_key) and len(body) == _SIGNATURE_BYTES:
            self.verify(text.encode(), body)
            return None
        if short == key_id(self.name, COSIGNATURE, self.public_key) and len(body) == 8 + _SIGNATURE_BYTES:
            time_s = int.from_bytes(body[:8], "big")
            self.verify(_cosigned(text, time_s), body[8:])
            return time_s
        raise Tampered(f"the signature of {self.name} is by another key")


class Signer:
    """An Ed25519 private key and the name it signs under."""

    def __init__(self, name: str, private_key: bytes) -> None:
        _check_name(name)
        self.name = name
        self._key = Ed25519PrivateKey.from_private_bytes(private_key)
        self._public = self._key.public_key().public_bytes_raw()

    @classmethod
    def generate(cls, name: str) -> Signer:
        return cls(name, Ed25519PrivateKey.generate().private_bytes_raw())

    @classmethod
    def load_or_create(cls, name: str, path: str | Path) -> Signer:
        """From a PKCS#8 PEM file of mode 0600, made on first use. Raises ConfigError."""
        file = Path(path)
        if not file.exists():
            _write_key(file)
        if file.stat().st_mode & 0o077:
            raise ConfigError("others can read the signing key", path=str(file), hint=f"chmod 600 {file}")
        try:
            key = serialization.load_pem_private_key(file.read_bytes(), None)
        except (ValueError, TypeError):
            raise ConfigError("not an unencrypted PEM private key", path=str(file)) from None
        if not isinstance(key, Ed25519PrivateKey):
            raise ConfigError("not an Ed25519 key", path=str(file))
        return cls(name, key.private_bytes_raw())

    @property
    def verifier(self) -> Verifier:
        return Verifier(self.name, self._public)

    def sign(self, message: bytes) -> bytes:
        """64 bytes."""
        return self._key.sign(message)

    def sign_note(self, text: str) -> str:
        """`text` (ends with a newline) with our signature under it."""
        _check_text(text)
        return f"{text}\n{self._line(ED25519, self.sign(text.encode()))}"

    def cosignature_line(self, text: str, time_s: int) -> str:
        """The line that a witness adds to a note of this text."""
        _check_text(text)
        return self._line(COSIGNATURE, time_s.to_bytes(8, "big") + self.sign(_cosigned(text, time_s)))

    def _line(self, kind: int, body: bytes) -> str:
        packed = key_id(self.name, kind, self._public) + body
        return f"{_PREFIX}{self.name} {base64.b64encode(packed).decode()}\n"

    def __repr__(self) -> str:
        return f"<Signer {self.name}>"


def split_note(note: str) -> tuple[str, list[tuple[str, bytes]]]:
    """Text, and (name, key ID || signature) of each line, none of them checked. Raises Tampered for what is no note."""
    text, blank, lines = note.rpartition("\n\n")
    if not blank or not lines.endswith("\n") or len(note) > NOTE_CHARS_MAX or "\r" in note:
        raise Tampered("not a signed note")
    found = [_split_line(line) for line in lines[:-1].split("\n")]
    if len(found) > SIGNATURES_MAX:
        raise Tampered(f"a note with more than {SIGNATURES_MAX} signatures")
    return text + "\n", found


def _split_line(line: str) -> tuple[str, bytes]:
    name, space, encoded = line.removeprefix(_PREFIX).partition(" ")
    try:
        packed = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        packed = b""
    if not line.startswith(_PREFIX) or not space or len(packed) < 5:
        raise Tampered("not a signature line of a note")
    return name, packed


def signers_of(note: str, verifiers: Iterable[Verifier]) -> tuple[str, dict[str, int | None]]:
    """Text of the note, and who of `verifiers` signed it (with the time, for a cosignature).

    Signatures of others are ignored. Raises Tampered if one by a known name does not verify, or none does.
    """
    text, lines = split_note(note)
    known = {verifier.name: verifier for verifier in verifiers}
    signed = {name: known[name].verify_line(text, packed) for name, packed in lines if name in known}
    if not signed:
        raise Tampered("no signature by a known key")
    return text, signed


def _cosigned(text: str, time_s: int) -> bytes:
    return f"cosignature/v1\ntime {time_s}\n{text}".encode()


def _check_text(text: str) -> None:
    assert text.endswith("\n"), "a note ends with a newline"
    assert "\n\n" not in text, "a note whose text has a blank line can be read in two ways"


def _check_name(name: str) -> None:
    if not name or "+" in name or any(character.isspace() for character in name):
        raise ConfigError(f"{name!r} cannot name a signer", hint="no spaces, no plus")


def _write_key(path: Path) -> None:
    pem = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    create_private(path, pem)
