"""Two real sites with a tunnel between two namespaces. A feeder stands in for the QKD modules: keys come when we say so."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keystrand.config.load import load_module
from keystrand.lab.pair import SITES, Pair
from keystrand.lab.stage import stage_of
from keystrand.lab.tunnel_sites import Drill, TunnelSites
from keystrand.lab.wires import Load, Wires
from keystrand.testing.feeder import Feeder
from keystrand.transport.tunnel.kinds import find

READY_S = 40.0
BLOCK_BITS = 8192


class KeyTap:
    """Feeds both ends of a pair's link from a thread of its own. Blocks are fed on demand only."""

    def __init__(self, pair: Pair) -> None:
        self._pair = pair
        self._loop = asyncio.new_event_loop()
        self._feeder: Feeder | None = None
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    def open(self) -> None:
        """As soon as both sites take blocks."""
        self._do(self._open())

    def feed(self, bits: int) -> None:
        assert self._feeder is not None
        self._do(self._feeder.feed(BLOCK_BITS, max(1, bits // BLOCK_BITS)))

    def close(self) -> None:
        if self._feeder is not None:
            self._do(self._feeder.close())
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _do(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(READY_S)

    async def _open(self) -> None:
        until_s = time.monotonic() + READY_S
        while True:
            feeder = Feeder([load_module(file) for file in self._pair.module_files.values()])
            try:
                await feeder.connect()
            except Exception:
                await feeder.close()
                if time.monotonic() > until_s:
                    raise
                await asyncio.sleep(0.3)
            else:
                self._feeder = feeder
                return


@dataclass
class World:
    """What a part of the bench works with."""

    wires: Wires
    sites: TunnelSites
    tap: KeyTap
    way: str
    note: str

    def load(self, seconds: float, *, packets_per_s: int = 1000, back: bool = False) -> Load:
        return self.wires.load(packets_per_s=packets_per_s, seconds=seconds, to="a" if back else "b", via=self.way)

    def rotated(self, since_s: float = 0.0) -> dict[str, list[dict[str, Any]]]:
        return {site: self.sites.events(site, "tunnel.rotated") for site in SITES}


@contextmanager
def world(kind: str, drill: Drill, *, key_bits: int) -> Iterator[World]:
    """Both ends up, under a first key. key_bits: fed at the beginning."""
    folder = Path(tempfile.mkdtemp(prefix="ksb"))
    sites = TunnelSites(kind, folder, drill, with_modules=False)
    try:
        with Wires() as wires:
            stage = stage_of(find(kind), wires, folder / "stage")
            tap = KeyTap(sites.start(stage))
            try:
                tap.open()
                tap.feed(key_bits)
                sites.join()
                sites.wait("up", READY_S)
                yield World(wires, sites, tap, stage.way, stage.note)
            finally:
                sites.stop()
                tap.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
