"""The job that takes backups: one when the newest is old enough, and never more than are to be kept."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Final

from keystrand.config.backup import Backup
from keystrand.config.schema import SiteConfig
from keystrand.core.clock import Clock
from keystrand.core.errors import StoreUnavailable
from keystrand.core.events import Sink
from keystrand.kme.service import Kme
from keystrand.node.backup import take
from keystrand.node.beside import Beside
from keystrand.node.engine import Engine

SUFFIX: Final = ".backup"
LOOK_S: Final = 60.0


class Backups:
    """Those of one site. `keystrand jobs run backup` looks at once, and takes one where it is due."""

    def __init__(self, config: SiteConfig, section: Backup, file: Path, clock: Clock, sink: Sink) -> None:
        self._config = config
        self._section = section
        self._file = file
        self._clock = clock
        self._engine: Engine | None = None
        self.job = Beside("backup", min(LOOK_S, section.every_s), self._work, clock, sink)

    async def run(self, engine: Engine, /) -> None:
        """Until cancelled."""
        self._engine = engine
        await self.job.run()

    async def _work(self) -> int:
        assert self._engine is not None
        if self._clock.now_s() - self._newest_s() < self._section.every_s:
            return 0
        target = self._target()
        try:
            manifest = await asyncio.to_thread(take, self._config, self._file, target, self._section.passphrase_file)
            dropped = self._drop_old()
        except OSError as error:
            hint = "is the disk there, and has it room?"
            raise StoreUnavailable(f"no backup: {error.strerror} ({error.filename})", hint=hint) from None

        def record(kme: Kme) -> None:
            kme.site.record("backup.taken", file=target.name, audit_size=manifest.audit_size, dropped=dropped)

        await self._engine.call(record)
        return 1

    def _target(self) -> Path:
        at = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._clock.now_s()))
        return self._section.folder / f"{self._config.site.name}-{at}{SUFFIX}"

    def _kept(self) -> list[Path]:
        """Oldest first: their names sort by time."""
        return sorted(self._section.folder.glob(f"{self._config.site.name}-*{SUFFIX}"))

    def _newest_s(self) -> float:
        try:
            return max((path.stat().st_mtime for path in self._kept()), default=0.0)
        except OSError as error:
            raise StoreUnavailable(f"cannot look at the backups: {error.strerror}") from None

    def _drop_old(self) -> int:
        old = self._kept()[: -self._section.keep]
        for path in old:
            path.unlink()
        return len(old)


def backups_of(config: SiteConfig, file: Path | None, clock: Clock, sink: Sink) -> Backups | None:
    """None where the file asks for none."""
    if config.backup is None or file is None:
        return None
    return Backups(config, config.backup, file, clock, sink)
