"""What one end of a tunnel must remember over restarts, and that it runs once only."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from keystrand.core.errors import ConfigError, StoreUnavailable, Unavailable
from keystrand.core.files import write_whole
from keystrand.wire.decoding import UNREADABLE


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """highest: the last number that was ever used. Times are Unix time, 0 where there was none.

    used_at_s: since when `current` is in use; good_at_s: since when a key of the required protection was in use last.
    """

    highest: int = 0
    current: int = 0
    used_at_s: float = 0.0
    good_at_s: float = 0.0


def read_record(file: Path) -> Record:
    """An empty one where there is no file. Raises ConfigError for a file that cannot be read: numbers must not repeat."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=Record)
    except FileNotFoundError:
        return Record()
    except (OSError, *UNREADABLE) as error:
        hint = "remove it at both ends of the tunnel, while both are stopped"
        raise ConfigError(f"cannot be read: {error}", path=str(file), hint=hint) from None


def replace_file(file: Path, content: bytes, *, durable: bool = True, mode: int = 0o600) -> None:
    """Replace a file, wholly or not at all. Raises StoreUnavailable."""
    try:
        write_whole(file, content, durable=durable, mode=mode)
    except OSError as error:
        raise StoreUnavailable(f"{file} cannot be written: {error.strerror}") from None


class Taken(Unavailable):
    """Another process has this tunnel end."""


@contextlib.contextmanager
def alone(file: Path) -> Iterator[None]:
    """Holds the lock of this tunnel end. Raises Taken while another process does."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    with file.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise Taken(f"this tunnel runs already, as process {lock.read(20).strip()}") from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield
