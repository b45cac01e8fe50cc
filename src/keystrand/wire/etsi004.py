"""ETSI GS QKD 004 V2.1.1, the three calls as messages over a stream: parse and print, for the KME and for the SAE. No I/O.

The standard fixes calls, parameters and status codes, not bytes. Two framings are in use, and the three version bytes at the
head of each message tell them apart: FORGE (2.1.1) prints the MIME type as a string that ends with NUL and the metadata
buffer of a request in full; FIXED (1.0.1) has a MIME type of 256 bytes and only the size of that buffer. Both share the
header: version (3 bytes), service (1), length of what follows (4, big endian).
"""

from __future__ import annotations

import json
import re
import struct
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final
from uuid import UUID

from keystrand.core.errors import BadRequest, PeerFault
from keystrand.core.identity import check_name
from keystrand.core.secret import Secret

HEADER_BYTES: Final = 8
REQUEST_BYTES_MAX: Final = 16_384  # of a payload: two URIs, QoS, KSID; or an SAE's metadata buffer
ANSWER_BYTES_MAX: Final = 1 << 20
URI_BYTES_MAX: Final = 1024
MIMETYPE_BYTES: Final = 256  # with its NUL
METADATA_TYPE: Final = "application/json"  # the one that every KME supports
UINT32_MAX: Final = 2**32 - 1

_QOS: Final = struct.Struct("!7I")
_WORD: Final = struct.Struct("!I")


class Status(IntEnum):
    """What a call came to."""

    SUCCESSFUL = 0
    PEER_NOT_CONNECTED = 1  # OPEN_CONNECT: this end is open, the other not yet
    INSUFFICIENT_KEY = 2
    PEER_NOT_YET_CONNECTED = 3  # GET_KEY
    NO_QKD_CONNECTION = 4
    KSID_IN_USE = 5
    TIMEOUT = 6
    QOS_NOT_MET = 7  # the QoS of the answer is what can be had
    METADATA_SIZE = 8  # the metadata of the answer says how much room they need; no key was delivered


class Service(IntEnum):
    """What a message is."""

    ERROR = 0x00
    OPEN_CONNECT = 0x02
    OPEN_CONNECT_ANSWER = 0x03
    GET_KEY = 0x04
    GET_KEY_ANSWER = 0x05
    CLOSE = 0x08
    CLOSE_ANSWER = 0x09


class Framing(IntEnum):
    """The two layouts, by their version bytes."""

    FORGE = 0x020101
    FIXED = 0x010001

    @property
    def version(self) -> bytes:
        return self.value.to_bytes(3, "big")


