"""One lane of a transfer at the sending end: its part of the content, over as many connections as it takes.

Reading, sealing and writing are one loop of one thread: AES-GCM runs at many times the speed of a copy, so handing
buffers between threads costs more than it gains. Lanes are what runs side by side.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from keystrand.core.errors import BadRequest, PeerFault, PeerUnavailable, Unavailable
from keystrand.core.key import Key
from keystrand.crypto.segment import TAG_BYTES
from keystrand.net import tcp
from keystrand.transport.gateway.digest import ContentDigest, FollowingDigest, NoDigest, Readable, RunningDigest
from keystrand.transport.gateway.frames import HEADER_BYTES, Abort, Acceptance, Closing, Record, parse_header
from keystrand.transport.gateway.refusal import Broken, abort, refusal
from keystrand.transport.gateway.session import Sending

if TYPE_CHECKING:
    from keystrand.transport.gateway.sender import Transfer

PAUSE_S: Final = 0.1
PAUSE_S_MAX: Final = 5.0
EXPLAIN_S: Final = 1.0


class SendingLane:
    """Lane `number` of `transfer`."""

    def __init__(self, transfer: Transfer, number: int) -> None:
        self.transfer = transfer
        self.number = number
        self.details = transfer.details.for_lane(number)
        self.plain = memoryview(bytearray(transfer.limits.chunk_bytes))
        self.record = memoryview(bytearray(HEADER_BYTES + transfer.limits.chunk_bytes + TAG_BYTES))
        self._stream: tcp.TcpStream | None = None

    def interrupt(self) -> None:
        """Wake this lane where it waits for the other end."""
        stream = self._stream
        if stream is not None:
            stream.interrupt()

    def run(self) -> Closing:
        """What both ends agree on. Raises KeystrandError when the lane ends without a receipt."""
        pause_s, until_s = PAUSE_S, self._deadline_s()
        while True:
            before_bytes = self.transfer.tally.done_bytes(self.number)
            try:
                return self._attempt()
            except (Broken, PeerUnavailable) as fault:
                self.transfer.check()
                if self.transfer.tally.done_bytes(self.number) > before_bytes:
                    pause_s, until_s = PAUSE_S, self._deadline_s()
                self._refuse_hopeless(fault, until_s)
                self.transfer.tally.tell("waiting", message=f"{fault}; trying again")
                self.transfer.stop.wait(pause_s)
                pause_s = min(2 * pause_s, PAUSE_S_MAX)

    def _deadline_s(self) -> float:
        return self.transfer.clock.monotonic_s() + self.transfer.limits.reconnect_s

    def _refuse_hopeless(self, fault: Exception, until_s: float) -> None:
        if self.transfer.source.spent:
            raise PeerUnavailable(f"{fault}; a stream cannot be sent again", hint="send a file to have it resumed")
        if self.transfer.clock.monotonic_s() > until_s:
            hint = f"to go on, send again with --resume {self.transfer.id}"
            raise PeerUnavailable(f"gave up: {fault}", hint=hint) from None

    def _attempt(self) -> Closing:
        transfer = self.transfer
        key = transfer.await_key(transfer.ask_for_key(), None)
        session = Sending(
            transfer_id=transfer.id.bytes,
            sender=transfer.from_sae,
            receiver=transfer.to_sae,
            details=self.details,
            key=key,
            clock=transfer.clock,
        )
        limits = transfer.limits
        self._stream = stream = tcp.connect(transfer.address, timeout_s=limits.connect_s, idle_s=limits.idle_s)
        try:
            return _Connection(self, stream, session).converse()
        except (OSError, EOFError) as fault:
            raise Broken(f"the connection broke: {fault}") from None
        finally:
            self._stream = None
            session.wipe()
            stream.close()


class _Connection:
    """One connection of a lane, from OPEN to RECEIPT."""

    def __init__(self, lane: SendingLane, stream: tcp.TcpStream, session: Sending) -> None:
        self._lane = lane
        self._transfer = lane.transfer
        self._source = lane.transfer.source
        self._beat_s = lane.transfer.limits.beat_s
        self._start_bytes, self._end_bytes = lane.details.span
        self._stream = stream
        self._session = session
        self._coming: Future[Key] | None = None

    def converse(self) -> Closing:
        self._stream.write(self._session.open())
        accepted = self._hear_acceptance()
        digest = self._digest(accepted)
        try:
            self._send_content(digest)
            closing = self._close(digest, accepted)
            self._stream.write(self._session.finish(closing))
            return self._confirm(closing)
        except OSError:
            self._explain()
            raise
        finally:
            digest.close()

    # --- what the receiver says --------------------------------------------------------------------------------

    def _hear_acceptance(self) -> Acceptance:
        raw = self._stream.read(HEADER_BYTES)
        header = parse_header(raw)
        body = self._stream.read(header.length_bytes)
        if header.record is Record.REFUSED:
            raise refusal(body[0])
        if header.record is Record.ABORT:
            self._raise_abort(self._session.hear(raw, body))
        accepted = self._session.accept(raw, body)
        if not self._source.resumable and (accepted.durable_bytes or accepted.complete):
            raise PeerFault("the receiver resumes a stream, which cannot be read again")
        self._transfer.tally.begin(self._lane.number, accepted.durable_bytes, self._session.key)
        return accepted

    def _hear(self) -> Abort | Closing:
        raw = self._stream.read(HEADER_BYTES)
        heard = self._session.hear(raw, self._stream.read(parse_header(raw).length_bytes))
        if isinstance(heard, Acceptance):
            raise PeerFault("the receiver accepted twice")
        return heard

    def _raise_abort(self, heard: object) -> None:
        if isinstance(heard, Abort):
            raise abort(heard.reason, str(self._transfer.id))

    def _listen(self) -> None:
        """What comes before FINISH went out can only be a reason to stop."""
        if self._stream.pending():
            self._raise_abort(self._hear())
            raise PeerFault("the receiver gives a receipt before the end")

    def _explain(self) -> None:
        """A broken pipe is often the receiver's ABORT arriving first: say what it said."""
        try:
            self._stream.limit_idle(EXPLAIN_S)
            self._raise_abort(self._hear())
        except (OSError, EOFError):
            return

    def _confirm(self, closing: Closing) -> Closing:
        answer = self._hear()
        self._raise_abort(answer)
        if answer != closing:
            raise PeerFault("the receipt is for another content")
        return closing

    # --- content -----------------------------------------------------------------------------------------------

    def _digest(self, accepted: Acceptance) -> ContentDigest:
        """What lay on a disk between two connections is hashed again, as the receiver does."""
        fresh = accepted.complete or accepted.durable_bytes == self._start_bytes
        if fresh and not self._lane.details.content_hash:
            return NoDigest()
        if self._source.resumable:
            return FollowingDigest(self._source.open_at, self._start_bytes, accepted.durable_bytes)
        return RunningDigest()

    def _send_content(self, digest: ContentDigest) -> None:
        with _reading():
            reader = self._source.open_at(self._session.offset_bytes)
        try:
            while (chunk := self._read(reader)) is None or chunk:
                self._transfer.check()
                self._listen()
                if chunk is None:
                    self._beat()
                else:
                    digest.passed(chunk, self._session.offset_bytes + len(chunk))
                    self._send(chunk)
        finally:
            reader.close()
        if self._end_bytes not in (None, self._session.offset_bytes):
            raise BadRequest("the file became shorter while it was sent", hint="send it again when it is at rest")

    def _read(self, reader: Readable) -> memoryview | None:
        """The next piece of the content, empty at its end; None where it is silent so long that a beat is due."""
        left_s = self._lane.details.rotate_ms / 1000 - self._session.age_s
        if not self._source.ready(max(0.0, min(self._beat_s, left_s))):
            return None
        plain = self._lane.plain
        if self._end_bytes is not None:
            plain = plain[: self._end_bytes - self._session.offset_bytes]
        if not plain:
            return plain
        with _reading():
            return plain[: reader.readinto(plain) or 0]

    def _send(self, chunk: memoryview) -> None:
        while chunk:
            self._turn()
            part = chunk[: self._session.room_bytes]
            if part:  # none where the key aged between two looks at the clock
                self._stream.write(self._session.data(part, self._lane.record))
                self._transfer.tally.moved(self._lane.number, len(part), self._session.key)
                self._prepare()
            chunk = chunk[len(part) :]

    def _beat(self) -> None:
        """A sign of life, and a proof that the key is still held; rotation by time goes on while nothing is sent."""
        self._prepare()
        if self._session.age_s >= self._lane.details.rotate_ms / 1000:  # a spent key still carries an empty record
            self._turn()
        self._stream.write(self._session.data(self._lane.plain[:0], self._lane.record))

    def _close(self, digest: ContentDigest, accepted: Acceptance) -> Closing:
        """FINISH of lane 0 waits for the others, whose proofs stand in it; waiting, the connection shows life."""
        with _reading():
            while (sha256 := digest.result(self._beat_s)) is None:
                self._beat()
        if self._lane.number:
            return self._session.closing(sha256, None)
        if accepted.complete:  # what stands for the whole was compared when it became complete
            return self._session.closing(sha256, ())
        while (others := self._transfer.proofs(self._beat_s)) is None:
            self._listen()
            self._beat()
        return self._session.closing(sha256, others)

    # --- keys --------------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        """Ask for the next key ahead of need, and announce it as soon as it is there."""
        if self._coming is None and self._session.wants_key():
            self._coming = self._transfer.ask_for_key()
        elif self._coming is not None and self._coming.done():
            self._announce()

    def _announce(self) -> None:
        key = self._transfer.await_key(self._coming or self._transfer.ask_for_key(), self._session.key)
        self._coming = None
        self._stream.write(self._session.announce(key))

    def _turn(self) -> None:
        """Rotate when the key is spent or too old; wait for the next one if it must be."""
        if self._session.room_bytes:
            return
        if not self._session.announced:
            self._announce()
        self._session.rotate()
        self._transfer.tally.rotated(self._session.key)


@contextmanager
def _reading() -> Iterator[None]:
    """What goes wrong in here is the source's fault, not the connection's."""
    try:
        yield
    except (OSError, EOFError) as fault:
        raise Unavailable(f"the source cannot be read: {fault}", hint="send again when it can") from None
