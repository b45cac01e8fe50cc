"""The byte format of a transfer, version 2; docs/reference/gateway-format.md has it byte by byte. No I/O.

Every record is a 17-byte header and a body. Numbers are big-endian. What can be known before a key is shared is the
clear part of OPEN alone; every other body is AES-256-GCM ciphertext (REFUSED excepted, which is advice, not fact).
"""

from __future__ import annotations

import hashlib
import struct
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from types import MappingProxyType
from typing import Final

from keystrand.core.errors import BadRequest, PeerFault
from keystrand.core.identity import check_name
from keystrand.core.labels import LABELS
from keystrand.crypto.segment import TAG_BYTES

VERSION: Final = 2
MAGIC: Final = b"KSTRAND" + bytes([VERSION])
DATA_BYTES_MAX: Final = 1 << 20  # plaintext of one DATA record
NAME_BYTES_MAX: Final = 255
LANES_MAX: Final = 16  # streams of one transfer
LANE_ALIGN_BYTES: Final = 1 << 20  # where one lane ends and the next begins
SIZE_UNKNOWN: Final = 2**64 - 1
SIZE_BYTES_MAX: Final = 2**63 - 1
SALT_BYTES: Final = 32
DIGEST_BYTES: Final = 32
NO_DIGEST: Final = bytes(DIGEST_BYTES)  # in the place of a SHA-256 that nobody asked for

_HEADER = struct.Struct(">IBIQ")
HEADER_BYTES: Final = _HEADER.size
_CLEAR = struct.Struct(">8s16s16s32s")
_DETAILS = struct.Struct(">8sQQQQIBBBH")
_ANNOUNCE = struct.Struct(">I16s32s")
_ACCEPT = struct.Struct(">QB")
_CLOSING = struct.Struct(">Q32s32s32s")
PAD_KEYS_MAX: Final = 65_535
PAD_PLAIN_BYTES_MAX: Final = 1 << 20
_PAD_CLEAR = struct.Struct(">8s16sH")
_NAMES_BYTES = (4, 2 * 65)
PAD_BODY_BYTES: Final = (
    _PAD_CLEAR.size + 16 + _NAMES_BYTES[0] + TAG_BYTES,
    _PAD_CLEAR.size + 16 * PAD_KEYS_MAX + _NAMES_BYTES[1] + PAD_PLAIN_BYTES_MAX + TAG_BYTES,
)
_CONTENT_HASH: Final = 1  # the one flag of OPEN


class Record(IntEnum):
    OPEN = 1  # sender: who, for whom, under which key; sealed: what
    ACCEPT = 2  # receiver: from which offset on
    ANNOUNCE = 3  # sender: the key of the next segment
    DATA = 4  # sender: content; an empty one keeps the connection alive
    FINISH = 5  # sender: length of the whole, digests; nothing follows
    RECEIPT = 6  # receiver: the whole is verified and durable
    ABORT = 7  # receiver: sealed reason
    REFUSED = 8  # receiver: reason in clear, where no key is shared; unauthenticated
    PAD = 9  # sender: a whole content under a one-time pad; the connection carries nothing else (pad_frames)
    PAD_ANSWER = 10  # receiver: received, or a reason, under a one-time MAC


class Reason(IntEnum):
    """Why a receiver does not go on."""

    NO_KEY = 1
    NOT_PERMITTED = 2
    EXISTS = 3
    BAD_NAME = 4
    DISK = 5
    PROTOCOL = 6
    DIGEST = 7
    BUSY = 8
    STOPPING = 9
    VERSION = 10
    PAD_ONLY = 11


class OtherVersion(PeerFault):
    """The other gateway speaks another version of this format, or no version of it."""


