"""Bytes made to hurt a reader of messages: text that is no UTF-8, nesting without end, lengths that lie."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from keystrand.api.reports import transfer_event, tunnel_report
from keystrand.core.errors import BadRequest, PeerFault
from keystrand.observe.flow import observed
from keystrand.transport.tunnel import messages
from keystrand.wire import classical, device, etsi014, etsi020, keyuse, peer, relay

BINARY: dict[str, Callable[[bytes], object]] = {
    "peer": peer.decode,
    "relay": relay.decode,
    "module": device.decode,
    "classical": classical.decode,
    "light": classical.decode_light,
    "tunnel": messages.decode,
}
TEXT: dict[str, Callable[[bytes], object]] = {
    "use": keyuse.parse_use,
    "stand": keyuse.parse_stand,
    "transfer": lambda body: transfer_event("a", "t", body, at_s=0.0),
    "tunnel report": lambda body: tunnel_report("t", body),
    "key request": etsi014.parse_key_request,
    "container": etsi014.parse_container,
    "ext keys": etsi020.parse_ext_keys,
    "acks": etsi020.parse_acks,
    "void": etsi020.parse_void,
    "audit record": lambda body: observed([(0, body, b"")]),
}
DEEP = 100_000


def maps(tag: str) -> list[bytes]:
    """Messages of this tag, with something wrong inside; also as the only one of a list."""
    head = msgspec.msgpack.encode("t") + msgspec.msgpack.encode(tag)
    hurting = (
        b"\x82" + head + b"\xa1x" + b"\x91" * DEEP,
        b"\x82" + head + b"\xa1x" + b"\x81\xa1k" * DEEP,
        b"\x82" + head + b"\xa2\xff\xfe\x01",
        b"\x82" + head + b"\xa6reason\xa2\xff\xfe",
        b"\x82" + head + b"\xa6tunnel\xa2\xff\xfe",
        b"\x82" + head + b"\xa1x\xdd\xff\xff\xff\xff",
        b"\x82" + head + b"\xa1x\xdf\xff\xff\xff\xff",
        b"\x82" + head + b"\xa1x\xc6\xff\xff\xff\xff",
        b"\x82" + head + b"\xa1x\xc7\x05\x7f12345",
        b"\x81\xa1t\xa1\xff",
    )
    return [*hurting, *(b"\x91" + frame for frame in hurting)]


def tags() -> list[str]:
    unions = (peer.AnyMessage, relay.AnyRelayStruct, device.AnyDeviceMessage, classical.AnyClassical, messages.Message)
    return sorted({kind.__struct_config__.tag for union in unions for kind in union.__args__})  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", BINARY)
def test_a_frame_that_hurts_is_the_peers_fault(name: str) -> None:
    for tag in tags():
        for frame in maps(tag):
            with pytest.raises(PeerFault):
                BINARY[name](frame)


@pytest.mark.parametrize("name", TEXT)
@pytest.mark.parametrize(
    "body",
    [
        b'{"x": ' + b"[" * DEEP,
        b'{"x":' * DEEP,
        b'{"x": "\xff"}',
        b'{"\xff": 1}',
        b'["\xed\xa0\x80"]',
        b"null",
        b"[NaN]",
    ],
    ids=["arrays", "objects", "value", "name", "surrogate", "null", "nan"],
)
def test_a_body_that_hurts_is_refused(name: str, body: bytes) -> None:
    with pytest.raises((BadRequest, PeerFault, etsi020.Refused)):
        TEXT[name](body)
