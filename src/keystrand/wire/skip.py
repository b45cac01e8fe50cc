"""Cisco SKIP (Secure Key Integration Protocol, draft-cisco-skip-02), the messages between encryptor and key provider. No I/O.

Requests are a path and a query; answers are flat JSON with hexadecimal octets. A keyId is 128 bits in hexadecimal: our key
ID without its hyphens.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from keystrand.core.errors import BadRequest
from keystrand.core.identity import check_key_id, check_name
from keystrand.core.key import Key
from keystrand.core.secret import Secret

KEY_SIZES_BITS: Final = (128, 192, 256)
KEY_SIZE_BITS_DEFAULT: Final = 256
MINENTROPY_BITS_DEFAULT: Final = 256
MINENTROPY_BITS_MAX: Final = 4096
_DIGITS: Final = re.compile(r"[0-9]{1,5}")
_KEY_ID: Final = re.compile(r"[0-9A-Fa-f]{32}")


@dataclass(frozen=True, slots=True)
class KeyQuery:
    """What an encryptor asks for: a key shared with the system `remote`."""

    remote: str
    size_bits: int = KEY_SIZE_BITS_DEFAULT


def parse_key_query(params: Sequence[tuple[str, str]]) -> KeyQuery:
    """GET /key: `remoteSystemID`, and `size` in bits if stated. Raises BadRequest; parameters unknown to us are ignored."""
    values = _single(params)
    size_bits = _bits(values["size"], "size") if "size" in values else KEY_SIZE_BITS_DEFAULT
    if size_bits not in KEY_SIZES_BITS:
        raise BadRequest(f"size is none of {', '.join(map(str, KEY_SIZES_BITS))}")
    return KeyQuery(_remote(values), size_bits)


def parse_pickup_query(params: Sequence[tuple[str, str]]) -> str:
    """GET /key/{keyId}: the `remoteSystemID`. Raises BadRequest, also for a size: the key has one already."""
    values = _single(params)
    if "size" in values:
        raise BadRequest("size is for a new key only")
    return _remote(values)


def parse_key_id(text: str) -> str:
    """The keyId of a path as a key ID of ours. Raises BadRequest."""
    if not _KEY_ID.fullmatch(text):
        raise BadRequest("keyId is not 128 bits in hexadecimal")
    return check_key_id("-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:])))


def parse_entropy_query(params: Sequence[tuple[str, str]]) -> int:
    """GET /entropy: bits wanted, a multiple of 8. Raises BadRequest."""
    values = _single(params)
    if "minentropy" not in values:
        return MINENTROPY_BITS_DEFAULT
    bits = _bits(values["minentropy"], "minentropy")
    if bits % 8 or not 8 <= bits <= MINENTROPY_BITS_MAX:
        raise BadRequest(f"minentropy is not a multiple of 8 from 8 to {MINENTROPY_BITS_MAX}")
    return bits


def print_capabilities(*, algorithm: str, local: str, remotes: Iterable[str]) -> bytes:
    """The answer to GET /capabilities. `remotes` are system IDs, or patterns of them."""
    return msgspec.json.encode(
        {"entropy": True, "key": True, "algorithm": algorithm, "localSystemID": local, "remoteSystemID": list(remotes)}
    )


def print_key(key: Key) -> bytes:
    """The answer to GET /key and GET /key/{keyId}. It holds key material in hexadecimal: send it and let it go."""
    return b'{"keyId":"%s","key":"%s"}' % (
        key.key_id.replace("-", "").encode(),
        key.material.reveal().hex().encode(),
    )


def print_entropy(material: Secret) -> bytes:
    """The answer to GET /entropy."""
    return b'{"randomStr":"%s","minentropy":%d}' % (material.reveal().hex().encode(), material.length_bits)


def print_error(text: str) -> bytes:
    """The body of an error answer; the draft defines statuses only."""
    return msgspec.json.encode({"message": text})


def _single(params: Sequence[tuple[str, str]]) -> dict[str, str]:
    values = dict(params)
    if len(values) != len(params):
        raise BadRequest("a query parameter is given twice")
    return values


def _remote(values: dict[str, str]) -> str:
    if "remoteSystemID" not in values:
        raise BadRequest("remoteSystemID is missing")
    return check_name(values["remoteSystemID"], what="remoteSystemID")


def _bits(text: str, name: str) -> int:
    if not _DIGITS.fullmatch(text):
        raise BadRequest(f"{name} is not a number of bits")
    return int(text)
