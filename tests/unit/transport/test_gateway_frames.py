"""The byte format and the two state machines, without a network."""

import contextlib
import functools
import itertools
import os
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keystrand.core.errors import BadRequest, IllegalTransition, PeerFault
from keystrand.core.key import Key
from keystrand.core.secret import Secret
from keystrand.crypto.segment import SegmentCipher
from keystrand.transport.gateway import frames
from keystrand.transport.gateway.frames import (
    HEADER_BYTES,
    Acceptance,
    Announcement,
    Closing,
    Details,
    Header,
    Opening,
    Reason,
    Record,
)
from keystrand.transport.gateway.session import Receiving, Sending

KEY_IDS = [f"0b4c9a0e-7c5e-4c57-8f3e-1d2a6d1f8a{number:02x}" for number in range(16)]


class StoppedClock:
    def __init__(self):
        self.time_s = 0.0

    def now_s(self):
        return self.time_s

    def monotonic_s(self):
        return self.time_s


def material(number):
    return bytes([number + 1]) * 32


def key(number):
    return Key(key_id=KEY_IDS[number], material=Secret(material(number)), strands=frozenset())


def details(**changes):
    facts = {"name": "f", "size_bytes": None, "source_mark": 1, "rotate_bytes": 64, "rotate_ms": 60_000}
    return Details(**(facts | changes))


def sending(transfer_id=b"t" * 16, clock=None, number=0, **changes):
    return Sending(
        transfer_id=transfer_id,
        sender="sae-a",
        receiver="sae-b",
        details=details(**changes),
        key=key(number),
        clock=clock or StoppedClock(),
    )


def hear_open(record, number=0):
    raw, body = record[:HEADER_BYTES], record[HEADER_BYTES:]
    frames.parse_header(raw)
    opening, clear_bytes = frames.parse_opening(body)
    return Receiving.begin(raw, body, opening, clear_bytes, Secret(material(number)))


def split(wire):
    """Records of a stream of bytes. Raises PeerFault at what is no record, EOFError at a cut."""
    while wire:
        header = frames.parse_header(wire[:HEADER_BYTES])
        end = HEADER_BYTES + header.length_bytes
        if len(wire) < end:
            raise EOFError
        yield header, wire[:HEADER_BYTES], wire[HEADER_BYTES:end]
        wire = wire[end:]


def receive(records, content=None):
    """What a receiver makes of the records: the content and the closing. Raises PeerFault, or EOFError at a cut."""
    records = iter(records)
    header, raw, body = next(records)
    if header.record is not Record.OPEN:
        raise PeerFault("no OPEN")
    session = hear_open(raw + body)
    session.accept(Acceptance(0, False))
    got, out = bytearray(), memoryview(bytearray(frames.DATA_BYTES_MAX))
    for header, raw, body in records:
        if session.turns(header):
            session.rotate(header, Secret(material(KEY_IDS.index(session.announcement.key_id))))
        if header.record is Record.DATA:
            got += session.data(header, raw, memoryview(body), out)
            continue
        heard = session.hear(header, raw, body)
        if isinstance(heard, Closing):
            return bytes(got), heard
        if heard.key_id not in KEY_IDS:
            raise PeerFault("the KME knows no such key")
    raise EOFError


def transfer(content=b"first part, " + b"second part", transfer_id=b"t" * 16):
    """A small recorded transfer over two segments."""
    sender = sending(transfer_id)
    wire = bytearray(sender.open())
    receiver = hear_open(bytes(wire))
    answer = receiver.accept(Acceptance(0, False))
    sender.accept(answer[:HEADER_BYTES], answer[HEADER_BYTES:])
    out = memoryview(bytearray(4096))
    wire += sender.data(memoryview(content[:6]), out)
    wire += sender.announce(key(1))
    wire += sender.data(memoryview(content[6:12]), out)
    sender.rotate()
    wire += sender.data(memoryview(content[12:]), out)
    wire += sender.finish(sender.closing(b"d" * 32))
    return bytes(wire)


CONTENT = b"first part, second part"


def test_a_recorded_transfer_is_read_back():
    content, closing = receive(split(transfer()))
    assert content == CONTENT
    assert (closing.size_bytes, closing.sha256) == (len(CONTENT), b"d" * 32)


def opened_pair():
    sender = sending()
    receiver = hear_open(sender.open())
    answer = receiver.accept(Acceptance(0, False))
    sender.accept(answer[:HEADER_BYTES], answer[HEADER_BYTES:])
    return sender, receiver


def finish(sender, receiver, closing):
    header, raw, body = next(split(sender.finish(closing)))
    return receiver.hear(header, raw, body)


def pass_on(sender, receiver, content):
    out = memoryview(bytearray(4096))
    header, raw, body = next(split(bytes(sender.data(memoryview(content), out))))
    receiver.data(header, raw, memoryview(body), out)


def test_both_ends_come_to_the_same_transcript():
    sender, receiver = opened_pair()
    pass_on(sender, receiver, b"content")
    closing = sender.closing()
    assert finish(sender, receiver, closing) == closing


