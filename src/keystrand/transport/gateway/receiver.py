"""The receiving end: takes connections, each in a thread of its own, and tells what came of them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType

from keystrand.core.clock import Clock, SystemClock
from keystrand.core.errors import KeystrandError, PeerFault, PeerUnavailable
from keystrand.net import tcp
from keystrand.transport.gateway.arrivals import Arrivals
from keystrand.transport.gateway.conversation import Conversation, DiskFault
from keystrand.transport.gateway.frames import Reason
from keystrand.transport.gateway.inbox import Destination
from keystrand.transport.gateway.ports import GatewayLimits, KeySource, PadRule, Report, TransferReport, silent
from keystrand.transport.gateway.session import refused


class Receiver:
    """Takes transfers from the SAEs named in `senders`, as SAE `me`, and puts them into `destination`.

    `pads` says from whom one-time pads are taken, or nothing else; from nobody where it says nothing.
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
        pads: Mapping[str, PadRule] = MappingProxyType({}),
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
        self.pads = pads
        self.limits = limits or GatewayLimits()
        self.report = report
        self.clock = clock or SystemClock()
        self.stopping = threading.Event()
        self._done = done
        self._failed = failed
        self._listener = tcp.TcpListener(listen)
        self._lock = threading.Lock()
        self._open: set[Conversation] = set()
        self.arrivals = Arrivals(self.limits.opening_s)

    @property
    def port(self) -> int:
        return self._listener.port

    def serve_forever(self) -> None:
        """Until `stop`. Every connection has its own thread."""
        self._serve(lambda conversation: self._done_or_failed(conversation))

    def serve_once(self) -> TransferReport:
        """One whole transfer, over as many connections as it takes. Raises what ended it for good, PeerUnavailable on
        `stop`."""
        outcomes: list[TransferReport | KeystrandError] = []

        def settle(conversation: Conversation) -> None:
            outcome = self._outcome(conversation)
            if outcome is not None:
                outcomes.append(outcome)
                self._listener.close()

        self._serve(settle, until=lambda: bool(outcomes))
        if not outcomes:
            raise PeerUnavailable("stopped before a transfer was complete")
        if isinstance(outcomes[0], TransferReport):
            return outcomes[0]
        raise outcomes[0]

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

    def _serve(self, attend: Callable[[Conversation], object], until: Callable[[], bool] = lambda: False) -> None:
        while not self.stopping.is_set() and not until():
            try:
                stream = self._listener.accept(idle_s=self.limits.idle_s)
            except OSError as fault:
                if not self.stopping.is_set() and not until():
                    self._failed(fault)
                    self.stopping.wait(0.1)
                continue
            conversation = self._admit(stream)
            if conversation is not None:
                threading.Thread(target=attend, args=(conversation,), name="gateway-receiver", daemon=True).start()

    def _admit(self, stream: tcp.TcpStream) -> Conversation | None:
        conversation = Conversation(self, stream)
        with self._lock:
            if len(self._open) < self.limits.connections_max:
                self._open.add(conversation)
                return conversation
        with contextlib.suppress(OSError):
            stream.write(refused(Reason.BUSY))
        stream.close()
        return None

    def _done_or_failed(self, conversation: Conversation) -> None:
        outcome = self._outcome(conversation)
        if isinstance(outcome, TransferReport):
            self._done(outcome)

    def _outcome(self, conversation: Conversation) -> TransferReport | KeystrandError | None:
        """A whole transfer, or what ended one for good; what a sender may come back from is told to `failed` alone."""
        try:
            return conversation.run()
        except (OSError, EOFError) as fault:
            self._failed(fault)
        except KeystrandError as fault:
            self._failed(fault)
            if conversation.proved and not isinstance(fault, DiskFault | PeerFault):
                return fault
        finally:
            with self._lock:
                self._open.discard(conversation)
        return None
