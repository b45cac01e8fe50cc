"""Which transfers come in at present, over which connections."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from keystrand.core.errors import PeerFault, Unavailable
from keystrand.transport.gateway.frames import Details
from keystrand.transport.gateway.inbox import Incoming
from keystrand.transport.gateway.tally import Tally

Name = tuple[str, bytes]  # sending SAE and transfer ID


class Lane(Protocol):
    """A connection, as long as it lasts."""

    over: threading.Event

    def interrupt(self) -> None: ...


@dataclass(slots=True)
class Arrival:
    """One transfer on its way in: what its connections share."""

    incoming: Incoming
    tally: Tally
    details: Details
    lanes: dict[int, Lane] = field(default_factory=dict)


class Arrivals:
    """Only who has proved its key enters; a later connection ends an earlier one of its lane, a later run all of them."""

    def __init__(self, wait_s: float) -> None:
        self._wait_s = wait_s
        self._lock = threading.Lock()
        self._running: dict[Name, Arrival] = {}

    def enter(self, name: Name, details: Details, lane: Lane, begin: Callable[[], Arrival]) -> Arrival:
        """What the lanes of this transfer share; the first of them makes it by `begin`, whose faults pass through."""
        while True:
            with self._lock:
                arrival = self._running.get(name)
                outdated = self._outdated(arrival, details)
                if not outdated:
                    arrival = arrival or begin()
                    self._running[name] = arrival
                    arrival.lanes[details.lane] = lane
                    return arrival
            for one in outdated:
                one.interrupt()
                if not one.over.wait(self._wait_s):
                    raise Unavailable("the earlier connection of this transfer does not end")

    @staticmethod
    def _outdated(arrival: Arrival | None, details: Details) -> list[Lane]:
        if arrival is None:
            return []
        if arrival.details.run != details.run:
            return list(arrival.lanes.values())
        if not arrival.details.same_source(details):
            raise PeerFault("the streams of one transfer do not describe one content")
        return [arrival.lanes[details.lane]] if details.lane in arrival.lanes else []

    def leave(self, name: Name, number: int) -> None:
        """The last lane to leave suspends the transfer. Called before the connection's `over` is set."""
        with self._lock:
            arrival = self._running[name]
            del arrival.lanes[number]
            if not arrival.lanes:
                del self._running[name]
                arrival.incoming.suspend()
