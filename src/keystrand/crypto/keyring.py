"""The keys of the tenants of one store: random, wrapped by the root key in the keyring, open in memory while not sealed.

A tenant key is AES-256 material of its own, not derived from the root key, so that the root can be a key that never leaves
an HSM, can be exchanged without touching a row, and so that dropping one entry erases one tenant. It is wrapped by
AES-256-GCM and not by AES key wrap (RFC 5649), which binds no associated data: wrapped keys could then be swapped between
tenants. Each generation of a tenant key is wrapped once or twice in its life, far from any bound on random nonces.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import msgspec

from keystrand.core.errors import BadRequest, ConfigError, NotPermitted, StoreUnavailable, Tampered, TenantSealed
from keystrand.core.files import write_whole
from keystrand.core.identity import check_name
from keystrand.core.labels import LABELS
from keystrand.core.policy import DEFAULT_TENANT
from keystrand.core.secret import Secret
from keystrand.crypto.combine import frame

VERSION: Final = 1
KEY_BYTES: Final = 32
GENERATION_BYTES: Final = 2
GENERATIONS_MAX: Final = 2**16
# the passphrase's own key, which sealed the rows of a site before there were tenants: generation 0 of the default tenant
FOUNDING: Final = 0


class RootNote(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Which root key wrapped a keyring, where the configuration alone does not tell since the root was rotated. key_label: of
    a key in an HSM. salt: what a salt file holds, for a passphrase."""

    key_label: str = ""
    salt: str = ""


class KeyRoot(Protocol):
    """What wraps tenant keys: a key in memory that a passphrase gives, or one that stays in an HSM."""

    @property
    def note(self) -> RootNote: ...

    def wrap(self, associated: bytes, key: Secret, /) -> bytes:
        """`key`, encrypted and bound to `associated`. Raises Unavailable where an HSM does not answer."""
        ...

    def unwrap(self, associated: bytes, wrapped: bytes, /) -> Secret:
        """What was wrapped. Raises Tampered unless this root wrapped it for `associated`; Unavailable as above."""
        ...


class TenantEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One tenant: its wrapped keys by generation, and whether an operator sealed it."""

    keys: Mapping[int, bytes]
    sealed: bool = False


class Keyring(Protocol):
    """Where wrapped keys are kept. Nothing in it is secret; losing it loses every row."""

    def read(self) -> Mapping[str, TenantEntry]: ...

    def note(self) -> RootNote: ...

    def write(self, entries: Mapping[str, TenantEntry], note: RootNote | None = None, /) -> None:
        """Replace all, durable when it returns, or raise StoreUnavailable with the old ones in place.

        note: of the root that wraps them now; left out: the same as before.
        """
        ...


class MemoryKeyring:
    """For tests and throw-away networks."""

    def __init__(self) -> None:
        self._entries: dict[str, TenantEntry] = {}
        self._note = RootNote()

    def read(self) -> Mapping[str, TenantEntry]:
        return dict(self._entries)

    def note(self) -> RootNote:
        return self._note

    def write(self, entries: Mapping[str, TenantEntry], note: RootNote | None = None, /) -> None:
        self._entries, self._note = dict(entries), note or self._note


class _Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    version: int
    tenants: Mapping[str, TenantEntry]
    root: RootNote = RootNote()


class KeyringFile:
    """A JSON file (mode 600) beside the store, replaced as a whole."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)

    def read(self) -> Mapping[str, TenantEntry]:
        """Empty where there is no file. Raises ConfigError for one that is not a keyring: it is never replaced."""
        return self._body().tenants

    def note(self) -> RootNote:
        return self._body().root

    def _body(self) -> _Body:
        try:
            body = msgspec.json.decode(self._path.read_bytes(), type=_Body)
        except FileNotFoundError:
            return _Body(version=VERSION, tenants={})
        except (OSError, msgspec.MsgspecError, ValueError, RecursionError) as error:
            hint = "restore it from your backup"
            raise ConfigError(f"not a keyring: {type(error).__name__}", path=str(self._path), hint=hint) from None
        if body.version != VERSION:
            raise ConfigError(f"keyring of version {body.version}, known here is {VERSION}", path=str(self._path))
        return body

    def write(self, entries: Mapping[str, TenantEntry], note: RootNote | None = None, /) -> None:
        body = _Body(version=VERSION, tenants=entries, root=note or self.note())
        content = msgspec.json.format(msgspec.json.encode(body), indent=1)
        try:
            write_whole(self._path, content + b"\n")
        except OSError as error:
            raise StoreUnavailable(f"cannot write the keyring: {error.strerror}", hint=f"see {self._path}") from None


def associated(tenant: str, generation: int) -> bytes:
    """What a wrapped key is bound to: it unwraps as this generation of this tenant only."""
    return LABELS["store/tenant"] + frame(tenant.encode()) + generation.to_bytes(GENERATION_BYTES, "big")


