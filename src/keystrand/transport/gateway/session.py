"""The two ends of one connection of a transfer as state machines: bytes in, bytes out, no sockets, no threads.

A connection starts with a fresh key, so nothing recorded from another connection verifies here. The receiver's ACCEPT
and ABORT are sealed under the first segment's return key, RECEIPT under the last segment's.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from keystrand.core.clock import Clock
from keystrand.core.errors import IllegalTransition, PeerFault
from keystrand.core.key import Key
from keystrand.core.secret import Secret
from keystrand.crypto.segment import TAG_BYTES, SegmentCipher
from keystrand.transport.gateway.digest import Transcript
from keystrand.transport.gateway.frames import (
    HEADER_BYTES,
    NO_DIGEST,
    SALT_BYTES,
    SIZE_BYTES_MAX,
    Abort,
    Acceptance,
    Announcement,
    Closing,
    Details,
    Header,
    Opening,
    Reason,
    Record,
    parse_abort,
    parse_acceptance,
    parse_announcement,
    parse_closing,
    parse_details,
    parse_header,
    whole_of,
)

PREFETCH_AGE: Final = 0.8  # of rotate_s: the next key is asked for before it is needed
PREFETCH_FILL: Final = 0.25  # of rotate_bytes


@dataclass(frozen=True, slots=True)
class Segment:
    """What the key of a segment is bound to, beside the delivered key itself."""

    opening: Opening
    number: int
    key_id: str
    salt: bytes
    offset_bytes: int  # of its first DATA record; 0 for the first segment, which the receiver places

    def cipher(self, material: Secret, *, returning: bool) -> SegmentCipher:
        context = (
            self.opening.transfer_id,
            self.opening.sender.encode(),
            self.opening.receiver.encode(),
            self.key_id.encode(),
            self.number.to_bytes(4, "big"),
            self.offset_bytes.to_bytes(8, "big"),
            b"return" if returning else b"forward",
        )
        return SegmentCipher(material, salt=self.salt, context=context)


def first_segment(opening: Opening) -> Segment:
    return Segment(opening, 0, opening.key_id, opening.salt, 0)


def _fresh_salt() -> bytes:
    return os.urandom(SALT_BYTES)


class Sending:
    """The sender's end. Order of calls: open, accept, then data/announce/rotate, finish, hear."""

    def __init__(
        self, *, transfer_id: bytes, sender: str, receiver: str, details: Details, key: Key, clock: Clock
    ) -> None:
        self._details = details
        self._span = details.span
        self._clock = clock
        self._opening = Opening(
            transfer_id=transfer_id, key_id=key.key_id, salt=_fresh_salt(), sender=sender, receiver=receiver
        )
        first = first_segment(self._opening)
        self._forward = first.cipher(key.material, returning=False)
        self._first_return = self._last_return = first.cipher(key.material, returning=True)
        key.material.wipe()
        self._transcript = Transcript()
        self._began_s = clock.monotonic_s()
        self._next: tuple[Announcement, Key] | None = None
        self.segment = 0
        self.segment_bytes = 0
        self.offset_bytes = 0
        self.key = key  # its material is wiped; the name and the strands are for reports

    def open(self) -> bytes:
        """The OPEN record."""
        clear, details = self._opening.pack(), self._details.pack()
        header = Header(Record.OPEN, 0, 0, len(clear) + len(details) + TAG_BYTES).pack()
        body = clear + self._forward.seal(details, header + clear)
        self._transcript.add(header, body)
        return header + body

    def accept(self, raw: bytes, body: bytes) -> Acceptance:
        """Hear the receiver's first record; DATA goes on from there. Raises PeerFault."""
        heard = self.hear(raw, body)
        if not isinstance(heard, Acceptance):
            raise PeerFault("the receiver answered OPEN with something else")
        start_bytes, end_bytes = self._span
        if not start_bytes <= heard.durable_bytes <= (SIZE_BYTES_MAX if end_bytes is None else end_bytes):
            raise PeerFault("the receiver claims more than was ever sent")
        self._transcript.add(raw, body)
        self.offset_bytes = heard.durable_bytes
        return heard

    def hear(self, raw: bytes, body: bytes) -> Acceptance | Abort | Closing:
        """Open a record of the receiver. Raises PeerFault, Tampered."""
        header = parse_header(raw)
        associated = self._opening.transfer_id + raw
        if header.record is Record.RECEIPT and header.segment == self.segment:
            return parse_closing(self._last_return.open(body, associated))
        if header.segment == 0 and header.record is Record.ACCEPT:
            return parse_acceptance(self._first_return.open(body, associated))
        if header.segment == 0 and header.record is Record.ABORT:
            return parse_abort(self._first_return.open(body, associated))
        raise PeerFault(f"a sender does not hear {header.record.name} of segment {header.segment}")

    @property
    def age_s(self) -> float:
        return self._clock.monotonic_s() - self._began_s

    @property
    def room_bytes(self) -> int:
        """What may still go under this key: 0 when it is spent or too old (I7)."""
        if self.age_s >= self._details.rotate_ms / 1000:
            return 0
        return self._details.rotate_bytes - self.segment_bytes

    @property
    def announced(self) -> bool:
        return self._next is not None

    def wants_key(self) -> bool:
        """Whether to ask the KME now, so that the next key is there when this one is spent."""
        if self._next:
            return False
        end_bytes, left = self._span[1], self._details.rotate_bytes - self.segment_bytes
        more = end_bytes is None or end_bytes - self.offset_bytes > left
        filled = self.segment_bytes >= PREFETCH_FILL * self._details.rotate_bytes
        return (filled and more) or self.age_s >= PREFETCH_AGE * self._details.rotate_ms / 1000

    def announce(self, key: Key) -> bytes:
        """The ANNOUNCE record for the next segment."""
        announcement = Announcement(self.segment + 1, key.key_id, _fresh_salt())
        self._next = announcement, key
        return self._sealed(Record.ANNOUNCE, announcement.pack())

    def rotate(self) -> None:
        """Turn to the announced key. Raises IllegalTransition where none is announced."""
        if self._next is None:
            raise IllegalTransition("no next key was announced")
        (announcement, key), self._next = self._next, None
        segment = Segment(
            self._opening, announcement.segment, announcement.key_id, announcement.salt, self.offset_bytes
        )
        self._forward = segment.cipher(key.material, returning=False)
        self._last_return = segment.cipher(key.material, returning=True)
        key.material.wipe()
        self.key, self.segment, self.segment_bytes = key, announcement.segment, 0
        self._began_s = self._clock.monotonic_s()

    def data(self, plain: memoryview, out: memoryview) -> memoryview:
        """`plain` as a DATA record written into `out`. Raises IllegalTransition beyond the key's limit (I7)."""
        length_bytes = len(plain)
        if length_bytes > self._details.rotate_bytes - self.segment_bytes:
            raise IllegalTransition("the key of this segment is spent")
        end = HEADER_BYTES + length_bytes + TAG_BYTES
        header = Header(Record.DATA, self.segment, self.offset_bytes, length_bytes + TAG_BYTES).pack()
        out[:HEADER_BYTES] = header
        self._forward.seal_into(plain, self._opening.transfer_id + header, out[HEADER_BYTES:end])
        self._transcript.add(header, out[end - TAG_BYTES : end])
        self.offset_bytes += length_bytes
        self.segment_bytes += length_bytes
        return out[:end]

    def closing(self, sha256: bytes = NO_DIGEST, others: Sequence[bytes] | None = ()) -> Closing:
        """What FINISH says once all is sent: where the lane ends, the transcript up to here, the SHA-256 of its content,
        and from lane 0 the digest over the whole; `others` are the proofs of the other lanes, None in those."""
        closing = Closing(self.offset_bytes, self._transcript.digest(), sha256)
        if others is None:
            return closing
        size_bytes = self.offset_bytes if self._details.size_bytes is None else self._details.size_bytes
        return replace(closing, whole=whole_of(size_bytes, [closing.proof, *others]))

    def finish(self, closing: Closing) -> bytes:
        """The FINISH record."""
        return self._sealed(Record.FINISH, closing.pack())

    def wipe(self) -> None:
        """Forget a key that was announced and is not needed any more."""
        if self._next is not None:
            self._next[1].material.wipe()

    def _sealed(self, record: Record, plain: bytes) -> bytes:
        header = Header(record, self.segment, 0, len(plain) + TAG_BYTES).pack()
        sealed = self._forward.seal(plain, self._opening.transfer_id + header)
        self._transcript.add(header, sealed[-TAG_BYTES:])
        return header + sealed


