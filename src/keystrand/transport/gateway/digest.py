"""What both ends of a transfer compare: the transcript of a connection, and the SHA-256 of a lane's content."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from typing import Final, Protocol

from keystrand.transport.gateway.frames import NO_DIGEST

READ_BYTES: Final = 1 << 20


class Transcript:
    """SHA-256 over what went over a connection: OPEN and ACCEPT whole, of every later record header and GCM tag.

    A tag authenticates its record's content under a key that only the two SAEs have, so equal transcripts mean that
    both saw the same records, in the same order, at a cost that does not grow with the size of a record.
    """

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, raw: bytes, rest: bytes | memoryview) -> None:
        """`raw` is a header, which tells how long `rest` is or that it is a tag."""
        self._hash.update(raw)
        self._hash.update(rest)

    def digest(self) -> bytes:
        """Of what was added so far, 32 bytes."""
        return self._hash.digest()


class Readable(Protocol):
    """A content from some offset on."""

    def readinto(self, view: memoryview, /) -> int | None: ...
    def close(self) -> None: ...


class ContentDigest(Protocol):
    """SHA-256 of one lane's content while it passes."""

    def passed(self, view: memoryview, end_bytes: int) -> None:
        """`view`, which ends at `end_bytes` of the content, was read, or is stored."""

    def result(self, wait_s: float) -> bytes | None:
        """32 bytes, over all that passed; None when they need more time. Raises what kept them from being had."""

    def close(self) -> None: ...


class KnownDigest:
    """Of what was verified before."""

    def __init__(self, sha256: bytes) -> None:
        self._sha256 = sha256

    def passed(self, view: memoryview, end_bytes: int) -> None: ...

    def result(self, wait_s: float) -> bytes:
        return self._sha256

    def close(self) -> None: ...


class NoDigest(KnownDigest):
    """Nobody asked for one, and every byte came over one connection."""

    def __init__(self) -> None:
        super().__init__(NO_DIGEST)


class RunningDigest:
    """Of a stream, which can be seen only once: hashed as it passes."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def passed(self, view: memoryview, end_bytes: int) -> None:
        self._hash.update(view)

    def result(self, wait_s: float) -> bytes:
        return self._hash.digest()

    def close(self) -> None: ...


class FollowingDigest:
    """Of what lies on a disk: a thread reads it from `start_bytes` on, never beyond what passed.

    So the bytes of an earlier connection are hashed too, and nobody on the way of the data waits for the hash.
    """

    def __init__(self, open_at: Callable[[int], Readable], start_bytes: int, durable_bytes: int) -> None:
        self._open_at = open_at
        self._hash = hashlib.sha256()
        self._position_bytes = start_bytes
        self._passed_bytes = durable_bytes
        self._fault: BaseException | None = None
        self._over = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="gateway-digest", daemon=True)
        self._thread.start()

    def passed(self, view: memoryview, end_bytes: int) -> None:
        with self._changed:
            self._passed_bytes = end_bytes
            self._changed.notify_all()

    def result(self, wait_s: float) -> bytes | None:
        with self._changed:
            self._changed.wait_for(self._settled, wait_s)
            if self._fault is not None:
                raise self._fault
            return self._hash.digest() if self._settled() else None

    def close(self) -> None:
        with self._changed:
            self._over = True
            self._changed.notify_all()
        self._thread.join()

    def _settled(self) -> bool:
        return self._position_bytes >= self._passed_bytes or self._fault is not None

    def _run(self) -> None:
        try:
            reader = self._open_at(self._position_bytes)
            try:
                self._follow(reader)
            finally:
                reader.close()
        except BaseException as fault:  # carried to the thread that waits for the result
            with self._changed:
                self._fault = fault
                self._changed.notify_all()

    def _follow(self, reader: Readable) -> None:
        buffer = memoryview(bytearray(READ_BYTES))
        while (length_bytes := self._await_bytes()) > 0:
            got = reader.readinto(buffer[:length_bytes])
            if not got:
                raise EOFError("what was transferred is shorter than it was")
            self._hash.update(buffer[:got])
            with self._changed:
                self._position_bytes += got
                self._changed.notify_all()

    def _await_bytes(self) -> int:
        """How much may be read now; 0 when nobody wants the result any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._over or self._passed_bytes > self._position_bytes)
            return 0 if self._over else min(READ_BYTES, self._passed_bytes - self._position_bytes)
