"""Between the two KMEs that serve the SAEs of a key, whoever carries it: a signature each way, and a secret of their own.

    the KME that made the key                    those between              the KME of the other SAE
    value, ML-KEM public key, signature  ───────────────────────────────▶  the value is what was signed
    the value is what was taken          ◀───────────────────────────────  ML-KEM ciphertext, signature
    key = combine(value, ML-KEM secret)                                     key = combine(value, ML-KEM secret)

KMEs that carry a key on (ETSI GS QKD 020 V1.1.1) have its value in clear, and could hand on another. Here neither does harm: a
value that was changed is refused, a key is not used before the far end has signed that it took this value, and what SAEs get
has an ML-KEM secret in it that only the two ends have. It takes the audit key of the far end's site, told beforehand by another
way than through the KMEs between. Signatures are Ed25519: they have to hold at the moment when a key is made.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

import msgspec

from keystrand.core.errors import BadRequest, KeystrandError
from keystrand.core.labels import LABELS
from keystrand.core.protection import Strand
from keystrand.core.secret import Secret
from keystrand.crypto.combine import combine, frame
from keystrand.kme.ports import Kem, KemPrivateKey
from keystrand.wire.etsi020 import Extensions, ExtKey, Parties

ENDS: Final = "E32473_keystrand_ends"
NONE: Final = b""

Verify = Callable[[bytes, bytes], None]  # message, signature; raises KeystrandError


class _Part(msgspec.Struct, frozen=True):
    """What one end says: its ML-KEM public key or ciphertext, and its signature, in base64."""

    kem: str
    text: str
    signature: str


@dataclass(slots=True)
class Ends:
    """The ends of one KME's keys. verify: by far SAE, the signature of the site that serves it."""

    kem: Kem
    sign: Callable[[bytes], bytes]
    verify: Mapping[str, Verify]
    _waiting: dict[str, tuple[KemPrivateKey, bytes]] = field(default_factory=dict, repr=False)  # gone with the process

    def offer(self, keys: tuple[ExtKey, ...], parties: Parties) -> tuple[ExtKey, ...]:
        """Keys that begin here, with what the far end needs; as they are where nothing was agreed with it."""
        if not self._knows(parties.targets):
            return keys
        private, public = self.kem.generate()
        self._waiting.update({key.key_id: (private, public) for key in keys})
        return tuple(
            ExtKey(key_id=key.key_id, material=key.material, extension=self._said("offer", key, parties, public, NONE))
            for key in keys
        )

    def take(self, key: ExtKey, parties: Parties) -> tuple[Secret, Extensions] | None:
        """A key that ends here, woven, and what goes with its ack; None where nothing was agreed. Raises BadRequest."""
        verify = self.verify.get(parties.initiator)
        if verify is None:
            return None
        part = self._part(key.extension)
        public, signature = _raw(part.text), _raw(part.signature)
        self._check(verify, _message("offer", key, parties, public, NONE), signature)
        try:
            secret, ciphertext = self.kem.encapsulate(public)
        except (KeystrandError, ValueError):
            raise BadRequest("the ML-KEM key of the far end cannot be used") from None
        said = self._said("taken", key, parties, public, ciphertext)
        return _woven(key, parties, secret), said

    def finish(self, key: ExtKey, parties: Parties, said: Extensions) -> Secret | None:
        """The key that the far end took, woven; None where nothing was agreed. Raises BadRequest."""
        if not self._knows(parties.targets):
            return None
        waiting = self._waiting.pop(key.key_id, None)
        if waiting is None:
            raise BadRequest("the ML-KEM secret is gone with the process")
        private, public = waiting
        part = self._part(said)
        ciphertext = _raw(part.text)
        message = _message("taken", key, parties, public, ciphertext)
        self._check(self.verify[parties.targets[0]], message, _raw(part.signature))
        return _woven(key, parties, private.decapsulate(ciphertext))

    def forget(self, key_id: str) -> None:
        """Nobody waits for this key any more."""
        self._waiting.pop(key_id, None)

    def _knows(self, targets: tuple[str, ...]) -> bool:
        return len(targets) == 1 and targets[0] in self.verify

    def _said(self, role: str, key: ExtKey, parties: Parties, public: bytes, ciphertext: bytes) -> Extensions:
        signature = self.sign(_message(role, key, parties, public, ciphertext))
        part = _Part(self.kem.algorithm, _text(ciphertext or public), _text(signature))
        return {ENDS: msgspec.json.encode(part)}

    def _part(self, extensions: Extensions) -> _Part:
        if ENDS not in extensions:
            raise BadRequest("the far end has not signed")
        try:
            part = msgspec.json.decode(extensions[ENDS], type=_Part)
        except msgspec.MsgspecError:
            raise BadRequest("what the far end signed cannot be read") from None
        if part.kem != self.kem.algorithm:
            raise BadRequest(f"the far end has {part.kem[:32]}, this one {self.kem.algorithm}")
        return part

    def _check(self, verify: Verify, message: bytes, signature: bytes) -> None:
        try:
            verify(message, signature)
        except KeystrandError:
            raise BadRequest("the far end signed another key") from None


def _message(role: str, key: ExtKey, parties: Parties, public: bytes, ciphertext: bytes) -> bytes:
    value = sha256(key.material.reveal()).digest()
    names = (role, key.key_id, parties.initiator, *parties.targets)
    return b"".join(
        map(frame, (LABELS["interdomain/ends"], *(name.encode() for name in names), value, public, ciphertext))
    )


def _woven(key: ExtKey, parties: Parties, secret: Secret) -> Secret:
    """What came over the KMEs between enters as the `classical` strand: no more is claimed of it."""
    context = [name.encode() for name in (key.key_id, parties.initiator, *parties.targets)]
    parts: dict[str, Secret] = {Strand.PQC: secret, Strand.CLASSICAL: key.material}
    return combine(parts, context=context, size_bytes=len(key.material))


def _text(data: bytes) -> str:
    return b64encode(data).decode()


def _raw(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except ValueError:
        raise BadRequest("what the far end signed cannot be read") from None
