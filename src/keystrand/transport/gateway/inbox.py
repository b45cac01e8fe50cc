"""Where a receiver puts what it verified: a folder that only ever shows whole files and directories.

A part lives in `.keystrand-parts/` of the inbox, beside a journal of JSON lines: what is received, every key ID used,
and how far each lane is durable (the line is written after the data was synced). At the end the part gets its final name,
which fails where that name is taken.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Protocol

from keystrand.core.errors import NotPermitted, PeerFault
from keystrand.transport.gateway.digest import ContentDigest, FollowingDigest, KnownDigest, NoDigest
from keystrand.transport.gateway.frames import NO_DIGEST, Closing, Details, whole_of
from keystrand.transport.gateway.journal import Journal
from keystrand.transport.gateway.names import check_file_name
from keystrand.transport.gateway.part import NameTaken, part_of

PARTS: Final = ".keystrand-parts"


class Incoming(Protocol):
    """One content on its way in, for all its lanes. All may raise OSError."""

    complete: bool  # the whole was verified before; only the receipt went astray
    path: str

    def reached_bytes(self, lane: int) -> int:
        """Where in the content this lane goes on."""

    def await_list(self, lane: int, wait_s: float) -> None:
        """Until this lane may write. Raises Unavailable."""

    def remember(self, key_id: str) -> None:
        """Note a key ID before it is picked up. Raises PeerFault when this transfer has used it already."""

    def digest(self, lane: int) -> ContentDigest:
        """Of this lane, from where it goes on."""

    def write(self, lane: int, offset_bytes: int, view: memoryview) -> None: ...

    def finish(self, lane: int, closing: Closing) -> None:
        """Make what stands for a verified lane durable."""

    def place(self, closing: Closing) -> None:
        """All lanes are verified: make the whole durable under its final name. Raises PeerFault, NameTaken."""

    def discard(self) -> None:
        """Nothing of it is worth keeping."""

    def suspend(self) -> None:
        """Keep what is verified for a later connection. Never raises."""


class Destination(Protocol):
    """Inbox, or StreamOut."""

    def begin(self, transfer_id: str, sender: str, details: Details) -> Incoming: ...


class PartialContent:
    """A file or a directory on its way into an inbox."""

    def __init__(self, inbox: Inbox, transfer_id: str, sender: str, details: Details) -> None:
        self._inbox = inbox
        self._details = details
        self._final = inbox.folder / details.name
        self._part = part_of(inbox.parts / transfer_id, details)
        self._journal = Journal(inbox.parts / f"{transfer_id}.journal")
        self._key_ids: set[str] = set()
        self._starts = [details.for_lane(lane).span[0] for lane in range(details.lanes)]
        self._durable = list(self._starts)
        self._proofs: dict[int, bytes] = {}
        self.complete = False
        self._worthless = False
        self.path = str(self._final)
        self._restore(sender)
        if not self.complete:
            self._refuse_taken_name()
            self._part.open(listed=self._durable[0] >= details.head_bytes > 0)
        self._written = list(self._durable)
        self._asked_bytes = sum(self._written)
        self._syncer = ThreadPoolExecutor(1, "gateway-sync")
        self._syncing: Future[None] | None = None

    # --- what a journal tells ----------------------------------------------------------------------------------

    def _restore(self, sender: str) -> None:
        entries = self._journal.read()
        self._key_ids = {entry["key"] for entry in entries if "key" in entry}
        opened = [entry["what"] for entry in entries if "what" in entry]
        what = self._what(sender)
        if opened and opened[-1]["sender"] != sender:
            raise NotPermitted("this transfer belongs to another sender")
        if opened and opened[-1] == what:
            self._restore_progress(entries)
        else:  # new, or the source changed: from the start, but with no key used twice
            if opened:
                self._part.discard()
            self._journal.append(what=what)

    def _what(self, sender: str) -> dict[str, Any]:
        details = self._details
        return {
            "sender": sender,
            "name": details.name,
            "size": details.size_bytes,
            "head": details.head_bytes,
            "mark": details.source_mark,
            "content_hash": details.content_hash,
            "lanes": details.lanes,
        }

    def _restore_progress(self, entries: list[dict[str, Any]]) -> None:
        for entry in entries:
            if "what" in entry:
                self._durable, self._proofs, self.complete = list(self._starts), {}, False
            self._durable = entry.get("durable", self._durable)
            if "done" in entry:
                self.complete = bool(entry["done"])
                self._proofs = {lane: bytes.fromhex(proof) for lane, proof in enumerate(entry["done"])}
            elif entry.get("run") == self._details.run.hex():
                self._proofs[entry["lane"]] = bytes.fromhex(entry["proof"])
        if self.complete:  # perhaps stopped between the last two steps
            self._part.place(self._final, overwrite=self._inbox.overwrite)
        elif not self._part.holds(self._durable_end()):
            self._durable, self._proofs = list(self._starts), {}

    def _durable_end(self) -> int:
        """Behind the last byte that a lane made durable; a lane that has not begun stands at its start and made none."""
        return max((end for end, start in zip(self._durable, self._starts, strict=True) if end > start), default=0)

    def _refuse_taken_name(self) -> None:
        if not self._inbox.overwrite and (self._final.exists() or self._final.is_symlink()):
            self._journal.close()
            raise NameTaken(f"{self._final.name} is there already")

    # --- lanes -------------------------------------------------------------------------------------------------

    def reached_bytes(self, lane: int) -> int:
        return self._written[lane]

    def await_list(self, lane: int, wait_s: float) -> None:
        if lane and not self.complete:
            self._part.await_list(wait_s)

    def remember(self, key_id: str) -> None:
        if key_id in self._key_ids:
            raise PeerFault("the sender names a key that this transfer has used already")
        self._key_ids.add(key_id)
        self._journal.append(key=key_id)

    def digest(self, lane: int) -> ContentDigest:
        """What lay on a disk between two connections is hashed again, whatever the sender asked for."""
        start_bytes, reached_bytes = self._starts[lane], self._written[lane]
        if self.complete:
            return KnownDigest(self._proofs[lane] if self._details.content_hash else NO_DIGEST)
        if self._details.content_hash or reached_bytes > start_bytes:
            return FollowingDigest(self._part.open_at, start_bytes, reached_bytes)
        return NoDigest()

    def write(self, lane: int, offset_bytes: int, view: memoryview) -> None:
        if self._worthless:
            raise PeerFault("another stream of this transfer did not verify")
        self._part.write(lane, offset_bytes, view)
        self._written[lane] = offset_bytes + len(view)
        if sum(self._written) - self._asked_bytes >= self._inbox.checkpoint_bytes:
            self._checkpoint_aside()

    def finish(self, lane: int, closing: Closing) -> None:
        self._settle()
        self._checkpoint(list(self._written))
        self._proofs[lane] = closing.proof
        self._journal.append(lane=lane, proof=closing.proof.hex(), run=self._details.run.hex(), sync=True)

    def place(self, closing: Closing) -> None:
        if self.complete:
            return
        if len(self._proofs) < self._details.lanes:
            raise PeerFault("the sender closes a transfer of which a stream is missing")
        proofs = [self._proofs[lane] for lane in range(self._details.lanes)]
        size_bytes = closing.size_bytes if self._details.size_bytes is None else self._details.size_bytes
        if closing.whole != whole_of(size_bytes, proofs):
            raise PeerFault("the two ends do not have the same whole")
        self._journal.append(done=[proof.hex() for proof in proofs], sync=True)
        try:
            self._part.place(self._final, overwrite=self._inbox.overwrite)
        except NameTaken:
            self._journal.append(done=[], sync=True)
            raise
        self.complete = True

    # --- durability --------------------------------------------------------------------------------------------

    def _checkpoint_aside(self) -> None:
        """The data goes on coming in while a thread waits for the disk; one checkpoint at a time."""
        if self._syncing is None or self._syncing.done():
            self._settle()
            self._asked_bytes = sum(self._written)
            self._syncing = self._syncer.submit(self._checkpoint, list(self._written))

    def _settle(self) -> None:
        """Raises what the last checkpoint ran into."""
        if self._syncing is not None:
            self._syncing.result()

    def _checkpoint(self, written: list[int]) -> None:
        self._part.sync()
        self._journal.append(durable=written, sync=True)
        self._durable = written

    def suspend(self) -> None:
        """On a full disk the last durable point is simply older."""
        with contextlib.suppress(OSError):
            self._settle()
            if not self.complete and not self._worthless and self._written != self._durable:
                self._checkpoint(list(self._written))
        self._syncer.shutdown()
        self._part.close()
        if self._worthless:
            with contextlib.suppress(OSError):
                self._journal.append(durable=self._starts, sync=True)
                self._part.discard()
        self._journal.close()

    def discard(self) -> None:
        self._worthless = True


class Inbox:
    """A folder for whole files and directories. `overwrite` lets a new one take the name of an old one."""

    def __init__(
        self,
        folder: Path,
        *,
        overwrite: bool = False,
        checkpoint_bytes: int = 1 << 26,
        partial_ttl_s: float = 604_800.0,
    ) -> None:
        """Raises OSError where the folder cannot be written; parts older than `partial_ttl_s` are deleted."""
        self.folder = folder
        self.overwrite = overwrite
        self.checkpoint_bytes = checkpoint_bytes
        self.parts = folder / PARTS
        self.parts.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._forget_before(time.time() - partial_ttl_s)

    def _forget_before(self, oldest_s: float) -> None:
        """The journal is the youngest of a transfer's files, as it is written after all others."""
        for journal in self.parts.glob("*.journal"):
            if journal.stat().st_mtime < oldest_s:
                for path in self.parts.glob(f"{journal.stem}.*"):
                    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def begin(self, transfer_id: str, sender: str, details: Details) -> PartialContent:
        """Raises UnsafeName, NameTaken, NotPermitted, OSError."""
        check_file_name(details.name)
        return PartialContent(self, transfer_id, sender, details)
