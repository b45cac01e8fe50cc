"""What an HSM does for a site: hold the root key that wraps tenant keys, and take in keys that nobody shall read again.

The root key is an AES-256 object that the token made, sensitive and not extractable, for encryption and decryption only: an
object that may also wrap and unwrap could be made to give up other keys (Clulow, CHES 2003). Tenant keys are wrapped by
C_Encrypt with AES-GCM; see `keyring` for why not by C_WrapKey. A token that insists on nonces of its own is refused by the
trial that precedes the first use.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from typing import TYPE_CHECKING, Any, Final

from keystrand.core.errors import BadRequest, ConfigError, UnknownKey
from keystrand.core.identity import check_key_id, check_name
from keystrand.core.secret import Secret
from keystrand.crypto.hsm import Hsm, load_pkcs11
from keystrand.crypto.keyring import KEY_BYTES, RootNote
from keystrand.crypto.seal import NONCE_BYTES, TAG_BYTES, foreign_wrapping

if TYPE_CHECKING:
    from pkcs11.types import Session

_VERSION: Final = b"\x01"
_AES_BYTES: Final = (16, 24, 32)
MATERIAL_BYTES_MAX: Final = 512
OBJECT_ID_BYTES: Final = 16


class HsmRoot:
    """A root key in a token. A KeyRoot: `Sealer(HsmRoot(hsm, label), keyring)`.

    Raises ConfigError where there is no such key, it could leave the token or do more than it should; Unavailable by the
    deadline where the token does not answer.
    """

    def __init__(self, hsm: Hsm, key_label: str) -> None:
        self._hsm = hsm
        self._label = key_label
        hsm.call(self._examine)

    @property
    def note(self) -> RootNote:
        return RootNote(key_label=self._label)

    @classmethod
    def create(cls, hsm: Hsm, key_label: str) -> HsmRoot:
        """Have the token make the key. Raises BadRequest where it has one of that label already."""
        check_name(key_label, what="key label")
        object_id = secrets.token_bytes(OBJECT_ID_BYTES)  # tells ours from another's after a lost session
        hsm.call(lambda session: _generate(session, key_label, object_id))
        return cls(hsm, key_label)

    def wrap(self, associated: bytes, key: Secret, /) -> bytes:
        """version (1) || nonce (12) || ciphertext || tag (16): the same form as that of RootKey."""
        nonce = os.urandom(NONCE_BYTES)
        sealed = self._hsm.call(lambda session: _encrypt(self._find(session), nonce, key.reveal(), associated))
        return _VERSION + nonce + sealed

    def unwrap(self, associated: bytes, wrapped: bytes, /) -> Secret:
        """What `wrap` wrapped. Raises Tampered otherwise."""
        if wrapped[:1] != _VERSION or len(wrapped) < 1 + NONCE_BYTES + TAG_BYTES:
            raise foreign_wrapping()
        nonce, sealed = wrapped[1 : 1 + NONCE_BYTES], wrapped[1 + NONCE_BYTES :]
        key = self._hsm.call(lambda session: self._try_decrypt(session, nonce, sealed, associated))
        if key is None:
            raise foreign_wrapping()
        return key

    def _try_decrypt(self, session: Session, nonce: bytes, sealed: bytes, associated: bytes) -> Secret | None:
        """Tokens tell a wrong tag in many ways, some as CKR_GENERAL_ERROR: if a trial works, it was the tag."""
        with contextlib.suppress(load_pkcs11().PKCS11Error):
            return Secret(_decrypt(self._find(session), nonce, sealed, associated))
        _try_out(self._find(session))
        return None

    def _find(self, session: Session) -> Any:
        found = _objects(session, self._label)
        if len(found) != 1:
            p11 = load_pkcs11()
            raise p11.MultipleObjectsReturned if found else p11.NoSuchKey
        return found[0]

    def _examine(self, session: Session) -> None:
        key = self._find(session)
        for fault in _faults(key):
            hint = "have the product make a key of another label, and move the keyring to it"
            raise ConfigError(f"the root key {self._label} {fault}", hint=hint)
        _try_out(key)

    def __repr__(self) -> str:
        return "<HsmRoot>"


def _faults(key: Any) -> list[str]:
    attribute = load_pkcs11().Attribute
    is_aes = key.key_type == load_pkcs11().KeyType.AES and key[attribute.VALUE_LEN] == KEY_BYTES
    checks = (
        (is_aes, "is not an AES-256 key"),
        (key[attribute.SENSITIVE], "is not sensitive: it could be read"),
        (not key[attribute.EXTRACTABLE], "is extractable: it could leave the token"),
        (key[attribute.ENCRYPT] and key[attribute.DECRYPT], "may not encrypt and decrypt"),
        (not key[attribute.WRAP] and not key[attribute.UNWRAP], "may wrap or unwrap other keys as well"),
    )
    return [fault for passed, fault in checks if not passed]


def _try_out(key: Any) -> None:
    nonce, plain, associated = secrets.token_bytes(NONCE_BYTES), secrets.token_bytes(KEY_BYTES), b"trial"
    sealed = _encrypt(key, nonce, plain, associated)
    if len(sealed) != KEY_BYTES + TAG_BYTES or _decrypt(key, nonce, sealed, associated) != plain:
        raise ConfigError("the token's AES-GCM is not that of NIST SP 800-38D", hint="does it make nonces of its own?")


def _encrypt(key: Any, nonce: bytes, plain: bytes, associated: bytes) -> bytes:
    p11 = load_pkcs11()
    parameters = p11.GCMParams(nonce, associated, 8 * TAG_BYTES)
    return bytes(key.encrypt(plain, mechanism=p11.Mechanism.AES_GCM, mechanism_param=parameters))


def _decrypt(key: Any, nonce: bytes, sealed: bytes, associated: bytes) -> bytes:
    p11 = load_pkcs11()
    parameters = p11.GCMParams(nonce, associated, 8 * TAG_BYTES)
    return bytes(key.decrypt(sealed, mechanism=p11.Mechanism.AES_GCM, mechanism_param=parameters))


def _objects(session: Session, label: str) -> list[Any]:
    """All of that label. Read to the end: a search left open would be ended by the collector, in any thread."""
    p11 = load_pkcs11()
    template = {p11.Attribute.CLASS: p11.ObjectClass.SECRET_KEY, p11.Attribute.LABEL: label}
    return list(session.get_objects(template))


def _made_before(session: Session, label: str, object_id: bytes) -> bool:
    """Did a call that was cut off make it? Raises BadRequest where the label is another object's."""
    there = _objects(session, label)
    if there and there[0].id != object_id:
        raise BadRequest(f"the token holds {label} already", hint="remove it first, or choose another label")
    return bool(there)


