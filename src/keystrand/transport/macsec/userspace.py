"""Orders to the userspace plane of an interface, over its socket."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from keystrand.core.errors import Unavailable
from keystrand.transport.macsec.settings import MacsecSettings
from keystrand.transport.tunnel.command import CALL_S, run

SOCKETS: Final = Path("/run/keystrand-macsec")
READY_S: Final = 5.0
LOOK_S: Final = 0.02


class Userspace:
    """A `Mouth`. The plane outlives us, as the kernel's interface would."""

    def __init__(self, settings: MacsecSettings) -> None:
        self._settings, self._namespace = settings, settings.namespace or ""
        self.socket = SOCKETS / f"{self._namespace or 'host'}.{settings.interface}.sock"

    async def make(self) -> None:
        SOCKETS.mkdir(exist_ok=True, mode=0o700)
        want = self._settings
        words = (str(self.socket), want.interface, want.device, want.cipher, str(want.replay_window))
        program = (sys.executable, "-m", "keystrand.transport.macsec.plane", *words)
        await run("setsid", "--fork", *program, namespace=self._namespace, stays=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_S):
                while not await self._is_there():
                    await asyncio.sleep(LOOK_S)
            return
        raise Unavailable("the userspace plane does not get ready", hint=" ".join(program))

    async def order(self, lines: Sequence[str]) -> None:
        if answer := await self._call("\n".join(lines)):
            raise Unavailable(answer)

    async def show(self) -> str:
        try:
            return await self._call("show")
        except Unavailable:
            return "[]"  # a plane that is gone took its interface along

    async def _is_there(self) -> bool:
        return await self.show() != "[]"

    async def _call(self, words: str) -> str:
        try:
            async with asyncio.timeout(CALL_S):
                reader, writer = await asyncio.open_unix_connection(self.socket)
                try:
                    writer.write(words.encode())
                    writer.write_eof()
                    return (await reader.read()).decode()
                finally:
                    writer.close()
        except (OSError, TimeoutError) as error:
            raise Unavailable(f"{self.socket} does not answer: {type(error).__name__}") from None