_BODY_BYTES: Final = MappingProxyType(
    {
        Record.OPEN: (_CLEAR.size + 4 + _DETAILS.size + 1 + TAG_BYTES, 1024),
        Record.ACCEPT: (_ACCEPT.size + TAG_BYTES, _ACCEPT.size + TAG_BYTES),
        Record.ANNOUNCE: (_ANNOUNCE.size + TAG_BYTES, _ANNOUNCE.size + TAG_BYTES),
        Record.DATA: (TAG_BYTES, DATA_BYTES_MAX + TAG_BYTES),
        Record.FINISH: (_CLOSING.size + TAG_BYTES, _CLOSING.size + TAG_BYTES),
        Record.RECEIPT: (_CLOSING.size + TAG_BYTES, _CLOSING.size + TAG_BYTES),
        Record.ABORT: (1 + TAG_BYTES, 1 + TAG_BYTES),
        Record.REFUSED: (1, 1),
        Record.PAD: PAD_BODY_BYTES,
        Record.PAD_ANSWER: (1 + 16, 1 + 16),
    }
)


@dataclass(frozen=True, slots=True)
class Header:
    """`length_bytes` of body follow. `offset_bytes` is the position of DATA in the content, else 0."""

    record: Record
    segment: int
    offset_bytes: int
    length_bytes: int

    def pack(self) -> bytes:
        return _HEADER.pack(self.length_bytes, self.record, self.segment, self.offset_bytes)


