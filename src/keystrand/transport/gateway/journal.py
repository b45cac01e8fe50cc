"""What a receiver must remember of a transfer through crashes: append-only JSON lines, the last whole one counts."""

from __future__ import annotations

import contextlib
import os
import threading
from io import FileIO
from pathlib import Path
from typing import Any

import msgspec


class Journal:
    """A torn last line is as if never written. `append` may be called from any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: FileIO | None = None
        self._lock = threading.Lock()

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
        """Raises OSError."""
        with self._lock:
            if self._file is None:
                self._file = FileIO(self._path, "a")
                # a line torn by a crash must not swallow this one
                self._file.write(b"\n")
            self._file.write(msgspec.json.encode(entry) + b"\n")
            if sync:
                os.fsync(self._file.fileno())

    def close(self) -> None:
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None
