"""Tenant keys: isolated, sealed alone, rotated, erased, moved to another root, escrowed; older stores still open."""

from __future__ import annotations

import os
import subprocess
import sys
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keystrand.core.errors import BadRequest, ConfigError, NotPermitted, StoreUnavailable, Tampered, TenantSealed
from keystrand.core.secret import Secret
from keystrand.crypto import seal
from keystrand.crypto.keyring import Keyring, KeyringFile, KeyRoot, MemoryKeyring, RootNote, TenantEntry, associated
from keystrand.crypto.seal import RootKey, Sealer
from keystrand.crypto.shares import combine, split


@pytest.fixture
def root() -> RootKey:
    return RootKey.generate()


@pytest.fixture
def keyring(tmp_path: Path) -> KeyringFile:
    return KeyringFile(tmp_path / "tenants.keys")


@pytest.fixture
def sealer(root: RootKey, keyring: Keyring) -> Sealer:
    made = Sealer(root, keyring)
    for tenant in ("acme", "zeta"):
        made.tenants.add(tenant)
    return made


@given(st.binary(max_size=200), st.binary(max_size=60), st.text(max_size=8))
@settings(max_examples=40)
def test_I8_what_is_sealed_opens_in_its_tenant_pool_column_and_row_only(plain: bytes, row: bytes, pool: str) -> None:
    sealer = Sealer(RootKey.generate(), MemoryKeyring())
    sealer.tenants.add("acme")
    sealed = sealer.seal("c", row, plain, tenant="acme", pool=pool)
    assert sealer.open("c", row, sealed, tenant="acme", pool=pool).reveal() == plain
    for column, identity, tenant, place in (
        ("c", row, "default", pool),
        ("c", row, "acme", pool + "x"),
        ("d", row, "acme", pool),
        ("c", row + b"x", "acme", pool),
    ):
        with pytest.raises(Tampered):
            sealer.open(column, identity, sealed, tenant=tenant, pool=place)