def parse_header(raw: bytes | bytearray | memoryview) -> Header:
    """Raises PeerFault on anything but HEADER_BYTES of a known record whose length is within bounds."""
    try:
        length_bytes, kind, segment, offset_bytes = _HEADER.unpack(raw)
        record = Record(kind)
    except (struct.error, ValueError):
        raise PeerFault("not a record of a transfer") from None
    low, high = _BODY_BYTES[record]
    if not low <= length_bytes <= high:
        raise PeerFault(f"a {record.name} record of {length_bytes} bytes is outside {low}–{high}")
    if offset_bytes > SIZE_BYTES_MAX or (record is not Record.DATA and offset_bytes):
        raise PeerFault(f"a {record.name} record at an impossible offset")
    return Header(record, segment, offset_bytes, length_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """What is sent: known to the receiver only after OPEN verified.

    size_bytes: None for a stream; head_bytes: of it, the manifest of a directory, before the content of its files (0: a
    file); source_mark: tells one state of the source from another, so that a changed one is not resumed; content_hash:
    whether both ends compute and compare the SHA-256 of the content, which a resumed transfer always does; lanes, lane:
    how many connections carry the transfer, and which of them this is; run: names one attempt of the sending program, so
    that a new one ends what is left of an old one.
    """

    name: str
    size_bytes: int | None
    source_mark: int
    rotate_bytes: int
    rotate_ms: int
    content_hash: bool = False
    head_bytes: int = 0
    lanes: int = 1
    lane: int = 0
    run: bytes = bytes(8)

    @property
    def span(self) -> tuple[int, int | None]:
        """First byte of this lane's part of the content, and the byte after its last (None: until the stream ends)."""
        if self.size_bytes is None:
            return 0, None
        body_bytes = self.size_bytes - self.head_bytes
        step_bytes = -(-body_bytes // (self.lanes * LANE_ALIGN_BYTES)) * LANE_ALIGN_BYTES
        ends = [self.head_bytes + min(number * step_bytes, body_bytes) for number in (self.lane, self.lane + 1)]
        return (ends[0] if self.lane else 0), ends[1]

    def for_lane(self, lane: int) -> Details:
        return replace(self, lane=lane)

    def same_source(self, other: Details) -> bool:
        """Whether both describe one content, cut the same way: then one goes on where the other stopped."""
        mine, theirs = (replace(one, lane=0, run=bytes(8), rotate_bytes=1, rotate_ms=1) for one in (self, other))
        return mine == theirs

    def pack(self) -> bytes:
        size_bytes = SIZE_UNKNOWN if self.size_bytes is None else self.size_bytes
        name, flags = self.name.encode(), _CONTENT_HASH if self.content_hash else 0
        return (
            _DETAILS.pack(
                self.run,
                size_bytes,
                self.head_bytes,
                self.source_mark,
                self.rotate_bytes,
                self.rotate_ms,
                flags,
                self.lanes,
                self.lane,
                len(name),
            )
            + name
        )

    def check(self) -> Details:
        """Itself, where the numbers fit together. Raises PeerFault."""
        size_bytes = self.size_bytes
        fits = (
            1 <= self.lanes <= LANES_MAX
            and self.lane < self.lanes
            and self.rotate_bytes > 0
            and self.rotate_ms > 0
            and self.head_bytes <= (size_bytes or 0) <= SIZE_BYTES_MAX
            and (size_bytes is not None or self.lanes == 1)
        )
        if not fits:
            raise PeerFault("OPEN carries impossible numbers")
        return self


def parse_details(raw: bytes) -> tuple[Details, int]:
    """The details at the start of `raw`, and where they end. Raises PeerFault."""
    try:
        run, size_bytes, head_bytes, mark, rotate_bytes, rotate_ms, flags, lanes, lane, length_bytes = (
            _DETAILS.unpack_from(raw)
        )
        end = _DETAILS.size + length_bytes
        name = raw[_DETAILS.size : end].decode()
    except (struct.error, UnicodeDecodeError):
        raise PeerFault("OPEN carries no readable details") from None
    if len(raw) < end or not 0 < length_bytes <= NAME_BYTES_MAX:
        raise PeerFault("OPEN carries a name of the wrong length")
    if flags & ~_CONTENT_HASH:
        raise PeerFault("OPEN carries flags that version 2 does not know")
    details = Details(
        name=name,
        size_bytes=None if size_bytes == SIZE_UNKNOWN else size_bytes,
        source_mark=mark,
        rotate_bytes=rotate_bytes,
        rotate_ms=rotate_ms,
        content_hash=bool(flags),
        head_bytes=head_bytes,
        lanes=lanes,
        lane=lane,
        run=run,
    )
    return details.check(), end


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """The clear part of OPEN. A claim until `Details` verified under the key it names."""

    transfer_id: bytes
    key_id: str
    salt: bytes
    sender: str
    receiver: str

    def pack(self) -> bytes:
        key_id = uuid.UUID(self.key_id).bytes
        return _CLEAR.pack(MAGIC, self.transfer_id, key_id, self.salt) + _pack_names(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class PadOpening:
    """The clear part of PAD: which keys, one after another, are the pad. A claim until the MAC verified under them."""

    transfer_id: bytes
    key_ids: tuple[str, ...]
    sender: str
    receiver: str

    def pack(self) -> bytes:
        clear = _PAD_CLEAR.pack(MAGIC, self.transfer_id, len(self.key_ids))
        return clear + b"".join(uuid.UUID(key_id).bytes for key_id in self.key_ids) + _pack_names(self)


def parse_pad_opening(body: bytes) -> tuple[PadOpening, int]:
    """The clear part of a PAD body and its length in bytes; ciphertext and tag follow. Raises PeerFault."""
    try:
        magic, transfer_id, count = _PAD_CLEAR.unpack_from(body)
        _require_version(magic)
        end = _PAD_CLEAR.size + 16 * count
        key_ids = tuple(str(uuid.UUID(bytes=body[at : at + 16])) for at in range(_PAD_CLEAR.size, end, 16))
        sender, end = _take_name(body, end)
        receiver, end = _take_name(body, end)
    except (struct.error, IndexError, ValueError, BadRequest):
        raise PeerFault("PAD cannot be read") from None
    if not key_ids or len(set(key_ids)) != count:
        raise PeerFault("PAD names no key, or one twice")
    return PadOpening(transfer_id=transfer_id, key_ids=key_ids, sender=sender, receiver=receiver), end


def _pack_names(opening: Opening | PadOpening) -> bytes:
    names = (opening.sender.encode(), opening.receiver.encode())
    return b"".join(len(raw).to_bytes(1, "big") + raw for raw in names)


def _require_version(magic: bytes) -> None:
    if magic != MAGIC:
        raise OtherVersion("not a transfer of version 2", hint="update the older of the two gateways")


def _take_name(raw: bytes, start: int) -> tuple[str, int]:
    end = start + 1 + raw[start]
    text = raw[start + 1 : end]
    if len(text) != raw[start]:
        raise PeerFault("OPEN ends within a name")
    return check_name(text.decode("ascii"), what="SAE ID"), end


def parse_opening(body: bytes) -> tuple[Opening, int]:
    """The clear part of an OPEN body and its length in bytes; the sealed `Details` follow. Raises PeerFault."""
    try:
        magic, transfer_id, key_id, salt = _CLEAR.unpack_from(body)
        _require_version(magic)
        sender, end = _take_name(body, _CLEAR.size)
        receiver, end = _take_name(body, end)
    except (struct.error, IndexError, UnicodeDecodeError, BadRequest):
        raise PeerFault("OPEN cannot be read") from None
    key_text = str(uuid.UUID(bytes=key_id))
    return Opening(transfer_id=transfer_id, key_id=key_text, salt=salt, sender=sender, receiver=receiver), end


@dataclass(frozen=True, slots=True)
class Announcement:
    """The key of segment `segment`, told under the key of the segment before it."""

    segment: int
    key_id: str
    salt: bytes

    def pack(self) -> bytes:
        return _ANNOUNCE.pack(self.segment, uuid.UUID(self.key_id).bytes, self.salt)


@dataclass(frozen=True, slots=True)
class Acceptance:
    """The receiver holds `durable_bytes`; `complete` when it verified the whole and only the receipt went astray."""

    durable_bytes: int
    complete: bool

    def pack(self) -> bytes:
        return _ACCEPT.pack(self.durable_bytes, self.complete)


@dataclass(frozen=True, slots=True)
class Closing:
    """What FINISH claims and RECEIPT confirms: where the lane ends, the transcript of the connection, the SHA-256 of the
    lane's content or NO_DIGEST, and, from lane 0, what stands for the whole (`whole_of`), else NO_DIGEST."""

    size_bytes: int
    transcript: bytes
    sha256: bytes
    whole: bytes = NO_DIGEST

    def pack(self) -> bytes:
        return _CLOSING.pack(self.size_bytes, self.transcript, self.sha256, self.whole)

    @property
    def proof(self) -> bytes:
        """What stands for this lane in the whole: the hash of its content where there is one."""
        return self.transcript if self.sha256 == NO_DIGEST else self.sha256


def whole_of(size_bytes: int, proofs: Sequence[bytes]) -> bytes:
    """One digest over the proofs of all lanes, in the order in which their parts lie in the content, 32 bytes."""
    numbers = struct.pack(">QB", size_bytes, len(proofs))
    return hashlib.sha256(LABELS["gateway/whole"] + numbers + b"".join(proofs)).digest()


@dataclass(frozen=True, slots=True)
class Abort:
    reason: Reason

    def pack(self) -> bytes:
        return bytes([self.reason])


def parse_announcement(raw: bytes) -> Announcement:
    segment, key_id, salt = _unpack(_ANNOUNCE, raw)
    return Announcement(segment, str(uuid.UUID(bytes=key_id)), salt)


def parse_acceptance(raw: bytes) -> Acceptance:
    durable_bytes, complete = _unpack(_ACCEPT, raw)
    if complete > 1 or durable_bytes > SIZE_BYTES_MAX:
        raise PeerFault("ACCEPT carries impossible numbers")
    return Acceptance(durable_bytes, bool(complete))


def parse_closing(raw: bytes) -> Closing:
    return Closing(*_unpack(_CLOSING, raw))


def parse_abort(raw: bytes) -> Abort:
    try:
        return Abort(Reason(raw[0]))
    except (IndexError, ValueError):
        raise PeerFault("an unknown reason to stop") from None


def _unpack(layout: struct.Struct, raw: bytes) -> tuple:  # type: ignore[type-arg]  # shape is the layout's
    try:
        return layout.unpack(raw)
    except struct.error:
        raise PeerFault("a record of the wrong shape") from None
