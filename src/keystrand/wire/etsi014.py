"""ETSI GS QKD 014 V1.1.1, data objects (clause 6): parse and print, for the KME and for the SAE. No I/O.

What comes from an SAE raises BadRequest; what comes from a KME raises PeerFault. The wire's words master and slave end
here: inside it is initiator and responder. JSON is read strictly: UTF-8 without a byte order mark, no duplicate members,
no NaN, bounded depth, integers that are integers, null nowhere a type is stated. Unknown members are ignored.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import msgspec

from keystrand.core.errors import BadRequest, KeystrandError, NotPermitted, PeerFault, Unavailable, UnknownKey
from keystrand.core.identity import check_key_id, check_name
from keystrand.core.key import Key
from keystrand.core.limits import Limits
from keystrand.core.pool import PoolStatus
from keystrand.core.protection import Strand, names_of
from keystrand.core.secret import Secret
from keystrand.wire.strict_json import read_base64, read_json

# Messages that the standard fixes (6.2 to 6.5), word for word.
SIZE_NOT_OCTETS: Final = "size shall be a multiple of 8"
MANDATORY_UNSUPPORTED: Final = "not all extension_mandatory parameters are supported"
KEYS_NOT_FOUND: Final = "one or more keys specified are not found on KME"

# Vendor extension of a key (prefix and underscore as 6.2 asks for): what is woven into it, so that a connector can tell.
STRANDS_EXTENSION: Final = "keystrand_strands"

INTEGER_MAX: Final = 2**31 - 1
SHOWN_MAX: Final = 64
DEPTH_MAX: Final = Limits().json_depth_max
_DIGITS: Final = re.compile(r"[0-9]{1,10}")
_UUID: Final = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# the body of Get key with key IDs as nearly every client writes it, with nothing in it that could be read in two ways
_GAP: Final = rb"[ \t\r\n]*"
_ONE: Final = rb'~\{~"key_ID"~:~"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"~\}~'
_USUAL_KEY_IDS: Final = re.compile((rb'~\{~"key_IDs"~:~\[(?:%b,)*+%b\]~\}~' % (_ONE, _ONE)).replace(b"~", _GAP))


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRequest:
    """Key request (6.2). None: the KME's default. mandatory, optional: names of the extensions asked for."""

    number: int | None = None
    size_bits: int | None = None
    additional: tuple[str, ...] = ()
    mandatory: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


# what an SAE sends ---------------------------------------------------------------------------------------------------


def parse_key_request(body: bytes) -> KeyRequest:
    """The body of Get key; empty means all defaults. Raises BadRequest."""
    if not body:
        return KeyRequest()
    members = _object(body)
    return KeyRequest(
        number=_count(members, "number"),
        size_bits=_octets(_count(members, "size")),
        additional=_additional(members),
        mandatory=_extension_names(members, "extension_mandatory"),
        optional=_extension_names(members, "extension_optional"),
    )


def key_request_from_query(params: Sequence[tuple[str, str]]) -> KeyRequest:
    """Get key by GET: `number` and `size`, each at most once (5.5). Raises BadRequest; anything more needs POST."""
    values = _single(params, allowed=("number", "size"))
    return KeyRequest(
        number=_count_of_text(values, "number"),
        size_bits=_octets(_count_of_text(values, "size")),
    )


def require_supported(request: KeyRequest, supported: frozenset[str] = frozenset()) -> None:
    """Raises BadRequest with the standard's words when a mandatory extension is none of `supported`."""
    missing = [name for name in request.mandatory if name not in supported]
    if missing:
        details = tuple(("extension_mandatory_unsupported", f"{_shown(name)} is not supported") for name in missing)
        raise BadRequest(MANDATORY_UNSUPPORTED, details=details)


def parse_key_ids(body: bytes) -> tuple[str, ...]:
    """The body of Get key with key IDs (6.4), in lower case. Raises BadRequest."""
    usual = _USUAL_KEY_IDS.fullmatch(body)
    key_ids = tuple(_UUID.findall(body.decode().lower())) if usual else _listed_key_ids(body)
    if len(set(key_ids)) != len(key_ids):
        raise BadRequest("a key ID is listed twice")
    return key_ids


def _listed_key_ids(body: bytes) -> tuple[str, ...]:
    items = _object(body).get("key_IDs")
    if not isinstance(items, list) or not items:
        raise BadRequest("key_IDs is not an array of at least one object")
    return tuple(_key_id(item) for item in items)


