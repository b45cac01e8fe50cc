"""Where a receiver puts what it verified: a folder that only ever shows whole files, or an open stream.

A part lives in `.keystrand-parts/` of the inbox, beside a journal of JSON lines: what is received, every key ID used,
and how far the part is durable (the line is written after the data was synced; the last whole line counts). At the end
the part is linked to its final name, which fails where that name is taken.
"""

from __future__ import annotations

import contextlib
import os
import time
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

import msgspec

from keystrand.core.errors import BadRequest, NotPermitted, PeerFault
from keystrand.transport.gateway.digest import ContentDigest
from keystrand.transport.gateway.frames import NAME_BYTES_MAX, NO_DIGEST, Closing, Details

PARTS: Final = ".keystrand-parts"


class NameTaken(NotPermitted):
    """The final name exists and overwriting was not allowed."""

    hint = "move the file away, send under another name, or let the receiver overwrite"


def check_file_name(name: str) -> str:
    """`name` itself when it is safe as a file name. Raises BadRequest; nothing is silently rewritten."""
    if not name or len(name.encode()) > NAME_BYTES_MAX or name.startswith(".") or name.strip() != name:
        raise BadRequest(f"{name!r} is empty, too long, hidden or framed by blanks", hint="send it under another name")
    if not name.isprintable() or any(mark in name for mark in '/\\:*?"<>|'):
        raise BadRequest(f"{name!r} has characters that are no part of a file name", hint="send it under another name")
    return name


class Incoming(Protocol):
    """One content on its way in. All may raise OSError."""

    durable_bytes: int
    done: bytes | None  # SHA-256 or transcript, when the whole was verified before
    path: str

    def remember(self, key_id: str) -> None:
        """Note a key ID before it is picked up. Raises PeerFault when this transfer has used it already."""

    def catch_up(self) -> None:
        """Hash what is durable from an earlier connection, if anything. Called once, before the first `write`."""

    def write(self, view: memoryview) -> None: ...

    def complete(self, closing: Closing) -> bool:
        """Make the whole durable under its final name when length and SHA-256 fit; False, and no file, when not."""

    def suspend(self) -> None:
        """Keep what is verified for a later connection."""


class Destination(Protocol):
    """Inbox, or StreamOut."""

    def begin(self, transfer_id: str, sender: str, details: Details) -> Incoming: ...


