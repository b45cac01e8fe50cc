"""ML-KEM (FIPS 203) as the source of the `pqc` strand."""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives.asymmetric import mlkem

from keystrand.core.errors import PeerFault
from keystrand.core.secret import Secret

_Private = mlkem.MLKEM768PrivateKey | mlkem.MLKEM1024PrivateKey
_Public = type[mlkem.MLKEM768PublicKey] | type[mlkem.MLKEM1024PublicKey]

# FIPS 203, table 3: bytes of a ciphertext
CIPHERTEXT_BYTES: Final = {"ML-KEM-768": 1088, "ML-KEM-1024": 1568}


class DecapsulationKey:
    """The private half. Decapsulation never fails for a ciphertext of the right length (implicit rejection, FIPS 203,
    6.3): both sides must confirm the secret before they use it."""

    __slots__ = ("_key", "_length_bytes")

    def __init__(self, key: _Private, length_bytes: int) -> None:
        self._key = key
        self._length_bytes = length_bytes

    def decapsulate(self, ciphertext: bytes, /) -> Secret:
        """The 32-byte shared secret. Raises PeerFault for a ciphertext of the wrong length."""
        if len(ciphertext) != self._length_bytes:
            raise PeerFault(f"ML-KEM ciphertext of {len(ciphertext)} bytes, expected {self._length_bytes}")
        return Secret(self._key.decapsulate(ciphertext))

    def __repr__(self) -> str:
        return "<DecapsulationKey>"


class MlKem768:
    """Category 3: the default."""

    algorithm = "ML-KEM-768"

    def generate(self) -> tuple[DecapsulationKey, bytes]:
        """A fresh key pair: the decapsulation key, and the encoded encapsulation key."""
        key = mlkem.MLKEM768PrivateKey.generate()
        return DecapsulationKey(key, CIPHERTEXT_BYTES[self.algorithm]), key.public_key().public_bytes_raw()

    def encapsulate(self, encapsulation_key: bytes, /) -> tuple[Secret, bytes]:
        """A 32-byte shared secret and its ciphertext. Raises PeerFault for a key that fails FIPS 203's input checks."""
        return _encapsulate(mlkem.MLKEM768PublicKey, encapsulation_key)


class MlKem1024:
    """Category 5: what CNSA 2.0 asks for."""

    algorithm = "ML-KEM-1024"

    def generate(self) -> tuple[DecapsulationKey, bytes]:
        """As MlKem768.generate."""
        key = mlkem.MLKEM1024PrivateKey.generate()
        return DecapsulationKey(key, CIPHERTEXT_BYTES[self.algorithm]), key.public_key().public_bytes_raw()

    def encapsulate(self, encapsulation_key: bytes, /) -> tuple[Secret, bytes]:
        """As MlKem768.encapsulate."""
        return _encapsulate(mlkem.MLKEM1024PublicKey, encapsulation_key)


def _encapsulate(kind: _Public, encapsulation_key: bytes) -> tuple[Secret, bytes]:
    try:
        shared, ciphertext = kind.from_public_bytes(encapsulation_key).encapsulate()
    except (ValueError, TypeError):
        raise PeerFault("not an ML-KEM encapsulation key") from None
    return Secret(shared), ciphertext
