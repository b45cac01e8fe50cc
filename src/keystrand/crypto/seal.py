"""Sealed at rest: root key -> tenant key -> pool key -> AES-256-GCM over one column of one row.

Nonces are 96 random bits, so each pool key seals a bounded number of times (NIST SP 800-38D, 8.3 allows 2^32). Each Sealer
draws a pool key of its own, named by a random subkey ID, when a pool is first sealed and again at the bound; the
ciphertext names it. Chosen over a key derived per row: a row is sealed many times, so its key would need the same bound
and the count would have to be durable; and over a counter as nonce: a cloned or restored machine would count the same
numbers again under the same key.

Two forms of sealed values. Version 1 is from before there were tenants; its tenant key is the passphrase's own (generation
0 of the default tenant), and it is written where there is no keyring:
    1 || subkey ID (16) || nonce (12) || ciphertext || tag (16)
    2 || generation of the tenant key (2) || subkey ID (16) || nonce (12) || ciphertext || tag (16)
"""

from __future__ import annotations

import hmac
import json
import os
import secrets
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from keystrand.core.errors import ConfigError, NotPermitted, Tampered
from keystrand.core.files import sync_folder, write_whole
from keystrand.core.labels import LABELS
from keystrand.core.policy import DEFAULT_TENANT
from keystrand.core.secret import Secret
from keystrand.crypto.combine import frame
from keystrand.crypto.keyring import (
    FOUNDING,
    GENERATION_BYTES,
    KEY_BYTES,
    Escrowed,
    FreshKey,
    Keyring,
    KeyRoot,
    OpenKeys,
    RootNote,
    TenantKeys,
)

VERSION: Final = 1
VERSION_TENANTS: Final = 2
SUBKEY_ID_BYTES: Final = 16
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
NAMED_BYTES: Final = {VERSION: 1 + SUBKEY_ID_BYTES, VERSION_TENANTS: 1 + GENERATION_BYTES + SUBKEY_ID_BYTES}
SEALS_PER_SUBKEY_MAX: Final = 2**30  # four times below the standard's bound: P(nonce collision) < 2^-37 per subkey
SUBKEYS_CACHED_MAX: Final = 256
PASSPHRASE_BYTES_MIN: Final = 12
SALT_BYTES: Final = 16

