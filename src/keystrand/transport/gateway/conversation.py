"""One connection at the receiving end: reading, opening and storing are one loop of one thread."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from keystrand.core.errors import BadRequest, KeystrandError, NotPermitted, PeerFault, Unavailable
from keystrand.core.key import Key
from keystrand.core.secret import Secret
from keystrand.crypto.segment import TAG_BYTES
from keystrand.net import tcp
from keystrand.transport.gateway.arrivals import Arrival
from keystrand.transport.gateway.digest import ContentDigest
from keystrand.transport.gateway.frames import (
    DATA_BYTES_MAX,
    HEADER_BYTES,
    Acceptance,
    Closing,
    Details,
    Header,
    Opening,
    OtherVersion,
    PadOpening,
    Reason,
    Record,
    parse_header,
    parse_opening,
    parse_pad_opening,
)
from keystrand.transport.gateway.names import UnsafeName
from keystrand.transport.gateway.pad_session import PadReceiving
from keystrand.transport.gateway.part import NameTaken
from keystrand.transport.gateway.ports import PAD, TransferReport, when_available
from keystrand.transport.gateway.session import Receiving, refused
from keystrand.transport.gateway.tally import Tally

if TYPE_CHECKING:
    from keystrand.transport.gateway.receiver import Receiver

DRAIN_S: Final = 2.0


class DiskFault(Unavailable):
    """What was received cannot be stored."""

    hint = "make room, then let the sender resume"


class DigestFault(PeerFault):
    """Every record verified, but the whole is not what the sender hashed: its file changed underneath."""


class PadOnly(NotPermitted):
    """This SAE's policy lets nothing pass but one-time pads."""


_REASONS: Final[tuple[tuple[type[BaseException], Reason], ...]] = (
    (DiskFault, Reason.DISK),
    (DigestFault, Reason.DIGEST),
    (NameTaken, Reason.EXISTS),
    (UnsafeName, Reason.BAD_NAME),
    (PadOnly, Reason.PAD_ONLY),
    (NotPermitted, Reason.NOT_PERMITTED),
    (OtherVersion, Reason.VERSION),
    (PeerFault, Reason.PROTOCOL),
    (BadRequest, Reason.NO_KEY),  # UnknownKey of the KME
    (Unavailable, Reason.NO_KEY),
)


def _reason(fault: BaseException) -> Reason:
    return next((reason for kind, reason in _REASONS if isinstance(fault, kind)), Reason.STOPPING)


@contextlib.contextmanager
def _storing(what: str) -> Iterator[None]:
    """What goes wrong in here is the disk's fault, not the connection's."""
    try:
        yield
    except (OSError, EOFError) as fault:
        raise DiskFault(f"cannot store {what}: {fault}") from None


