"""A connector that lets a program of yours do each step, for devices that Keystrand does not know.

The program is called as `PROGRAM STEP NUMBER ROLE`, STEP being prepare, activate, confirm, retire, drop, block or health. On
its standard input it gets, for prepare alone, the secret of this generation: one line of hexadecimal digits. Status 0 means
done; anything else means that it is not, and its last line of standard error says why. For health it prints JSON such as
{"up": true, "number": 7, "bytes": 123456}.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import msgspec

from keystrand.core.errors import PeerFault, Unavailable
from keystrand.transport.tunnel.contract import Connector, Generation, Health, Place
from keystrand.transport.tunnel.derive import derive
from keystrand.transport.tunnel.kinds import Kind


class ScriptSettings(msgspec.Struct, frozen=True, kw_only=True):
    """A program of yours does each step."""

    program: Annotated[Path, msgspec.Meta(description="is called with step, number and role; must be executable")]
    timeout_s: Annotated[float, msgspec.Meta(description="how long a step may take", gt=0)] = 10.0


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    up: bool
    number: int | None = None
    bytes: int | None = None


class Script(Connector):
    def __init__(self, place: Place, settings: ScriptSettings) -> None:
        self._place, self._settings = place, settings

    async def prepare(self, generation: Generation) -> None:
        secret = derive(generation, self._place, kind="script")  # never the key itself
        try:
            await self._call("prepare", generation.number, secret.reveal().hex().encode() + b"\n")
        finally:
            secret.wipe()

    async def activate(self, number: int) -> None:
        await self._call("activate", number)

    async def confirm(self, number: int) -> None:
        await self._call("confirm", number)

    async def retire(self, number: int) -> None:
        await self._call("retire", number)

    async def drop(self, number: int) -> None:
        await self._call("drop", number)

    async def block(self) -> None:
        await self._call("block", 0)

    async def health(self) -> Health:
        try:
            answer = msgspec.json.decode(await self._call("health", 0), type=Answer)
        except msgspec.MsgspecError as error:
            raise PeerFault(f"the program's health is not understood: {error}") from None
        return Health(up=answer.up, number=answer.number, bytes_used=answer.bytes)

    async def close(self) -> None:
        """The device goes on."""

    async def _call(self, step: str, number: int, stdin: bytes = b"") -> bytes:
        pipe = asyncio.subprocess.PIPE
        program = await asyncio.create_subprocess_exec(
            str(self._settings.program), step, str(number), self._place.role, stdin=pipe, stdout=pipe, stderr=pipe
        )
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                out, err = await program.communicate(stdin)
        except TimeoutError:
            program.kill()
            raise Unavailable(f"{step}: the program does not end") from None
        if program.returncode:
            words = err.decode(errors="replace").strip().splitlines() or [f"status {program.returncode}"]
            raise Unavailable(f"{step}: {words[-1][:200]}")
        return out


def _faults(settings: ScriptSettings) -> list[tuple[str, str]]:
    return [] if settings.program.is_file() else [("program", f"{settings.program}: no such file")]


KIND = Kind(name="script", settings=ScriptSettings, open=Script, faults=_faults)
