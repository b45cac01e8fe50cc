"""What a daemon takes is derived from the delivered key, never the key itself: two kinds or uses get unrelated secrets.

HKDF-SHA256 (RFC 5869): the label and a length-framed context of kind, use, key ID, initiator and responder.
"""

from __future__ import annotations

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from keystrand.core.labels import LABELS
from keystrand.core.secret import Secret
from keystrand.transport.tunnel.contract import Generation, Place


def derive(generation: Generation, place: Place, *, kind: str, use: str = "", length_bytes: int = 32) -> Secret:
    """The secret of `use` in tunnels of `kind`; the same at both ends."""
    return derive_for(
        generation.material,
        context=(kind, use, generation.key_id, place.initiator_sae, place.responder_sae),
        length_bytes=length_bytes,
    )


def derive_for(material: Secret, *, context: tuple[str, ...], length_bytes: int) -> Secret:
    """From the material and any context of texts, each framed by its length."""
    framed = b"".join(len(part.encode()).to_bytes(2, "big") + part.encode() for part in context)
    info = LABELS["tunnel/key"] + framed
    return Secret(HKDF(hashes.SHA256(), length_bytes, None, info).derive(material.reveal()))
