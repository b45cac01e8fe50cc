"""A KEM of hashes, deterministic under a seed: the right shape for the simulation, no security whatsoever."""

from __future__ import annotations

import hashlib

from keystrand.core.clock import Entropy
from keystrand.core.secret import Secret


class ToyPrivateKey:
    def __init__(self, encapsulation_key: bytes) -> None:
        self._public = encapsulation_key

    def decapsulate(self, ciphertext: bytes, /) -> Secret:
        return Secret(hashlib.sha256(self._public + ciphertext).digest())


class ToyKem:
    algorithm = "toy-kem"

    def __init__(self, entropy: Entropy) -> None:
        self._entropy = entropy

    def generate(self) -> tuple[ToyPrivateKey, bytes]:
        public = self._entropy.bytes(32)
        return ToyPrivateKey(public), public

    def encapsulate(self, encapsulation_key: bytes, /) -> tuple[Secret, bytes]:
        ciphertext = self._entropy.bytes(32)
        return Secret(hashlib.sha256(encapsulation_key + ciphertext).digest()), ciphertext
