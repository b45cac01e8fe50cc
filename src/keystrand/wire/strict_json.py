"""JSON from strangers, read strictly: what two readers could take for two things is refused by this one.

UTF-8 without a byte order mark, no duplicate members, no NaN, bounded depth. The error never quotes the text, which may hold
key material.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Any, Final, NoReturn

from keystrand.core.errors import BadRequest

_BRACKETS: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', re.DOTALL)


def read_json(body: bytes, *, depth_max: int) -> Any:
    """The value of a JSON text (RFC 8259). Raises BadRequest."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise BadRequest("the body is not UTF-8") from None
    _check_depth(text, depth_max)
    try:
        return _JSON.decode(text)
    except BadRequest:
        raise
    except (ValueError, RecursionError):  # the decoder's own message may quote the body
        raise BadRequest("the body is not JSON") from None


def read_base64(text: str) -> bytes:
    """The octets of base64 (RFC 4648, table 1) in its one canonical form. Raises BadRequest."""
    try:
        octets = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        raise BadRequest("not base64") from None
    if base64.b64encode(octets).decode() != text:  # bits beside the octets are padding, never key (RFC 4648, 3.5)
        raise BadRequest("not canonical base64")
    return octets


def _check_depth(text: str, depth_max: int) -> None:
    if text.count("[") + text.count("{") <= depth_max:
        return
    depth = 0
    for token in _BRACKETS.finditer(text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(token[0], 0)
        if depth > depth_max:
            raise BadRequest(f"the body is nested deeper than {depth_max}")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise BadRequest("a JSON member is given twice")
    return members


def _no_constant(name: str) -> NoReturn:
    raise BadRequest(f"{name} is not JSON")


_JSON: Final = json.JSONDecoder(object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
