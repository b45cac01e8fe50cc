"""Request and response messages of KMIP (OASIS KMIP Specification 2.1 chapters 7 and 8), and the symmetric key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from keystrand.core.errors import PeerFault
from keystrand.core.secret import Secret
from keystrand.wire import kmip_ttlv as ttlv
from keystrand.wire.kmip_names import (
    ASYNCHRONOUS_MANDATORY,
    RAW,
    SYMMETRIC_KEY,
    Algorithm,
    BatchError,
    Operation,
    Reason,
    ResultStatus,
    Tag,
    Usage,
    Version,
)
from keystrand.wire.kmip_ttlv import CAPS, Caps, Item, Type

BATCH_ITEMS_MAX: Final = 64
AES_BITS: Final = (128, 192, 256)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestItem:
    """One operation of a batch. operation: its number, known or not."""

    operation: int
    payload: Item
    batch_id: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """response_bytes_max: what the client can take, None where it does not say."""

    version: Version
    items: tuple[RequestItem, ...]
    batch_error: int = BatchError.STOP
    must_be_asynchronous: bool = False
    response_bytes_max: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseItem:
    """What one operation came to; reason and message only of a failure, payload only of a success."""

    operation: int | None
    status: int = ResultStatus.SUCCESS
    payload: Item | None = field(default=None, repr=False)
    reason: int | None = None
    message: str = ""
    batch_id: bytes | None = None


# requests -------------------------------------------------------------------------------------------------------------


def print_request(version: Version, asks: Sequence[tuple[Operation, Item]]) -> bytes:
    """A batch of operations with their payloads; of several, each is numbered."""
    header = ttlv.structure(Tag.REQUEST_HEADER, print_version(version), ttlv.integer(Tag.BATCH_COUNT, len(asks)))
    items = [_print_ask(ask, number if len(asks) > 1 else None) for number, ask in enumerate(asks)]
    return ttlv.encode(ttlv.structure(Tag.REQUEST_MESSAGE, header, *items))


def _print_ask(ask: tuple[Operation, Item], number: int | None) -> Item:
    operation, payload = ask
    batch_id = None if number is None else ttlv.octets(Tag.UNIQUE_BATCH_ITEM_ID, number.to_bytes(8, "big"))
    return ttlv.structure(Tag.BATCH_ITEM, ttlv.enumeration(Tag.OPERATION, operation), batch_id, payload)


def parse_request(message: Item) -> Request:
    """Raises PeerFault for what is no request message."""
    if message.tag != Tag.REQUEST_MESSAGE:
        raise PeerFault("no request message")
    header, *items = message.items or (message,)
    if header.tag != Tag.REQUEST_HEADER or any(item.tag != Tag.BATCH_ITEM for item in items):
        raise PeerFault("a request message is a header and batch items")
    stated = header.need(Tag.BATCH_COUNT).number
    if not 1 <= len(items) <= BATCH_ITEMS_MAX or stated != len(items):
        raise PeerFault(f"a batch of {len(items)} items; 1 to {BATCH_ITEMS_MAX} are allowed, and {stated} were stated")
    option, size = header.first(Tag.BATCH_ERROR_CONTINUATION_OPTION), header.first(Tag.MAXIMUM_RESPONSE_SIZE)
    asks = tuple(map(_parse_ask, items))
    if len(asks) > 1 and any(ask.batch_id is None for ask in asks):
        raise PeerFault("an item of a batch has no ID")
    return Request(
        version=parse_version(header.need(Tag.PROTOCOL_VERSION)),
        items=asks,
        batch_error=option.number if option else BatchError.STOP,
        must_be_asynchronous=_must_be_asynchronous(header),
        response_bytes_max=size.number if size else None,
    )


def _parse_ask(item: Item) -> RequestItem:
    batch_id = item.first(Tag.UNIQUE_BATCH_ITEM_ID)
    extension = item.first(Tag.MESSAGE_EXTENSION)
    if extension is not None and extension.need(Tag.CRITICALITY_INDICATOR).value is True:
        raise PeerFault("a critical message extension that is not known here")
    return RequestItem(
        operation=item.need(Tag.OPERATION).number,
        payload=item.need(Tag.REQUEST_PAYLOAD),
        batch_id=batch_id.octets if batch_id else None,
    )


def _must_be_asynchronous(header: Item) -> bool:
    indicator = header.first(Tag.ASYNCHRONOUS_INDICATOR)
    if indicator is None:
        return False
    return indicator.value is True or (indicator.type is Type.ENUMERATION and indicator.value == ASYNCHRONOUS_MANDATORY)


def parse_version(item: Item) -> Version:
    return Version(item.need(Tag.PROTOCOL_VERSION_MAJOR).number, item.need(Tag.PROTOCOL_VERSION_MINOR).number)


def print_version(version: Version) -> Item:
    major, minor = Tag.PROTOCOL_VERSION_MAJOR, Tag.PROTOCOL_VERSION_MINOR
    return ttlv.structure(Tag.PROTOCOL_VERSION, ttlv.integer(major, version.major), ttlv.integer(minor, version.minor))


# responses ------------------------------------------------------------------------------------------------------------


def print_response(version: Version, items: Sequence[ResponseItem], *, at_s: float) -> bytes:
    header = ttlv.structure(
        Tag.RESPONSE_HEADER,
        print_version(version),
        ttlv.date(Tag.TIME_STAMP, at_s),
        ttlv.integer(Tag.BATCH_COUNT, len(items)),
    )
    return ttlv.encode(ttlv.structure(Tag.RESPONSE_MESSAGE, header, *map(_print_outcome, items)))


def _print_outcome(item: ResponseItem) -> Item:
    return ttlv.structure(
        Tag.BATCH_ITEM,
        ttlv.enumeration(Tag.OPERATION, item.operation) if item.operation is not None else None,
        ttlv.octets(Tag.UNIQUE_BATCH_ITEM_ID, item.batch_id) if item.batch_id is not None else None,
        ttlv.enumeration(Tag.RESULT_STATUS, item.status),
        ttlv.enumeration(Tag.RESULT_REASON, item.reason) if item.reason is not None else None,
        ttlv.text(Tag.RESULT_MESSAGE, item.message) if item.message else None,
        item.payload,
    )


def parse_response(wire: bytes, caps: Caps = CAPS) -> tuple[ResponseItem, ...]:
    """The outcomes, in the order of the batch. Raises PeerFault for what is no response message."""
    message = ttlv.decode(wire, caps)
    if message.tag != Tag.RESPONSE_MESSAGE:
        raise PeerFault("no response message")
    stated = message.need(Tag.RESPONSE_HEADER).need(Tag.BATCH_COUNT).number
    items = tuple(map(_parse_outcome, message.every(Tag.BATCH_ITEM)))
    if len(items) != stated:
        raise PeerFault(f"{len(items)} outcomes where {stated} were stated")
    return items


def _parse_outcome(item: Item) -> ResponseItem:
    operation, reason = item.first(Tag.OPERATION), item.first(Tag.RESULT_REASON)
    message, batch_id = item.first(Tag.RESULT_MESSAGE), item.first(Tag.UNIQUE_BATCH_ITEM_ID)
    return ResponseItem(
        operation=operation.number if operation else None,
        status=item.need(Tag.RESULT_STATUS).number,
        payload=item.first(Tag.RESPONSE_PAYLOAD),
        reason=reason.number if reason else None,
        message=message.text if message else "",
        batch_id=batch_id.octets if batch_id else None,
    )


def failure(reason: Reason, message: str) -> ResponseItem:
    """A failure of the whole message."""
    return ResponseItem(operation=None, status=ResultStatus.OPERATION_FAILED, reason=reason, message=message)


# the symmetric key ----------------------------------------------------------------------------------------------------


def algorithm_of(length_bits: int) -> tuple[Algorithm, Usage]:
    """What a key of this length is for: AES where AES has such keys, else HMAC; to derive from in any case."""
    if length_bits in AES_BITS:
        return Algorithm.AES, Usage.ENCRYPT | Usage.DECRYPT | Usage.DERIVE_KEY
    return Algorithm.HMAC_SHA256, Usage.MAC_GENERATE | Usage.MAC_VERIFY | Usage.DERIVE_KEY


def print_key(material: Secret) -> Item:
    """A Symmetric Key of format Raw."""
    algorithm, _ = algorithm_of(material.length_bits)
    return ttlv.structure(
        Tag.SYMMETRIC_KEY,
        ttlv.structure(
            Tag.KEY_BLOCK,
            ttlv.enumeration(Tag.KEY_FORMAT_TYPE, RAW),
            ttlv.structure(Tag.KEY_VALUE, ttlv.octets(Tag.KEY_MATERIAL, material.reveal())),
            ttlv.enumeration(Tag.CRYPTOGRAPHIC_ALGORITHM, algorithm),
            ttlv.integer(Tag.CRYPTOGRAPHIC_LENGTH, material.length_bits),
        ),
    )


def parse_key(payload: Item) -> Secret:
    """The material of a Get response. Raises PeerFault for another object, another format or a wrapped key."""
    if payload.need(Tag.OBJECT_TYPE).number != SYMMETRIC_KEY:
        raise PeerFault("the object is no symmetric key")
    block = payload.need(Tag.SYMMETRIC_KEY).need(Tag.KEY_BLOCK)
    if block.need(Tag.KEY_FORMAT_TYPE).number != RAW or block.first(Tag.KEY_WRAPPING_DATA) is not None:
        raise PeerFault("the key is not in the clear as raw bytes")
    return Secret(block.need(Tag.KEY_VALUE).need(Tag.KEY_MATERIAL).octets)