_WRAPPED_VERSION: Final = b"\x01"


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
    """The root key that a passphrase gives. Lives in memory only. A KeyRoot."""

    __slots__ = ("_secret", "note")

    def __init__(self, secret: Secret, note: RootNote | None = None) -> None:
        assert len(secret) == KEY_BYTES
        self._secret = secret
        self.note = note or RootNote()

    @classmethod
    def generate(cls) -> RootKey:
        """A fresh random root key, for tests and throw-away networks."""
        return cls(Secret(secrets.token_bytes(KEY_BYTES)))

    @classmethod
    def from_passphrase_file(
        cls, path: str | Path, salt_file: str | Path, *, stretch: Stretch | None = None, sealed: str = "the store"
    ) -> RootKey:
        """Stretch the passphrase in `path`. Salt and parameters are read from `salt_file`, which is made on first use.

        stretch: the parameters to write into a new salt file; an existing one keeps its own. sealed: with it, for words. Raises
        ConfigError where the passphrase file is missing, short or readable by others, or is another than the salt was made for.
        """
        passphrase = _read_passphrase(Path(path))
        salt_path = Path(salt_file)
        if not salt_path.exists():
            _write_salt(salt_path, passphrase, stretch or Stretch())
        return _derive_checked(passphrase, salt_path, Path(path), sealed)

    @classmethod
    def fits(cls, path: Path, salt_file: Path) -> bool:
        """Whether the passphrase in `path` is the one that `salt_file` was made for."""
        try:
            _derive_checked(_read_passphrase(path), salt_file, path)
        except ConfigError:
            return False
        return True

    @classmethod
    def renewed(cls, path: str | Path) -> RootKey:
        """From the passphrase in `path`, under a fresh salt that the note has: the next root of a site."""
        return _noted(_read_passphrase(Path(path)), secrets.token_bytes(SALT_BYTES), Stretch())

    def subkey(self, subkey_id: bytes) -> bytes:
        """The AES-256 key that `subkey_id` names in a store without tenants."""
        return _expand(self._secret, "store/pool", subkey_id)

    def founding(self) -> Secret:
        """This key as the tenant key of generation 0 (see the two forms of sealed values)."""
        return Secret(self._secret.reveal())

    def wrap(self, associated: bytes, key: Secret, /) -> bytes:
        """version (1) || nonce (12) || ciphertext || tag (16)"""
        nonce = os.urandom(NONCE_BYTES)
        return _WRAPPED_VERSION + nonce + self._wrapper().encrypt(nonce, key.reveal(), associated)

    def unwrap(self, associated: bytes, wrapped: bytes, /) -> Secret:
        """What `wrap` wrapped. Raises Tampered otherwise."""
        try:
            if wrapped[:1] != _WRAPPED_VERSION:
                raise ValueError("version")
            nonce, sealed = wrapped[1 : 1 + NONCE_BYTES], wrapped[1 + NONCE_BYTES :]
            return Secret(self._wrapper().decrypt(nonce, sealed, associated))
        except (InvalidTag, ValueError):
            raise foreign_wrapping() from None

    def _wrapper(self) -> AESGCM:
        return AESGCM(_expand(self._secret, "store/wrap", b""))

    def check_value(self) -> bytes:
        """Tells a wrong passphrase from a damaged store; reveals nothing that a sealed row does not."""
        return _expand(self._secret, "store/root", b"check")

    def wipe(self) -> None:
        self._secret.wipe()

    def __repr__(self) -> str:
        return "<RootKey>"


def _expand(key: Secret, label: str, context: bytes) -> bytes:
    return HKDFExpand(hashes.SHA256(), KEY_BYTES, LABELS[label] + context).derive(key.reveal())


def foreign_wrapping() -> Tampered:
    """What every root says of a wrapped key that is not its own."""
    return Tampered(
        "a tenant key does not unwrap: the keyring was changed, or belongs to another root key",
        hint="restore the keyring, or name the root key that it was made with",
    )


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
    temporary = path.with_name(path.name + ".new")
    write_whole(temporary, _noted(passphrase, secrets.token_bytes(SALT_BYTES), stretch).note.salt.encode())
    # a link fails where a file of that name appeared meanwhile: a salt in use is never overwritten
    os.link(temporary, path)
    temporary.unlink()
    sync_folder(path.parent)


def replace_salt(path: Path, salt: str) -> None:
    """The salt of a rotated root, from the note of its keyring."""
    write_whole(path, salt.encode())


def _noted(passphrase: bytes, salt: bytes, stretch: Stretch) -> RootKey:
    secret = _root(passphrase, salt, stretch)
    check = RootKey(secret).check_value().hex()
    body = {"kdf": "argon2id", **asdict(stretch), "salt": salt.hex(), "check": check}
    return RootKey(secret, RootNote(salt=json.dumps(body, indent=1) + "\n"))


def _root(passphrase: bytes, salt: bytes, stretch: Stretch) -> Secret:
    stretched = stretch.derive(passphrase, salt)
    return Secret(HKDF(hashes.SHA256(), KEY_BYTES, salt, LABELS["store/root"]).derive(stretched))


def _derive_checked(passphrase: bytes, salt_path: Path, path: Path, sealed: str = "the store") -> RootKey:
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
        raise ConfigError(f"this is not the passphrase that {sealed} was sealed with", path=str(path))
    return root


@dataclass(slots=True)
class _Writer:
    """The pool key that seals now, and how often it still may."""

    prefix: bytes
    cipher: AESGCM
    left: int


