"""Verified content as it comes, to a pipe."""

from __future__ import annotations

from typing import BinaryIO

from keystrand.core.errors import NotPermitted, PeerFault
from keystrand.transport.gateway.digest import ContentDigest, NoDigest, RunningDigest
from keystrand.transport.gateway.frames import Closing, Details, whole_of


class StreamOut:
    """What is written cannot be taken back, so nothing is resumed, and a reader of the pipe must wait for the exit status
    before it trusts the whole."""

    def __init__(self, out: BinaryIO) -> None:
        self.out = out

    def begin(self, transfer_id: str, sender: str, details: Details) -> Outflow:
        """Raises NotPermitted for what cannot go down one pipe in order."""
        if details.lanes > 1 or details.head_bytes:
            raise NotPermitted("a pipe takes one file over one stream")
        return Outflow(self.out, details)


class Outflow:
    """A content on its way out of a StreamOut."""

    complete = False
    path = "-"

    def __init__(self, out: BinaryIO, details: Details) -> None:
        self._out = out
        self._details = details
        self._key_ids: set[str] = set()

    def reached_bytes(self, lane: int) -> int:
        return 0

    def await_list(self, lane: int, wait_s: float) -> None:
        """There is none."""

    def remember(self, key_id: str) -> None:
        if key_id in self._key_ids:
            raise PeerFault("the sender names a key that this transfer has used already")
        self._key_ids.add(key_id)

    def digest(self, lane: int) -> ContentDigest:
        return RunningDigest() if self._details.content_hash else NoDigest()

    def write(self, lane: int, offset_bytes: int, view: memoryview) -> None:
        while view:
            view = view[self._out.write(view) :]
        self._out.flush()

    def finish(self, lane: int, closing: Closing) -> None:
        """All of it left already."""

    def place(self, closing: Closing) -> None:
        if closing.whole != whole_of(closing.size_bytes, [closing.proof]):
            raise PeerFault("the two ends do not have the same whole")

    def discard(self) -> None:
        """Whoever reads the pipe sees the exit status."""

    def suspend(self) -> None:
        """Nothing is kept."""
