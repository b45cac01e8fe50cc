"""TTLV: what goes out comes back, what is no TTLV is refused, and nothing costs more than the caps allow."""

import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keystrand.core.errors import PeerFault
from keystrand.wire import kmip_ttlv as ttlv
from keystrand.wire.kmip_ttlv import Caps, Item, MessageParser, Type, decode, encode

REQUEST = 0x420078
TAGS = st.integers(0x420000, 0x42FFFF) | st.integers(0x540000, 0x54FFFF)
LONG = st.integers(-(1 << 63), (1 << 63) - 1)
SHORT = st.integers(0, (1 << 32) - 1)
VALUES = {
    Type.INTEGER: st.integers(-(1 << 31), (1 << 31) - 1),
    Type.LONG_INTEGER: LONG,
    Type.BIG_INTEGER: st.integers(-(1 << 200), 1 << 200),
    Type.ENUMERATION: SHORT,
    Type.BOOLEAN: st.booleans(),
    Type.TEXT_STRING: st.text(max_size=40),
    Type.BYTE_STRING: st.binary(max_size=40),
    Type.DATE_TIME: LONG,
    Type.INTERVAL: SHORT,
    Type.DATE_TIME_EXTENDED: LONG,
}
LEAVES = st.one_of(*(st.builds(Item, TAGS, st.just(kind), values) for kind, values in VALUES.items()))
ITEMS = st.recursive(
    LEAVES, lambda inner: st.builds(Item, TAGS, st.just(Type.STRUCTURE), st.lists(inner, max_size=4).map(tuple))
)

# the examples of KMIP Specification 1.4 section 9.1.2, as bytes
EXAMPLES = [
    (Item(0x420020, Type.INTEGER, 8), "42002002000000040000000800000000"),
    (Item(0x420020, Type.LONG_INTEGER, 123456789000000000), "420020030000000801b69b4ba5749200"),
    (
        Item(0x420020, Type.BIG_INTEGER, 1234567890000000000000000000),
        "42002004000000100000000003fd35eb6bc2df4618080000",
    ),
    (Item(0x420020, Type.ENUMERATION, 255), "4200200500000004000000ff00000000"),
    (Item(0x420020, Type.BOOLEAN, True), "42002006000000080000000000000001"),
    (Item(0x420020, Type.TEXT_STRING, "Hello World"), "420020070000000b48656c6c6f20576f726c640000000000"),
    (Item(0x420020, Type.BYTE_STRING, b"\1\2\3"), "42002008000000030102030000000000"),
    (Item(0x420020, Type.DATE_TIME, 0x47DA67F8), "42002009000000080000000047da67f8"),
    (Item(0x420020, Type.INTERVAL, 864000), "4200200a00000004000d2f0000000000"),
    (
        ttlv.structure(0x420020, Item(0x420004, Type.ENUMERATION, 254), Item(0x420005, Type.INTEGER, 255)),
        "42002001000000204200040500000004000000fe000000004200050200000004000000ff00000000",
    ),
]


@pytest.mark.parametrize(("item", "wire"), EXAMPLES, ids=lambda value: getattr(value, "type", Type.INTEGER).name)
def test_examples_of_the_standard(item, wire):
    assert encode(item).hex() == wire
    assert decode(bytes.fromhex(wire)) == item


@given(ITEMS)
@settings(max_examples=300, derandomize=True)
def test_what_is_encoded_decodes_to_the_same(item):
    assert decode(encode(item), Caps(depth_max=64)) == item


@given(ITEMS, st.data())
@settings(max_examples=300, derandomize=True)
def test_damaged_bytes_are_refused_or_are_the_one_encoding_of_something(item, data):
    wire = bytearray(encode(item))
    at = data.draw(st.integers(0, len(wire) - 1))
    wire[at] ^= data.draw(st.integers(1, 255))
    try:
        found = decode(bytes(wire), Caps(depth_max=64))
    except PeerFault:
        return
    assert encode(found) == wire


@given(st.binary(max_size=200))
@settings(max_examples=300, derandomize=True)
def test_any_bytes_are_refused_or_are_the_one_encoding_of_something(wire):
    try:
        found = decode(wire)
    except PeerFault:
        return
    assert encode(found) == wire


@given(ITEMS, st.integers(0, 10_000))
@settings(max_examples=200, derandomize=True)
def test_cut_messages_are_refused(item, cut):
    wire = encode(item)
    with pytest.raises(PeerFault):
        decode(wire[: cut % len(wire)], Caps(depth_max=64))