class Sealer:
    """Seals and opens columns. One per store; not shared between threads.

    root: RootKey, or a key in an HSM. keyring: where wrapped tenant keys are kept; without one there is the default tenant
    alone, under a RootKey. Raises what TenantKeys raises. No later call waits for an HSM but those that change tenants.
    """

    def __init__(self, root: KeyRoot, keyring: Keyring | None = None) -> None:
        self._tenants: TenantKeys | None = None
        self._founding: Secret | None = None
        self._writers: dict[tuple[str, str], _Writer] = {}
        self._ciphers: dict[tuple[str, str, bytes], AESGCM] = {}
        if isinstance(root, RootKey):
            self._founding = root.founding()
        if keyring is not None:
            self._tenants = TenantKeys(root, keyring, founding=self._founding)
        elif self._founding is None:
            raise ConfigError("a root key in an HSM needs a keyring", hint="this is a fault of the program, report it")

    # rows ----------------------------------------------------------------------------------------------------------

    def seal(
        self, column: str, row_identity: bytes, plaintext: bytes, *, tenant: str = DEFAULT_TENANT, pool: str = ""
    ) -> bytes:
        """`plaintext`, bound to tenant, pool, column and row. Raises TenantSealed; NotPermitted for an unknown tenant."""
        writer = self._writers.get((tenant, pool))
        if writer is None or writer.left == 0:
            writer = self._renew(tenant, pool)
        writer.left -= 1
        nonce = os.urandom(NONCE_BYTES)
        bound = _bound(writer.prefix[0], tenant, pool, column) + row_identity
        return writer.prefix + nonce + writer.cipher.encrypt(nonce, plaintext, bound)

    def open(
        self, column: str, row_identity: bytes, sealed: bytes, *, tenant: str = DEFAULT_TENANT, pool: str = ""
    ) -> Secret:
        """The plaintext. Raises Tampered unless `sealed` was made for just this place; TenantSealed, NotPermitted."""
        named = NAMED_BYTES.get(sealed[0]) if sealed else None
        if named is None or len(sealed) < named + NONCE_BYTES + TAG_BYTES:
            raise Tampered(f"column {column}: not a sealed value", hint="restore the store from a backup")
        prefix, start = sealed[:named], named + NONCE_BYTES
        cipher = self._ciphers.get((tenant, pool, prefix)) or self._find(tenant, pool, prefix)
        bound = _bound(prefix[0], tenant, pool, column) + row_identity
        try:
            return Secret(cipher.decrypt(sealed[named:start], sealed[start:], bound))
        except InvalidTag:
            raise Tampered(
                f"column {column}: the seal does not fit its row", hint="restore the store from a backup"
            ) from None

    def _renew(self, tenant: str, pool: str) -> _Writer:
        subkey_id = secrets.token_bytes(SUBKEY_ID_BYTES)
        head = bytes([VERSION])
        if self._tenants is not None:
            head = bytes([VERSION_TENANTS]) + self._tenants.current(tenant).to_bytes(GENERATION_BYTES, "big")
        cipher = AESGCM(self._pool_key(tenant, pool, head + subkey_id))
        writer = self._writers[tenant, pool] = _Writer(head + subkey_id, cipher, SEALS_PER_SUBKEY_MAX)
        return writer

    def _find(self, tenant: str, pool: str, prefix: bytes) -> AESGCM:
        writer = self._writers.get((tenant, pool))
        if writer is not None and writer.prefix == prefix:
            return writer.cipher
        if len(self._ciphers) >= SUBKEYS_CACHED_MAX:
            self._ciphers.pop(next(iter(self._ciphers)))
        cipher = self._ciphers[tenant, pool, prefix] = AESGCM(self._pool_key(tenant, pool, prefix))
        return cipher

    def _pool_key(self, tenant: str, pool: str, prefix: bytes) -> bytes:
        """The AES-256 key of the pool that the head of a sealed value names."""
        subkey_id = prefix[-SUBKEY_ID_BYTES:]
        if prefix[0] == VERSION:
            return _expand(self._tenant_key(tenant, FOUNDING), "store/pool", subkey_id)
        generation = int.from_bytes(prefix[1 : 1 + GENERATION_BYTES], "big")
        context = bytes([VERSION_TENANTS]) + frame(pool.encode()) + subkey_id
        return _expand(self._tenant_key(tenant, generation), "store/pool", context)

    def _tenant_key(self, tenant: str, generation: int) -> Secret:
        if self._tenants is not None:
            return self._tenants.key(tenant, generation)
        if tenant != DEFAULT_TENANT:
            raise NotPermitted(f"tenant {tenant} has no key in this store", hint="this store has no keyring")
        assert self._founding is not None
        if generation != FOUNDING:
            raise Tampered("this value was sealed under a keyring, and there is none", hint="restore the keyring")
        return self._founding

    # tenants -------------------------------------------------------------------------------------------------------

    @property
    def has_keyring(self) -> bool:
        return self._tenants is not None

    @property
    def tenants(self) -> TenantKeys:
        """The keys of the tenants: to add, fetch, draw, move and escrow. Raises ConfigError where the store has no keyring.
        Seal, rotate, erase and restore by the methods below, which drop pool keys as well."""
        if self._tenants is None:
            raise ConfigError("this store has no keyring, so it has one tenant only")
        return self._tenants

    def require_open(self, tenant: str) -> None:
        """Raises TenantSealed; NotPermitted for a tenant that has no key here."""
        if self._tenants is not None:
            self._tenants.current(tenant)

    def forget(self, tenant: str) -> None:
        """Drop every pool key of `tenant`; they are derived again where the tenant is not sealed."""
        for place in [place for place in self._writers if place[0] == tenant]:
            del self._writers[place]
        for known in [known for known in self._ciphers if known[0] == tenant]:
            del self._ciphers[known]

    def seal_tenant(self, tenant: str) -> None:
        """From now on, restarts included, rows of `tenant` neither open nor are sealed (TenantSealed). Others go on."""
        self.forget(tenant)
        self.tenants.seal(tenant)

    def unseal_tenant(self, tenant: str, keys: OpenKeys | None = None) -> None:
        """Use the keys of `tenant` again. keys: from `tenants.fetch`, made in another thread so that this one need not wait
        for an HSM; left out: fetched here. Raises Unavailable where the HSM does not answer."""
        self.tenants.unseal(tenant, keys)

    def rotate_tenant(self, tenant: str, fresh: FreshKey | None = None) -> int:
        """Seal new rows of `tenant` under a fresh key; older rows still open. The new generation. fresh: from
        `tenants.draw`, as above."""
        generation = self.tenants.rotate(tenant, fresh)
        self.forget(tenant)
        return generation

    def restore_tenant(self, tenant: str, escrowed: Escrowed) -> None:
        """Put keys from escrow (`tenants.wrap_escrowed`) in place of those that are there."""
        self.tenants.from_escrow(tenant, escrowed)
        self.forget(tenant)

    def begin_keyring(self, root: KeyRoot, keyring: Keyring) -> None:
        """Give a store without one a keyring under `root`, the root that it has; older rows open as before."""
        self._tenants = TenantKeys(root, keyring, founding=self._founding)
        self._writers.clear()

    def erase_tenant(self, tenant: str) -> None:
        """Make all rows of `tenant` unreadable for good (NIST SP 800-88: cryptographic erase)."""
        self.tenants.erase(tenant)
        self.forget(tenant)


@lru_cache(maxsize=4096)
@lru_cache(maxsize=256)
def _bound(version: int, tenant: str, pool: str, column: str) -> bytes:
    """The associated data, up to the row's identity."""
    name = column.encode()
    place = frame(tenant.encode()) + frame(pool.encode()) if version == VERSION_TENANTS else b""
    return b"".join((LABELS["store/column"], bytes([version]), place, len(name).to_bytes(2, "big"), name))