class Conversation:
    """From OPEN to RECEIPT."""

    def __init__(self, receiver: Receiver, stream: tcp.TcpStream) -> None:
        self._receiver = receiver
        self._limits = receiver.limits
        self._stream = stream
        self._pickup = ThreadPoolExecutor(1, "gateway-pickup")
        self._coming: Future[Key] | None = None
        self._sealed = memoryview(bytearray(DATA_BYTES_MAX + TAG_BYTES))
        self._plain = memoryview(bytearray(DATA_BYTES_MAX))
        self._session: Receiving | None = None
        self._pad: PadReceiving | None = None
        self.over = threading.Event()

    @property
    def proved(self) -> bool:
        """Whether the caller has shown that it shares a key."""
        return self._session is not None or self._pad is not None

    def run(self) -> TransferReport | None:
        """The report once the whole is here, None when this lane is. Raises KeystrandError or OSError; the caller has
        been told then, if it could be."""
        try:
            return self._talk()
        except KeystrandError as fault:
            self._tell_why(fault)
            raise
        finally:
            self._pickup.shutdown(wait=False, cancel_futures=True)
            self._stream.close()
            self.over.set()

    def interrupt(self) -> None:
        self._stream.interrupt()

    def _tell_why(self, fault: Exception) -> None:
        reason = _reason(fault)
        with contextlib.suppress(OSError):
            self._stream.write(self._last_words(reason))
            self._stream.half_close()
            self._stream.drain(seconds=DRAIN_S)

    def _last_words(self, reason: Reason) -> bytes:
        """Sealed or signed where the caller proved that it shares a key."""
        if self._pad is not None:
            return self._pad.answer(reason)
        return self._session.abort(reason) if self._session else refused(reason)

    def _talk(self) -> TransferReport | None:
        raw, body = self._hear_first()
        if parse_header(raw).record is Record.PAD:
            return self._take_pad(raw, body)
        opening, clear_bytes = parse_opening(body)
        self._require_meant(opening)
        if self._receiver.pads.get(opening.sender) == "required":
            raise PadOnly("from this SAE only one-time pads are taken")
        key = self._key(opening.sender, opening.key_id)
        self._session = session = Receiving.begin(raw, body, opening, clear_bytes, key.material)
        name, arrivals = (opening.sender, opening.transfer_id), self._receiver.arrivals
        with _storing("a new transfer"):
            arrival = arrivals.enter(name, session.details, self, lambda: self._begin(opening, session.details))
        try:
            return self._receive(session, arrival, key)
        except BaseException as fault:
            if isinstance(fault, DigestFault | UnsafeName):
                arrival.incoming.discard()
            arrival.tally.tell("failed", key, str(fault))
            raise
        finally:
            arrivals.leave(name, session.details.lane)

    def _hear_first(self) -> tuple[bytes, bytes]:
        deadline_s = time.monotonic() + self._limits.opening_s
        self._stream.limit_idle(self._limits.opening_s)
        raw = self._stream.read(HEADER_BYTES, deadline_s=deadline_s)
        header = parse_header(raw)
        if header.record not in (Record.OPEN, Record.PAD) or header.segment:
            raise PeerFault("a connection starts with OPEN or PAD")
        body = self._stream.read(header.length_bytes, deadline_s=deadline_s)
        self._stream.limit_idle(self._limits.idle_s)
        return raw, body

    def _key(self, sender: str, key_id: str) -> Key:
        return when_available(
            lambda: self._receiver.keys.pick_up(sender, key_id),
            wait_s=self._limits.key_wait_s,
            stop=self._receiver.stopping,
            waiting=lambda fault: None,
        )

    def _begin(self, opening: Opening | PadOpening, details: Details) -> Arrival:
        transfer_id = str(uuid.UUID(bytes=opening.transfer_id))
        tally = Tally(
            transfer_id, details, direction="receiving", peer=opening.sender, report=self._receiver.report,
            clock=self._receiver.clock, progress_s=self._limits.progress_s,
        )  # fmt: skip
        return Arrival(self._receiver.destination.begin(transfer_id, opening.sender, details), tally, details)

    def _require_meant(self, opening: Opening | PadOpening) -> None:
        if opening.receiver != self._receiver.me or opening.sender not in self._receiver.senders:
            raise NotPermitted("no transfers from this SAE are taken here")

    # --- a whole content under a one-time pad ------------------------------------------------------------------

    def _take_pad(self, raw: bytes, body: bytes) -> TransferReport:
        """Its keys are spent whatever happens; a byte is stored only once the MAC over all of it verified."""
        opening, clear_bytes = parse_pad_opening(body)
        self._require_meant(opening)
        if self._receiver.pads.get(opening.sender, "off") == "off":
            raise NotPermitted("no one-time pads are taken from this SAE")
        keys = when_available(
            lambda: self._receiver.keys.pick_up_all(opening.sender, opening.key_ids),
            wait_s=self._limits.key_wait_s,
            stop=self._receiver.stopping,
            waiting=lambda fault: None,
        )
        self._pad = session = PadReceiving.begin(raw, body, opening, clear_bytes, keys)
        if len(session.content) > self._limits.pad_bytes_max:
            raise NotPermitted("more than a one-time pad may carry here")
        name = opening.sender, opening.transfer_id
        with _storing("what was received"):
            arrival = self._receiver.arrivals.enter(
                name, session.details, self, lambda: self._begin(opening, session.details)
            )
            try:
                self._keep(session, arrival, keys)
            finally:
                self._receiver.arrivals.leave(name, 0)
        self._stream.write(session.answer(None))
        arrival.tally.tell("finished", keys[-1])
        return replace(arrival.tally.summary(session.closing, arrival.incoming.path), secrecy=PAD)

    def _keep(self, session: PadReceiving, arrival: Arrival, keys: Sequence[Key]) -> None:
        incoming, tally = arrival.incoming, arrival.tally
        for key in keys:
            incoming.remember(key.key_id)
            tally.use(key)
        if not incoming.complete:
            incoming.write(0, 0, memoryview(session.content))
            incoming.finish(0, session.closing)
            incoming.place(session.closing)
        tally.moved(0, len(session.content), keys[-1])

    # --- content -----------------------------------------------------------------------------------------------

    def _receive(self, session: Receiving, arrival: Arrival, key: Key) -> TransferReport | None:
        incoming, tally, lane = arrival.incoming, arrival.tally, session.details.lane
        incoming.remember(session.opening.key_id)
        incoming.await_list(lane, self._limits.idle_s)
        complete, reached_bytes = incoming.complete, incoming.reached_bytes(lane)
        digest = incoming.digest(lane)
        try:
            self._stream.write(session.accept(Acceptance(reached_bytes, complete)))
            tally.use(key)
            tally.begin(lane, reached_bytes, key)
            closing = self._pump(session, arrival, key, digest)
            self._compare(closing, digest)
        finally:
            digest.close()
        with _storing("what was received"):
            if not complete:
                incoming.finish(lane, closing)
            if not lane:
                incoming.place(closing)
        self._stream.write(session.receipt(closing))
        if lane:
            return None
        tally.tell("finished", key)
        return tally.summary(closing, incoming.path)

    def _compare(self, closing: Closing, digest: ContentDigest) -> None:
        with _storing("what was received"):
            while (sha256 := digest.result(self._limits.beat_s)) is None:
                pass
        if sha256 != closing.sha256:
            raise DigestFault("the content does not have the SHA-256 that the sender claims")

    def _pump(self, session: Receiving, arrival: Arrival, key: Key, digest: ContentDigest) -> Closing:
        while True:
            raw = self._stream.read(HEADER_BYTES)
            header = parse_header(raw)
            if session.turns(header):
                key = self._turn(session, header, arrival.tally)
            if header.record is Record.DATA:
                self._take_data(session, header, raw, arrival, key, digest)
                continue
            heard = session.hear(header, raw, self._stream.read(header.length_bytes))
            if isinstance(heard, Closing):
                return heard
            with _storing("a key ID"):
                arrival.incoming.remember(heard.key_id)
            self._coming = self._pickup.submit(self._key, session.opening.sender, heard.key_id)

    def _take_data(
        self, session: Receiving, header: Header, raw: bytes, arrival: Arrival, key: Key, digest: ContentDigest
    ) -> None:
        sealed = self._sealed[: header.length_bytes]
        self._stream.fill(sealed)
        plain = session.data(header, raw, sealed, self._plain)
        if not plain:
            return
        if arrival.incoming.complete:
            raise PeerFault("the sender sends what it was told is here")
        with _storing("what was received"):
            arrival.incoming.write(session.details.lane, header.offset_bytes, plain)
        digest.passed(plain, session.offset_bytes)
        arrival.tally.moved(session.details.lane, len(plain), key)

    def _turn(self, session: Receiving, header: Header, tally: Tally) -> Key:
        assert self._coming is not None
        key, self._coming = self._coming.result(), None
        session.rotate(header, Secret(key.material.reveal()))
        key.material.wipe()
        tally.use(key)
        tally.rotated(key)
        return key
