"""Files that are there whole or not at all, and on disk when they are there. All of these raise OSError."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


def sync_folder(folder: Path) -> None:
    """Make the names in it durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def drafted(path: Path, *, mode: int = 0o600, durable: bool = True) -> Iterator[BinaryIO]:
    """A new file that takes the name `path` at the end, over what had it; where anything is raised, nothing has changed.

    For one writer at a time. What a crash left of an earlier draft is removed, whatever it is, and never written to.
    """
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    try:
        with _created(draft, mode, durable) as file:
            yield file
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def write_whole(path: Path, content: bytes, *, mode: int = 0o600, durable: bool = True) -> None:
    with drafted(path, mode=mode, durable=durable) as file:
        file.write(content)


def create_private(path: Path, content: bytes) -> None:
    """For its owner alone. Raises FileExistsError where the name is taken."""
    with _created(path, 0o600, durable=True) as file:
        file.write(content)


@contextlib.contextmanager
def _created(path: Path, mode: int, durable: bool) -> Iterator[BinaryIO]:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        yield file
        if durable:
            file.flush()
            os.fsync(file.fileno())
