"""An HSM as SoftHSM: the root key stays in it, keys handed to it stay in it, and losing it for a while loses nothing."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from softhsm import PIN, Faults, make_token, needs_softhsm, softhsm_home

from keystrand.core.errors import BadRequest, ConfigError, Tampered, TenantSealed, Unavailable, UnknownKey
from keystrand.core.secret import Secret
from keystrand.crypto.hsm import Hsm, TokenPlace
from keystrand.crypto.keyring import KeyringFile
from keystrand.crypto.seal import RootKey, Sealer
from keystrand.crypto.vault import HsmRoot, HsmVault
from keystrand.testing.patience import wait_until

pkcs11 = pytest.importorskip("pkcs11", reason="needs python-pkcs11: the extra `hsm`")
pytestmark = [needs_softhsm, pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        yield softhsm_home(tmp_path_factory.mktemp("softhsm"), patch)


@pytest.fixture
def place(home: Path, tmp_path: Path) -> TokenPlace:
    return make_token(home, tmp_path)


@pytest.fixture
def hsm(place: TokenPlace) -> Hsm:
    return Hsm(place)


@pytest.fixture
def faults(home: Path, place: TokenPlace) -> Iterator[Faults]:
    made = Faults(home, place)
    yield made
    made.end()


# the root key --------------------------------------------------------------------------------------------------------


def test_the_root_key_wraps_and_never_leaves(hsm: Hsm) -> None:
    root = HsmRoot.create(hsm, "root")
    wrapped = root.wrap(b"acme", Secret(b"k" * 32))
    assert root.unwrap(b"acme", wrapped).reveal() == b"k" * 32
    assert wrapped != root.wrap(b"acme", Secret(b"k" * 32))
    assert b"k" * 32 not in wrapped
    assert HsmRoot(hsm, "root").unwrap(b"acme", wrapped).reveal() == b"k" * 32

    def read(session: object) -> bytes:
        return session.get_key(label="root")[pkcs11.Attribute.VALUE]  # type: ignore[attr-defined,no-any-return]

    def carry_off(session: object) -> bytes:
        wrapper = session.create_object(  # type: ignore[attr-defined]
            {
                pkcs11.Attribute.CLASS: pkcs11.ObjectClass.SECRET_KEY,
                pkcs11.Attribute.KEY_TYPE: pkcs11.KeyType.AES,
                pkcs11.Attribute.VALUE: bytes(32),
                pkcs11.Attribute.WRAP: True,
            }
        )
        key = session.get_key(label="root")  # type: ignore[attr-defined]
        return wrapper.wrap_key(key, mechanism=pkcs11.Mechanism.AES_KEY_WRAP)  # type: ignore[no-any-return]

    refused = []
    for theft in (read, carry_off):
        try:
            hsm.call(theft)
        except Exception as error:
            refused.append(str(error))
    assert "AttributeSensitive" in refused[0]
    assert "KeyUnextractable" in refused[1]


def test_what_was_changed_or_wrapped_for_another_does_not_unwrap(hsm: Hsm) -> None:
    root = HsmRoot.create(hsm, "root")
    wrapped = root.wrap(b"acme", Secret(bytes(32)))
    with pytest.raises(Tampered, match="keyring"):
        root.unwrap(b"zeta", wrapped)
    for at in range(0, 8 * len(wrapped), 7):
        broken = bytearray(wrapped)
        broken[at // 8] ^= 1 << at % 8
        with pytest.raises(Tampered):
            root.unwrap(b"acme", bytes(broken))
    for length in range(0, len(wrapped), 5):
        with pytest.raises(Tampered):
            root.unwrap(b"acme", wrapped[:length])
    with pytest.raises(Tampered):
        HsmRoot.create(hsm, "other").unwrap(b"acme", wrapped)
    with pytest.raises(BadRequest, match="already"):
        HsmRoot.create(hsm, "root")


def make_key(hsm: Hsm, label: str, bits: int, **attributes: bool) -> None:
    use = pkcs11.MechanismFlag.ENCRYPT | pkcs11.MechanismFlag.DECRYPT
    template = {getattr(pkcs11.Attribute, name): value for name, value in attributes.items()}
    hsm.call(
        lambda session: session.generate_key(
            pkcs11.KeyType.AES, bits, label=label, store=True, capabilities=use, template=template
        )
    )


@pytest.mark.parametrize(
    ("bits", "attributes", "words"),
    [
        (256, {"EXTRACTABLE": True, "SENSITIVE": True}, "extractable"),
        (256, {"EXTRACTABLE": False, "SENSITIVE": False}, "not sensitive"),
        (128, {"EXTRACTABLE": False, "SENSITIVE": True}, "AES-256"),
        (256, {"EXTRACTABLE": False, "SENSITIVE": True, "WRAP": True}, "wrap"),
        (256, {"EXTRACTABLE": False, "SENSITIVE": True, "UNWRAP": True}, "unwrap"),
        (256, {"EXTRACTABLE": False, "SENSITIVE": True, "DECRYPT": False}, "may not"),
    ],
)
def test_a_root_key_that_could_leave_or_may_do_too_much_is_refused(
    hsm: Hsm, bits: int, attributes: dict[str, bool], words: str
) -> None:
    make_key(hsm, "weak", bits, **attributes)
    with pytest.raises(ConfigError, match=words):
        HsmRoot(hsm, "weak")


def test_missing_and_ambiguous_keys_are_named(hsm: Hsm) -> None:
    with pytest.raises(ConfigError, match="no such key") as caught:
        HsmRoot(hsm, "nowhere")
    assert caught.value.hint
    for _ in range(2):
        make_key(hsm, "twice", 256, SENSITIVE=True, EXTRACTABLE=False)
    with pytest.raises(ConfigError, match="several"):
        HsmRoot(hsm, "twice")


# a store under it ----------------------------------------------------------------------------------------------------


def test_I8_tenants_are_sealed_alone_under_an_hsm_and_open_in_another_process(
    hsm: Hsm, place: TokenPlace, tmp_path: Path
) -> None:
    sealer = Sealer(HsmRoot.create(hsm, "root"), KeyringFile(tmp_path / "tenants.keys"))
    for tenant in ("acme", "zeta"):
        sealer.tenants.add(tenant)
    acme, zeta = (sealer.seal("c", b"r", name.encode(), tenant=name, pool="p") for name in ("acme", "zeta"))
    sealer.seal_tenant("acme")
    with pytest.raises(TenantSealed):
        sealer.open("c", b"r", acme, tenant="acme", pool="p")
    assert sealer.open("c", b"r", zeta, tenant="zeta", pool="p").reveal() == b"zeta"
    code = (
        "from pathlib import Path; from keystrand.crypto.hsm import *; from keystrand.crypto.vault import *\n"
        "from keystrand.crypto.seal import *; from keystrand.crypto.keyring import *\n"
        f"place = TokenPlace(module=Path({str(place.module)!r}), token_label={place.token_label!r},"
        f" pin_file=Path({str(place.pin_file)!r}), deadline_s=20.0)\n"
        f"sealer = Sealer(HsmRoot(Hsm(place), 'root'), KeyringFile({str(tmp_path / 'tenants.keys')!r}))\n"
        "print(sealer.tenants.sealed); sealer.unseal_tenant('acme')\n"
        f"print(sealer.open('c', b'r', bytes.fromhex({acme.hex()!r}), tenant='acme', pool='p').reveal())"
    )
    again = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert again.stdout.splitlines() == ["frozenset({'acme'})", "b'acme'"]


def test_a_store_moves_from_a_passphrase_to_an_hsm(hsm: Hsm, tmp_path: Path) -> None:
    old, keyring = RootKey.generate(), KeyringFile(tmp_path / "tenants.keys")
    oldest = Sealer(old).seal("c", b"r", b"of 0.1.0")
    sealer = Sealer(old, keyring)
    row = sealer.seal("c", b"r", b"of today")
    root = HsmRoot.create(hsm, "root")
    sealer.tenants.move(root)
    moved = Sealer(root, keyring)
    assert moved.open("c", b"r", oldest).reveal() == b"of 0.1.0"
    assert moved.open("c", b"r", row).reveal() == b"of today"
    with pytest.raises(Tampered):
        Sealer(old, keyring)


# losing it -----------------------------------------------------------------------------------------------------------


def test_T13_a_closed_session_and_a_logout_are_made_good(hsm: Hsm) -> None:
    root = HsmRoot.create(hsm, "root")
    wrapped = root.wrap(b"a", Secret(b"k" * 32))
    for _ in range(3):
        hsm.call(lambda session: session.close())  # logs out as well: as if the token had dropped us
        assert root.unwrap(b"a", wrapped).reveal() == b"k" * 32
    other = Hsm(hsm.place)
    other.call(lambda session: session.get_objects())
    other.call(lambda session: session.token.open(user_pin=None).close())
    assert root.unwrap(b"a", wrapped).reveal() == b"k" * 32


@pytest.mark.parametrize(
    "code",
    ["0xB3", "0x101", "0x32", "0xE0", "0x30", "0x5", "0x6", "0x190", "0x80000001"],
    ids=["session", "login", "removed", "token", "device", "general", "function", "not-initialised", "vendor"],
)
def test_T13_every_way_to_be_lost_is_refused_with_a_hint_and_made_good(faults: Faults, code: str) -> None:
    hsm = Hsm(faults.place)
    root = HsmRoot.create(hsm, "root")
    wrapped = root.wrap(b"a", Secret(b"k" * 32))
    for _ in range(2):
        faults.set(f"fail {code}")
        with pytest.raises(Unavailable) as caught:
            root.unwrap(b"a", wrapped)
        assert caught.value.hint
        assert faults.place.token_label in caught.value.hint
        faults.set("ok")
        assert root.unwrap(b"a", wrapped).reveal() == b"k" * 32


@pytest.mark.parametrize("code", ["0x30", "0x190", "0x32"], ids=["device", "not-initialised", "removed"])
def test_T13_a_module_that_wants_to_be_initialised_anew_is(faults: Faults, tmp_path: Path, code: str) -> None:
    """The token is removed and comes back, and the module notices by C_Initialize only."""
    root = HsmRoot.create(Hsm(faults.place), "root")
    sealer = Sealer(root, KeyringFile(tmp_path / "tenants.keys"))
    sealer.tenants.add("acme")
    row = sealer.seal("c", b"r", b"x", tenant="acme")
    faults.set(f"gone {code}")
    assert sealer.open("c", b"r", row, tenant="acme").reveal() == b"x"  # rows do not need it
    sealer.seal_tenant("acme")
    with pytest.raises(Unavailable):
        sealer.unseal_tenant("acme")
    with pytest.raises(TenantSealed):
        sealer.open("c", b"r", row, tenant="acme")
    faults.set("ok")
    sealer.unseal_tenant("acme")
    assert sealer.open("c", b"r", row, tenant="acme").reveal() == b"x"


def test_T13_a_token_that_fails_to_decrypt_is_not_taken_for_a_changed_keyring(faults: Faults) -> None:
    root = HsmRoot.create(Hsm(faults.place), "root")
    wrapped = root.wrap(b"a", Secret(b"k" * 32))
    faults.set("only 33 0x6")  # C_DecryptInit
    with pytest.raises(Unavailable, match="FunctionFailed"):
        root.unwrap(b"a", wrapped)
    faults.set("ok")
    assert root.unwrap(b"a", wrapped).reveal() == b"k" * 32


def test_T13_a_silent_hsm_is_refused_by_the_deadline_and_holds_up_nobody(faults: Faults, tmp_path: Path) -> None:
    root = HsmRoot.create(Hsm(faults.place), "root")
    sealer = Sealer(root, KeyringFile(tmp_path / "tenants.keys"))
    wrapped = root.wrap(b"a", Secret(b"k" * 32))
    quick = HsmRoot(Hsm(replace(faults.place, deadline_s=0.2)), "root")
    faults.set("slow 3000")
    began = time.monotonic()
    with pytest.raises(Unavailable, match=r"0\.2 s"):
        quick.unwrap(b"a", wrapped)
    assert time.monotonic() - began < 2.5
    faults.set("ok")  # the call on its way still sleeps
    for _ in range(2):
        with pytest.raises(Unavailable, match="silent"):  # at once, without asking it
            quick.unwrap(b"a", wrapped)
        for _ in range(100):
            sealer.seal("c", b"r", b"x")

    def answers() -> bool:
        with contextlib.suppress(Unavailable):
            return quick.unwrap(b"a", wrapped).reveal() == b"k" * 32
        return False

    wait_until(answers, told=lambda: "the HSM answers again, and nobody asks it")


def test_T13_those_who_wait_behind_a_slow_call_are_refused_by_their_own_deadline(faults: Faults) -> None:
    root = HsmRoot.create(Hsm(faults.place), "root")
    wrapped = root.wrap(b"a", Secret(bytes(32)))
    quick = HsmRoot(Hsm(replace(faults.place, deadline_s=0.4)), "root")
    faults.set("slow 3000")
    took: list[float] = []

    def ask() -> None:
        began = time.monotonic()
        with pytest.raises(Unavailable):
            quick.unwrap(b"a", wrapped)
        took.append(time.monotonic() - began)

    threads = [threading.Thread(target=ask) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    faults.set("ok")
    assert len(took) == 5
    assert max(took) < 3.0, "before the call that is on its way ends"


def test_T13_a_silent_hsm_does_not_keep_a_program_from_ending(faults: Faults) -> None:
    place = faults.place
    HsmRoot.create(Hsm(place), "root")
    code = (
        "import sys; from pathlib import Path; from keystrand.crypto.hsm import *; from keystrand.crypto.vault import *\n"
        "from keystrand.core.secret import Secret; from keystrand.core.errors import Unavailable\n"
        f"place = TokenPlace(module=Path({str(place.module)!r}), token_label={place.token_label!r},"
        f" pin_file=Path({str(place.pin_file)!r}), deadline_s=2.0)\n"
        "root = HsmRoot(Hsm(place), 'root'); print('up', flush=True); sys.stdin.readline()\n"
        "try: root.wrap(b'a', Secret(bytes(32)))\n"
        "except Unavailable as error: print(error)"
    )
    program = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "up\n"
    faults.set("slow 60000")
    began = time.monotonic()
    words, _ = program.communicate("go\n", timeout=50)
    assert words == "the HSM did not answer within 2 s\n"
    assert program.returncode == 0
    assert time.monotonic() - began < 50


# the PIN and the module ----------------------------------------------------------------------------------------------


def test_a_refused_pin_is_not_tried_again_before_its_file_changes(hsm: Hsm, place: TokenPlace) -> None:
    HsmRoot.create(hsm, "root")
    hsm.call(lambda session: session.close())
    place.pin_file.write_text("11112222\n")
    with pytest.raises(ConfigError, match="PinIncorrect") as caught:
        HsmRoot(hsm, "root")
    assert "11112222" not in f"{caught.value} {caught.value.hint}"
    for _ in range(5):
        with pytest.raises(ConfigError, match="not tried again"):
            HsmRoot(hsm, "root")
    place.pin_file.write_text(PIN)
    HsmRoot(hsm, "root")


def test_a_pin_file_is_private_and_has_a_pin(hsm: Hsm, place: TokenPlace) -> None:
    place.pin_file.chmod(0o640)
    with pytest.raises(ConfigError, match="others") as caught:
        HsmRoot(hsm, "root")
    assert caught.value.hint == f"chmod 600 {place.pin_file}"
    place.pin_file.chmod(0o600)
    for content in (b"", b"\n", b"\xff\xfe", b"1" * 300):
        place.pin_file.write_bytes(content)
        with pytest.raises(ConfigError, match="PIN"):
            HsmRoot(hsm, "root")
    place.pin_file.unlink()
    with pytest.raises(ConfigError, match="cannot read the PIN"):
        HsmRoot(hsm, "root")


def test_a_module_that_is_none_is_named(place: TokenPlace, tmp_path: Path) -> None:
    text = tmp_path / "module.so"
    text.write_text("no library")
    for path in (tmp_path / "missing.so", text):
        with pytest.raises(ConfigError, match="cannot load") as caught:
            HsmRoot(Hsm(replace(place, module=path)), "root")
        assert str(path) in str(caught.value)


def test_a_token_that_is_not_there_is_refused_with_the_way_to_look(place: TokenPlace) -> None:
    with pytest.raises(Unavailable, match="NoSuchToken") as caught:
        HsmRoot(Hsm(replace(place, token_label="elsewhere")), "root")
    assert caught.value.hint is not None
    assert "pkcs11-tool" in caught.value.hint


def test_without_python_pkcs11_the_extra_is_named(place: TokenPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pkcs11", None)
    with pytest.raises(ConfigError, match="not installed") as caught:
        HsmRoot(Hsm(place), "root")
    assert caught.value.hint is not None
    assert "keystrand[hsm]" in caught.value.hint


# keys handed over ----------------------------------------------------------------------------------------------------


@pytest.mark.proves("R060")
@pytest.mark.parametrize("size_bytes", [16, 24, 32])
def test_an_imported_key_works_as_in_software_and_cannot_be_read_back(hsm: Hsm, size_bytes: int) -> None:
    material, key_id = os.urandom(size_bytes), str(uuid.uuid4())
    vault = HsmVault(hsm)
    vault.import_key(key_id, Secret(material))
    assert vault.holds(key_id)
    nonce, plain = bytes(12), b"the same text"
    parameters = pkcs11.GCMParams(nonce, b"aad", 128)
    sealed = hsm.call(
        lambda session: session.get_key(label=key_id).encrypt(
            plain, mechanism=pkcs11.Mechanism.AES_GCM, mechanism_param=parameters
        )
    )
    assert sealed == AESGCM(material).encrypt(nonce, plain, b"aad")
    # the last is CKR_ACTION_PROHIBITED, which has no class of its own
    assert thefts(hsm, key_id) == ["AttributeSensitive", "KeyUnextractable", "PKCS11Error"]


def thefts(hsm: Hsm, label: str) -> list[str]:
    """What the token answers to reading, to wrapping, and to making the key extractable."""

    def attempt(session: object) -> list[str]:
        attribute = pkcs11.Attribute
        key = session.get_key(label=label)  # type: ignore[attr-defined]
        wrapper = session.create_object(  # type: ignore[attr-defined]
            {
                attribute.CLASS: pkcs11.ObjectClass.SECRET_KEY,
                attribute.KEY_TYPE: pkcs11.KeyType.AES,
                attribute.VALUE: bytes(32),
                attribute.WRAP: True,
            }
        )
        answers = []
        for theft in (
            lambda: key[attribute.VALUE],
            lambda: wrapper.wrap_key(key, mechanism=pkcs11.Mechanism.AES_KEY_WRAP),
            lambda: key.__setitem__(attribute.EXTRACTABLE, True),
        ):
            try:
                theft()
            except pkcs11.PKCS11Error as error:
                answers.append(type(error).__name__)
            else:
                answers.append("it worked")
        return answers

    return hsm.call(attempt)


def test_a_key_of_another_size_becomes_a_generic_secret(hsm: Hsm) -> None:
    material, key_id = os.urandom(64), str(uuid.uuid4())
    HsmVault(hsm).import_key(key_id, Secret(material))
    signed = hsm.call(
        lambda session: session.get_key(label=key_id).sign(b"text", mechanism=pkcs11.Mechanism.SHA256_HMAC)
    )
    assert signed == hmac.digest(material, b"text", hashlib.sha256)
    assert thefts(hsm, key_id)[:2] == ["AttributeSensitive", "KeyUnextractable"]


def test_a_key_id_is_taken_in_once_and_can_be_removed(hsm: Hsm) -> None:
    vault, key_id = HsmVault(hsm), str(uuid.uuid4())
    vault.import_key(key_id, Secret(bytes(32)))
    with pytest.raises(BadRequest, match="already"):
        vault.import_key(key_id.upper(), Secret(bytes(32)))
    vault.remove(key_id)
    assert not vault.holds(key_id)
    with pytest.raises(UnknownKey):
        vault.remove(key_id)
    for wrong in (Secret(b""), Secret(bytes(513))):
        with pytest.raises(BadRequest):
            vault.import_key(key_id, wrong)
    with pytest.raises(BadRequest):
        vault.import_key("root", Secret(bytes(32)))


def test_an_import_into_a_lost_token_is_refused_and_works_once_it_is_back(faults: Faults) -> None:
    vault, key_id = HsmVault(Hsm(faults.place)), str(uuid.uuid4())
    faults.set("gone 0x30")
    with pytest.raises(Unavailable):
        vault.import_key(key_id, Secret(bytes(32)))
    faults.set("ok")
    vault.import_key(key_id, Secret(bytes(32)))
    assert vault.holds(key_id)


def test_the_room_is_light_until_an_hsm_is_used() -> None:
    code = "import sys, keystrand.crypto.vault, keystrand.crypto.hsm; sys.exit('pkcs11' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
