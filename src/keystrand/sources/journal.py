"""The journal of one link's source: a key of a device is written down before it is used, so that it is used once.

Devices repeat themselves: a folder is filled twice, a KME hands a key out again, a crash comes between use and removal. The
journal knows the last CLAIMS_MAX keys by name and by fingerprint (a keyed digest, from which nothing of a key can be found),
and the last name of all for sources whose names are in order.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections import OrderedDict
from pathlib import Path
from typing import Final

from keystrand.core.errors import BadRequest, StoreUnavailable
from keystrand.core.labels import LABELS
from keystrand.sources.device import DeviceKey

CLAIMS_MAX: Final = 65_536
_FINGERPRINT_BYTES: Final = 16


def fingerprint(key: DeviceKey) -> str:
    """128 bits, in hex."""
    return hmac.digest(key.material.reveal(), LABELS["source/claim"], hashlib.sha256)[:_FINGERPRINT_BYTES].hex()


class Journal:
    """One file, a line for each key: its fingerprint and its name. Must be used by one thread at a time."""

    def __init__(self, file: Path) -> None:
        """Raises StoreUnavailable where the file cannot be read."""
        self._file = file
        self._claims: OrderedDict[str, str] = OrderedDict()
        self._names: dict[str, int] = {}
        self._lines = 0
        try:
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            text = file.read_text("utf-8") if file.exists() else ""
        except (OSError, UnicodeDecodeError) as error:
            raise StoreUnavailable(f"{file}: the source's journal cannot be read: {error}") from None
        whole = text[: text.rfind("\n") + 1]  # a line that a crash cut short was never used
        for line in whole.splitlines():
            self._add(*line.partition(" ")[::2])
        if whole != text or self._lines > 2 * CLAIMS_MAX:
            self._write_anew()

    @property
    def last_name(self) -> str:
        """Of the newest key; "" before the first."""
        return next(reversed(self._claims.values())) if self._claims else ""

    def knows(self, name: str) -> bool:
        """Whether a key of this name was claimed."""
        return name in self._names

    def sift(self, keys: list[DeviceKey]) -> tuple[list[DeviceKey], list[DeviceKey]]:
        """Those that never came before, and those that did, here or among `keys` themselves."""
        fresh: dict[str, DeviceKey] = {}
        stale = []
        for key in keys:
            mark = fingerprint(key)
            if key.name in self._names or mark in self._claims or mark in fresh:
                stale.append(key)
            else:
                fresh[mark] = key
        return list(fresh.values()), stale

    def claim(self, keys: list[DeviceKey]) -> None:
        """Write these keys down, durably. Raises BadRequest where one came before; none of them may be used then."""
        _, stale = self.sift(keys)
        if stale:
            raise BadRequest(f"the device gave key {stale[0].name[:64]} before, by its name or by its bits")
        claims = [(fingerprint(key), key.name) for key in keys]
        self._append("".join(f"{mark} {name}\n" for mark, name in claims))
        for mark, name in claims:
            self._add(mark, name)
        if self._lines > 2 * CLAIMS_MAX:
            self._write_anew()

    def _add(self, mark: str, name: str) -> None:
        self._lines += 1
        self._claims[mark] = name
        self._names[name] = self._names.get(name, 0) + 1
        if len(self._claims) > CLAIMS_MAX:
            _, old = self._claims.popitem(last=False)
            self._names.pop(old, None)

    def _append(self, text: str) -> None:
        try:
            is_new = not self._file.exists()
            with self._file.open("a", encoding="utf-8") as file:
                os.fchmod(file.fileno(), 0o600)
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            if is_new:
                _sync(self._file.parent)
        except OSError as error:
            raise StoreUnavailable(f"{self._file}: the source's journal cannot be written: {error}") from None

    def _write_anew(self) -> None:
        """With the claims that still count, and nothing else."""
        draft = self._file.with_suffix(".draft")
        try:
            with draft.open("w", encoding="utf-8") as file:
                os.fchmod(file.fileno(), 0o600)
                file.write("".join(f"{mark} {name}\n" for mark, name in self._claims.items()))
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self._file)
            _sync(self._file.parent)
        except OSError as error:
            raise StoreUnavailable(f"{self._file}: the source's journal cannot be written: {error}") from None
        self._lines = len(self._claims)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
