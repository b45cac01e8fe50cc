"""ETSI GS QKD 020 V1.1.1, KME to KME between networks: the data objects and problems, parsed and printed. No I/O.

What a KME asks raises Refused, which is the answer it gets; what a KME answers raises PeerFault. Extensions that are not ours
are kept as the JSON that came in, so that they can be passed on unchanged.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, NoReturn

import msgspec

from keystrand.core.errors import BadRequest, KeystrandError, PeerFault
from keystrand.core.identity import check_key_id, check_name
from keystrand.core.secret import Secret
from keystrand.wire.strict_json import read_base64, read_json

VERSIONS_PATH: Final = "/kmapi/versions"
KEYS_PATH: Final = "/kmapi/v1/ext_keys"
ACK_PATH: Final = "/kmapi/v1/ext_keys/ack"
VOID_PATH: Final = "/kmapi/v1/ext_keys/void"
VERSION: Final = "v1"
SYNCHRONOUS: Final = "synchronous_mode"
PROBLEM_PREFIX: Final = "https://qkd.etsi.org/gs020-interop-kms/"

KEYS_MAX: Final = 1024  # as many as one ack container can name
TARGETS_MAX: Final = 64
MATERIAL_BYTES_MAX: Final = 4096
DEPTH_MAX: Final = 16
URL_LENGTH_MAX: Final = 1024
MESSAGE_LENGTH_MAX: Final = 4096
EXTENSIONS_MAX: Final = 1024
SHOWN_MAX: Final = 64

Extensions = Mapping[str, bytes]  # name -> its value, in the JSON that it came in


class ProblemType(StrEnum):
    """The last part of a problem's type URI."""

    MISSING_PARAMETERS = "missing-parameters"
    INVALID_PARAMETER = "invalid-parameter"
    KEY_ROUTING_ERROR = "key-routing-error"
    VOID_NOT_UNDERSTOOD = "void-request-not-understood"
    NO_KEY_IDS_OR_CONFIRMATION = "no-key-ids-or-confirmation"
    ACK_NOT_UNDERSTOOD = "ack-not-understood"
    KEY_NOT_PRESENT = "key-not-present"
    UNAUTHORIZED = "unauthorized"
    TIMEOUT = "timeout"
    SERVER_ERROR = "server-side-general-error"
    INSUFFICIENT_KEY_MATERIAL = "insufficient-key-material"
    UNSUPPORTED_MANDATORY_EXTENSION = "unsupported-mandatory-extension"


_STATUSES: Final = {
    ProblemType.UNAUTHORIZED: 401,
    ProblemType.TIMEOUT: 408,
    ProblemType.SERVER_ERROR: 503,
    ProblemType.INSUFFICIENT_KEY_MATERIAL: 503,
    ProblemType.UNSUPPORTED_MANDATORY_EXTENSION: 503,
}