def _fixed() -> dict[Any, Any]:
    """What holds for every key that we put into a token."""
    attribute = load_pkcs11().Attribute
    return {
        attribute.TOKEN: True,
        attribute.PRIVATE: True,
        attribute.SENSITIVE: True,
        attribute.EXTRACTABLE: False,
        attribute.MODIFIABLE: False,
        attribute.WRAP: False,
        attribute.UNWRAP: False,
        attribute.DERIVE: False,
    }


def _generate(session: Session, label: str, object_id: bytes) -> None:
    p11 = load_pkcs11()
    if _made_before(session, label, object_id):
        return
    use = p11.MechanismFlag.ENCRYPT | p11.MechanismFlag.DECRYPT
    fixed = _fixed()
    session.generate_key(
        p11.KeyType.AES, 8 * KEY_BYTES, id=object_id, label=label, store=True, capabilities=use, template=fixed
    )


class HsmVault:
    """Keys handed over to a token for good. Each is a token object: for keys that live long, not for every QKD key."""

    def __init__(self, hsm: Hsm) -> None:
        self._hsm = hsm

    def import_key(self, key_id: str, material: Secret) -> None:
        """Put `material` into the token under the label `key_id`, sensitive and not extractable, to encrypt and decrypt.

        AES for 16, 24 and 32 bytes, else a generic secret (to sign and verify). What the token says of the new object is
        checked, and the object destroyed where it could be read. Raises BadRequest where the token holds that key ID
        already; Unavailable, after which the object may be there: `remove` it or import under another ID.
        """
        label = check_key_id(key_id)
        if not 0 < len(material) <= MATERIAL_BYTES_MAX:
            raise BadRequest(f"a key of {len(material)} bytes cannot be put into a token")
        object_id = secrets.token_bytes(OBJECT_ID_BYTES)
        self._hsm.call(lambda session: _create(session, label, object_id, material))

    def holds(self, key_id: str) -> bool:
        label = check_key_id(key_id)
        return bool(self._hsm.call(lambda session: _objects(session, label)))

    def remove(self, key_id: str) -> None:
        """Destroy the object. Raises UnknownKey where there is none."""
        label = check_key_id(key_id)
        if not self._hsm.call(lambda session: _destroy(session, label)):
            raise UnknownKey(f"the token holds no key {label}")


def _create(session: Session, label: str, object_id: bytes, material: Secret) -> None:
    p11, size = load_pkcs11(), len(material)
    if _made_before(session, label, object_id):
        return
    is_aes = size in _AES_BYTES
    template = _fixed() | {
        p11.Attribute.CLASS: p11.ObjectClass.SECRET_KEY,
        p11.Attribute.KEY_TYPE: p11.KeyType.AES if is_aes else p11.KeyType.GENERIC_SECRET,
        p11.Attribute.ID: object_id,
        p11.Attribute.LABEL: label,
        p11.Attribute.ENCRYPT: is_aes,
        p11.Attribute.DECRYPT: is_aes,
        p11.Attribute.SIGN: not is_aes,
        p11.Attribute.VERIFY: not is_aes,
        p11.Attribute.VALUE: material.reveal(),
    }
    made = session.create_object(template)
    if not made[p11.Attribute.SENSITIVE] or made[p11.Attribute.EXTRACTABLE]:
        made.destroy()
        raise ConfigError("the token would let the key be read", hint="ask its vendor for CKA_SENSITIVE objects")


def _destroy(session: Session, label: str) -> int:
    found = _objects(session, label)
    for each in found:
        each.destroy()
    return len(found)
