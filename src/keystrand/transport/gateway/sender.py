"""The sending end: a reader thread fills buffers, this thread seals and writes, a third fetches keys."""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from pathlib import Path
from typing import BinaryIO, Final

from keystrand.core.clock import Clock, SystemClock
from keystrand.core.errors import BadRequest, KeystrandError, NotPermitted, PeerFault, PeerUnavailable, Unavailable
from keystrand.core.key import Key
from keystrand.core.protection import Protection
from keystrand.net import tcp
from keystrand.transport.gateway.frames import (
    HEADER_BYTES,
    NO_DIGEST,
    Abort,
    Acceptance,
    Closing,
    Details,
    Reason,
    Record,
    parse_header,
)
from keystrand.transport.gateway.ports import (
    MIB,
    GatewayLimits,
    KeySource,
    Progress,
    Report,
    TransferReport,
    silent,
    when_available,
)
from keystrand.transport.gateway.session import Sending
from keystrand.transport.gateway.source import Content, Reader

KEY_BITS: Final = 256
_WORDS: Final = {
    Reason.NO_KEY: "the receiver cannot have the key from its KME",
    Reason.NOT_PERMITTED: "the receiver does not take transfers from this SAE",
    Reason.EXISTS: "the receiver has a file of this name",
    Reason.BAD_NAME: "the receiver does not accept this file name",
    Reason.DISK: "the receiver's disk is full or broken",
    Reason.PROTOCOL: "the receiver saw a record that does not verify",
    Reason.DIGEST: "the content differs from its digest: did the file change while it was sent?",
    Reason.BUSY: "the receiver has no place for one more transfer",
    Reason.STOPPING: "the receiver is stopping",
}


class _Broken(Exception):
    """The connection is gone, or the receiver asks to come back: try again on a new one."""


def _stopped(reason: Reason, transfer_id: str) -> KeystrandError:
    words = _WORDS[reason]
    if reason is Reason.DISK:
        return Unavailable(words, hint=f"make room there, then send again with transfer ID {transfer_id} to resume")
    if reason in (Reason.PROTOCOL, Reason.DIGEST):
        return PeerFault(words, hint="send again; if it repeats, look at the path between the sites")
    if reason in (Reason.NOT_PERMITTED, Reason.EXISTS, Reason.BAD_NAME):
        return NotPermitted(words, hint="ask the receiver's operator, or send under another name")
    return Unavailable(words, hint=f"send again with transfer ID {transfer_id} to resume")


def _judge(reason: Reason, transfer_id: str) -> Exception:
    if reason in (Reason.BUSY, Reason.STOPPING, Reason.NO_KEY):
        return _Broken(_WORDS[reason])
    return _stopped(reason, transfer_id)