def key_ids_from_query(params: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """Get key with key IDs by GET: exactly one `key_ID` (5.6). Raises BadRequest."""
    values = _single(params, allowed=("key_ID",))
    if not values:
        raise BadRequest("key_ID is missing")
    return (check_key_id(values["key_ID"]),)


def print_key_request(request: KeyRequest) -> bytes:
    """The body of Get key. Extensions are not printed: no connector of ours asks for any."""
    members: dict[str, object] = {}
    if request.number is not None:
        members["number"] = request.number
    if request.size_bits is not None:
        members["size"] = request.size_bits
    if request.additional:
        members["additional_slave_SAE_IDs"] = list(request.additional)
    return msgspec.json.encode(members)


def print_key_ids(key_ids: Iterable[str]) -> bytes:
    """The body of Get key with key IDs."""
    return msgspec.json.encode({"key_IDs": [{"key_ID": key_id} for key_id in key_ids]})


# what a KME answers --------------------------------------------------------------------------------------------------

_STATUS_TEXTS: Final = {
    "source_KME_ID": "source_kme_id",
    "target_KME_ID": "target_kme_id",
    "master_SAE_ID": "initiator",
    "slave_SAE_ID": "responder",
}
_STATUS_COUNTS: Final = {
    "key_size": "key_size_bits",
    "stored_key_count": "stored_keys",
    "max_key_count": "stored_keys_max",
    "max_key_per_request": "keys_per_request_max",
    "max_key_size": "key_size_bits_max",
    "min_key_size": "key_size_bits_min",
    "max_SAE_ID_count": "additional_recipients_max",
}


def print_status(status: PoolStatus) -> bytes:
    """Status (6.1)."""
    names = _STATUS_TEXTS | _STATUS_COUNTS
    members: dict[str, object] = {wire: getattr(status, name) for wire, name in names.items()}
    if status.extension:
        members["status_extension"] = status.extension
    return msgspec.json.encode(members)


def parse_status(body: bytes) -> PoolStatus:
    """Status (6.1). Raises PeerFault when a member is missing or has another type."""
    members = _answer(body)
    texts = {name: _text(members, wire) for wire, name in _STATUS_TEXTS.items()}
    counts = {name: _counted(members, wire) for wire, name in _STATUS_COUNTS.items()}
    return PoolStatus(**texts, **counts, extension=_scalars(members.get("status_extension")))  # type: ignore[arg-type]


def print_container(keys: Iterable[Key]) -> bytes:
    """Key container (6.3). The result holds key material in base64: send it and let it go."""
    return b'{"keys":[' + b",".join(map(_print_key, keys)) + b"]}"


def _print_key(key: Key) -> bytes:
    return b'{"key_ID":"%s","key":"%s","key_extension":%s}' % (
        key.key_id.encode(),
        base64.b64encode(key.material.reveal()),
        _print_strands(key.strands),
    )


@cache
def _print_strands(strands: frozenset[Strand]) -> bytes:
    return msgspec.json.encode({STRANDS_EXTENSION: names_of(strands)})


def parse_container(body: bytes) -> list[Key]:
    """Key container (6.3). Strands are what our extension states, none where another vendor's KME states nothing.

    Raises PeerFault; its message never quotes the body.
    """
    items = _answer(body).get("keys")
    if not isinstance(items, list) or not items:
        raise PeerFault("the key container has no keys")
    keys = [_parse_key(item) for item in items]
    if len({key.key_id for key in keys}) != len(keys):
        raise PeerFault("the key container names one key twice")
    return keys


def _parse_key(item: object) -> Key:
    if not isinstance(item, dict) or not isinstance(item.get("key"), str) or not isinstance(item.get("key_ID"), str):
        raise PeerFault("the key container holds something that is not a key")
    try:
        key_id = check_key_id(item["key_ID"])
        material = read_base64(item["key"])
    except BadRequest:
        raise PeerFault("a key of the container has no UUID or no canonical base64") from None
    if not material:
        raise PeerFault("a key of the container is empty")
    return Key(key_id=key_id, material=Secret(material), strands=_strands(item.get("key_extension")))


def _strands(extension: object) -> frozenset[Strand]:
    stated = extension.get(STRANDS_EXTENSION) if isinstance(extension, dict) else None
    words = {word for word in stated if isinstance(word, str)} if isinstance(stated, list) else set()
    return frozenset(strand for strand in Strand if strand.value in words)


# errors --------------------------------------------------------------------------------------------------------------


def print_error(message: str, details: Iterable[tuple[str, str]] = ()) -> bytes:
    """Error (6.5): the body of 400 and 503. 401 has none."""
    members: dict[str, object] = {"message": message}
    listed = [{name: value} for name, value in details]
    if listed:
        members["details"] = listed
    return msgspec.json.encode(members)


def parse_error(body: bytes) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Message and details of an error answer. Never raises: other KMEs send HTML, text or nothing."""
    try:
        members = _object(body)
    except BadRequest:
        return "", ()
    message, listed = members.get("message"), members.get("details")
    pairs = (
        [pair for item in listed if isinstance(item, dict) for pair in item.items()] if isinstance(listed, list) else []
    )
    details = tuple((_shown(name), _shown(str(value))) for name, value in pairs)
    return (_shown(message, 256) if isinstance(message, str) else ""), details


def error_of(status: int, body: bytes, *, retry_after_s: float = 1.0) -> KeystrandError:
    """The error that an answer other than 200 stands for, as the SAE sees it."""
    message, details = parse_error(body)
    if status == 401:
        return NotPermitted("the KME does not permit this", hint="check the certificate and the KME's [[policy]]")
    if status == 400 and message == KEYS_NOT_FOUND:
        return UnknownKey(message, details=details)
    if status == 400:
        return BadRequest(message or "the KME refused the request", details=details)
    if status in (429, 503):
        return Unavailable(message or f"the KME answered {status}", retry_after_s=retry_after_s)
    return PeerFault(f"the KME answered {status}, which ETSI GS QKD 014 does not define")


# JSON, read strictly -------------------------------------------------------------------------------------------------


def _object(body: bytes) -> dict[str, Any]:
    value = read_json(body, depth_max=DEPTH_MAX)
    if not isinstance(value, dict):
        raise BadRequest("the body is not a JSON object")
    return value


def _shown(text: str, length: int = SHOWN_MAX) -> str:
    """What a stranger wrote, safe to print: printable ASCII, bounded."""
    return re.sub(r"[^\x20-\x7e]", "?", text[:length])


def _count(members: Mapping[str, Any], name: str) -> int | None:
    if name not in members:
        return None
    value = members[name]
    if type(value) is not int:  # bool is an int to Python, not to JSON
        raise BadRequest(f"{name} is not an integer")
    return _positive(name, value)


def _count_of_text(values: Mapping[str, str], name: str) -> int | None:
    if name not in values:
        return None
    if not _DIGITS.fullmatch(values[name]):
        raise BadRequest(f"{name} is not an integer from 1 to {INTEGER_MAX}")
    return _positive(name, int(values[name]))


def _positive(name: str, value: int) -> int:
    if not 1 <= value <= INTEGER_MAX:
        raise BadRequest(f"{name} is not an integer from 1 to {INTEGER_MAX}")
    return value


def _octets(size_bits: int | None) -> int | None:
    if size_bits is not None and size_bits % 8:
        raise BadRequest(SIZE_NOT_OCTETS)
    return size_bits


def _additional(members: Mapping[str, Any]) -> tuple[str, ...]:
    if "additional_slave_SAE_IDs" not in members:
        return ()
    names = members["additional_slave_SAE_IDs"]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise BadRequest("additional_slave_SAE_IDs is not an array of at least one SAE ID")
    additional = tuple(check_name(name, what="SAE ID") for name in names)
    if len(set(additional)) != len(additional):
        raise BadRequest("additional_slave_SAE_IDs lists an SAE twice")
    return additional


def _extension_names(members: Mapping[str, Any], member: str) -> tuple[str, ...]:
    if member not in members:
        return ()
    items = members[member]
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise BadRequest(f"{member} is not an array of objects")
    return tuple(name for item in items for name in item)


def _key_id(item: object) -> str:
    if not isinstance(item, dict) or "key_ID" not in item:
        raise BadRequest("key_IDs holds something that is not an object with a key_ID")
    return check_key_id(item["key_ID"])


def _single(params: Sequence[tuple[str, str]], *, allowed: tuple[str, ...]) -> dict[str, str]:
    values = dict(params)
    if len(values) != len(params):
        raise BadRequest("a query parameter is given twice")
    for name in values:
        if name not in allowed:
            raise BadRequest(f"query parameter {_shown(name)} needs POST; GET takes {', '.join(allowed)}")
    return values


# answers -------------------------------------------------------------------------------------------------------------


def _answer(body: bytes) -> dict[str, Any]:
    try:
        return _object(body)
    except BadRequest as fault:
        raise PeerFault(f"the KME's answer cannot be read: {fault}") from None


def _required(members: Mapping[str, Any], name: str, fits: Callable[[object], bool], what: str) -> Any:
    value = members.get(name)
    if not fits(value):
        raise PeerFault(f"the KME's status has no {name} that is {what}")
    return value


def _text(members: Mapping[str, Any], name: str) -> str:
    return str(_required(members, name, lambda value: isinstance(value, str), "a string"))


def _counted(members: Mapping[str, Any], name: str) -> int:
    fits: Callable[[object], bool] = lambda value: type(value) is int and 0 <= value <= 2**63 - 1  # noqa: E731
    return int(_required(members, name, fits, "a count"))


def _scalars(value: object) -> dict[str, str | int | float]:
    members = value if isinstance(value, dict) else {}
    return {name: item for name, item in members.items() if isinstance(item, str | int | float)}