class Refused(KeystrandError):
    """A request that gets a problem for an answer. With status 400 or 401 to ext_keys, no association remains for its keys."""

    def __init__(
        self, kind: ProblemType, title: str, *, status: int | None = None, details: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(title)
        self.kind = kind
        self.status = status or _STATUSES.get(kind, 400)
        self.details = dict(details or {})


class AckStatus(StrEnum):
    """What became of keys at the other KME."""

    RELAYED = "relayed"
    FAILED = "failed"
    VOIDED = "voided"
    FAILED_TO_VOID = "failed to void"
    KEY_NOT_PRESENT = "key not present"


@dataclass(frozen=True, slots=True)
class Parties:
    """For whom keys are: the SAE that asked, and those that it shares them with."""

    initiator: str
    targets: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtKey:
    """One key on its way between networks."""

    key_id: str
    material: Secret = field(repr=False, compare=False)
    extension: Extensions = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtKeys:
    """ext_key_container. callback_url: where to acknowledge; None asks for the outcome in the answer (synchronous mode)."""

    keys: tuple[ExtKey, ...]
    parties: Parties
    callback_url: str | None = None
    mandatory: Extensions = field(default_factory=dict)
    optional: Extensions = field(default_factory=dict)

    @property
    def key_ids(self) -> tuple[str, ...]:
        return tuple(key.key_id for key in self.keys)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack:
    """ack_container: keys of the same parties that share one status."""

    key_ids: tuple[str, ...]
    status: AckStatus
    parties: Parties
    message: str = ""
    extension: Extensions = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Void:
    """void_container. No key_ids: all keys of the parties, which takes `all_confirmed`."""

    key_ids: tuple[str, ...]
    parties: Parties
    callback_url: str | None = None
    all_confirmed: bool = False


@dataclass(frozen=True, slots=True)
class Versions:
    """version_container."""

    versions: tuple[str, ...]
    capabilities: tuple[str, ...] = ()


# what a KME asks -----------------------------------------------------------------------------------------------------


def parse_ext_keys(body: bytes) -> ExtKeys:
    """ext_key_container. Raises Refused."""
    members = _object(body, ProblemType.INVALID_PARAMETER)
    _require(members, ("keys", "initiator_sae_id", "target_sae_ids"))
    items = members["keys"]
    if not isinstance(items, list) or not 1 <= len(items) <= KEYS_MAX:
        _invalid("keys", f"is not an array of 1 to {KEYS_MAX} keys")
    raw = _raw(body)
    keys = tuple(_key(item, _extension(item, extras.extension)) for item, extras in zip(items, raw.keys, strict=True))
    if len({key.key_id for key in keys}) != len(keys):
        _invalid("key_id", "is given twice")
    return ExtKeys(
        keys=keys,
        parties=_parties(members),
        callback_url=_callback(members),
        mandatory=_extensions(members, "extension_mandatory", raw.extension_mandatory),
        optional=_extensions(members, "extension_optional", raw.extension_optional),
    )


def parse_void(body: bytes) -> Void:
    """void_container. Raises Refused."""
    members = _object(body, ProblemType.VOID_NOT_UNDERSTOOD)
    _require(members, ("key_ids", "initiator_sae_id", "target_sae_ids"))
    key_ids, confirmed = members["key_ids"], members.get("all_confirmation", False)
    if not isinstance(key_ids, list) or len(key_ids) > KEYS_MAX:
        _invalid("key_ids", f"is not an array of at most {KEYS_MAX} UUIDs")
    if not isinstance(confirmed, bool):
        _invalid("all_confirmation", "is not a boolean")
    _check_extension(members)
    if not key_ids and not confirmed:
        # the text names the entry one way, its example another: say both
        words = "an empty key_ids voids all keys of these SAEs, and needs all_confirmation"
        details = {"no_all_confirmation": words, "no_key_ids_or_confirmation": words}
        raise Refused(ProblemType.NO_KEY_IDS_OR_CONFIRMATION, words, details=details)
    return Void(
        key_ids=_key_ids(key_ids),
        parties=_parties(members),
        callback_url=_callback(members),
        all_confirmed=confirmed,
    )


def parse_acks(body: bytes) -> tuple[Ack, ...]:
    """ack_containers: an array. Raises Refused."""
    items = _value(body, ProblemType.ACK_NOT_UNDERSTOOD)
    if not isinstance(items, list) or not 1 <= len(items) <= KEYS_MAX:
        raise Refused(ProblemType.ACK_NOT_UNDERSTOOD, f"not an array of 1 to {KEYS_MAX} ack containers")
    try:
        raw = msgspec.json.decode(body, type=list[_RawExtended])
    except msgspec.MsgspecError:
        raise Refused(ProblemType.ACK_NOT_UNDERSTOOD, "an ack container is not an object") from None
    return tuple(_ack(item, extras.extension) for item, extras in zip(items, raw, strict=True))


def print_ext_keys(keys: ExtKeys) -> bytes:
    """ext_key_container. The result holds key material in base64: send it and let it go."""
    members: dict[str, object] = {"keys": [_printed(key) for key in keys.keys], **_party_members(keys.parties)}
    if keys.callback_url is not None:
        members["ack_callback_url"] = keys.callback_url
    for name, extensions in (("extension_mandatory", keys.mandatory), ("extension_optional", keys.optional)):
        if extensions:
            members[name] = _print_extensions(extensions)
    return msgspec.json.encode(members)


def print_void(void: Void) -> bytes:
    """void_container."""
    members: dict[str, object] = {"key_ids": list(void.key_ids), **_party_members(void.parties)}
    if void.callback_url is not None:
        members["ack_callback_url"] = void.callback_url
    if void.all_confirmed:
        members["all_confirmation"] = True
    return msgspec.json.encode(members)


def print_acks(acks: Iterable[Ack]) -> bytes:
    """ack_containers: an array."""
    return msgspec.json.encode([_print_ack(ack) for ack in acks])


# what a KME answers --------------------------------------------------------------------------------------------------


def print_versions(versions: Versions) -> bytes:
    """version_container."""
    members: dict[str, object] = {"versions": list(versions.versions)}
    if versions.capabilities:
        members["capabilities"] = list(versions.capabilities)
    return msgspec.json.encode(members)


def parse_versions(body: bytes) -> Versions:
    """version_container. Raises PeerFault."""
    try:
        members = _object(body, ProblemType.INVALID_PARAMETER)
        _require(members, ("versions",))
        return Versions(_words(members, "versions", 16), _words(members, "capabilities", 128))
    except Refused as problem:
        raise PeerFault(f"the KME's versions cannot be read: {problem}") from None


def parse_answered_acks(body: bytes) -> tuple[Ack, ...]:
    """ack_containers in an answer, as synchronous mode has it. Raises PeerFault."""
    try:
        return parse_acks(body)
    except Refused as problem:
        raise PeerFault(f"the KME's answer cannot be read: {problem}") from None


def print_problem(problem: Refused) -> bytes:
    """problem_details: the body of 400, 401, 408 and 503."""
    members: dict[str, object] = {
        "type": PROBLEM_PREFIX + problem.kind,
        "status": problem.status,
        "title": _shown(str(problem), 256),
    }
    if problem.details:
        members["details"] = {name: _shown(words, 256) for name, words in problem.details.items()}
    return msgspec.json.encode(members)


def parse_problem(status: int, body: bytes) -> Refused:
    """The problem behind an answer of this HTTP status. Never raises: what cannot be read is a server error."""
    try:
        members = _object(body, ProblemType.SERVER_ERROR)
    except Refused:
        members = {}
    uri, title, details = members.get("type"), members.get("title"), members.get("details")
    slug = uri.removeprefix(PROBLEM_PREFIX) if isinstance(uri, str) else ""
    kind = ProblemType(slug) if slug in set(ProblemType) else ProblemType.SERVER_ERROR
    pairs = details.items() if isinstance(details, dict) else ()
    return Refused(
        kind,
        _shown(title, 256) if isinstance(title, str) else f"the KME answered {status}",
        status=status,
        details={_shown(name): _shown(words, 256) for name, words in pairs if isinstance(words, str)},
    )


# members -------------------------------------------------------------------------------------------------------------


class _RawExtended(msgspec.Struct):
    extension: msgspec.Raw = msgspec.Raw(b"{}")


class _RawExtKeys(msgspec.Struct):
    keys: list[_RawExtended]
    extension_mandatory: msgspec.Raw = msgspec.Raw(b"{}")
    extension_optional: msgspec.Raw = msgspec.Raw(b"{}")


def _raw(body: bytes) -> _RawExtKeys:
    try:
        return msgspec.json.decode(body, type=_RawExtKeys)
    except msgspec.MsgspecError:
        _invalid("keys", "holds something that is not a key")


def _value(body: bytes, kind: ProblemType) -> Any:
    try:
        return read_json(body, depth_max=DEPTH_MAX)
    except BadRequest as problem:
        raise Refused(kind, str(problem)) from None


def _object(body: bytes, kind: ProblemType) -> dict[str, Any]:
    value = _value(body, kind)
    if not isinstance(value, dict):
        raise Refused(kind, "the body is not a JSON object")
    return value


def _require(members: Mapping[str, Any], names: Iterable[str]) -> None:
    missing = [name for name in names if name not in members]
    if missing:
        details = dict.fromkeys(missing, "is missing")
        raise Refused(ProblemType.MISSING_PARAMETERS, f"missing: {', '.join(missing)}", details=details)


def _invalid(name: str, words: str) -> NoReturn:
    raise Refused(ProblemType.INVALID_PARAMETER, f"{name} {words}", details={name: words})


def _key(item: object, extension: Extensions) -> ExtKey:
    if not isinstance(item, dict):
        _invalid("keys", "holds something that is not a key")
    _require(item, ("key_id", "value"))
    return ExtKey(key_id=_key_id(item["key_id"]), material=_material(item["value"]), extension=extension)


def _material(value: object) -> Secret:
    if not isinstance(value, str):
        _invalid("value", "is not a string")
    try:
        octets = read_base64(value)
    except BadRequest as problem:
        _invalid("value", f"is {problem}")
    if not 1 <= len(octets) <= MATERIAL_BYTES_MAX:
        _invalid("value", f"is not 1 to {MATERIAL_BYTES_MAX} octets")
    return Secret(octets)


def _key_id(value: object) -> str:
    try:
        return check_key_id(value)  # type: ignore[arg-type]  # it refuses what is no text
    except BadRequest:
        _invalid("key_id", "is not a UUID")


def _key_ids(values: list[Any]) -> tuple[str, ...]:
    key_ids = tuple(map(_key_id, values))
    if len(set(key_ids)) != len(key_ids):
        _invalid("key_id", "is given twice")
    return key_ids


def _parties(members: Mapping[str, Any]) -> Parties:
    targets = members["target_sae_ids"]
    if not isinstance(targets, list) or not 1 <= len(targets) <= TARGETS_MAX:
        _invalid("target_sae_ids", f"is not an array of 1 to {TARGETS_MAX} SAE IDs")
    names = tuple(_sae("target_sae_ids", target) for target in targets)
    if len(set(names)) != len(names):
        _invalid("target_sae_ids", "lists an SAE twice")
    return Parties(_sae("initiator_sae_id", members["initiator_sae_id"]), names)


def _sae(member: str, value: object) -> str:
    if not isinstance(value, str):
        _invalid(member, "is not a string")
    try:
        return check_name(value, what="SAE ID")
    except BadRequest:
        _invalid(member, "is not an SAE ID")


def _callback(members: Mapping[str, Any]) -> str | None:
    if "ack_callback_url" not in members:
        return None
    url = members["ack_callback_url"]
    if not isinstance(url, str) or len(url) > URL_LENGTH_MAX or not re.fullmatch(r"https://[\x21-\x7e]+", url):
        _invalid("ack_callback_url", f"is not an https URI of at most {URL_LENGTH_MAX} characters")
    return url


def _extension(item: object, raw: msgspec.Raw) -> Extensions:
    return _extensions(item, "extension", raw, empty=True) if isinstance(item, dict) else {}


def _extensions(members: Mapping[str, Any], name: str, raw: msgspec.Raw, *, empty: bool = False) -> Extensions:
    if name not in members:
        return {}
    value = members[name]
    if not isinstance(value, dict) or len(value) > EXTENSIONS_MAX or not (value or empty):
        _invalid(name, f"is not an object of 1 to {EXTENSIONS_MAX} members")
    try:
        found = msgspec.json.decode(bytes(raw), type=dict[str, msgspec.Raw])
    except msgspec.MsgspecError:
        _invalid(name, "cannot be read")
    return {extension: bytes(text) for extension, text in found.items()}


def _check_extension(members: Mapping[str, Any]) -> None:
    if not isinstance(members.get("extension", {}), dict):
        _invalid("extension", "is not an object")


def _ack(item: object, extension: msgspec.Raw) -> Ack:
    if not isinstance(item, dict):
        raise Refused(ProblemType.ACK_NOT_UNDERSTOOD, "an ack container is not an object")
    _require(item, ("key_id_container", "ack_status", "initiator_sae_id", "target_sae_ids"))
    named, status, text = item["key_id_container"], item["ack_status"], item.get("message", "")
    if not isinstance(named, list) or not 1 <= len(named) <= KEYS_MAX:
        _invalid("key_id_container", f"is not an array of 1 to {KEYS_MAX} objects")
    if not isinstance(status, str) or status not in set(AckStatus):
        _invalid("ack_status", f"is none of {', '.join(AckStatus)}")
    if not isinstance(text, str) or len(text) > MESSAGE_LENGTH_MAX:
        _invalid("message", f"is not a string of at most {MESSAGE_LENGTH_MAX} characters")
    return Ack(
        key_ids=_key_ids([_named_key(entry) for entry in named]),
        status=AckStatus(status),
        parties=_parties(item),
        message=_shown(text, MESSAGE_LENGTH_MAX),
        extension=_extension(item, extension),
    )


def _named_key(entry: object) -> object:
    if not isinstance(entry, dict):
        _invalid("key_id_container", "holds something that is not an object")
    _require(entry, ("key_id",))
    _check_extension(entry)
    return entry["key_id"]


def _words(members: Mapping[str, Any], name: str, length_max: int) -> tuple[str, ...]:
    words = members.get(name, [])
    if not isinstance(words, list) or len(words) > 1000:
        _invalid(name, "is not an array of at most 1000 strings")
    if not all(isinstance(word, str) and len(word) <= length_max for word in words):
        _invalid(name, f"holds something that is not a string of at most {length_max} characters")
    return tuple(words)


def _party_members(parties: Parties) -> dict[str, object]:
    return {"initiator_sae_id": parties.initiator, "target_sae_ids": list(parties.targets)}


def _printed(key: ExtKey) -> dict[str, object]:
    members: dict[str, object] = {"key_id": key.key_id, "value": base64.b64encode(key.material.reveal()).decode()}
    if key.extension:
        members["extension"] = _print_extensions(key.extension)
    return members


def _print_extensions(extensions: Extensions) -> dict[str, msgspec.Raw]:
    return {name: msgspec.Raw(text) for name, text in extensions.items()}


def _print_ack(ack: Ack) -> dict[str, object]:
    members: dict[str, object] = {
        "key_id_container": [{"key_id": key_id} for key_id in ack.key_ids],
        "ack_status": ack.status.value,
        **_party_members(ack.parties),
    }
    if ack.message:
        members["message"] = ack.message
    if ack.extension:
        members["extension"] = _print_extensions(ack.extension)
    return members


def _shown(text: str, length: int = SHOWN_MAX) -> str:
    """What a stranger wrote, safe to print: printable ASCII, bounded."""
    return re.sub(r"[^\x20-\x7e]", "?", text[:length])