@dataclass(frozen=True, slots=True, kw_only=True)
class Qos:
    """What a stream shall be like. chunk_bytes: length of each chunk; the rates in bit/s; 0: no wish."""

    chunk_bytes: int = 32
    max_bps: int = 0
    min_bps: int = 0
    jitter_bps: int = 0
    priority: int = 0
    timeout_ms: int = 0
    ttl_s: int = 0
    mimetype: str = METADATA_TYPE  # "": no metadata

    def words(self) -> tuple[int, ...]:
        rates = (self.max_bps, self.min_bps, self.jitter_bps)
        return (self.chunk_bytes, *rates, self.priority, self.timeout_ms, self.ttl_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenConnect:
    """ksid None: the KME shall name the stream."""

    source: str
    destination: str
    qos: Qos
    ksid: UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """ksid None: no stream was made."""

    status: Status
    qos: Qos
    ksid: UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GetKey:
    """metadata_bytes_max: how much room the SAE has for the metadata."""

    ksid: UUID
    index: int
    metadata_bytes_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """material only where status is SUCCESSFUL; metadata_bytes: what they take, also where there was no room for them."""

    status: Status
    index: int
    material: Secret | None = field(default=None, repr=False, compare=False)
    metadata: bytes = b""
    metadata_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Close:
    ksid: UUID


@dataclass(frozen=True, slots=True)
class Closed:
    status: Status


@dataclass(frozen=True, slots=True)
class Failed:
    """The other end could not read what it was sent."""


Request = OpenConnect | GetKey | Close
Answer = Opened | Chunk | Closed | Failed


# the frame -----------------------------------------------------------------------------------------------------------


def message_bytes(header: bytes, payload_bytes_max: int) -> int:
    """Length of a whole message by its header. Raises PeerFault before anything of it is kept."""
    length = int(_WORD.unpack_from(header, 4)[0])
    if length > payload_bytes_max:
        raise PeerFault(f"a message of {length} bytes is over the limit of {payload_bytes_max}")
    return HEADER_BYTES + length


def framing_of(message: bytes) -> Framing:
    """Raises BadRequest for a version that is neither."""
    try:
        return Framing(int.from_bytes(message[:3], "big"))
    except ValueError:
        shown = ".".join(map(str, message[:3]))
        raise BadRequest(f"version {shown} is neither 2.1.1 nor 1.0.1") from None


def _message(framing: Framing, service: Service, *parts: bytes) -> bytes:
    payload = b"".join(parts)
    return framing.version + bytes((service,)) + _WORD.pack(len(payload)) + payload


class _Reader:
    """Takes a payload apart. Raises BadRequest where it ends too early or too late."""

    def __init__(self, message: bytes) -> None:
        self.framing = framing_of(message)
        self.data = message[HEADER_BYTES:]
        self.at = 0

    @property
    def left(self) -> int:
        return len(self.data) - self.at

    def take(self, length: int) -> bytes:
        if length > self.left:
            raise BadRequest("a message ends within a field")
        self.at += length
        return self.data[self.at - length : self.at]

    def word(self) -> int:
        return int(_WORD.unpack(self.take(4))[0])

    def sized(self) -> bytes:
        return self.take(self.word())

    def text(self, bytes_max: int) -> str:
        """A string that ends with NUL; bytes_max with it."""
        end = self.data.find(b"\0", self.at, self.at + bytes_max)
        if end < 0:
            raise BadRequest("a string has no end, or is too long")
        return self._ascii(self.take(end + 1 - self.at)[:-1])

    def padded(self, length: int) -> str:
        text, _, padding = self.take(length).partition(b"\0")
        if padding.strip(b"\0"):
            raise BadRequest("a string goes on after its end")
        return self._ascii(text)

    def ksid(self) -> UUID | None:
        value = UUID(bytes=self.take(16))
        return value if value.int else None

    def named_ksid(self) -> UUID:
        value = self.ksid()
        if value is None:
            raise BadRequest("the key stream ID is null")
        return value

    def qos(self) -> Qos:
        chunk, top, least, jitter, priority, timeout, ttl = _QOS.unpack(self.take(_QOS.size))
        fixed = self.framing is Framing.FIXED
        return Qos(
            chunk_bytes=chunk,
            max_bps=top,
            min_bps=least,
            jitter_bps=jitter,
            priority=priority,
            timeout_ms=timeout,
            ttl_s=ttl,
            mimetype=self.padded(MIMETYPE_BYTES) if fixed else self.text(MIMETYPE_BYTES),
        )

    def status(self) -> Status:
        code = self.word()
        try:
            return Status(code)
        except ValueError:
            raise BadRequest(f"status {code} is none of the standard's") from None

    def end(self) -> None:
        if self.left:
            raise BadRequest(f"a message has {self.left} bytes too many")

    @staticmethod
    def _ascii(text: bytes) -> str:
        try:
            return text.decode("ascii")
        except UnicodeDecodeError:
            raise BadRequest("a string is not ASCII") from None


def _print_qos(framing: Framing, qos: Qos) -> bytes:
    mimetype = qos.mimetype.encode("ascii") + b"\0"
    if len(mimetype) > MIMETYPE_BYTES:
        raise BadRequest(f"a MIME type has at most {MIMETYPE_BYTES - 1} characters")
    return _QOS.pack(*qos.words()) + (mimetype.ljust(MIMETYPE_BYTES, b"\0") if framing is Framing.FIXED else mimetype)


def _print_ksid(ksid: UUID | None) -> bytes:
    return ksid.bytes if ksid else bytes(16)


# what an SAE sends ---------------------------------------------------------------------------------------------------


def parse_request(message: bytes) -> tuple[Framing, Request]:
    """A whole message, header included. Raises BadRequest."""
    read = _Reader(message)
    request: Request
    match message[3]:
        case Service.OPEN_CONNECT:
            source, destination = read.text(URI_BYTES_MAX), read.text(URI_BYTES_MAX)
            request = OpenConnect(source=source, destination=destination, qos=read.qos(), ksid=read.ksid())
        case Service.GET_KEY:
            request = GetKey(ksid=read.named_ksid(), index=read.word(), metadata_bytes_max=_room(read))
        case Service.CLOSE:
            request = Close(read.named_ksid())
        case other:
            raise BadRequest(f"service {other} is none that a KME serves")
    read.end()
    return read.framing, request


def _room(read: _Reader) -> int:
    """FORGE sends its whole metadata buffer, whatever is in it; FIXED only says how long it is."""
    return read.word() if read.framing is Framing.FIXED else len(read.sized())


def print_request(framing: Framing, request: Request) -> bytes:
    """A whole message. Raises BadRequest for what the framing cannot hold."""
    if isinstance(request, OpenConnect):
        uris = b"".join(_cstring(uri) for uri in (request.source, request.destination))
        qos, ksid = _print_qos(framing, request.qos), _print_ksid(request.ksid)
        return _message(framing, Service.OPEN_CONNECT, uris, qos, ksid)
    if isinstance(request, Close):
        return _message(framing, Service.CLOSE, request.ksid.bytes)
    room = request.metadata_bytes_max
    if framing is Framing.FORGE and room > REQUEST_BYTES_MAX - 24:
        raise BadRequest(f"a metadata buffer of {room} bytes is too large for this framing")
    buffer = bytes(room) if framing is Framing.FORGE else b""
    return _message(framing, Service.GET_KEY, request.ksid.bytes, _WORD.pack(request.index), _WORD.pack(room), buffer)


def _cstring(text: str) -> bytes:
    try:
        encoded = text.encode("ascii")
    except UnicodeEncodeError:
        raise BadRequest("a URI is not ASCII") from None
    if b"\0" in encoded or len(encoded) >= URI_BYTES_MAX:
        raise BadRequest(f"a URI has at most {URI_BYTES_MAX - 1} characters, and no NUL")
    return encoded + b"\0"


# what a KME answers --------------------------------------------------------------------------------------------------


def print_answer(framing: Framing, answer: Answer) -> bytes:
    """A whole message. That of a Chunk holds key material: send it and let it go.

    Every answer is printed in full, also where the call failed: readers of FORGE expect it, those of FIXED stop at the
    status. The one exception is METADATA_SIZE in FIXED, where the size follows the status at once.
    """
    if isinstance(answer, Opened):
        body = _print_qos(framing, answer.qos) + _print_ksid(answer.ksid)
        return _message(framing, Service.OPEN_CONNECT_ANSWER, _WORD.pack(answer.status), body)
    if isinstance(answer, Chunk):
        return _message(framing, Service.GET_KEY_ANSWER, _WORD.pack(answer.status), _print_chunk(framing, answer))
    if isinstance(answer, Closed):
        return _message(framing, Service.CLOSE_ANSWER, _WORD.pack(answer.status))
    return _message(framing, Service.ERROR)


def _print_chunk(framing: Framing, chunk: Chunk) -> bytes:
    if chunk.status is Status.METADATA_SIZE and framing is Framing.FIXED:
        return _WORD.pack(chunk.metadata_bytes)
    material = chunk.material.reveal() if chunk.material is not None else b""
    # where the size stands before bytes, it can only be told by that many of them
    metadata = bytes(chunk.metadata_bytes) if chunk.status is Status.METADATA_SIZE else chunk.metadata
    sized = (_WORD.pack(len(part)) + part for part in (material, metadata))
    return _WORD.pack(chunk.index) + b"".join(sized)


def parse_answer(message: bytes) -> Answer:
    """A whole message, header included. Raises PeerFault; its message never quotes what was received."""
    try:
        read = _Reader(message)
        answer = _parse_answer(read, message[3])
        read.end()
    except BadRequest as fault:
        raise PeerFault(f"the KME's answer cannot be read: {fault}") from None
    return answer


def _parse_answer(read: _Reader, service: int) -> Answer:
    if service == Service.ERROR:
        read.take(read.left)
        return Failed()
    if service not in (Service.OPEN_CONNECT_ANSWER, Service.GET_KEY_ANSWER, Service.CLOSE_ANSWER):
        raise BadRequest(f"service {service} is no answer")
    status = read.status()
    if service == Service.CLOSE_ANSWER:
        return Closed(status)
    if service == Service.OPEN_CONNECT_ANSWER:
        if _is_bare(read, status):
            return Opened(status=status, qos=Qos())
        return Opened(status=status, qos=read.qos(), ksid=read.ksid())
    return _parse_chunk(read, status)


def _is_bare(read: _Reader, status: Status) -> bool:
    """KMEs that speak FIXED may end a refusal after its status."""
    return read.framing is Framing.FIXED and status is not Status.SUCCESSFUL and not read.left


def _parse_chunk(read: _Reader, status: Status) -> Chunk:
    if _is_bare(read, status):
        return Chunk(status=status, index=0)
    if status is Status.METADATA_SIZE and read.framing is Framing.FIXED:
        return Chunk(status=status, index=0, metadata_bytes=read.word())
    index, material, metadata = read.word(), read.sized(), read.sized()
    if (status is Status.SUCCESSFUL) != bool(material):
        raise BadRequest("a chunk has key where its status says none, or none where it says some")
    secret = Secret(material) if material else None
    kept = metadata if status is Status.SUCCESSFUL else b""
    return Chunk(status=status, index=index, material=secret, metadata=kept, metadata_bytes=len(metadata))


# what stands in the fields -------------------------------------------------------------------------------------------

_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:?//(?P<name>[^/?#@:]+)(?:@[^/?#]*|:[0-9]+)?(?:[/?#].*)?")
_URN: Final = "urn:keystrand:sae:"


def sae_of(uri: str) -> str:
    """The SAE that a source or destination names. Raises BadRequest.

    Read as an SAE: `urn:keystrand:sae:ID`, `scheme://ID@anything`, `scheme://ID[:port][/path]`, or the bare ID. The colon
    of the scheme may be missing, as it is in a client that is in use.
    """
    if uri.startswith(_URN):
        return check_name(uri.removeprefix(_URN), what="SAE ID")
    if uri.startswith("urn:"):
        raise BadRequest("a URN other than urn:keystrand:sae:ID names no SAE")
    found = _URI.fullmatch(uri)
    return check_name(found["name"] if found else uri, what="SAE ID")


def print_metadata(*, age_ms: int, hops: int) -> bytes:
    """What the standard names for application/json: milliseconds since the chunk was there, trusted nodes it has passed."""
    return json.dumps({"age": age_ms, "hops": hops}, separators=(",", ":")).encode()