@dataclass(slots=True)
class Receiving:
    """The receiver's end, from the key that OPEN names. Raises Tampered when OPEN does not verify under it."""

    opening: Opening
    details: Details
    _forward: SegmentCipher = field(repr=False)
    _first_return: SegmentCipher = field(repr=False)
    _last_return: SegmentCipher = field(repr=False)
    _transcript: Transcript = field(repr=False)
    segment: int = 0
    segment_bytes: int = 0
    offset_bytes: int = 0
    announcement: Announcement | None = None
    finished: bool = False
    _end_bytes: int | None = None

    @classmethod
    def begin(cls, raw: bytes, body: bytes, opening: Opening, clear_bytes: int, material: Secret) -> Receiving:
        first = first_segment(opening)
        forward, returning = (first.cipher(material, returning=way) for way in (False, True))
        material.wipe()
        plain = forward.open(body[clear_bytes:], raw + body[:clear_bytes])
        details, end = parse_details(plain)
        if end != len(plain):
            raise PeerFault("OPEN carries more than its details")
        transcript = Transcript()
        transcript.add(raw, body)
        return cls(opening, details, forward, returning, returning, transcript, _end_bytes=details.span[1])

    def accept(self, acceptance: Acceptance) -> bytes:
        """The ACCEPT record; DATA is expected from `durable_bytes` of the content on."""
        self.offset_bytes = acceptance.durable_bytes
        record = self._sealed(Record.ACCEPT, 0, acceptance.pack(), self._first_return)
        self._transcript.add(record[:HEADER_BYTES], record[HEADER_BYTES:])
        return record

    def turns(self, header: Header) -> bool:
        """Whether this record is the first of the announced segment: then `rotate` comes before it is opened."""
        return self.announcement is not None and header.segment == self.segment + 1 == self.announcement.segment

    def rotate(self, header: Header, material: Secret) -> None:
        """Turn to the announced key, which `header` is the first record of. Raises PeerFault."""
        if self.announcement is None or header.record not in (Record.DATA, Record.FINISH):
            raise PeerFault("a segment starts with DATA or FINISH, after its ANNOUNCE")
        told, self.announcement = self.announcement, None
        segment = Segment(self.opening, told.segment, told.key_id, told.salt, self.offset_bytes)
        self._forward = segment.cipher(material, returning=False)
        self._last_return = segment.cipher(material, returning=True)
        material.wipe()
        self.segment, self.segment_bytes = told.segment, 0

    def data(self, header: Header, raw: bytes, sealed: memoryview, out: memoryview) -> memoryview:
        """The content of a DATA record, in `out`. Raises PeerFault, Tampered."""
        length_bytes = len(sealed) - TAG_BYTES
        self._check(header, Record.DATA)
        if header.offset_bytes != self.offset_bytes:
            raise PeerFault("DATA does not go on where the last one ended")
        if length_bytes > self.details.rotate_bytes - self.segment_bytes:
            raise PeerFault("the sender goes on under a key that is spent")
        if self._end_bytes is not None and self.offset_bytes + length_bytes > self._end_bytes:
            raise PeerFault("the sender sends more than it announced")
        self._forward.open_into(sealed, self.opening.transfer_id + raw, out[:length_bytes])
        self._transcript.add(raw, sealed[-TAG_BYTES:])
        self.offset_bytes += length_bytes
        self.segment_bytes += length_bytes
        return out[:length_bytes]

    def hear(self, header: Header, raw: bytes, sealed: bytes) -> Announcement | Closing:
        """An ANNOUNCE or a FINISH. Raises PeerFault, Tampered."""
        self._check(header, Record.ANNOUNCE, Record.FINISH)
        plain = self._forward.open(sealed, self.opening.transfer_id + raw)
        if header.record is Record.ANNOUNCE:
            self._transcript.add(raw, sealed[-TAG_BYTES:])
            return self._hear_announcement(parse_announcement(plain))
        closing = parse_closing(plain)
        if closing.size_bytes != self.offset_bytes or self._end_bytes not in (None, closing.size_bytes):
            raise PeerFault("FINISH does not fit the length of the content")
        if closing.transcript != self._transcript.digest():
            raise PeerFault("the two ends do not have the same transcript")
        self.finished = True
        return closing

    def _hear_announcement(self, told: Announcement) -> Announcement:
        if self.announcement is not None or told.segment != self.segment + 1:
            raise PeerFault("ANNOUNCE out of turn")
        self.announcement = told
        return told

    def _check(self, header: Header, *allowed: Record) -> None:
        if self.finished or header.record not in allowed or header.segment != self.segment:
            raise PeerFault(f"{header.record.name} of segment {header.segment} is out of turn")

    def receipt(self, closing: Closing) -> bytes:
        return self._sealed(Record.RECEIPT, self.segment, closing.pack(), self._last_return)

    def abort(self, reason: Reason) -> bytes:
        return self._sealed(Record.ABORT, 0, Abort(reason).pack(), self._first_return)

    def _sealed(self, record: Record, segment: int, plain: bytes, cipher: SegmentCipher) -> bytes:
        header = Header(record, segment, 0, len(plain) + TAG_BYTES).pack()
        return header + cipher.seal(plain, self.opening.transfer_id + header)


def refused(reason: Reason) -> bytes:
    """The REFUSED record: all a receiver can say that shares no key with the caller."""
    return Header(Record.REFUSED, 0, 0, 1).pack() + bytes([reason])
