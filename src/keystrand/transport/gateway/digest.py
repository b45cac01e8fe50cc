"""What both ends of a transfer compare: the transcript of a connection, and the SHA-256 of a whole content."""

from __future__ import annotations

import hashlib
from pathlib import Path

READ_BYTES = 1 << 20


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


class ContentDigest:
    """SHA-256 of a content that arrives in pieces, over broken connections too.

    Counts each byte once: what it has seen already is skipped, what it missed is read from the file.
    """

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.position_bytes = 0

    def update(self, offset_bytes: int, view: memoryview) -> None:
        """`view` is the content from `offset_bytes` on, which is not beyond `position_bytes`."""
        assert offset_bytes <= self.position_bytes
        fresh = view[self.position_bytes - offset_bytes :]
        self._hash.update(fresh)
        self.position_bytes += len(fresh)

    def catch_up(self, path: Path, until_bytes: int) -> None:
        """Hash the file up to `until_bytes`. Raises OSError, EOFError where the file is shorter."""
        if self.position_bytes >= until_bytes:
            return
        buffer = memoryview(bytearray(READ_BYTES))
        with path.open("rb", buffering=0) as file:
            file.seek(self.position_bytes)
            while self.position_bytes < until_bytes:
                got = file.readinto(buffer[: until_bytes - self.position_bytes])
                if not got:
                    raise EOFError(f"{path} is shorter than {until_bytes} bytes")
                self.update(self.position_bytes, buffer[:got])

    def digest(self) -> bytes:
        """Of what was seen so far, 32 bytes."""
        return self._hash.digest()
