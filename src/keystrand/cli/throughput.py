"""How fast transfers to each site went: kept in the state directory, so that a plan can count on what was measured."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Final

import msgspec

KEPT: Final = 9
WORTH_BYTES: Final = 16 << 20  # less says more about handshakes than about the path


class Throughputs:
    """Bytes per second of the last transfers, by site. A file that cannot be read or written only loses the figures."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / "throughput.json"

    def of(self, site: str) -> float | None:
        """The median; None where nothing was measured."""
        kept = self._read().get(site, [])
        return statistics.median(kept) if kept else None

    def add(self, site: str, *, size_bytes: int, bytes_per_s: float) -> None:
        if size_bytes < WORTH_BYTES:
            return
        known = self._read()
        known[site] = [*known.get(site, []), round(bytes_per_s)][-KEPT:]
        try:
            self._path.write_bytes(msgspec.json.encode(known))
        except OSError:
            return

    def _read(self) -> dict[str, list[float]]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=dict[str, list[float]])
        except (OSError, msgspec.MsgspecError):
            return {}