def nested(depth):
    wire = b""
    for _ in range(depth):  # bytes around bytes, because our own encoder would not go so deep
        wire = bytes.fromhex("42007801") + len(wire).to_bytes(4, "big") + wire
    return wire


def test_nesting_is_capped():
    assert decode(nested(16))
    with pytest.raises(PeerFault, match="nested deeper than 16"):
        decode(nested(17))


def test_nesting_that_would_break_the_interpreter_is_refused():
    with pytest.raises(PeerFault, match="nested deeper"):
        decode(nested(8000))


def test_number_of_items_is_capped():
    item = ttlv.structure(REQUEST, *[ttlv.structure(0x420020)] * 4095)
    assert decode(encode(item), Caps())
    item = ttlv.structure(REQUEST, *[ttlv.structure(0x420020)] * 4096)
    with pytest.raises(PeerFault, match="more than 4096 items"):
        decode(encode(item), Caps())


@pytest.mark.parametrize("kind", list(Type))
def test_a_length_beyond_the_message_costs_nothing(kind):
    wire = bytes.fromhex("420020") + bytes([kind]) + b"\xff\xff\xff\xf8" + bytes(16)
    tracemalloc.start()
    with pytest.raises(PeerFault, match="longer than what holds it"):
        decode(wire)
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("wire", "reason"),
    [
        ("410020020000000400000008" + "00000000", "no tag space"),
        ("4200200c0000000400000008" + "00000000", "type 0x0c is unknown"),
        ("4200200000000000", "type 0x00 is unknown"),
        ("420020020000000300000800" + "00000000", "INTEGER of 3 bytes"),
        ("420020020000000400000008" + "00000001", "padding"),
        ("42002006000000080000000000000002", "boolean"),
        ("4200200700000001ff00000000000000", "UTF-8"),
        ("42002004000000100000000000000000" + "0000000000000001", "shortest"),
        ("42002001000000040000000000000000", "multiple of 8"),
        ("42002008000000000000000000000000", "bytes follow"),
        ("", "within its header"),
    ],
)
def test_what_is_no_TTLV_is_refused_with_the_reason(wire, reason):
    with pytest.raises(PeerFault, match=reason):
        decode(bytes.fromhex(wire))


def test_key_material_is_not_in_the_repr():
    item = ttlv.structure(0x420043, ttlv.octets(0x420043, b"material"), ttlv.text(0x420043, "words"))
    assert "material" not in repr(item)
    assert "words" not in repr(item.items[1])


# the stream ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=30), min_size=1, max_size=5), st.integers(1, 40))
@settings(max_examples=100, derandomize=True)
def test_messages_are_found_however_the_stream_is_cut(bodies, step):
    messages = [encode(ttlv.structure(REQUEST, ttlv.octets(0x420020, body))) for body in bodies]
    stream, parser = b"".join(messages), MessageParser(REQUEST)
    found = [message for at in range(0, len(stream), step) for message in parser.feed(stream[at : at + step])]
    assert found == messages
    assert parser.is_between_messages


def test_an_oversized_message_is_refused_at_its_header():
    parser = MessageParser(REQUEST, Caps(message_bytes_max=1024))
    assert parser.feed(bytes.fromhex("42007801000003")) == []
    with pytest.raises(PeerFault, match="over the limit of 1024"):
        parser.feed(b"\xf9")
    assert not parser.is_between_messages
    with pytest.raises(PeerFault, match="over the limit"):
        MessageParser(REQUEST).feed(bytes.fromhex("4200780101000000"))  # all four bytes of the length count


@pytest.mark.parametrize("opening", [b"G", b"\x16\x03\x01", bytes.fromhex("42007b01"), bytes.fromhex("42007802")])
def test_a_stream_that_speaks_something_else_is_refused_at_once(opening):
    with pytest.raises(PeerFault, match="does not speak KMIP"):
        MessageParser(REQUEST).feed(opening)


def test_a_message_byte_by_byte_takes_linear_time():
    wire = encode(ttlv.structure(REQUEST, ttlv.octets(0x420020, bytes(60_000))))
    parser, began_s = MessageParser(REQUEST), time.process_time()
    found = [message for at in range(len(wire)) for message in parser.feed(wire[at : at + 1])]
    assert found == [wire]
    assert time.process_time() - began_s < 2.0
