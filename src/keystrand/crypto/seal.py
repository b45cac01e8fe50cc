"""Sealed at rest: passphrase -> root key -> subkey -> AES-256-GCM over one column of one row.

Nonces are 96 random bits, so each subkey seals a bounded number of times (NIST SP 800-38D, 8.3 allows 2^32). Each Sealer
draws a subkey of its own when it is made and again at the bound; the ciphertext names it. Chosen over a key derived per
row: a row is sealed many times, so its key would need the same bound and the count would have to be durable; and over a
counter as nonce: a cloned or restored machine would count the same numbers again under the same subkey.
"""

from __future__ import annotations

import hmac
import json
import os
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from keystrand.core.errors import ConfigError, Tampered
from keystrand.core.labels import LABELS
from keystrand.core.secret import Secret

VERSION: Final = 1
KEY_BYTES: Final = 32
SUBKEY_ID_BYTES: Final = 16
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
HEADER_BYTES: Final = 1 + SUBKEY_ID_BYTES + NONCE_BYTES
SEALS_PER_SUBKEY_MAX: Final = 2**30  # four times below the standard's bound: P(nonce collision) < 2^-37 per subkey
SUBKEYS_CACHED_MAX: Final = 256
PASSPHRASE_BYTES_MIN: Final = 12
SALT_BYTES: Final = 16

