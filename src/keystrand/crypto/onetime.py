"""One message under one pad: Vernam's one-time pad with a Wegman–Carter tag, both unconditional.

The first 32 bytes of the pad are the key of the tag (Poly1305 with a fresh key per message, Wegman and Carter, J. Comput. Syst.
Sci. 22, 1981; a forgery passes with a chance of at most 8⌈n/16⌉ / 2^106 for n bytes, Bernstein, FSE 2005, 3.3), the rest is
added to the text. A pad is used for one text; sending the same box again is no second use.
"""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.poly1305 import Poly1305

from keystrand.core.errors import Tampered
from keystrand.core.secret import Secret
from keystrand.crypto.field import add

TAG_KEY_BYTES: Final = 32
TAG_BYTES: Final = 16


def pad_bytes(text_bytes: int) -> int:
    """How long the pad for a text of this length is."""
    return TAG_KEY_BYTES + text_bytes


def lock(text: Secret, pad: Secret, context: bytes) -> bytes:
    """The box: the text under the pad, then the tag over it and `context`."""
    assert len(pad) == pad_bytes(len(text))
    key, mask = _cut(pad)
    body = add((text.reveal(), mask), len(text))
    return body + _mac(key, body, context).finalize()


def unlock(box: bytes, pad: Secret, context: bytes) -> Secret:
    """The text. Raises Tampered where box, context or pad is not the one that it was locked with."""
    if len(box) + TAG_KEY_BYTES != len(pad) + TAG_BYTES:
        raise Tampered("box and pad are of different lengths")
    key, mask = _cut(pad)
    body, tag = box[:-TAG_BYTES], box[-TAG_BYTES:]
    try:
        _mac(key, body, context).verify(tag)
    except InvalidSignature:
        raise Tampered("the tag of a one-time box does not fit") from None
    return Secret(add((body, mask), len(body)))


def _cut(pad: Secret) -> tuple[bytes, bytes]:
    material = pad.reveal()
    return material[:TAG_KEY_BYTES], material[TAG_KEY_BYTES:]


def _mac(key: bytes, body: bytes, context: bytes) -> Poly1305:
    mac = Poly1305(key)
    mac.update(len(context).to_bytes(8, "little"))
    mac.update(context)
    mac.update(body)
    return mac
