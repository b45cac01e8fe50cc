"""The programs that connectors run with privileges: each for one order, with a deadline, secrets on standard input only."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from keystrand.core.errors import Unavailable

CALL_S: Final = 5.0
SECRET_BYTES_MIN: Final = 16  # as it is written; shorter words are names and numbers
PACKAGES: Final = {"ip": "iproute2", "sysctl": "procps", "wg": "wireguard-tools"}


async def run(*command: str, stdin: bytes | None = None, namespace: str = "", stays: bool = False) -> str:
    """What a command says. stays: it leaves a program in the background, whose words nobody hears.

    Raises Unavailable with its complaint.
    """
    whole = command if not namespace else _within(namespace, command)
    pipe = asyncio.subprocess.DEVNULL if stays else asyncio.subprocess.PIPE
    try:
        program = await asyncio.create_subprocess_exec(*whole, stdin=pipe, stdout=pipe, stderr=pipe)
    except OSError as error:
        hint = f"apt-get install {PACKAGES.get(whole[0], whole[0])}"
        raise Unavailable(f"{whole[0]}: {error.strerror}", hint=hint) from None
    try:
        async with asyncio.timeout(CALL_S):
            out, err = await program.communicate(stdin)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            program.kill()
        raise Unavailable(f"{' '.join(command)} does not end") from None
    if program.returncode:
        complaint = _discreet((err or b"").strip(), stdin or b"") or f"ended with status {program.returncode}"
        raise Unavailable(f"{' '.join(command)}: {complaint}")
    return (out or b"").decode(errors="replace")


def _discreet(complaint: bytes, stdin: bytes) -> str:
    """Without what was said on standard input: programs quote the argument that they do not like."""
    for word in stdin.split():
        if len(word) >= SECRET_BYTES_MIN:
            complaint = complaint.replace(word, b"<not shown>")
    return complaint.decode(errors="replace")


def _within(namespace: str, command: tuple[str, ...]) -> tuple[str, ...]:
    if command[0] == "ip":
        return ("ip", "-n", namespace, *command[1:])
    return ("ip", "netns", "exec", namespace, *command)