_COLUMN: Final = LABELS["store/column"] + bytes([VERSION])


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Argon2id parameters; the defaults are the second recommendation of RFC 9106, clause 4."""

    iterations: int = 3
    lanes: int = 4
    memory_kib: int = 65_536

    def derive(self, passphrase: bytes, salt: bytes) -> bytes:
        kdf = Argon2id(
            salt=salt, length=KEY_BYTES, iterations=self.iterations, lanes=self.lanes, memory_cost=self.memory_kib
        )
        return kdf.derive(passphrase)


class RootKey:
    """The key above all subkeys of one store. Lives in memory only."""

    __slots__ = ("_secret",)

    def __init__(self, secret: Secret) -> None:
        assert len(secret) == KEY_BYTES
        self._secret = secret

    @classmethod
    def generate(cls) -> RootKey:
        """A fresh random root key, for tests and throw-away networks."""
        return cls(Secret(secrets.token_bytes(KEY_BYTES)))

    @classmethod
    def from_passphrase_file(
        cls, path: str | Path, salt_file: str | Path, *, stretch: Stretch | None = None
    ) -> RootKey:
        """Stretch the passphrase in `path`. Salt and parameters are read from `salt_file`, which is made on first use.

        stretch: the parameters to write into a new salt file; an existing one keeps its own. Raises ConfigError where the
        passphrase file is missing, short or readable by others, or the passphrase is not the one that the store began with.
        """
        passphrase = _read_passphrase(Path(path))
        salt_path = Path(salt_file)
        if not salt_path.exists():
            _write_salt(salt_path, passphrase, stretch or Stretch())
        return _derive_checked(passphrase, salt_path, Path(path))

    def subkey(self, subkey_id: bytes) -> bytes:
        """The AES-256 key that `subkey_id` names."""
        return self._expand("store/pool", subkey_id)

    def check_value(self) -> bytes:
        """Tells a wrong passphrase from a damaged store; reveals nothing that a sealed row does not."""
        return self._expand("store/root", b"check")

    def _expand(self, label: str, context: bytes) -> bytes:
        return HKDFExpand(hashes.SHA256(), KEY_BYTES, LABELS[label] + context).derive(self._secret.reveal())

    def wipe(self) -> None:
        self._secret.wipe()

    def __repr__(self) -> str:
        return "<RootKey>"


def _read_passphrase(path: Path) -> bytes:
    try:
        mode = path.stat().st_mode
        passphrase = path.read_bytes().rstrip(b"\r\n")
    except OSError as error:
        raise ConfigError(f"cannot read the passphrase: {error.strerror}", path=str(path)) from None
    if mode & 0o077:
        raise ConfigError("others can read the passphrase", path=str(path), hint=f"chmod 600 {path}")
    if len(passphrase) < PASSPHRASE_BYTES_MIN:
        raise ConfigError(
            f"the passphrase is shorter than {PASSPHRASE_BYTES_MIN} bytes",
            path=str(path),
            hint=f"(umask 077; head -c 32 /dev/urandom | base64 > {path})",
        )
    return passphrase


def _write_salt(path: Path, passphrase: bytes, stretch: Stretch) -> None:
    salt = secrets.token_bytes(SALT_BYTES)
    root = RootKey(_root(passphrase, salt, stretch))
    body = {"kdf": "argon2id", **asdict(stretch), "salt": salt.hex(), "check": root.check_value().hex()}
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(json.dumps(body, indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())
    # a link fails where a file of that name appeared meanwhile: a salt in use is never overwritten
    os.link(temporary, path)
    temporary.unlink()
    _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _root(passphrase: bytes, salt: bytes, stretch: Stretch) -> Secret:
    stretched = stretch.derive(passphrase, salt)
    return Secret(HKDF(hashes.SHA256(), KEY_BYTES, salt, LABELS["store/root"]).derive(stretched))


def _derive_checked(passphrase: bytes, salt_path: Path, path: Path) -> RootKey:
    try:
        body = json.loads(salt_path.read_text())
        stretch = Stretch(iterations=body["iterations"], lanes=body["lanes"], memory_kib=body["memory_kib"])
        salt, check = bytes.fromhex(body["salt"]), bytes.fromhex(body["check"])
        if body["kdf"] != "argon2id":
            raise ValueError(body["kdf"])
        root = RootKey(_root(passphrase, salt, stretch))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"not a salt file: {type(error).__name__}", path=str(salt_path), hint="restore it from your backup"
        ) from None
    if not hmac.compare_digest(root.check_value(), check):
        raise ConfigError("this is not the passphrase that the store was made with", path=str(path))
    return root


class Sealer:
    """Seals and opens columns. One per store; not shared between threads."""

    def __init__(self, root: RootKey) -> None:
        self._root = root
        self._ciphers: dict[bytes, AESGCM] = {}
        self._renew()

    def _renew(self) -> None:
        self._subkey_id = secrets.token_bytes(SUBKEY_ID_BYTES)
        self._cipher = AESGCM(self._root.subkey(self._subkey_id))
        self._prefix = bytes([VERSION]) + self._subkey_id
        self._left = SEALS_PER_SUBKEY_MAX

    def seal(self, column: str, row_identity: bytes, plaintext: bytes) -> bytes:
        """version (1) || subkey ID (16) || nonce (12) || ciphertext || tag (16), bound to column and row."""
        if self._left == 0:
            self._renew()
        self._left -= 1
        nonce = os.urandom(NONCE_BYTES)
        return self._prefix + nonce + self._cipher.encrypt(nonce, plaintext, _associated(column, row_identity))

    def open(self, column: str, row_identity: bytes, sealed: bytes) -> Secret:
        """The plaintext. Raises Tampered unless `sealed` was made for just this column and row."""
        if len(sealed) < HEADER_BYTES + TAG_BYTES or sealed[0] != VERSION:
            raise Tampered(f"column {column}: not a sealed value", hint="restore the store from a backup")
        nonce = sealed[1 + SUBKEY_ID_BYTES : HEADER_BYTES]
        cipher = self._find(sealed[1 : 1 + SUBKEY_ID_BYTES])
        try:
            return Secret(cipher.decrypt(nonce, sealed[HEADER_BYTES:], _associated(column, row_identity)))
        except InvalidTag:
            raise Tampered(
                f"column {column}: the seal does not fit its row", hint="restore the store from a backup"
            ) from None

    def _find(self, subkey_id: bytes) -> AESGCM:
        if subkey_id == self._subkey_id:
            return self._cipher
        cipher = self._ciphers.get(subkey_id)
        if cipher is None:
            if len(self._ciphers) >= SUBKEYS_CACHED_MAX:
                self._ciphers.pop(next(iter(self._ciphers)))
            cipher = self._ciphers[subkey_id] = AESGCM(self._root.subkey(subkey_id))
        return cipher


def _associated(column: str, row_identity: bytes) -> bytes:
    name = column.encode()
    return b"".join((_COLUMN, len(name).to_bytes(2, "big"), name, row_identity))