OpenKeys = dict[int, Secret]  # by generation


@dataclass(frozen=True, slots=True)
class FreshKey:
    """A key that no row is sealed with yet."""

    generation: int
    key: Secret
    wrapped: bytes


@dataclass(frozen=True, slots=True)
class Moved:
    """A keyring under another root, and what it was made from."""

    root: KeyRoot
    before: Mapping[str, TenantEntry]
    entries: Mapping[str, TenantEntry]


@dataclass(frozen=True, slots=True)
class Escrowed:
    """Keys of a tenant from escrow, and wrapped."""

    keys: OpenKeys
    wrapped: Mapping[int, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantState:
    """generation: of the key that seals new rows, 0 while the tenant is sealed."""

    tenant: str
    sealed: bool
    generation: int


class TenantKeys:
    """The open keys of a store. Every key of a tenant that is not sealed is unwrapped at once, so that sealing rows never
    waits for an HSM. Raises what root and keyring raise; Tampered where a wrapped key does not fit this root."""

    def __init__(self, root: KeyRoot, keyring: Keyring, *, founding: Secret | None = None) -> None:
        self._root = root
        self._keyring = keyring
        self._founding = founding
        self._entries = dict(keyring.read())
        self._open: dict[str, OpenKeys] = {}
        if DEFAULT_TENANT not in self._entries:
            self.add(DEFAULT_TENANT)
        for tenant, entry in self._entries.items():
            if not entry.sealed:
                self._open[tenant] = self._unwrap(tenant, entry)

    def _unwrap(self, tenant: str, entry: TenantEntry) -> OpenKeys:
        keys = {
            generation: self._root.unwrap(associated(tenant, generation), wrapped)
            for generation, wrapped in entry.keys.items()
        }
        if tenant == DEFAULT_TENANT and self._founding is not None:
            keys.setdefault(FOUNDING, Secret(self._founding.reveal()))
        return keys

    def _save(self, tenant: str, entry: TenantEntry) -> None:
        entries = {**self._entries, tenant: entry}
        self._keyring.write(entries)
        self._entries = entries

    def _entry(self, tenant: str) -> TenantEntry:
        entry = self._entries.get(tenant)
        if entry is None:
            raise NotPermitted(f"tenant {tenant} has no key in this store", hint="add the tenant first")
        return entry

    def _keys(self, tenant: str) -> OpenKeys:
        keys = self._open.get(tenant)
        if keys is None:
            self._entry(tenant)
            raise TenantSealed(f"tenant {tenant} is sealed", hint="an operator must unseal it")
        return keys

    @property
    def tenants(self) -> frozenset[str]:
        return frozenset(self._entries)

    @property
    def sealed(self) -> frozenset[str]:
        return frozenset(self._entries.keys() - self._open.keys())

    def states(self) -> list[TenantState]:
        """All tenants by name."""
        shut = self.sealed
        return [
            TenantState(tenant=name, sealed=name in shut, generation=0 if name in shut else self.current(name))
            for name in sorted(self._entries)
        ]

    def current(self, tenant: str) -> int:
        """The generation that seals new rows. Raises TenantSealed, NotPermitted."""
        return max(self._keys(tenant))

    def key(self, tenant: str, generation: int) -> Secret:
        """Raises TenantSealed; NotPermitted for a tenant that is not here; Tampered for a generation that never was."""
        key = self._keys(tenant).get(generation)
        if key is None:
            raise Tampered(
                f"tenant {tenant} has no key of generation {generation}",
                hint="restore the keyring that belongs to this store",
            )
        return key

    # A call that asks the root key may take as long as an HSM's deadline. So that a thread with other work need not wait,
    # `fetch`, `draw`, `rewrap` and `wrap_escrowed` may run in any
    # thread; they change nothing, and what they return is handed to `unseal`, `rotate`, `adopt` and `from_escrow`.

    def fetch(self, tenant: str) -> OpenKeys:
        """The keys of `tenant`, unwrapped. Raises Unavailable, Tampered, NotPermitted."""
        return self._unwrap(tenant, self._entry(tenant))

    def draw(self, tenant: str) -> FreshKey:
        """The next key of `tenant`, or the first one of a new tenant. Raises Unavailable, TenantSealed."""
        generation = max(self._keys(tenant) if tenant in self._entries else (), default=FOUNDING) + 1
        assert generation < GENERATIONS_MAX
        key = Secret(secrets.token_bytes(KEY_BYTES))
        return FreshKey(generation, key, self._root.wrap(associated(tenant, generation), key))

    def add(self, tenant: str, fresh: FreshKey | None = None) -> None:
        """A tenant with a fresh key. Raises BadRequest where it exists or its name will not do."""
        check_name(tenant, what="tenant")
        if tenant in self._entries:
            raise BadRequest(f"tenant {tenant} exists already")
        self._put(tenant, {}, fresh or self.draw(tenant))

    def rotate(self, tenant: str, fresh: FreshKey | None = None) -> int:
        """A fresh key for new rows; older rows open with the older ones. The new generation."""
        older = self._keys(tenant)
        fresh = fresh or self.draw(tenant)
        if fresh.generation in older:
            raise BadRequest(f"tenant {tenant} was rotated meanwhile", hint="it has a fresh key already")
        self._put(tenant, self._entry(tenant).keys, fresh)
        return fresh.generation

    def _put(self, tenant: str, keys: Mapping[int, bytes], fresh: FreshKey) -> None:
        self._save(tenant, TenantEntry(keys={**keys, fresh.generation: fresh.wrapped}))
        self._open.setdefault(tenant, {})[fresh.generation] = fresh.key

    def seal(self, tenant: str) -> None:
        """Forget the keys of `tenant`, now and at every start, until `unseal`. Needs no root key. Idempotent.

        The keys are gone from memory even where the keyring cannot be written, which raises StoreUnavailable.
        """
        entry = self._entry(tenant)
        self._forget(tenant)
        self._save(tenant, msgspec.structs.replace(entry, sealed=True))

    def unseal(self, tenant: str, keys: OpenKeys | None = None) -> None:
        """Raises Unavailable where the root key cannot be reached; the tenant stays sealed then. Idempotent."""
        entry = self._entry(tenant)
        keys = keys or self._unwrap(tenant, entry)
        if not keys.keys() >= entry.keys.keys():
            raise BadRequest(f"these are not all keys of tenant {tenant}", hint="fetch them again")
        self._save(tenant, msgspec.structs.replace(entry, sealed=False))
        self._open[tenant] = keys

    def erase(self, tenant: str) -> None:
        """Drop the keys for good: no row of `tenant` opens again, but with a copy of the keyring or from escrow."""
        self._entry(tenant)
        if tenant == DEFAULT_TENANT:
            raise BadRequest("the default tenant cannot be erased", hint="erase the whole store, and its passphrase")
        entries = {name: entry for name, entry in self._entries.items() if name != tenant}
        self._keyring.write(entries)
        self._entries = entries
        self._forget(tenant)

    def _forget(self, tenant: str) -> None:
        for key in self._open.pop(tenant, {}).values():
            key.wipe()

    def rewrap(self, root: KeyRoot) -> Moved:
        """Every key wrapped by `root`; changes nothing, may run in any thread, and is handed to `adopt`."""
        before, moved = self._entries, {}
        for tenant, entry in before.items():
            keys = self._open.get(tenant) or self._unwrap(tenant, entry)
            wrapped = {generation: root.wrap(associated(tenant, generation), key) for generation, key in keys.items()}
            moved[tenant] = msgspec.structs.replace(entry, keys=wrapped)
        return Moved(root, before, moved)

    def adopt(self, moved: Moved) -> None:
        """From now on under that root; rows stay as they are. All or nothing. Raises BadRequest where tenants changed since."""
        if moved.before != self._entries:
            raise BadRequest("a tenant's keys were changed meanwhile", hint="try again")
        self._keyring.write(moved.entries, moved.root.note)
        self._entries, self._root = dict(moved.entries), moved.root

    def move(self, root: KeyRoot) -> None:
        """Wrap every key by `root` instead, now."""
        self.adopt(self.rewrap(root))

    # escrow

    def for_escrow(self, tenant: str) -> Secret:
        """All keys of a tenant that is not sealed: generation (2) || key (32), repeated."""
        keys = sorted(self._keys(tenant).items())
        return Secret(b"".join(generation.to_bytes(GENERATION_BYTES, "big") + key.reveal() for generation, key in keys))

    def wrap_escrowed(self, tenant: str, escrowed: Secret) -> Escrowed:
        """What `for_escrow` gave, wrapped; as `rewrap`. Raises BadRequest for anything else."""
        check_name(tenant, what="tenant")
        keys = dict(_pairs(escrowed.reveal()))
        wrapped = {generation: self._root.wrap(associated(tenant, generation), key) for generation, key in keys.items()}
        return Escrowed(keys, wrapped)

    def from_escrow(self, tenant: str, escrowed: Escrowed) -> None:
        """Put them in place of what is there; unseals."""
        self._save(tenant, TenantEntry(keys=escrowed.wrapped))
        self._open[tenant] = dict(escrowed.keys)


def _pairs(raw: bytes) -> Iterable[tuple[int, Secret]]:
    width = GENERATION_BYTES + KEY_BYTES
    if not raw or len(raw) % width:
        raise BadRequest("not the keys of a tenant", hint="are the shares those of another escrow?")
    for start in range(0, len(raw), width):
        head, key = raw[start : start + GENERATION_BYTES], raw[start + GENERATION_BYTES : start + width]
        yield int.from_bytes(head, "big"), Secret(key)