class Journal:
    """Append-only JSON lines; a torn last line is as if never written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: FileIO | None = None

    def read(self) -> list[dict[str, Any]]:
        try:
            lines = self._path.read_bytes().split(b"\n")[:-1]
        except FileNotFoundError:
            return []
        entries = []
        for line in lines:
            with contextlib.suppress(msgspec.DecodeError, msgspec.ValidationError):
                entries.append(msgspec.json.decode(line, type=dict[str, Any]))
        return entries

    def append(self, *, sync: bool = False, **entry: Any) -> None:
        if self._file is None:
            self._file = FileIO(self._path, "a")
            # a line torn by a crash must not swallow this one
            self._file.write(b"\n")
        self._file.write(msgspec.json.encode(entry) + b"\n")
        if sync:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class PartialFile:
    """A file on its way into an inbox."""

    def __init__(self, inbox: Inbox, transfer_id: str, sender: str, details: Details) -> None:
        self._inbox = inbox
        self._final = inbox.folder / details.name
        self._part = inbox.parts / f"{transfer_id}.part"
        self._journal = Journal(inbox.parts / f"{transfer_id}.journal")
        self._digest = ContentDigest()
        self._key_ids: set[str] = set()
        self.durable_bytes = 0
        self.done: bytes | None = None
        self.path = str(self._final)
        self._restore(sender, details)
        self._refuse_taken_name()
        # what lay on a disk between two connections is hashed again, whatever the sender asked for
        self._hashed = details.content_hash or self._goes_on()
        self._file: FileIO | None = self._open()
        self._written_bytes = self.durable_bytes

    def _restore(self, sender: str, details: Details) -> None:
        what = {
            "sender": sender,
            "name": details.name,
            "size": details.size_bytes,
            "modified": details.modified_ns,
            "content_hash": details.content_hash,
        }
        entries = self._journal.read()
        self._key_ids = {entry["key"] for entry in entries if "key" in entry}
        opened = [entry["what"] for entry in entries if "what" in entry]
        if not opened:
            self._journal.append(what=what)
        elif opened[-1]["sender"] != sender:
            raise NotPermitted("this transfer belongs to another sender")
        elif opened[-1] != what:  # the source changed: from the start again, but with no key used twice
            self._journal.append(what=what, durable=0)
        else:
            self._restore_progress(entries)

    def _restore_progress(self, entries: list[dict[str, Any]]) -> None:
        for entry in entries:
            self.durable_bytes = entry.get("durable", self.durable_bytes)
            if "done" in entry:
                self.done = bytes.fromhex(entry["done"]) or None
        if self.done and self._part.exists():  # stopped between the last two steps
            self._place()
        if self.done is None and self.durable_bytes and self._part_bytes() < self.durable_bytes:
            self.durable_bytes = 0

    def _part_bytes(self) -> int:
        return self._part.stat().st_size if self._part.exists() else 0

    def _refuse_taken_name(self) -> None:
        if self.done is None and not self._inbox.overwrite and os.path.lexists(self._final):
            self._journal.close()
            raise NameTaken(f"{self._final.name} is there already")

    def _open(self) -> FileIO | None:
        if self.done is not None:
            return None
        handle = os.open(self._part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        os.ftruncate(handle, self.durable_bytes)
        file = FileIO(handle, "r+")
        file.seek(self.durable_bytes)
        return file

    def remember(self, key_id: str) -> None:
        if key_id in self._key_ids:
            raise PeerFault("the sender names a key that this transfer has used already")
        self._key_ids.add(key_id)
        self._journal.append(key=key_id)

    def catch_up(self) -> None:
        if self._hashed:
            self._digest.catch_up(self._part, self.durable_bytes)

    def write(self, view: memoryview) -> None:
        assert self._file is not None
        if self._hashed:
            self._digest.update(self._written_bytes, view)
        rest = view
        while rest:
            rest = rest[os.write(self._file.fileno(), rest) :]
        self._written_bytes += len(view)
        if self._written_bytes - self.durable_bytes >= self._inbox.checkpoint_bytes:
            self._checkpoint()

    def _checkpoint(self) -> None:
        assert self._file is not None
        os.fdatasync(self._file.fileno())
        self._journal.append(durable=self._written_bytes, sync=True)
        self.durable_bytes = self._written_bytes

    def complete(self, closing: Closing) -> bool:
        if self.done is not None:
            self._journal.close()
            return self.done == closing.sha256 if self._hashed else self.durable_bytes == closing.size_bytes
        self.catch_up()
        if self._sha256() != closing.sha256 or self._written_bytes != closing.size_bytes:
            self._discard()
            return False
        self._checkpoint()
        self._journal.append(done=(closing.sha256 if self._hashed else closing.transcript).hex(), sync=True)
        try:
            self._place()
        except NameTaken:
            self._journal.append(done="", sync=True)
            raise
        self._close()
        return True

    def _goes_on(self) -> bool:
        return self.done is None and self.durable_bytes > 0

    def _sha256(self) -> bytes:
        return self._digest.digest() if self._hashed else NO_DIGEST

    def _place(self) -> None:
        """Give the part its final name in one step. Raises NameTaken."""
        if self._inbox.overwrite and not self._linked():
            self._part.replace(self._final)
        else:
            try:
                os.link(self._part, self._final, follow_symlinks=False)
            except FileExistsError:
                if not self._linked():
                    raise NameTaken(f"{self._final.name} is there already") from None
            self._part.unlink()
        _sync_folder(self._inbox.folder)

    def _linked(self) -> bool:
        return self._final.exists() and self._final.samefile(self._part)

    def suspend(self) -> None:
        """Never raises: on a full disk the last durable point is simply older."""
        if self._file is not None and self._written_bytes > self.durable_bytes:
            with contextlib.suppress(OSError):
                self._checkpoint()
        self._close()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        self._journal.close()

    def _discard(self) -> None:
        self._journal.append(durable=0, sync=True)
        self._close()
        self._part.unlink(missing_ok=True)


class Inbox:
    """A folder for whole files. `overwrite` lets a new file take the name of an old one."""

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
        oldest_s = time.time() - partial_ttl_s
        for path in self.parts.iterdir():
            if path.stat().st_mtime < oldest_s:
                path.unlink(missing_ok=True)

    def begin(self, transfer_id: str, sender: str, details: Details) -> PartialFile:
        """Raises BadRequest for an unsafe name, NameTaken, NotPermitted, OSError."""
        check_file_name(details.name)
        return PartialFile(self, transfer_id, sender, details)


class StreamOut:
    """Verified content as it comes, to a pipe. What is written cannot be taken back, so nothing is resumed, and a
    reader of the pipe must wait for the exit status before it trusts the whole."""

    def __init__(self, out: BinaryIO) -> None:
        self.out = out

    def begin(self, transfer_id: str, sender: str, details: Details) -> Outflow:
        return Outflow(self.out, hashed=details.content_hash)


class Outflow:
    """A content on its way out of a StreamOut."""

    def __init__(self, out: BinaryIO, *, hashed: bool) -> None:
        self._out = out
        self._hashed = hashed
        self._written_bytes = 0
        self._digest = ContentDigest()
        self._key_ids: set[str] = set()
        self.durable_bytes = 0
        self.done: bytes | None = None
        self.path = "-"

    def remember(self, key_id: str) -> None:
        if key_id in self._key_ids:
            raise PeerFault("the sender names a key that this transfer has used already")
        self._key_ids.add(key_id)

    def catch_up(self) -> None:
        """A stream starts at its start."""

    def write(self, view: memoryview) -> None:
        if self._hashed:
            self._digest.update(self._written_bytes, view)
        self._written_bytes += len(view)
        rest = view
        while rest:
            rest = rest[self._out.write(rest) :]
        self._out.flush()

    def complete(self, closing: Closing) -> bool:
        sha256 = self._digest.digest() if self._hashed else NO_DIGEST
        return sha256 == closing.sha256 and self._written_bytes == closing.size_bytes

    def suspend(self) -> None:
        """Nothing is kept."""