def test_every_flipped_bit_of_a_transcript_is_refused_though_the_record_verifies():
    for place in range(256):
        sender, receiver = opened_pair()
        pass_on(sender, receiver, b"content")
        closing = sender.closing()
        bent = bytearray(closing.transcript)
        bent[place // 8] ^= 1 << place % 8
        with pytest.raises(PeerFault, match="transcript"):
            finish(sender, receiver, replace(closing, transcript=bytes(bent)))


@pytest.mark.parametrize("calls", [1, 2])
def test_a_transcript_grows_with_every_record(calls):
    sender, receiver = opened_pair()
    early = sender.closing()
    for _ in range(calls):
        pass_on(sender, receiver, b"")
    with pytest.raises(PeerFault, match="transcript"):
        finish(sender, receiver, early)


def refused(records):
    with pytest.raises((PeerFault, EOFError, BadRequest, StopIteration)):
        receive(records)


def test_every_flipped_bit_is_refused():
    wire = transfer()
    for place in range(8 * len(wire)):
        bent = bytearray(wire)
        bent[place // 8] ^= 1 << place % 8
        refused(split(bytes(bent)))


def test_every_truncation_is_refused():
    wire = transfer()
    for length in range(1, len(wire)):
        refused(split(wire[:length]))


def test_every_exchange_doubling_and_omission_of_records_is_refused():
    records = list(split(transfer()))
    for one in range(len(records)):
        refused(records[:one] + records[one + 1 :])
        refused(records[: one + 1] + records[one:]) if one + 1 < len(records) else None
        for other in range(one):
            swapped = list(records)
            swapped[one], swapped[other] = swapped[other], swapped[one]
            refused(swapped)


def test_records_of_another_transfer_under_the_same_key_are_refused():
    ours, theirs = list(split(transfer())), list(split(transfer(transfer_id=b"u" * 16)))
    for place in range(len(ours)):
        refused([*ours[:place], theirs[place], *ours[place + 1 :]])


def test_an_answer_cannot_be_reflected():
    sender = sending()
    opened = sender.open()
    with pytest.raises(PeerFault):
        sender.accept(opened[:HEADER_BYTES], opened[HEADER_BYTES:])
    receiver = hear_open(opened)
    answer = receiver.accept(Acceptance(0, False))
    with pytest.raises(PeerFault):
        receiver.hear(frames.parse_header(answer[:HEADER_BYTES]), answer[:HEADER_BYTES], answer[HEADER_BYTES:])


def test_every_flipped_bit_of_the_answers_is_refused():
    for make in (lambda end: end.accept(Acceptance(3, False)), lambda end: end.abort(Reason.DISK)):
        sender = sending()
        answer = make(hear_open(sender.open()))
        for place in range(8 * len(answer)):
            bent = bytearray(answer)
            bent[place // 8] ^= 1 << place % 8
            again = sending()
            again._opening, again._first_return = sender._opening, clone(sender)
            with pytest.raises(PeerFault):
                again.hear(bytes(bent[:HEADER_BYTES]), bytes(bent[HEADER_BYTES:]))


def clone(sender):
    from keystrand.transport.gateway.session import first_segment

    return first_segment(sender._opening).cipher(Secret(material(0)), returning=True)


@pytest.mark.proves("R089")
def test_I7_a_key_carries_no_byte_beyond_its_limit():
    sender = sending(rotate_bytes=10)
    sender.open()
    out = memoryview(bytearray(4096))
    sender.data(memoryview(b"0123456789"), out)
    assert sender.room_bytes == 0
    with pytest.raises(IllegalTransition):
        sender.data(memoryview(b"x"), out)
    with pytest.raises(IllegalTransition):
        sender.rotate()


def test_I7_a_key_has_no_room_beyond_its_time():
    clock = StoppedClock()
    sender = sending(clock=clock, rotate_ms=1000)
    assert sender.room_bytes == 64
    clock.time_s = 0.8
    assert sender.wants_key()
    clock.time_s = 1.0
    assert sender.room_bytes == 0


@pytest.mark.proves("R089")
def test_I7_a_receiver_refuses_a_sender_that_goes_on_under_a_spent_key(monkeypatch):
    sender = sending(rotate_bytes=10)
    receiver = hear_open(sender.open())
    receiver.accept(Acceptance(0, False))
    monkeypatch.setattr(type(sender._details), "rotate_bytes", 100, raising=False)
    out = memoryview(bytearray(4096))
    record = bytes(sender.data(memoryview(b"x" * 11), out))
    monkeypatch.undo()
    header, raw, body = next(split(record))
    with pytest.raises(PeerFault, match="spent"):
        receiver.data(header, raw, memoryview(body), out)


def test_a_short_key_is_refused():
    with pytest.raises(BadRequest, match="too short"):
        SegmentCipher(Secret(bytes(31)), salt=bytes(32), context=())


def test_context_is_framed_so_that_parts_cannot_shift():
    one = SegmentCipher(Secret(bytes(32)), salt=b"", context=(b"ab", b"c")).seal(b"", b"")
    other = SegmentCipher(Secret(bytes(32)), salt=b"", context=(b"a", b"bc")).seal(b"", b"")
    assert one != other


def test_no_nonce_is_used_twice():
    cipher = SegmentCipher(Secret(bytes(32)), salt=b"", context=())
    assert len({cipher.seal(b"same", b"") for _ in range(1000)}) == 1000


@given(st.binary(max_size=64))
def test_any_bytes_as_a_header_are_a_header_or_a_peer_fault(raw):
    with contextlib.suppress(PeerFault):
        assert frames.parse_header(raw).pack() == raw


@pytest.mark.parametrize(
    "parse",
    [
        frames.parse_opening,
        frames.parse_details,
        frames.parse_announcement,
        frames.parse_acceptance,
        frames.parse_closing,
        frames.parse_abort,
    ],
)
@given(raw=st.one_of(st.binary(max_size=200), st.binary(max_size=120).map(lambda tail: frames.MAGIC + tail)))
def test_any_bytes_as_a_body_are_a_value_or_a_peer_fault(parse, raw):
    with contextlib.suppress(PeerFault):
        parse(raw)


name = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,20}[A-Za-z0-9])?", fullmatch=True)
key_id = st.sampled_from(KEY_IDS)
size = st.integers(0, 2**63 - 1)


@given(st.binary(min_size=16, max_size=16), key_id, st.binary(min_size=32, max_size=32), name, name, st.binary())
def test_openings_come_back(transfer_id, wanted, salt, sender, receiver, rest):
    opening = Opening(transfer_id=transfer_id, key_id=wanted, salt=salt, sender=sender, receiver=receiver)
    packed = opening.pack()
    assert frames.parse_opening(packed + rest) == (opening, len(packed))


readable = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)


@st.composite
def any_details(draw):
    size_bytes = draw(st.none() | size)
    lanes = 1 if size_bytes is None else draw(st.integers(1, frames.LANES_MAX))
    return Details(
        name=draw(readable),
        size_bytes=size_bytes,
        head_bytes=draw(st.integers(0, size_bytes or 0)),
        source_mark=draw(size),
        rotate_bytes=draw(st.integers(1, 2**63)),
        rotate_ms=draw(st.integers(1, 2**32 - 1)),
        content_hash=draw(st.booleans()),
        lanes=lanes,
        lane=draw(st.integers(0, lanes - 1)),
        run=draw(st.binary(min_size=8, max_size=8)),
    )


@given(any_details())
def test_details_come_back(value):
    assert frames.parse_details(value.pack() + b"more") == (value, len(value.pack()))


@given(any_details())
def test_the_lanes_cover_the_content_once_in_order(value):
    spans = [value.for_lane(lane).span for lane in range(value.lanes)]
    assert spans[0][0] == 0
    assert spans[-1][1] == value.size_bytes
    assert all(earlier[1] == later[0] for earlier, later in itertools.pairwise(spans))
    assert value.size_bytes is None or spans[0][1] >= value.head_bytes  # one lane alone carries the list


@pytest.mark.parametrize(
    "wrong",
    [{"lanes": 0}, {"lanes": 17}, {"lane": 1}, {"lanes": 2}, {"head_bytes": 1}, {"rotate_bytes": 0}, {"rotate_ms": 0}],
)
def test_details_that_do_not_fit_together_are_refused(wrong):
    with pytest.raises(PeerFault, match="impossible"):
        frames.parse_details(details(**wrong).pack())


def test_another_version_is_named_as_such():
    opening = sending()._opening.pack()
    older = opening[:7] + b"\x01" + opening[8:]
    with pytest.raises(frames.OtherVersion, match="version 2"):
        frames.parse_opening(older)


@given(size, st.booleans(), st.binary(min_size=32, max_size=32), st.integers(0, 2**32 - 1), key_id)
def test_the_small_bodies_come_back(count, flag, digest, segment, wanted):
    assert frames.parse_acceptance(Acceptance(count, flag).pack()) == Acceptance(count, flag)
    closing = Closing(count, digest, digest[::-1], digest)
    assert frames.parse_closing(closing.pack()) == closing
    announced = Announcement(segment, wanted, digest)
    assert frames.parse_announcement(announced.pack()) == announced


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_receiver_survives_any_records_with_a_peer_fault(data):
    """After a right OPEN, whatever comes is refused unless the sender sealed it."""
    session = hear_open(sending().open())
    session.accept(Acceptance(0, False))
    record = data.draw(st.sampled_from(list(Record)))
    low, high = frames._BODY_BYTES[record]
    body = os.urandom(data.draw(st.integers(low, min(high, 300))))
    header = Header(record, data.draw(st.integers(0, 2)), 0, len(body))
    out = memoryview(bytearray(4096))
    hear = session.hear
    if header.record is Record.DATA:
        hear = functools.partial(session.data, out=out)
    with pytest.raises(PeerFault):
        hear(header, header.pack(), memoryview(body))