class Listener:
    """Hears the receiver while this side writes: its RECEIPT, or its ABORT, which also wakes the writer."""

    def __init__(self, stream: tcp.TcpStream, session: Sending) -> None:
        self.answer: Future[Abort | Closing] = Future()
        self._stream = stream
        self._session = session
        self._thread = threading.Thread(target=self._run, name="gateway-listener", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            raw = self._stream.read(HEADER_BYTES)
            heard = self._session.hear(raw, self._stream.read(parse_header(raw).length_bytes))
            if not isinstance(heard, Abort | Closing):
                raise PeerFault("the receiver accepted twice")
            self.answer.set_result(heard)
            if isinstance(heard, Abort):
                self._stream.interrupt()
        except BaseException as fault:  # carried to the thread that waits for the answer
            self.answer.set_exception(fault)
            self._stream.interrupt()

    def join(self) -> None:
        self._stream.interrupt()
        self._thread.join()


class Transfer:
    """One content on its way, over as many connections as it takes."""

    def __init__(
        self,
        content: Content,
        *,
        keys: KeySource,
        address: tcp.Address,
        from_sae: str,
        to_sae: str,
        transfer_id: uuid.UUID,
        details: Details,
        limits: GatewayLimits,
        report: Report,
        clock: Clock,
    ) -> None:
        self._content = content
        self._keys = keys
        self._address = address
        self._from_sae, self._to_sae = from_sae, to_sae
        self._id = transfer_id
        self._details = details
        self._limits = limits
        self._report = report
        self._clock = clock
        self._stop = threading.Event()
        self._fetcher = ThreadPoolExecutor(1, "gateway-keys")
        self._record = bytearray(HEADER_BYTES + limits.chunk_bytes + 16)
        self._key_ids: list[str] = []
        self._rotations = 0
        self._resumed = 0
        self._done_bytes = 0
        self._moved_bytes = 0
        self._began_s = clock.monotonic_s()
        self._told_s = 0.0
        self._fault = ""
        self._level = Protection.NONE  # not known yet

    # --- telling -----------------------------------------------------------------------------------------------

    def _tell(self, state: str, key: Key | None = None, message: str = "") -> None:
        passed_s = self._clock.monotonic_s() - self._began_s
        if key is not None:  # the transfer is as well protected as the weakest key it used
            self._level = min(self._level or key.protection, key.protection)
        level = self._level
        self._told_s = self._clock.monotonic_s()
        self._report(
            Progress(
                state=state,
                transfer_id=str(self._id),
                direction="sending",
                peer=self._to_sae,
                name=self._content.name,
                bytes_done=self._done_bytes,
                bytes_total=self._content.size_bytes,
                rotations=self._rotations,
                throughput_bytes_per_s=self._moved_bytes / passed_s if passed_s > 0 else 0.0,
                key_id=key.key_id if key else "",
                protection=level.label if level else "unknown",
                message=message,
            )
        )

    # --- keys --------------------------------------------------------------------------------------------------

    def _fetch(self) -> Key:
        return when_available(
            lambda: self._keys.fresh(self._to_sae, KEY_BITS),
            wait_s=self._limits.key_wait_s,
            stop=self._stop,
            waiting=lambda fault: setattr(self, "_fault", str(fault)),
        )

    def _await_key(self, coming: Future[Key], key: Key | None) -> Key:
        """The key that was asked for; while the KME has none, say so and send nothing (I7)."""
        while True:
            try:
                fresh = coming.result(timeout=0.5)
            except NotYet:
                self._tell("waiting", key, self._fault or "waiting for the KME")
            else:
                self._key_ids.append(fresh.key_id)
                return fresh

    # --- one connection ----------------------------------------------------------------------------------------

    def run(self) -> TransferReport:
        """Raises KeystrandError when the transfer ends without a receipt, OSError when the source cannot be read."""
        try:
            self._tell("started")
            closing = self._persist()
            self._tell("finished")
            return self._summary(closing)
        except BaseException as fault:
            self._tell("failed", message=str(fault))
            raise
        finally:
            self._stop.set()
            self._fetcher.shutdown(wait=False)

    def _persist(self) -> Closing:
        pause_s, until_s = 0.1, self._clock.monotonic_s() + self._limits.reconnect_s
        while True:
            before_bytes = self._done_bytes
            try:
                return self._attempt()
            except (_Broken, PeerUnavailable) as fault:
                if self._done_bytes > before_bytes:
                    pause_s, until_s = 0.1, self._clock.monotonic_s() + self._limits.reconnect_s
                self._refuse_hopeless(fault, until_s)
                self._tell("waiting", message=f"{fault}; trying again")
                self._stop.wait(pause_s)
                pause_s = min(2 * pause_s, 5.0)

    def _refuse_hopeless(self, fault: Exception, until_s: float) -> None:
        if not self._content.resumable and self._content.touched:
            raise PeerUnavailable(f"{fault}; a stream cannot be sent again", hint="send a file to have it resumed")
        if self._clock.monotonic_s() > until_s:
            hint = f"send again with transfer ID {self._id} to resume"
            raise PeerUnavailable(f"gave up: {fault}", hint=hint) from None

    def _attempt(self) -> Closing:
        key = self._await_key(self._fetcher.submit(self._fetch), None)
        session = Sending(
            transfer_id=self._id.bytes,
            sender=self._from_sae,
            receiver=self._to_sae,
            details=self._details,
            key=key,
            clock=self._clock,
        )
        stream = tcp.connect(self._address, timeout_s=self._limits.connect_s, idle_s=self._limits.idle_s)
        try:
            return self._converse(stream, session)
        except (OSError, EOFError) as fault:
            raise _Broken(f"the connection broke: {fault}") from None
        finally:
            session.wipe()
            stream.close()

    def _converse(self, stream: tcp.TcpStream, session: Sending) -> Closing:
        stream.write(session.open())
        accepted = self._hear_acceptance(stream, session)
        # what lay on a disk between two connections is hashed again, as the receiver does
        hashed = self._details.content_hash or (accepted.durable_bytes > 0 and not accepted.complete)
        listener = Listener(stream, session)
        reader = Reader(self._content, session.offset_bytes, self._limits, hashed=hashed)
        try:
            self._pump(stream, session, reader)
            closing = self._whole(session, hashed=hashed)
            stream.write(session.finish(closing))
            return self._confirm(listener.answer.result(), closing)
        except (OSError, EOFError):
            self._explain(listener)
            raise
        finally:
            reader.stop()
            listener.join()

    def _hear_acceptance(self, stream: tcp.TcpStream, session: Sending) -> Acceptance:
        raw = stream.read(HEADER_BYTES)
        header = parse_header(raw)
        body = stream.read(header.length_bytes)
        if header.record is Record.REFUSED:
            reason = Reason(body[0]) if body[0] in list(Reason) else Reason.BUSY
            raise _Broken(_WORDS[reason])
        if header.record is Record.ABORT:
            self._raise_abort(session.hear(raw, body))
        accepted = session.accept(raw, body)
        if not self._content.resumable and (accepted.durable_bytes or accepted.complete):
            raise PeerFault("the receiver resumes a stream, which cannot be read again")
        self._done_bytes = session.offset_bytes
        if self._done_bytes:
            self._resumed += 1
            self._tell("resumed", session.key)
        return accepted

    def _raise_abort(self, heard: object) -> None:
        if isinstance(heard, Abort):
            raise _judge(heard.reason, str(self._id))

    def _explain(self, listener: Listener) -> None:
        """A broken pipe is often the receiver's ABORT arriving first: say what it said."""
        try:
            self._raise_abort(listener.answer.result(timeout=1.0))
        except (OSError, EOFError, NotYet):
            return

    def _confirm(self, answer: Abort | Closing, closing: Closing) -> Closing:
        self._raise_abort(answer)
        if answer != closing:
            raise PeerFault("the receipt is for another content")
        return closing

    def _pump(self, stream: tcp.TcpStream, session: Sending, reader: Reader) -> None:
        out = memoryview(self._record)
        coming: Future[Key] | None = None
        while True:
            chunk = reader.take(min(self._limits.beat_s, max(self._details.rotate_ms / 1000 - session.age_s, 0.0)))
            coming = self._prepare(stream, session, coming)
            if chunk is None:
                if session.room_bytes:
                    stream.write(session.data(out[:0], out))  # a sign of life, and a proof that the key is still held
                coming = self._turn(stream, session, coming)
                continue
            buffer, length_bytes = chunk
            rest = memoryview(buffer)[:length_bytes]
            while rest:
                coming = self._turn(stream, session, coming)
                part = rest[: session.room_bytes]
                if not part:
                    continue
                stream.write(session.data(part, out))
                rest = rest[len(part) :]
                coming = self._prepare(stream, session, coming)
                self._count(session, len(part))
            reader.give_back(buffer)
            if not length_bytes:
                return

    def _whole(self, session: Sending, *, hashed: bool) -> Closing:
        if self._content.size_bytes not in (None, session.offset_bytes):
            raise BadRequest(
                "the file became shorter while it was sent", hint="send it again when nothing writes to it"
            )
        return session.closing(self._content.digest.digest() if hashed else NO_DIGEST)

    def _count(self, session: Sending, length_bytes: int) -> None:
        self._done_bytes = session.offset_bytes
        self._moved_bytes += length_bytes
        if self._clock.monotonic_s() - self._told_s > self._limits.progress_s:
            self._tell("progress", session.key)

    def _prepare(self, stream: tcp.TcpStream, session: Sending, coming: Future[Key] | None) -> Future[Key] | None:
        """Ask for the next key ahead of need, and announce it as soon as it is there."""
        if coming is None and session.wants_key():
            return self._fetcher.submit(self._fetch)
        if coming is not None and coming.done():
            stream.write(session.announce(self._await_key(coming, session.key)))
            return None
        return coming

    def _turn(self, stream: tcp.TcpStream, session: Sending, coming: Future[Key] | None) -> Future[Key] | None:
        """Rotate when the key is spent or too old; wait for the next one if it must be."""
        if session.room_bytes:
            return coming
        if not session.announced:
            key = self._await_key(coming or self._fetcher.submit(self._fetch), session.key)
            stream.write(session.announce(key))
            coming = None
        session.rotate()
        self._rotations += 1
        self._tell("rotated", session.key)
        return coming

    def _summary(self, closing: Closing) -> TransferReport:
        return TransferReport(
            transfer_id=str(self._id),
            name=self._content.name,
            peer=self._to_sae,
            bytes=closing.size_bytes,
            seconds=self._clock.monotonic_s() - self._began_s,
            rotations=self._rotations,
            key_ids=tuple(self._key_ids),
            transcript=closing.transcript.hex(),
            sha256="" if closing.sha256 == NO_DIGEST else closing.sha256.hex(),
            resumed=self._resumed,
        )


def send(
    source: Path | BinaryIO,
    *,
    keys: KeySource,
    connect: tcp.Address,
    from_sae: str,
    to_sae: str,
    name: str | None = None,
    rotate_bytes: int = 16 * MIB,
    rotate_s: float = 60.0,
    transfer_id: str | None = None,
    content_hash: bool = False,
    limits: GatewayLimits | None = None,
    progress: Report = silent,
    clock: Clock | None = None,
) -> TransferReport:
    """Send a file, or a binary stream, to the gateway at `connect`, which serves SAE `to_sae`.

    A new key every `rotate_bytes` of content or `rotate_s` seconds, whichever is first. `transfer_id` (of an earlier
    try) resumes that transfer. Both ends compare the transcript of the connection, with `content_hash` (and
    for what is resumed) the SHA-256 of the content too. Blocks until the receiver confirms the whole;
    raises KeystrandError or OSError.
    """
    if rotate_bytes < 1 or rotate_s < 0.001:
        raise BadRequest(f"rotate_bytes={rotate_bytes} and rotate_s={rotate_s} must be positive")
    content = Content(source, name)
    details = Details(
        name=content.name,
        size_bytes=content.size_bytes,
        modified_ns=content.modified_ns,
        rotate_bytes=rotate_bytes,
        rotate_ms=int(rotate_s * 1000),
        content_hash=content_hash,
    )
    try:
        identifier = uuid.UUID(transfer_id) if transfer_id else uuid.uuid4()
    except ValueError:
        raise BadRequest(f"{transfer_id!r} is not a transfer ID") from None
    return Transfer(
        content,
        keys=keys,
        address=connect,
        from_sae=from_sae,
        to_sae=to_sae,
        transfer_id=identifier,
        details=details,
        limits=limits or GatewayLimits(),
        report=progress,
        clock=clock or SystemClock(),
    ).run()
