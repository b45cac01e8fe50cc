"""What one end knows of a transfer while it runs: for its progress, and for the report at the end."""

from __future__ import annotations

import threading
from typing import Literal

from keystrand.core.clock import Clock
from keystrand.core.key import Key
from keystrand.core.protection import Protection
from keystrand.transport.gateway.frames import NO_DIGEST, Closing, Details
from keystrand.transport.gateway.ports import Progress, Report, TransferReport


class Tally:
    """Counted by all lanes of one transfer, from their threads."""

    def __init__(
        self,
        transfer_id: str,
        details: Details,
        *,
        direction: Literal["sending", "receiving"],
        peer: str,
        report: Report,
        clock: Clock,
        progress_s: float,
    ) -> None:
        self._transfer_id = transfer_id
        self._details = details
        self._direction = direction
        self._peer = peer
        self._report = report
        self._clock = clock
        self._progress_s = progress_s
        self._began_s = clock.monotonic_s()
        self._told_s = self._began_s
        self._lock = threading.Lock()
        self._done_bytes = [0] * details.lanes
        self._moved_bytes = 0
        self._rotations = 0
        self._resumed = 0
        self._key_ids: list[str] = []
        self._level = Protection.NONE  # not known yet; then that of the weakest key

    def use(self, key: Key) -> None:
        """A key came into use."""
        with self._lock:
            self._key_ids.append(key.key_id)
            self._level = min(self._level or key.protection, key.protection)

    def rotated(self, key: Key) -> None:
        with self._lock:
            self._rotations += 1
        self.tell("rotated", key)

    def begin(self, lane: int, offset_bytes: int, key: Key) -> None:
        """A connection of `lane` goes on at `offset_bytes` of the content."""
        start_bytes = self._details.for_lane(lane).span[0]
        with self._lock:
            self._done_bytes[lane] = offset_bytes - start_bytes
            self._resumed += offset_bytes > start_bytes
        self.tell("resumed" if offset_bytes > start_bytes else "started", key)

    def moved(self, lane: int, length_bytes: int, key: Key) -> None:
        """`length_bytes` more of `lane` went over the wire; tells so, now and then."""
        with self._lock:
            self._done_bytes[lane] += length_bytes
            self._moved_bytes += length_bytes
        if self._clock.monotonic_s() - self._told_s > self._progress_s:
            self.tell("progress", key)

    def done_bytes(self, lane: int) -> int:
        return self._done_bytes[lane]

    def tell(self, state: str, key: Key | None = None, message: str = "") -> None:
        self._told_s = self._clock.monotonic_s()
        passed_s = self._told_s - self._began_s
        self._report(
            Progress(
                state=state,
                transfer_id=self._transfer_id,
                direction=self._direction,
                peer=self._peer,
                name=self._details.name,
                bytes_done=sum(self._done_bytes),
                bytes_total=self._details.size_bytes,
                rotations=self._rotations,
                throughput_bytes_per_s=self._moved_bytes / passed_s if passed_s > 0 else 0.0,
                key_id=key.key_id if key else "",
                protection=self._level.label if self._level else "unknown",
                message=message,
            )
        )

    def summary(self, closing: Closing, path: str = "") -> TransferReport:
        """Of a transfer that both ends verified, from lane 0's closing."""
        lanes = self._details.lanes
        size_bytes = self._details.size_bytes
        return TransferReport(
            transfer_id=self._transfer_id,
            name=self._details.name,
            peer=self._peer,
            bytes=closing.size_bytes if size_bytes is None else size_bytes,
            seconds=self._clock.monotonic_s() - self._began_s,
            rotations=self._rotations,
            key_ids=tuple(self._key_ids),
            transcript=(closing.transcript if lanes == 1 else closing.whole).hex(),
            sha256="" if closing.sha256 == NO_DIGEST or lanes > 1 else closing.sha256.hex(),
            resumed=self._resumed,
            streams=lanes,
            path=path,
        )
