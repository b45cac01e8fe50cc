"""Tells the KME what becomes of tunnels, from a thread of its own: a slow or silent KME never holds a tunnel up.

What could not be told is told later, and says how late it is; of status reports only the newest counts.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Final

import msgspec

from keystrand.core.errors import KeystrandError
from keystrand.core.identity import check_name
from keystrand.transport.keys import Client
from keystrand.wire.tunnelreport import TunnelReport, print_report

WAITING_MAX: Final = 256
AGAIN_S: Final = 2.0
POST_GOOD: Final = 204


@dataclass(frozen=True, slots=True)
class Waiting:
    tunnel: str
    report: TunnelReport
    at_s: float  # monotonic


@dataclass
class TunnelReports:
    """For all tunnels of one SAE, with a client of its own."""

    client: Client
    _events: deque[Waiting] = field(default_factory=lambda: deque(maxlen=WAITING_MAX))
    _statuses: OrderedDict[str, Waiting] = field(default_factory=OrderedDict)
    _wake: threading.Condition = field(default_factory=threading.Condition)
    _closed: bool = False
    refused_total: int = 0

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._run, name="tunnel-reports", daemon=True)
        self._thread.start()

    def tell(self, tunnel: str, report: TunnelReport) -> None:
        """Soon, from another thread. When the KME is away for long, the oldest is lost."""
        waiting = Waiting(check_name(tunnel), report, time.monotonic())
        with self._wake:
            if report.happened == "status":
                self._statuses[tunnel] = waiting
            else:
                self._events.append(waiting)
            self._wake.notify()

    def close(self, *, timeout_s: float = 1.0) -> None:
        """Send what waits, for at most `timeout_s`."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while (waiting := self._next()) is not None:
            if not self._post(waiting):
                with self._wake:
                    if self._closed:
                        return
                    if waiting.report.happened != "status":
                        self._events.appendleft(waiting)
                    self._wake.wait(AGAIN_S)

    def _next(self) -> Waiting | None:
        with self._wake:
            while not self._events and not self._statuses and not self._closed:
                self._wake.wait()
            if self._events:
                return self._events.popleft()
            return self._statuses.popitem(last=False)[1] if self._statuses else None

    def _post(self, waiting: Waiting) -> bool:
        """False where the KME does not answer; a refusal is no reason to try again."""
        late_s = round(time.monotonic() - waiting.at_s, 3)
        body = print_report(msgspec.structs.replace(waiting.report, late_s=late_s))
        try:
            answer = self.client.request("POST", f"/keystrand/v1/tunnels/{waiting.tunnel}", body)
        except (OSError, EOFError, KeystrandError):
            return False
        self.refused_total += answer.status != POST_GOOD
        return answer.status < 500
