"""TTLV, the encoding of KMIP (OASIS KMIP Specification 2.1, section 10; the same in 1.x): tag, type, length, value.

Every size is checked against a cap before anything is made of it. What `decode` takes, `encode` gives back byte by byte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, TypeAlias

from keystrand.core.errors import PeerFault

HEADER_BYTES: Final = 8
PADDED_BYTES: Final = 8  # values fill up to a multiple of this
TAG_SPACES: Final = (0x42, 0x54)  # tags of the standard, and of vendors


class Type(IntEnum):
    STRUCTURE = 0x01
    INTEGER = 0x02
    LONG_INTEGER = 0x03
    BIG_INTEGER = 0x04
    ENUMERATION = 0x05
    BOOLEAN = 0x06
    TEXT_STRING = 0x07
    BYTE_STRING = 0x08
    DATE_TIME = 0x09
    INTERVAL = 0x0A
    DATE_TIME_EXTENDED = 0x0B  # KMIP 2.0


@dataclass(frozen=True, slots=True)
class Caps:
    """What one message may cost: bytes on the wire, nesting of structures, items in all."""

    message_bytes_max: int = 65_536
    depth_max: int = 16
    items_max: int = 4096


CAPS: Final = Caps()


@dataclass(frozen=True, slots=True)
class Item:
    """One tagged value. The value is not in the repr: it may be key material.

    STRUCTURE holds a tuple of items, TEXT_STRING str, BYTE_STRING bytes, BOOLEAN bool, all others int (dates in Unix
    seconds, DATE_TIME_EXTENDED in microseconds).
    """

    tag: int
    type: Type
    value: Value = field(repr=False)

    def __iter__(self) -> Iterator[Item]:
        """The items of a structure. Raises PeerFault for anything else."""
        return iter(self.items)

    @property
    def items(self) -> tuple[Item, ...]:
        """As iterating. Raises PeerFault for what is no structure."""
        if not isinstance(self.value, tuple):
            raise PeerFault(f"item {self.tag:#08x} is no structure")
        return self.value

    def first(self, tag: int) -> Item | None:
        """The first item with `tag` of a structure."""
        return next((item for item in self.items if item.tag == tag), None)

    def every(self, tag: int) -> tuple[Item, ...]:
        return tuple(item for item in self.items if item.tag == tag)

    def need(self, tag: int) -> Item:
        """As `first`. Raises PeerFault where it is missing."""
        found = self.first(tag)
        if found is None:
            raise PeerFault(f"item {tag:#08x} is missing in {self.tag:#08x}")
        return found

    @property
    def text(self) -> str:
        """Raises PeerFault for what is no text string."""
        if self.type is not Type.TEXT_STRING or not isinstance(self.value, str):
            raise PeerFault(f"item {self.tag:#08x} is no text string")
        return self.value

    @property
    def octets(self) -> bytes:
        """Raises PeerFault for what is no byte string."""
        if self.type is not Type.BYTE_STRING or not isinstance(self.value, bytes):
            raise PeerFault(f"item {self.tag:#08x} is no byte string")
        return self.value

    @property
    def number(self) -> int:
        """Raises PeerFault for what is neither integer, enumeration, date nor interval."""
        if isinstance(self.value, bool) or not isinstance(self.value, int):
            raise PeerFault(f"item {self.tag:#08x} is no number")
        return self.value


Value: TypeAlias = tuple[Item, ...] | int | bool | str | bytes


def structure(tag: int, *items: Item | None) -> Item:
    """A structure of the items that are there."""
    return Item(tag, Type.STRUCTURE, tuple(item for item in items if item is not None))


def text(tag: int, value: str) -> Item:
    return Item(tag, Type.TEXT_STRING, value)


def octets(tag: int, value: bytes) -> Item:
    return Item(tag, Type.BYTE_STRING, value)


def integer(tag: int, value: int) -> Item:
    return Item(tag, Type.INTEGER, value)


def enumeration(tag: int, value: int) -> Item:
    return Item(tag, Type.ENUMERATION, int(value))


def boolean(tag: int, value: bool) -> Item:
    return Item(tag, Type.BOOLEAN, value)


def date(tag: int, at_s: float) -> Item:
    return Item(tag, Type.DATE_TIME, int(at_s))


# encoding ------------------------------------------------------------------------------------------------------------

_SIZES: Final = {
    Type.INTEGER: (4, True),
    Type.LONG_INTEGER: (8, True),
    Type.ENUMERATION: (4, False),
    Type.BOOLEAN: (8, False),
    Type.DATE_TIME: (8, True),
    Type.INTERVAL: (4, False),
    Type.DATE_TIME_EXTENDED: (8, True),
}


def encode(item: Item) -> bytes:
    """The item on the wire. Raises ValueError or OverflowError for a value that its type cannot hold: our mistake."""
    value = _encode_value(item)
    padding = bytes(-len(value) % PADDED_BYTES)
    return item.tag.to_bytes(3, "big") + bytes([item.type]) + len(value).to_bytes(4, "big") + value + padding


def _encode_value(item: Item) -> bytes:
    match item.value:
        case tuple() as items if item.type is Type.STRUCTURE:
            return b"".join(map(encode, items))
        case str() as words if item.type is Type.TEXT_STRING:
            return words.encode()
        case bytes() as data if item.type is Type.BYTE_STRING:
            return data
        case int() as number if item.type is Type.BIG_INTEGER:
            return number.to_bytes(_big_integer_bytes(number), "big", signed=True)
        case int() as number if item.type in _SIZES:
            size, signed = _SIZES[item.type]
            return number.to_bytes(size, "big", signed=signed)
    raise ValueError(f"{type(item.value).__name__} is no value of {item.type.name}")


def _big_integer_bytes(number: int) -> int:
    """The fewest multiple of 8 that holds it in two's complement."""
    return ((number if number >= 0 else ~number).bit_length() // 64 + 1) * 8


# decoding ------------------------------------------------------------------------------------------------------------


def decode(wire: bytes, caps: Caps = CAPS) -> Item:
    """The one item that `wire` is. Raises PeerFault for anything else, and for what is over a cap."""
    if len(wire) > caps.message_bytes_max:
        raise PeerFault(f"a message of {len(wire)} bytes is over the limit of {caps.message_bytes_max}")
    reader = _Reader(wire, caps)
    item = reader.item(0, len(wire), depth=1)
    if reader.position != len(wire):
        raise PeerFault("bytes follow the message")
    return item


class _Reader:
    __slots__ = ("_caps", "_items_left", "_wire", "position")

    def __init__(self, wire: bytes, caps: Caps) -> None:
        self._wire = wire
        self._caps = caps
        self._items_left = caps.items_max
        self.position = 0

    def item(self, start: int, end: int, *, depth: int) -> Item:
        """The item at `start`, which must be whole before `end`; `position` is then behind it."""
        self._items_left -= 1
        if self._items_left < 0:
            raise PeerFault(f"a message of more than {self._caps.items_max} items")
        tag, kind, length = _header(self._wire, start, end)
        begin, padded = start + HEADER_BYTES, length + -length % PADDED_BYTES
        if padded > end - begin:
            raise PeerFault(f"item {tag:#08x} is longer than what holds it")
        if kind is Type.STRUCTURE:
            value: Value = self._items(begin, begin + length, depth=depth)
        else:
            value = _decode_value(kind, self._wire[begin : begin + length])
        if any(self._wire[begin + length : begin + padded]):
            raise PeerFault("padding is not zero")
        self.position = begin + padded
        return Item(tag, kind, value)

    def _items(self, start: int, end: int, *, depth: int) -> tuple[Item, ...]:
        if depth >= self._caps.depth_max and start < end:
            raise PeerFault(f"structures are nested deeper than {self._caps.depth_max}")
        if (end - start) % PADDED_BYTES:
            raise PeerFault("the length of a structure is no multiple of 8")
        items, self.position = [], start
        while self.position < end:
            items.append(self.item(self.position, end, depth=depth + 1))
        return tuple(items)


def _header(wire: bytes, start: int, end: int) -> tuple[int, Type, int]:
    if end - start < HEADER_BYTES:
        raise PeerFault("an item ends within its header")
    if wire[start] not in TAG_SPACES:
        raise PeerFault(f"tag {wire[start : start + 3].hex()} is of no tag space")
    try:
        kind = Type(wire[start + 3])
    except ValueError:
        raise PeerFault(f"item type {wire[start + 3]:#04x} is unknown") from None
    return int.from_bytes(wire[start : start + 3], "big"), kind, int.from_bytes(wire[start + 4 : start + 8], "big")


def _decode_value(kind: Type, data: bytes) -> Value:
    special = _SPECIAL.get(kind)
    if special is not None:
        return special(data)
    size, signed = _SIZES[kind]
    if len(data) != size:
        raise PeerFault(f"{kind.name} of {len(data)} bytes, not {size}")
    return int.from_bytes(data, "big", signed=signed)


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise PeerFault("a text string is not UTF-8") from None


def _boolean(data: bytes) -> bool:
    if data not in (bytes(8), bytes(7) + b"\x01"):
        raise PeerFault("a boolean is neither 0 nor 1")
    return data[7] == 1


def _big_integer(data: bytes) -> int:
    number = int.from_bytes(data, "big", signed=True)
    if len(data) != _big_integer_bytes(number):
        raise PeerFault("a big integer is not in its shortest form")
    return number


_SPECIAL: Final[dict[Type, Callable[[bytes], Value]]] = {
    Type.TEXT_STRING: _text,
    Type.BYTE_STRING: bytes,
    Type.BOOLEAN: _boolean,
    Type.BIG_INTEGER: _big_integer,
}


class MessageParser:
    """Bytes of a stream in, whole messages out; holds at most one message in the making.

    `tag` is the one that a message must start with. Raises PeerFault from `feed` for what starts otherwise or states
    more than the cap, as soon as its eight bytes of header are there.
    """

    def __init__(self, tag: int, caps: Caps = CAPS) -> None:
        self._opening = tag.to_bytes(3, "big") + bytes([Type.STRUCTURE])
        self._caps = caps
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        self._buffer += data
        messages = []
        while (size := self._whole_bytes()) is not None and size <= len(self._buffer):
            messages.append(bytes(self._buffer[:size]))
            del self._buffer[:size]
        return messages

    @property
    def is_between_messages(self) -> bool:
        return not self._buffer

    def _whole_bytes(self) -> int | None:
        known = min(len(self._buffer), len(self._opening))
        if self._buffer[:known] != self._opening[:known]:
            raise PeerFault("the stream does not speak KMIP")
        if len(self._buffer) < HEADER_BYTES:
            return None
        size = HEADER_BYTES + int.from_bytes(self._buffer[4:HEADER_BYTES], "big")
        if size > self._caps.message_bytes_max:
            raise PeerFault(f"a message of {size} bytes is over the limit of {self._caps.message_bytes_max}")
        return size