def test_every_flipped_bit_and_every_cut_is_refused(sealer: Sealer) -> None:
    sealed = sealer.seal("c", b"row", b"material", tenant="acme", pool="link")
    for at in range(8 * len(sealed)):
        broken = bytearray(sealed)
        broken[at // 8] ^= 1 << at % 8
        with pytest.raises(Tampered):
            sealer.open("c", b"row", bytes(broken), tenant="acme", pool="link")
    for length in range(len(sealed)):
        with pytest.raises(Tampered):
            sealer.open("c", b"row", sealed[:length], tenant="acme", pool="link")


def test_tenants_pools_and_generations_have_unrelated_pool_keys(sealer: Sealer) -> None:
    head = bytes([seal.VERSION_TENANTS, 0, 1]) + bytes(16)
    sealer.rotate_tenant("acme")
    second = bytes([seal.VERSION_TENANTS, 0, 2]) + bytes(16)
    places = [("acme", "a", head), ("acme", "b", head), ("acme", "a", second), ("zeta", "a", head)]
    places += [("default", "a", head), ("default", "a", bytes([seal.VERSION]) + bytes(16))]
    assert len({sealer._pool_key(*place) for place in places}) == len(places)


def test_no_nonce_comes_twice_and_pool_keys_are_renewed_at_their_bound(
    monkeypatch: pytest.MonkeyPatch, sealer: Sealer, root: RootKey, keyring: Keyring
) -> None:
    monkeypatch.setattr(seal, "SEALS_PER_SUBKEY_MAX", 100)
    sealed = [sealer.seal("c", b"", b"same", tenant="acme") for _ in range(450)]
    assert len({value[3:31] for value in sealed}) == 450
    subkeys = [value[3:19] for value in sealed]
    assert max(subkeys.count(one) for one in set(subkeys)) == 100
    later = Sealer(root, keyring)
    assert all(later.open("c", b"", value, tenant="acme").reveal() == b"same" for value in sealed)


# sealing a tenant ----------------------------------------------------------------------------------------------------


def test_I8_a_sealed_tenant_refuses_while_others_go_on(sealer: Sealer, root: RootKey, keyring: Keyring) -> None:
    acme = sealer.seal("c", b"r", b"of acme", tenant="acme")
    zeta = sealer.seal("c", b"r", b"of zeta", tenant="zeta")
    key = sealer.tenants.key("acme", 1)
    sealer.seal_tenant("acme")
    assert key.reveal() == bytes(32)
    for each in (sealer, Sealer(root, keyring)):  # a restart does not unseal
        with pytest.raises(TenantSealed, match="acme is sealed") as caught:
            each.open("c", b"r", acme, tenant="acme")
        assert caught.value.hint
        with pytest.raises(TenantSealed):
            each.seal("c", b"r", b"more", tenant="acme")
        assert each.open("c", b"r", zeta, tenant="zeta").reveal() == b"of zeta"
        assert each.tenants.sealed == {"acme"}
    sealer.unseal_tenant("acme")
    assert sealer.open("c", b"r", acme, tenant="acme").reveal() == b"of acme"
    assert Sealer(root, keyring).open("c", b"r", acme, tenant="acme").reveal() == b"of acme"


def test_sealing_twice_and_unsealing_twice_is_the_same_as_once(sealer: Sealer) -> None:
    sealed = sealer.seal("c", b"r", b"x", tenant="acme")
    sealer.seal_tenant("acme")
    sealer.seal_tenant("acme")
    sealer.unseal_tenant("acme")
    sealer.unseal_tenant("acme")
    assert sealer.open("c", b"r", sealed, tenant="acme").reveal() == b"x"


class AwayRoot:
    """A root key whose HSM can be taken away."""

    def __init__(self, root: KeyRoot) -> None:
        self.root, self.away, self.calls = root, False, 0
        self.note = RootNote(key_label="away")

    def wrap(self, associated: bytes, key: Secret, /) -> bytes:
        return self._there().wrap(associated, key)

    def unwrap(self, associated: bytes, wrapped: bytes, /) -> Secret:
        return self._there().unwrap(associated, wrapped)

    def _there(self) -> KeyRoot:
        self.calls += 1
        if self.away:
            raise StoreUnavailable("away")
        return self.root


def test_rows_and_sealing_need_no_root_and_a_failed_unseal_leaves_the_tenant_sealed(root: RootKey) -> None:
    away = AwayRoot(root)
    sealer = Sealer(away, MemoryKeyring())
    sealer.tenants.add("acme")
    away.away, calls = True, away.calls
    sealed = sealer.seal("c", b"r", b"x", tenant="acme", pool="p")
    assert sealer.open("c", b"r", sealed, tenant="acme", pool="p").reveal() == b"x"
    sealer.seal_tenant("acme")
    assert away.calls == calls
    with pytest.raises(StoreUnavailable):
        sealer.unseal_tenant("acme")
    with pytest.raises(TenantSealed):
        sealer.open("c", b"r", sealed, tenant="acme", pool="p")
    away.away = False
    sealer.unseal_tenant("acme")
    assert sealer.open("c", b"r", sealed, tenant="acme", pool="p").reveal() == b"x"


class FullKeyring(MemoryKeyring):
    full = False

    def write(self, entries: object, /) -> None:
        if self.full:
            raise StoreUnavailable("no space")
        super().write(entries)  # type: ignore[arg-type]


def test_keys_are_forgotten_even_where_the_keyring_cannot_be_written(root: RootKey) -> None:
    keyring = FullKeyring()
    sealer = Sealer(root, keyring)
    sealer.tenants.add("acme")
    keyring.full = True
    with pytest.raises(StoreUnavailable):
        sealer.seal_tenant("acme")
    with pytest.raises(TenantSealed):
        sealer.seal("c", b"r", b"x", tenant="acme")
    with pytest.raises(StoreUnavailable):
        sealer.tenants.add("beta")
    assert "beta" not in sealer.tenants.tenants
    with pytest.raises(NotPermitted):
        sealer.seal("c", b"r", b"x", tenant="beta")


def test_a_tenant_without_a_key_is_refused(sealer: Sealer) -> None:
    for call in (
        lambda: sealer.seal("c", b"r", b"x", tenant="who"),
        lambda: sealer.seal_tenant("who"),
        lambda: sealer.unseal_tenant("who"),
        lambda: sealer.rotate_tenant("who"),
        lambda: sealer.erase_tenant("who"),
    ):
        with pytest.raises(NotPermitted, match="who"):
            call()
    with pytest.raises(BadRequest, match="exists"):
        sealer.tenants.add("acme")
    with pytest.raises(BadRequest):
        sealer.tenants.add("a/b")


# the life of tenant keys ---------------------------------------------------------------------------------------------


def test_rotation_keeps_older_rows_readable(sealer: Sealer, root: RootKey, keyring: Keyring) -> None:
    first = sealer.seal("c", b"r", b"one", tenant="acme")
    assert sealer.rotate_tenant("acme") == 2
    second = sealer.seal("c", b"r", b"two", tenant="acme")
    assert (first[1:3], second[1:3]) == (b"\0\1", b"\0\2")
    for each in (sealer, Sealer(root, keyring)):
        assert each.open("c", b"r", first, tenant="acme").reveal() == b"one"
        assert each.open("c", b"r", second, tenant="acme").reveal() == b"two"


def test_an_erased_tenant_never_opens_again(sealer: Sealer, root: RootKey, keyring: Keyring) -> None:
    sealed = sealer.seal("c", b"r", b"x", tenant="acme")
    sealer.erase_tenant("acme")
    for each in (sealer, Sealer(root, keyring)):
        with pytest.raises(NotPermitted):
            each.open("c", b"r", sealed, tenant="acme")
    sealer.tenants.add("acme")
    with pytest.raises(Tampered):
        sealer.open("c", b"r", sealed, tenant="acme")
    with pytest.raises(BadRequest, match="default"):
        sealer.erase_tenant("default")


def test_wrapped_keys_cannot_be_swapped_between_tenants_or_generations(root: RootKey, sealer: Sealer) -> None:
    keyring = MemoryKeyring()
    Sealer(root, keyring).tenants.add("acme")
    entries = dict(keyring.read())
    entries["zeta"] = entries["acme"]
    keyring.write(entries)
    with pytest.raises(Tampered, match="keyring"):
        Sealer(root, keyring)
    entries.pop("zeta")
    entries["acme"] = TenantEntry(keys={2: entries["acme"].keys[1]})
    keyring.write(entries)
    with pytest.raises(Tampered, match="keyring"):
        Sealer(root, keyring)


def test_another_root_key_is_named_as_the_fault(sealer: Sealer, keyring: Keyring) -> None:
    with pytest.raises(Tampered, match="another root key") as caught:
        Sealer(RootKey.generate(), keyring)
    assert caught.value.hint


def test_every_flipped_bit_of_a_wrapped_key_is_refused(root: RootKey) -> None:
    wrapped = root.wrap(associated("acme", 1), Secret(bytes(32)))
    assert len(wrapped) == 61
    for at in range(8 * len(wrapped)):
        broken = bytearray(wrapped)
        broken[at // 8] ^= 1 << at % 8
        with pytest.raises(Tampered):
            root.unwrap(associated("acme", 1), bytes(broken))
    for length in range(len(wrapped)):
        with pytest.raises(Tampered):
            root.unwrap(associated("acme", 1), wrapped[:length])


def test_keys_fetched_and_drawn_in_another_thread_are_put_to_use_without_the_root(root: RootKey) -> None:
    away = AwayRoot(root)
    sealer = Sealer(away, MemoryKeyring())
    sealer.tenants.add("acme", sealer.tenants.draw("acme"))
    first = sealer.seal("c", b"r", b"one", tenant="acme")
    sealer.seal_tenant("acme")
    with ThreadPoolExecutor(1) as pool:
        keys = pool.submit(sealer.tenants.fetch, "acme").result()
        assert sealer.tenants.sealed == {"acme"}  # fetching changes nothing
        away.away = True
        sealer.unseal_tenant("acme", keys)
        away.away = False
        fresh, late = (pool.submit(sealer.tenants.draw, "acme").result() for _ in range(2))
    away.away = True
    assert sealer.rotate_tenant("acme", fresh) == 2
    with pytest.raises(BadRequest, match="meanwhile"):
        sealer.rotate_tenant("acme", late)
    assert sealer.open("c", b"r", first, tenant="acme").reveal() == b"one"
    second = sealer.seal("c", b"r", b"two", tenant="acme")
    away.away = False
    again = Sealer(away, sealer.tenants._keyring)
    assert again.open("c", b"r", second, tenant="acme").reveal() == b"two"
    again.seal_tenant("acme")
    with pytest.raises(BadRequest, match="not all keys"):
        again.unseal_tenant("acme", {1: Secret(bytes(32))})


# older stores and other roots ----------------------------------------------------------------------------------------


def test_rows_from_before_tenants_open_in_the_default_tenant(root: RootKey, keyring: Keyring) -> None:
    older = Sealer(root).seal("c", b"r", b"old")
    assert older[0] == seal.VERSION
    sealer = Sealer(root, keyring)
    assert sealer.open("c", b"r", older).reveal() == b"old"
    assert sealer.open("c", b"r", older, pool="link").reveal() == b"old"  # version 1 knew no pools
    assert sealer.seal("c", b"r", b"new")[0] == seal.VERSION_TENANTS
    sealer.tenants.add("acme")
    with pytest.raises(Tampered):
        sealer.open("c", b"r", older, tenant="acme")
    sealer.seal_tenant("default")
    with pytest.raises(TenantSealed):
        sealer.open("c", b"r", older)


def test_a_value_sealed_by_release_0_1_opens() -> None:
    """Made with 0.1.0: root key 00..1f, column blocks.material, row identity "row", plaintext "material of 0.1.0"."""
    sealed = bytes.fromhex(
        "0139dbd56d23f04c6a8a5ff214e98f94e0b2513d0f097093b430d65e8fdcec"
        "d639ec9b4403a4296539c163c7d9e9ad3374b7095c894d23f5693d29ba074a"
    )
    root = RootKey(Secret(bytes(range(32))))
    for sealer in (Sealer(root), Sealer(root, MemoryKeyring())):
        assert sealer.open("blocks.material", b"row", sealed).reveal() == b"material of 0.1.0"


def test_a_store_without_a_keyring_has_one_tenant(root: RootKey, keyring: Keyring) -> None:
    plain = Sealer(root)
    with pytest.raises(NotPermitted):
        plain.seal("c", b"r", b"x", tenant="acme")
    with pytest.raises(ConfigError):
        plain.seal_tenant("default")
    sealed = Sealer(root, keyring).seal("c", b"r", b"x")
    with pytest.raises(Tampered, match="keyring"):
        plain.open("c", b"r", sealed)
    with pytest.raises(ConfigError):
        Sealer(AwayRoot(root))


def test_a_store_moves_to_another_root_key_rows_untouched(root: RootKey, keyring: Keyring) -> None:
    older = Sealer(root).seal("c", b"r", b"old")
    sealer = Sealer(root, keyring)
    for tenant in ("acme", "shut"):
        sealer.tenants.add(tenant)
    rows = {tenant: sealer.seal("c", b"r", tenant.encode(), tenant=tenant) for tenant in ("default", "acme", "shut")}
    sealer.seal_tenant("shut")
    other = AwayRoot(RootKey.generate())  # stands for an HSM: no founding key of its own
    sealer.tenants.move(other)
    assert sealer.open("c", b"r", rows["acme"], tenant="acme").reveal() == b"acme"
    sealer.tenants.add("late")
    again = Sealer(other, keyring)
    assert again.open("c", b"r", older).reveal() == b"old"
    assert again.open("c", b"r", rows["default"]).reveal() == b"default"
    assert again.open("c", b"r", rows["acme"], tenant="acme").reveal() == b"acme"
    assert again.tenants.sealed == {"shut"}
    again.unseal_tenant("shut")
    assert again.open("c", b"r", rows["shut"], tenant="shut").reveal() == b"shut"
    with pytest.raises(Tampered):
        Sealer(root, keyring)


def test_a_failed_move_changes_nothing(root: RootKey, keyring: Keyring, sealer: Sealer) -> None:
    before = keyring.read()
    away = AwayRoot(RootKey.generate())
    away.away = True
    with pytest.raises(StoreUnavailable):
        sealer.tenants.move(away)
    assert keyring.read() == before
    assert sealer.rotate_tenant("acme") == 2
    assert Sealer(root, keyring).tenants.current("acme") == 2


def test_custodians_give_a_tenant_back_to_a_new_site(sealer: Sealer, tmp_path: Path) -> None:
    first = sealer.seal("c", b"r", b"one", tenant="acme")
    sealer.rotate_tenant("acme")
    second = sealer.seal("c", b"r", b"two", tenant="acme")
    record, shares = split(sealer.tenants.for_escrow("acme"), 2, 3)
    other = Sealer(RootKey.generate(), KeyringFile(tmp_path / "other.keys"))
    other.restore_tenant("acme", other.tenants.wrap_escrowed("acme", combine(record, shares[1:])))
    assert other.open("c", b"r", first, tenant="acme").reveal() == b"one"
    assert other.open("c", b"r", second, tenant="acme").reveal() == b"two"
    sealer.seal_tenant("zeta")
    with pytest.raises(TenantSealed):
        sealer.tenants.for_escrow("zeta")
    for wrong in (b"", bytes(33), bytes(35)):
        with pytest.raises(BadRequest):
            other.restore_tenant("zeta", other.tenants.wrap_escrowed("zeta", Secret(wrong)))


# the file ------------------------------------------------------------------------------------------------------------


def test_I12_the_keyring_is_for_its_owner_and_holds_no_key(sealer: Sealer, tmp_path: Path) -> None:
    path = tmp_path / "tenants.keys"
    assert path.stat().st_mode & 0o777 == 0o600
    content = path.read_bytes()
    for tenant in ("default", "acme", "zeta"):
        key = sealer.tenants.key(tenant, 1).reveal()
        assert key not in content
        assert key.hex().encode() not in content
        assert b64encode(key)[:-2] not in content


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"version": 1}', '{"version": 2, "tenants": {}}', "\x00"])
def test_a_broken_keyring_is_never_replaced(root: RootKey, tmp_path: Path, content: str) -> None:
    path = tmp_path / "tenants.keys"
    path.write_text(content)
    with pytest.raises(ConfigError, match="keyring"):
        Sealer(root, KeyringFile(path))
    assert path.read_text() == content


def test_a_keyring_that_cannot_be_written_leaves_the_old_one(
    keyring: KeyringFile, root: RootKey, tmp_path: Path
) -> None:
    sealer = Sealer(root, keyring)
    before = (tmp_path / "tenants.keys").read_bytes()
    (tmp_path / "tenants.keys.new").mkdir()
    with pytest.raises(StoreUnavailable, match="keyring"):
        sealer.tenants.add("acme")
    assert (tmp_path / "tenants.keys").read_bytes() == before


def test_I3_a_killed_process_leaves_a_whole_keyring(tmp_path: Path) -> None:
    """Killed at a random moment of endless writing, the file is one of those that were written."""
    path = tmp_path / "tenants.keys"
    code = (
        "import sys; from keystrand.crypto.keyring import *; from keystrand.crypto.seal import *\n"
        "from keystrand.core.secret import Secret\n"
        f"sealer = Sealer(RootKey(Secret(bytes(32))), KeyringFile({str(path)!r})); print('up', flush=True)\n"
        "while True: print(sealer.rotate_tenant('default'), flush=True)"
    )
    for lines in (1, 7, 30):
        writer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        told = [writer.stdout.readline() for _ in range(lines)]
        writer.kill()
        writer.wait()
        acknowledged = int(told[-1]) if told[-1].strip().isdigit() else 1
        assert Sealer(RootKey(Secret(bytes(32))), KeyringFile(path)).tenants.current("default") >= acknowledged
        os.unlink(path)
