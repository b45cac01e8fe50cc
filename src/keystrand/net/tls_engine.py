"""One TLS connection without I/O: bytes of the wire in, plaintext out, and the other way round."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from OpenSSL import SSL

from keystrand.core.errors import KeystrandError, NotPermitted, PeerFault
from keystrand.net.tls import TlsPeer, describe

RECORD_BYTES_MAX: Final = 16_384  # plaintext of one record, RFC 8446 §5.1
_WIRE_CHUNK_BYTES: Final = 65_536
_WRITE_CHUNK_BYTES: Final = 1 << 24
_MORE: Final = (SSL.WantReadError, SSL.WantWriteError)


class Records:
    """Where the records of a stream end: five bytes of header each, the last two of them the length (RFC 8446 §5.1)."""

    __slots__ = ("_head", "_left")

    def __init__(self) -> None:
        self._left = 0  # bytes of the last record that are still to come
        self._head = b""  # of a header that was cut

    def is_one(self, wire: bytes) -> bool:
        """Whether `wire`, which comes next in the stream, is one record from its first byte to its last."""
        begins = not (self._left or self._head)
        data = self._head + wire if self._head else wire
        at, records = self._left, 0
        while at + 5 <= len(data):
            at += 5 + (data[at + 3] << 8 | data[at + 4])
            records += 1
        self._left, self._head = max(0, at - len(data)), bytes(data[at:])
        return begins and records == 1 and not (self._left or self._head)


class TlsEngine:
    """`vet` turns a finished handshake into the peer or raises; until then no plaintext passes either way.

    Any error is final: `failure` says why, and nothing is decrypted any more.
    """

    __slots__ = ("_connection", "_handshake_bytes_left", "_records", "_vet", "failure", "finished", "peer")

    def __init__(
        self, connection: SSL.Connection, vet: Callable[[SSL.Connection], TlsPeer], *, handshake_bytes_max: int
    ) -> None:
        self._connection = connection
        self._vet = vet
        self._handshake_bytes_left = handshake_bytes_max
        self._records = Records()
        self.peer: TlsPeer | None = None
        self.finished = False  # the peer sent close_notify: what came before it is whole
        self.failure: KeystrandError | None = None

    def start(self) -> None:
        """Client: make the first flight, to be had from `outgoing`."""
        self._shake_hands()

    def receive(self, wire: bytes) -> bytes:
        """Plaintext that `wire` completes, possibly none. Raises NotPermitted or PeerFault, then and ever after."""
        if self.failure is not None:
            raise self.failure
        try:
            return self._receive(wire)
        except KeystrandError as problem:
            self.failure = problem
            raise
        except SSL.Error as problem:
            self.failure = _refusal(problem, self._connection)
            raise self.failure from None

    def send(self, plaintext: bytes) -> None:
        """Encrypt; the records are to be had from `outgoing`. Raises PeerFault once the connection is broken."""
        assert self.peer is not None, "plaintext before the handshake is done"
        try:
            for start in range(0, len(plaintext), _WRITE_CHUNK_BYTES):
                self._connection.sendall(plaintext[start : start + _WRITE_CHUNK_BYTES])
        except SSL.Error as problem:
            self.failure = _refusal(problem, self._connection)
            raise self.failure from None

    def outgoing(self) -> bytes:
        """What is to go on the wire now."""
        chunks = []
        while True:
            try:
                chunk = self._connection.bio_read(_WIRE_CHUNK_BYTES)
            except SSL.Error:
                break
            chunks.append(chunk)
            if len(chunk) < _WIRE_CHUNK_BYTES:  # a memory BIO gives all it has
                break
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def review(self, check: Callable[[SSL.Connection, TlsPeer], None]) -> None:
        """Hold the peer against what is asked of one today. Raises what `check` raises."""
        if self.peer is not None:
            check(self._connection, self.peer)

    def close(self) -> None:
        """Say close_notify, if there is still somebody to say it to."""
        if self.peer is None or self.failure is not None:
            return
        try:
            self._connection.shutdown()
        except SSL.Error as problem:
            self.failure = _refusal(problem, self._connection)

    def _receive(self, wire: bytes) -> bytes:
        if self.peer is None:
            self._handshake_bytes_left -= len(wire)
            if self._handshake_bytes_left < 0:
                raise PeerFault("the TLS handshake is longer than allowed")
        is_one = self._records.is_one(wire)
        self._connection.bio_write(wire)
        if self.peer is None and not self._shake_hands():
            return b""
        return self._decrypt(is_one)

    def _shake_hands(self) -> bool:
        try:
            self._connection.do_handshake()
        except _MORE:
            return False
        try:
            self.peer = self._vet(self._connection)
        except ValueError as problem:  # verified by a trusted authority, and yet no certificate that can be read
            raise PeerFault(f"the certificate cannot be read: {problem}") from None
        return True

    def _decrypt(self, is_one: bool) -> bytes:
        chunks = []
        try:
            while not self.finished:
                chunks.append(self._connection.recv(RECORD_BYTES_MAX))
                if is_one:
                    return chunks[0]  # to hear that there is no more costs as much as the record did
        except _MORE:
            pass
        except SSL.ZeroReturnError:
            self.finished = True
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _refusal(problem: SSL.Error, connection: SSL.Connection) -> KeystrandError:
    words = describe(problem, connection)
    if connection.get_app_data() is not None:
        return NotPermitted(f"TLS: {words}", hint="check trust, revocation list and validity on both sides")
    if "alert" in words:
        return NotPermitted(
            f"TLS: the other side refused: {words}", hint="its log says why: certificate, version or group"
        )
    return PeerFault(f"TLS: {words}")
