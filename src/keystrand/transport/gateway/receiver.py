"""The receiving end: a thread per connection reads and opens, a second one writes what verified."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
import uuid
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from keystrand.core.clock import Clock, SystemClock
from keystrand.core.errors import BadRequest, KeystrandError, NotPermitted, PeerFault, PeerUnavailable, Unavailable
from keystrand.core.key import Key
from keystrand.core.protection import Protection
from keystrand.core.secret import Secret
from keystrand.net import tcp
from keystrand.transport.gateway.frames import (
    DATA_BYTES_MAX,
    HEADER_BYTES,
    NO_DIGEST,
    Acceptance,
    Closing,
    Header,
    Opening,
    Reason,
    Record,
    parse_header,
    parse_opening,
)
from keystrand.transport.gateway.inbox import Destination, Incoming, NameTaken
from keystrand.transport.gateway.ports import (
    GatewayLimits,
    KeySource,
    Progress,
    Report,
    TransferReport,
    silent,
    when_available,
)
from keystrand.transport.gateway.session import Receiving, refused

DRAIN_S = 2.0


class DiskFault(Unavailable):
    """What was received cannot be stored."""

    hint = "make room, then let the sender resume"


class DigestFault(PeerFault):
    """Every record verified, but the whole is not what the sender hashed: its file changed underneath."""


def _reason(fault: BaseException) -> Reason:
    for kind, reason in _REASONS:
        if isinstance(fault, kind):
            return reason
    return Reason.STOPPING


_REASONS: tuple[tuple[type[BaseException], Reason], ...] = (
    (DiskFault, Reason.DISK),
    (DigestFault, Reason.DIGEST),
    (NameTaken, Reason.EXISTS),
    (NotPermitted, Reason.NOT_PERMITTED),
    (PeerFault, Reason.PROTOCOL),
    (BadRequest, Reason.NO_KEY),  # UnknownKey of the KME; an unsafe name is told apart where it is found
    (Unavailable, Reason.NO_KEY),
)


class Writer:
    """Stores verified content in its own thread; the first fault stops it and is raised by `check`."""

    def __init__(self, incoming: Incoming, limits: GatewayLimits) -> None:
        self._incoming = incoming
        self._free: queue.SimpleQueue[bytearray] = queue.SimpleQueue()
        self._full: queue.SimpleQueue[tuple[bytearray, int] | None] = queue.SimpleQueue()
        self._fault: BaseException | None = None
        for _ in range(limits.queue_chunks):
            self._free.put(bytearray(DATA_BYTES_MAX))
        self._thread = threading.Thread(target=self._run, name="gateway-writer", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._guard(self._incoming.catch_up)
        while (item := self._full.get()) is not None:
            buffer, length_bytes = item
            if self._fault is None:
                view = memoryview(buffer)[:length_bytes]
                self._guard(lambda view=view: self._incoming.write(view))  # type: ignore[misc]
            self._free.put(buffer)

    def _guard(self, act: Callable[[], None]) -> None:
        try:
            act()
        except BaseException as fault:  # carried to the thread that reads the connection
            self._fault = fault

    def buffer(self) -> bytearray:
        """An empty buffer; waits for the disk."""
        return self._free.get()

    def put(self, buffer: bytearray, length_bytes: int) -> None:
        self._full.put((buffer, length_bytes))
        self.check()

    def check(self) -> None:
        """Raises DiskFault, or whatever stopped the thread."""
        if isinstance(self._fault, OSError | EOFError):
            raise DiskFault(f"cannot store what was received: {self._fault}")
        if self._fault is not None:
            raise self._fault

    def finish(self) -> None:
        """Wait until everything is written. Does not raise; see `check`."""
        self._full.put(None)
        self._thread.join()


@dataclass(slots=True)
class Reception:
    """What is known of one transfer while it comes in, for its reports."""

    report: Report
    clock: Clock
    began_s: float
    session: Receiving
    key: Key
    key_ids: list[str] = field(default_factory=list)
    rotations: int = 0
    moved_bytes: int = 0
    told_s: float = 0.0

    @property
    def transfer_id(self) -> str:
        return str(uuid.UUID(bytes=self.session.opening.transfer_id))

    def tell(self, state: str, message: str = "") -> None:
        self.told_s = self.clock.monotonic_s()
        passed_s = self.told_s - self.began_s
        level = self.key.protection
        self.report(
            Progress(
                state=state,
                transfer_id=self.transfer_id,
                direction="receiving",
                peer=self.session.opening.sender,
                name=self.session.details.name,
                bytes_done=self.session.offset_bytes,
                bytes_total=self.session.details.size_bytes,
                rotations=self.rotations,
                throughput_bytes_per_s=self.moved_bytes / passed_s if passed_s > 0 else 0.0,
                key_id=self.key.key_id,
                protection="unknown" if level is Protection.NONE else level.label,
                message=message,
            )
        )

    def summary(self, path: str, closing: Closing, *, resumed: bool) -> TransferReport:
        return TransferReport(
            transfer_id=self.transfer_id,
            name=self.session.details.name,
            peer=self.session.opening.sender,
            bytes=self.session.offset_bytes,
            seconds=self.clock.monotonic_s() - self.began_s,
            rotations=self.rotations,
            key_ids=tuple(self.key_ids),
            transcript=closing.transcript.hex(),
            sha256="" if closing.sha256 == NO_DIGEST else closing.sha256.hex(),
            resumed=int(resumed),
            path=path,
        )


class Conversation:
    """One connection of a transfer, from OPEN to RECEIPT."""

    def __init__(self, receiver: Receiver, stream: tcp.TcpStream) -> None:
        self._receiver = receiver
        self._limits = receiver.limits
        self._stream = stream
        self._pickup = ThreadPoolExecutor(1, "gateway-pickup")
        self._coming: Future[Key] | None = None
        self._sealed = memoryview(bytearray(DATA_BYTES_MAX + 16))
        self._session: Receiving | None = None
        self.transfer: tuple[str, bytes] | None = None  # sender and transfer ID, once the key is proved
        self.over = threading.Event()

    def run(self) -> TransferReport:
        """Raises KeystrandError or OSError; the caller has been told then, if it could be."""
        try:
            return self._talk()
        except (KeystrandError, UnsafeName) as fault:
            self._tell_why(fault)
            raise
        finally:
            self._receiver.leave(self)
            self._pickup.shutdown(wait=False, cancel_futures=True)
            self._stream.close()
            self.over.set()

    def interrupt(self) -> None:
        self._stream.interrupt()

    def _tell_why(self, fault: Exception) -> None:
        reason = Reason.BAD_NAME if isinstance(fault, UnsafeName) else _reason(fault)
        with contextlib.suppress(OSError):
            self._stream.write(self._session.abort(reason) if self._session else refused(reason))
            self._stream.half_close()
            self._stream.drain(seconds=DRAIN_S)

    def _talk(self) -> TransferReport:
        began_s = self._receiver.clock.monotonic_s()
        raw, body, opening, clear_bytes = self._hear_opening()
        key = self._key(opening.sender, opening.key_id)
        self._session = session = Receiving.begin(raw, body, opening, clear_bytes, key.material)
        self.transfer = opening.sender, opening.transfer_id
        self._receiver.enter(self)  # only now: whoever takes a transfer over has proved the key
        reception = Reception(self._receiver.report, self._receiver.clock, began_s, session, key)
        incoming = self._begin(session)
        try:
            return self._receive(session, incoming, reception)
        except BaseException as fault:
            reception.tell("failed", message=str(fault))
            raise
        finally:
            incoming.suspend()

    def _hear_opening(self) -> tuple[bytes, bytes, Opening, int]:
        deadline_s = time.monotonic() + self._limits.opening_s
        self._stream.limit_idle(self._limits.opening_s)
        raw = self._stream.read(HEADER_BYTES, deadline_s=deadline_s)
        header = parse_header(raw)
        if header.record is not Record.OPEN or header.segment:
            raise PeerFault("a connection starts with OPEN")
        body = self._stream.read(header.length_bytes, deadline_s=deadline_s)
        self._stream.limit_idle(self._limits.idle_s)
        opening, clear_bytes = parse_opening(body)
        if opening.receiver != self._receiver.me or opening.sender not in self._receiver.senders:
            raise NotPermitted("no transfers from this SAE are taken here")
        return raw, body, opening, clear_bytes

    def _key(self, sender: str, key_id: str) -> Key:
        return when_available(
            lambda: self._receiver.keys.pick_up(sender, key_id),
            wait_s=self._limits.key_wait_s,
            stop=self._receiver.stopping,
            waiting=lambda fault: None,
        )

    def _begin(self, session: Receiving) -> Incoming:
        transfer_id = str(uuid.UUID(bytes=session.opening.transfer_id))
        try:
            incoming = self._receiver.destination.begin(transfer_id, session.opening.sender, session.details)
            incoming.remember(session.opening.key_id)
        except BadRequest as fault:
            raise UnsafeName(str(fault)) from None
        except OSError as fault:
            raise DiskFault(f"cannot store a new transfer: {fault}") from None
        return incoming

    def _receive(self, session: Receiving, incoming: Incoming, reception: Reception) -> TransferReport:
        resumed = incoming.durable_bytes > 0
        complete = incoming.done is not None
        self._stream.write(session.accept(Acceptance(incoming.durable_bytes, complete)))
        reception.key_ids.append(session.opening.key_id)
        reception.tell("resumed" if resumed else "started")
        if complete:
            closing = self._hear_finish_again(session)
        else:
            writer = Writer(incoming, self._limits)
            try:
                closing = self._pump(session, incoming, writer, reception)
            finally:
                writer.finish()
            writer.check()
        self._complete(incoming, closing)
        self._stream.write(session.receipt(closing))
        reception.tell("finished")
        return reception.summary(incoming.path, closing, resumed=resumed)

    def _complete(self, incoming: Incoming, closing: Closing) -> None:
        try:
            fits = incoming.complete(closing)
        except (OSError, EOFError) as fault:
            raise DiskFault(f"cannot store what was received: {fault}") from None
        if not fits:
            raise DigestFault("the whole does not have the length and SHA-256 that the sender claims")

    def _next_header(self) -> tuple[bytes, Header]:
        raw = self._stream.read(HEADER_BYTES)
        return raw, parse_header(raw)

    def _hear_finish_again(self, session: Receiving) -> Closing:
        """The whole was verified before; only the receipt went astray. Empty DATA may come while the sender hashes."""
        while True:
            raw, header = self._next_header()
            body = self._stream.read(header.length_bytes)
            if header.record is Record.DATA:
                session.data(header, raw, memoryview(body), self._sealed)
                continue
            heard = session.hear(header, raw, body)
            if isinstance(heard, Closing):
                return heard
            raise PeerFault("a finished transfer needs no further key")

    def _pump(self, session: Receiving, incoming: Incoming, writer: Writer, reception: Reception) -> Closing:
        while True:
            raw, header = self._next_header()
            if session.turns(header):
                self._turn(session, header, reception)
            if header.record is Record.DATA:
                self._take_data(session, header, raw, writer)
                self._count(reception, header)
                continue
            heard = session.hear(header, raw, self._stream.read(header.length_bytes))
            if isinstance(heard, Closing):
                return heard
            incoming.remember(heard.key_id)
            self._coming = self._pickup.submit(self._key, session.opening.sender, heard.key_id)

    def _take_data(self, session: Receiving, header: Header, raw: bytes, writer: Writer) -> None:
        sealed = self._sealed[: header.length_bytes]
        self._stream.fill(sealed)
        buffer = writer.buffer()
        length_bytes = len(session.data(header, raw, sealed, memoryview(buffer)))
        writer.put(buffer, length_bytes)

    def _turn(self, session: Receiving, header: Header, reception: Reception) -> None:
        assert self._coming is not None
        key, self._coming = self._coming.result(), None
        session.rotate(header, Secret(key.material.reveal()))
        key.material.wipe()
        reception.key = key
        reception.key_ids.append(key.key_id)
        reception.rotations += 1
        reception.tell("rotated")

    def _count(self, reception: Reception, header: Header) -> None:
        reception.moved_bytes += header.length_bytes - 16
        if self._receiver.clock.monotonic_s() - reception.told_s > self._limits.progress_s:
            reception.tell("progress")


class UnsafeName(BadRequest):
    """The name that the sender wants its file to have is not safe here."""


class Receiver:
    """Takes transfers from the SAEs named in `senders`, as SAE `me`, and puts them into `destination`.

    `report` and `failed` are called from connection threads; a failed connection never stops the others.
    """

    def __init__(
        self,
        listen: tcp.Address,
        *,
        keys: KeySource,
        me: str,
        senders: Collection[str],
        destination: Destination,
        limits: GatewayLimits | None = None,
        report: Report = silent,
        done: Callable[[TransferReport], None] = lambda report: None,
        failed: Callable[[Exception], None] = lambda fault: None,
        clock: Clock | None = None,
    ) -> None:
        """Listens at once; `port` says where. Raises ConfigError."""
        self.keys = keys
        self.me = me
        self.senders = frozenset(senders)
        self.destination = destination
        self.limits = limits or GatewayLimits()
        self.report = report
        self.clock = clock or SystemClock()
        self.stopping = threading.Event()
        self._done = done
        self._failed = failed
        self._listener = tcp.TcpListener(listen)
        self._lock = threading.Lock()
        self._open: set[Conversation] = set()
        self._active: dict[tuple[str, bytes], Conversation] = {}

    @property
    def port(self) -> int:
        return self._listener.port

    def serve_forever(self) -> None:
        """Until `stop`. Every connection has its own thread."""
        while (stream := self._accept()) is not None:
            conversation = self._admit(stream)
            if conversation is not None:
                threading.Thread(target=self._serve, args=(conversation,), name="gateway-receiver", daemon=True).start()

    def serve_once(self) -> TransferReport:
        """One whole transfer, over as many connections as it takes. Raises what ended it for good, PeerUnavailable on
        `stop`."""
        while (stream := self._accept()) is not None:
            conversation = self._admit(stream)
            if conversation is None:
                continue
            try:
                return self._run(conversation)
            except (OSError, EOFError) as fault:
                self._failed(fault)
            except KeystrandError as fault:
                self._failed(fault)
                if conversation.transfer is not None and not isinstance(fault, DiskFault | PeerFault):
                    raise
        raise PeerUnavailable("stopped before a transfer was complete")

    def stop(self) -> None:
        """Ends the listener and every connection; what is verified is kept for a later resume."""
        self.stopping.set()
        self._listener.close()
        with self._lock:
            conversations = list(self._open)
        for conversation in conversations:
            conversation.interrupt()
        for conversation in conversations:
            conversation.over.wait(10.0)

    def _accept(self) -> tcp.TcpStream | None:
        while not self.stopping.is_set():
            try:
                return self._listener.accept(idle_s=self.limits.idle_s)
            except OSError as fault:
                if not self.stopping.is_set():
                    self._failed(fault)
                    self.stopping.wait(0.1)
        return None

    def _admit(self, stream: tcp.TcpStream) -> Conversation | None:
        conversation = Conversation(self, stream)
        with self._lock:
            if len(self._open) < self.limits.transfers_max:
                self._open.add(conversation)
                return conversation
        with contextlib.suppress(OSError):
            stream.write(refused(Reason.BUSY))
        stream.close()
        return None

    def _serve(self, conversation: Conversation) -> None:
        try:
            self._done(self._run(conversation))
        except (KeystrandError, OSError, EOFError) as fault:
            self._failed(fault)

    def _run(self, conversation: Conversation) -> TransferReport:
        try:
            return conversation.run()
        finally:
            with self._lock:
                self._open.discard(conversation)

    def enter(self, conversation: Conversation) -> None:
        """A later connection of the same transfer ends the earlier one: that is how a sender comes back."""
        assert conversation.transfer is not None
        with self._lock:
            earlier = self._active.get(conversation.transfer)
            self._active[conversation.transfer] = conversation
        if earlier is not None:
            earlier.interrupt()
            if not earlier.over.wait(self.limits.opening_s):
                raise Unavailable("the earlier connection of this transfer does not end")

    def leave(self, conversation: Conversation) -> None:
        with self._lock:
            if conversation.transfer and self._active.get(conversation.transfer) is conversation:
                del self._active[conversation.transfer]
