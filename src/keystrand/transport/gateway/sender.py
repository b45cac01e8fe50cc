"""The sending end: the lanes of one transfer side by side, and what they share."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from concurrent.futures import TimeoutError as NotYet
from pathlib import Path
from typing import BinaryIO, Final

from keystrand.core.clock import Clock, SystemClock
from keystrand.core.errors import BadRequest
from keystrand.core.key import Key
from keystrand.net import tcp
from keystrand.transport.gateway.frames import LANES_MAX, Closing, Details
from keystrand.transport.gateway.ports import (
    MIB,
    GatewayLimits,
    KeySource,
    Report,
    TransferReport,
    silent,
    transfer_of,
    when_available,
)
from keystrand.transport.gateway.sending_lane import SendingLane
from keystrand.transport.gateway.source import FileSource, Source, StreamSource, TreeSource
from keystrand.transport.gateway.tally import Tally
from keystrand.transport.gateway.tree import Symlinks, list_tree

KEY_BITS: Final = 256
LANE_BYTES_MIN: Final = 4 * MIB  # a stream more is not worth its keys below this


class Transfer:
    """One source on its way. Its lanes run in threads; lane 0, which closes the whole, in the caller's."""

    def __init__(
        self,
        source: Source,
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
        self.source = source
        self.address = address
        self.from_sae, self.to_sae = from_sae, to_sae
        self.id = transfer_id
        self.details = details
        self.limits = limits
        self.clock = clock
        self.stop = threading.Event()
        self.tally = Tally(
            str(transfer_id), details, direction="sending", peer=to_sae, report=report, clock=clock,
            progress_s=limits.progress_s,
        )  # fmt: skip
        self._keys = keys
        self._fetcher = ThreadPoolExecutor(details.lanes, "gateway-keys")
        self._lanes = [SendingLane(self, number) for number in range(details.lanes)]
        self._others: list[Future[Closing]] = []
        self._fault: BaseException | None = None
        self._waits_for = ""

    def run(self) -> TransferReport:
        """Raises KeystrandError when the transfer ends without a receipt."""
        pool = ThreadPoolExecutor(max(1, len(self._lanes) - 1), "gateway-lane")
        try:
            self.tally.tell("started")
            self._others = [pool.submit(self._guard, lane.run) for lane in self._lanes[1:]]
            closing = self._guard(self._lanes[0].run)
            self.tally.tell("finished")
            return self.tally.summary(closing)
        except BaseException as fault:
            self.tally.tell("failed", message=str(fault))
            raise
        finally:
            self.stop.set()
            self._fetcher.shutdown(wait=False)
            pool.shutdown()

    def _guard(self, run: Callable[[], Closing]) -> Closing:
        """The first lane that fails for good ends all others."""
        try:
            return run()
        except BaseException as fault:
            self._fault = self._fault or fault
            self.stop.set()
            for lane in self._lanes:
                lane.interrupt()
            raise self._fault from None

    def check(self) -> None:
        """Raises what ended another lane."""
        if self._fault is not None:
            raise self._fault

    def proofs(self, wait_s: float) -> Sequence[bytes] | None:
        """Of all lanes but the first, once they have their receipts; None when they do not within `wait_s`."""
        waiting = wait(self._others, wait_s, FIRST_EXCEPTION).not_done
        self.check()
        return None if waiting else [future.result().proof for future in self._others]

    # --- keys --------------------------------------------------------------------------------------------------

    def ask_for_key(self) -> Future[Key]:
        """A fresh key shared with the receiver, when the KME has one."""
        return self._fetcher.submit(
            when_available,
            lambda: self._keys.fresh(self.to_sae, KEY_BITS),
            wait_s=self.limits.key_wait_s,
            stop=self.stop,
            waiting=lambda fault: setattr(self, "_waits_for", str(fault)),
        )

    def await_key(self, coming: Future[Key], key: Key | None) -> Key:
        """The key that was asked for; while the KME has none, say so and send nothing (I7)."""
        while True:
            self.check()
            try:
                fresh = coming.result(timeout=0.5)
            except NotYet:
                self.tally.tell("waiting", key, self._waits_for or "waiting for the KME")
            else:
                self.tally.use(fresh)
                return fresh


def _source_of(source: Path | BinaryIO, name: str | None, symlinks: Symlinks, skipped: Callable[[str], None]) -> Source:
    if not isinstance(source, Path):
        return StreamSource(source, name)
    if not source.is_dir():
        return FileSource(source, name)
    try:
        return TreeSource(source, list_tree(source, symlinks=symlinks, skipped=skipped), name)
    except OSError as fault:
        raise BadRequest(f"cannot read {fault.filename or source}: {fault.strerror}") from None


def _lanes_of(source: Source, streams: int) -> int:
    """No more lanes than there is content for."""
    if not 1 <= streams <= LANES_MAX:
        raise BadRequest(f"streams={streams} is not 1 to {LANES_MAX}")
    if source.size_bytes is None:
        return 1
    return max(1, min(streams, (source.size_bytes - source.head_bytes) // LANE_BYTES_MIN))


def send(
    source: Path | BinaryIO,
    *,
    keys: KeySource,
    connect: tcp.Address,
    from_sae: str,
    to_sae: str,
    name: str | None = None,
    streams: int = 1,
    rotate_bytes: int = 16 * MIB,
    rotate_s: float = 60.0,
    transfer_id: str | None = None,
    content_hash: bool = False,
    symlinks: Symlinks = "keep",
    skipped: Callable[[str], None] = lambda path: None,
    limits: GatewayLimits | None = None,
    progress: Report = silent,
    clock: Clock | None = None,
) -> TransferReport:
    """Send a file, a directory, or a binary stream, to the gateway at `connect`, which serves SAE `to_sae`.

    Over `streams` connections side by side (one for a stream or a small content), each with keys of its own: a new one
    every `rotate_bytes` of content or `rotate_s` seconds, whichever is first. `transfer_id` (of an earlier try) resumes
    that transfer. Both ends compare the transcripts of the connections, with `content_hash` (and for what is resumed)
    the SHA-256 of the content too. `symlinks` of a directory that stay within it are kept, or all left out and told to
    `skipped`. Blocks until the receiver confirms the whole; raises KeystrandError.
    """
    if rotate_bytes < 1 or rotate_s < 0.001:
        raise BadRequest(f"rotate_bytes={rotate_bytes} and rotate_s={rotate_s} must be positive")
    content = _source_of(source, name, symlinks, skipped)
    details = Details(
        name=content.name,
        size_bytes=content.size_bytes,
        source_mark=content.mark,
        rotate_bytes=rotate_bytes,
        rotate_ms=int(rotate_s * 1000),
        content_hash=content_hash,
        head_bytes=content.head_bytes,
        lanes=_lanes_of(content, streams),
        run=os.urandom(8),
    )
    return Transfer(
        content,
        keys=keys,
        address=connect,
        from_sae=from_sae,
        to_sae=to_sae,
        transfer_id=transfer_of(transfer_id),
        details=details,
        limits=limits or GatewayLimits(),
        report=progress,
        clock=clock or SystemClock(),
    ).run()
