"""Key files that somebody drops into a folder at both ends, under the same names: `NAME.qkey`, in the order of their names.

Whoever drops a file writes it under another name and renames it, so that a file is there whole or not at all. A file is
wiped as soon as it is claimed; one that comes too late, twice or in another size is set aside as `NAME.qkey.refused`.
"""

from __future__ import annotations

import asyncio
import os
import re
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from keystrand.core.errors import BadRequest, Unavailable
from keystrand.core.secret import Secret
from keystrand.sources.device import DeviceKey
from keystrand.sources.journal import Journal

SUFFIX: Final = ".qkey"
REFUSED: Final = ".refused"
SETTLING_S: Final = 2.0  # a short file that is younger may still be growing
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)


class FilesDevice:
    """file_bytes: length of each file; number: the most files of one draw; refused: told of each file that is set aside."""

    keeps = True

    def __init__(
        self, folder: Path, journal: Journal, *, file_bytes: int, number: int, refused: Callable[[str, str], None]
    ) -> None:
        self._folder, self._journal = folder, journal
        self._file_bytes, self._number, self._refused = file_bytes, number, refused

    async def draw(self) -> list[DeviceKey]:
        await self._tidy()
        return await asyncio.to_thread(self._draw)

    async def fetch(self, names: tuple[str, ...]) -> list[DeviceKey]:
        await self._tidy()
        if list(names) != sorted(set(names)) or not all(_NAME.fullmatch(name) for name in names):
            raise BadRequest("the other end names files out of their order")
        if names[0] <= (last := await self._journal.last_name()):
            raise BadRequest(f"file {names[0]} comes after {last}, which was used")
        return await asyncio.to_thread(self._fetch, names)

    async def claimed(self, names: tuple[str, ...]) -> None:
        await asyncio.to_thread(self._wipe, names)
        await self._tidy()

    async def _tidy(self) -> None:
        """What is not after the last file that was used: wiped where it is that one again after a crash, else set aside."""
        last = await self._journal.last_name()
        late = [name for name in await asyncio.to_thread(self._names) if name <= last]
        known = await self._journal.known(late) if late else frozenset()
        for name in late:
            if name in known:
                await asyncio.to_thread(self._wipe, (name,))
                self._refused(name, "was used before; wiped")
            else:
                self._set_aside(name, f"comes after {last}, which was used")

    async def reset(self) -> None:
        """Each file stands for itself."""

    async def close(self) -> None:
        """Nothing is open."""

    # in a thread ---------------------------------------------------------------------------------------------------

    def _draw(self) -> list[DeviceKey]:
        keys = []
        for name in self._names()[: self._number]:
            material = self._read(name)
            if material is None:
                break  # order counts: those behind it wait
            keys.append(DeviceKey(name, material))
        return keys

    def _fetch(self, names: tuple[str, ...]) -> list[DeviceKey]:
        keys = []
        for name in names:
            material = self._read(name) if self._path(name).exists() else None
            if material is None:
                raise Unavailable(f"file {name}{SUFFIX} is not there")
            keys.append(DeviceKey(name, material))
        return keys

    def _names(self) -> list[str]:
        entries = (entry.name for entry in os.scandir(self._folder) if entry.is_file(follow_symlinks=False))
        names = (name.removesuffix(SUFFIX) for name in entries if name.endswith(SUFFIX))
        return sorted(name for name in names if _NAME.fullmatch(name))

    def _path(self, name: str) -> Path:
        return self._folder / (name + SUFFIX)

    def _read(self, name: str) -> Secret | None:
        """The file's contents; None where it is not whole yet, or set aside."""
        handle = os.open(self._path(name), os.O_RDONLY | os.O_NOFOLLOW)
        with os.fdopen(handle, "rb") as file:
            facts = os.fstat(file.fileno())
            if facts.st_size == self._file_bytes and stat.S_ISREG(facts.st_mode):
                return Secret(file.read(self._file_bytes))
        if facts.st_size > self._file_bytes or time.time() - facts.st_mtime > SETTLING_S:
            self._set_aside(name, f"has {facts.st_size} bytes, not {self._file_bytes}")
        return None

    def _set_aside(self, name: str, reason: str) -> None:
        path = self._path(name)
        path.replace(path.with_name(path.name + REFUSED))
        self._refused(name, reason)

    def _wipe(self, names: tuple[str, ...]) -> None:
        """Overwritten, then removed: best effort, as the medium may keep older copies."""
        for name in names:
            path = self._path(name)
            try:
                with path.open("r+b") as file:
                    file.write(bytes(self._file_bytes))
                    file.flush()
                    os.fsync(file.fileno())
                path.unlink()
            except FileNotFoundError:
                continue
