"""What a QKD module must not forget: the next block number and the stock of authentication key, in one sealed-off file.

Written whole, synced and renamed into place, so that a crash leaves the old state or the new one and never half of it.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from keystrand.core.errors import ConfigError, StoreUnavailable
from keystrand.core.files import write_whole
from keystrand.core.secret import Secret
from keystrand.qkd.distill.authenticate import Segment, found
from keystrand.wire.decoding import UNREADABLE

FILE_NAME = "link.state"


class _State(msgspec.Struct, frozen=True):
    link: str
    next_sequence: int
    segments: tuple[Segment, ...]


class LinkStateFile:
    """The state of one end of a link. Made from the start key where there is none.

    The start key founds the stock once: if this file is lost at both ends, the same start key would be spent twice, so
    bring a new one.
    """

    def __init__(self, directory: Path, link: str, start_key_file: Path) -> None:
        self._path = directory / FILE_NAME
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._state = self._read(link) if self._path.exists() else self._found(link, start_key_file)

    @property
    def next_sequence(self) -> int:
        return self._state.next_sequence

    @property
    def segments(self) -> tuple[Segment, ...]:
        return self._state.segments

    def keep_sequence(self, sequence: int) -> None:
        """Durable when it returns. Raises StoreUnavailable otherwise."""
        self._write(msgspec.structs.replace(self._state, next_sequence=sequence))

    def keep_segments(self, segments: tuple[Segment, ...]) -> None:
        """Durable when it returns. Raises StoreUnavailable otherwise."""
        self._write(msgspec.structs.replace(self._state, segments=segments))

    def _read(self, link: str) -> _State:
        try:
            state = msgspec.msgpack.decode(self._path.read_bytes(), type=_State)
        except (OSError, *UNREADABLE) as error:
            raise ConfigError(f"the state of the module cannot be read: {error}", path=str(self._path)) from None
        if state.link != link:
            raise ConfigError(f"this is the state of link {state.link}, not of {link}", path=str(self._path))
        return state

    def _found(self, link: str, start_key_file: Path) -> _State:
        try:
            start_key = Secret(start_key_file.read_bytes())
        except OSError as error:
            raise ConfigError(f"the start key cannot be read: {error.strerror}", path=str(start_key_file)) from None
        state = _State(link, 0, found(start_key))
        start_key.wipe()
        self._write(state)
        return state

    def _write(self, state: _State) -> None:
        try:
            write_whole(self._path, msgspec.msgpack.encode(state))
        except OSError as error:
            raise StoreUnavailable(f"{self._path} cannot be written: {error.strerror}") from None
        self._state = state
