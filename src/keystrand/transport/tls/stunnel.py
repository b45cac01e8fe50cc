"""stunnel as a connector: its PSK file is written and read anew (SIGHUP); connections that are open keep their key.

The responder's stunnel knows the old and the fresh identity while both may be used; the initiator's knows one. Before it
changes over, a handshake of our own with the other end's stunnel proves the fresh key (its service sees a connection that
ends at once). stunnel takes PSKs of SHA-256 suites only, and has no way to close single connections: `block` ends it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta
from OpenSSL import SSL

from keystrand.core.errors import ConfigError, Unavailable
from keystrand.core.secret import Secret
from keystrand.transport.tls.connector import LIMIT
from keystrand.transport.tls.psk import PskClient
from keystrand.transport.tls.settings import Place as Address
from keystrand.transport.tls.settings import TlsSettings, host_port
from keystrand.transport.tls.settings import faults_of as address_faults
from keystrand.transport.tunnel.contract import Connector, Generation, Health, Place
from keystrand.transport.tunnel.derive import derive
from keystrand.transport.tunnel.kinds import Kind
from keystrand.transport.tunnel.record import replace_file
from keystrand.transport.tunnel.wear import CipherLimit

NAME: Final = "stunnel"
RELOAD_S: Final = 5.0
OPEN_S: Final = 1.0
PROBE_S: Final = 5.0
END_S: Final = 3.0
LINGER_S: Final = 1.0
LOOK_S: Final = 0.01
GOOD, BAD = b"Configuration successful", b"Configuration failed"
_GROUPS: Final = r"^[A-Za-z0-9:_-]+$"


class StunnelSettings(msgspec.Struct, frozen=True, kw_only=True):
    """stunnel, started and configured by Keystrand. The initiator is the end where applications connect."""

    listen: Annotated[Address, Meta(description="host:port, stunnel's `accept`")]
    connect: Annotated[
        Address,
        Meta(description="host:port of the responder's listen at the initiator, of the service at the responder"),
    ]
    program: Annotated[str, Meta(description="name or path of stunnel")] = "stunnel"
    suite: Annotated[
        Literal["TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_GCM_SHA256"], Meta(description="the same at both ends")
    ] = "TLS_CHACHA20_POLY1305_SHA256"
    groups: Annotated[
        Annotated[str, Meta(pattern=_GROUPS)],
        Meta(description="stunnel's `curves`; X25519MLKEM768 where stunnel has OpenSSL 3.5 or newer"),
    ] = "X25519"
    secrets: Annotated[
        Path | None,
        Meta(
            description="folder for the file of keys, best one that lies in memory such as /run/keystrand; else state_dir"
        ),
    ] = None


class Stunnel(Connector):
    """One end. Keys in the file are named `KEY ID@NUMBER`."""

    def __init__(self, place: Place, settings: StunnelSettings) -> None:
        self._place, self._settings = place, settings
        folder = place.state_dir
        self._conf, self._log, self._pid = (folder / f"stunnel.{end}" for end in ("conf", "log", "pid"))
        self._file = (settings.secrets or folder) / f"{place.tunnel}.{place.role}.psk"
        self._coming: dict[int, tuple[str, Secret]] = {}  # of the initiator: not in the file yet
        self._current: int | None = None
        self._retiring: asyncio.Task[None] | None = None
        self._program: subprocess.Popen[bytes] | None = None
        self._reloads = asyncio.Lock()

    # steps -----------------------------------------------------------------------------------------------------------

    async def prepare(self, generation: Generation) -> None:
        number, name = generation.number, f"{generation.key_id}@{generation.number}"
        psk = derive(generation, self._place, kind=NAME)
        if self._place.role == "initiator":
            self._coming[number] = name, psk
            return
        try:
            await self._change({**self._lines(), number: f"{name}:{psk.reveal().hex()}"})
        finally:
            psk.wipe()

    async def activate(self, number: int) -> None:
        if number not in self._coming:
            if number in self._lines() and self._process() is not None:
                return  # done before
            raise Unavailable(f"generation {number} is not prepared here")
        name, psk = self._coming[number]
        await asyncio.to_thread(self._probe, name, psk)
        await self._change({number: f"{name}:{psk.reveal().hex()}"})
        self._current = number
        self._forget(number)

    async def confirm(self, number: int) -> None:
        """The initiator has made its handshake, or it would not have said so."""
        if number not in self._lines() or self._process() is None:
            raise Unavailable(f"generation {number} is not known to stunnel here")
        self._current = number

    async def retire(self, number: int) -> None:
        for old in [old for old in self._coming if old < number]:
            self._forget(old)
        if self._place.role == "responder" and min(self._lines(), default=number) < number:
            await self._end_retiring()
            self._retiring = asyncio.get_running_loop().create_task(self._retire_later(number))

    async def _retire_later(self, number: int) -> None:
        await asyncio.sleep(LINGER_S)  # for handshakes on their way under the key before
        await self._retire_now(number)

    async def _retire_now(self, number: int) -> None:
        kept = {at: line for at, line in self._lines().items() if at >= number}
        if kept and kept != self._lines():
            await self._change(kept)

    async def _end_retiring(self) -> None:
        task, self._retiring = self._retiring, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Unavailable):
                await task

    async def drop(self, number: int) -> None:
        self._forget(number)
        lines = self._lines()
        if self._place.role == "responder" and number in lines and number != self._current:
            del lines[number]
            await self._change(lines)

    async def block(self) -> None:
        await self._end_retiring()
        await self._end()
        self._file.unlink(missing_ok=True)
        self._current = 0

    async def health(self) -> Health:
        lines = self._lines()
        if self._process() is None or not lines or self._current == 0:
            return Health(up=False, number=0)
        number = max(lines) if self._place.role == "initiator" else self._current
        facts: dict[str, str | int | float] = {"suite": self._settings.suite, "group": self._settings.groups}
        return Health(up=True, number=number, facts=facts | {"keys_known": len(lines)})

    async def close(self) -> None:
        """stunnel stays; what is to be retired goes now."""
        if self._retiring is not None and not self._retiring.done():
            await self._end_retiring()
            if self._current:
                with contextlib.suppress(Unavailable):
                    await self._retire_now(self._current)
        for number in list(self._coming):
            self._forget(number)

    def _forget(self, number: int) -> None:
        if number in self._coming:
            self._coming.pop(number)[1].wipe()

    # the daemon ------------------------------------------------------------------------------------------------------

    def _lines(self) -> dict[int, str]:
        """What stunnel was last told, by generation."""
        with contextlib.suppress(OSError, ValueError):
            lines = self._file.read_text().splitlines()
            return {int(line.partition(":")[0].rpartition("@")[2]): line for line in lines}
        return {}

    async def _change(self, lines: dict[int, str]) -> None:
        """Tell stunnel, and wait until it has taken it. Raises Unavailable; what it knew before is then in the file again."""
        async with self._reloads:
            before = self._lines()
            self._write(lines)
            try:
                await self._load(lines)
            except Unavailable:
                self._write(before)
                raise

    def _write(self, lines: dict[int, str]) -> None:
        self._place.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        content = "".join(lines[number] + "\n" for number in sorted(lines))
        replace_file(self._file, content.encode())

    async def _load(self, lines: dict[int, str]) -> None:
        if not lines:
            await self._end()  # it takes no empty file, and must not keep a key that was dropped
            return
        replace_file(self._conf, self._configuration().encode(), durable=False)
        self._log.touch(0o600)
        os.truncate(self._log, 0)
        before, process = self._ports(), self._process()
        if process is not None:
            os.kill(process, signal.SIGHUP)
        else:
            self._start()
        await self._until_loaded()
        await self._until_open(before)

    async def _until_loaded(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RELOAD_S):
                while BAD not in (said := self._log.read_bytes()):
                    if GOOD in said:
                        return
                    await asyncio.sleep(LOOK_S)
        why = [line.partition(": ")[2] for line in self._log.read_text(errors="replace").splitlines() if "LOG3" in line]
        problem = why[0] if why else f"no word within {RELOAD_S:g} s"
        raise Unavailable(f"stunnel does not take its configuration: {problem[:150]}", hint=f"see {self._log}")

    async def _until_open(self, before: set[str]) -> None:
        """It says so before it closes its port and opens it again, with the fresh keys behind it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(OPEN_S):
                while not self._ports() - before:
                    await asyncio.sleep(LOOK_S / 5)
        if not self._ports():
            raise Unavailable(f"stunnel does not listen on {self._settings.listen}", hint=f"see {self._log}")

    def _ports(self) -> set[str]:
        """Sockets that listen on our port, by inode."""
        port, found = f":{host_port(self._settings.listen)[1]:04X}", set[str]()
        for table in ("tcp", "tcp6"):
            with contextlib.suppress(OSError):
                lines = [line.split() for line in Path(f"/proc/self/net/{table}").read_text().splitlines()]
                found |= {line[9] for line in lines if line[1].endswith(port) and line[3] == "0A"}
        return found

    def _start(self) -> None:
        program = shutil.which(self._settings.program)
        if program is None:
            raise Unavailable(f"the program {self._settings.program} is missing", hint="apt-get install stunnel4")
        nothing = subprocess.DEVNULL  # a session of its own: it goes on when whoever steers it ends
        self._program = subprocess.Popen(  # noqa: S603
            [program, str(self._conf)], stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True
        )

    def _process(self) -> int | None:
        """Process ID of our stunnel, where it runs."""
        if self._program is not None:
            self._program.poll()  # so that one that ended is gone
        with contextlib.suppress(OSError, ValueError):
            number = int(self._pid.read_text())
            if str(self._conf).encode() in Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0"):
                return number
        return None

    async def _end(self) -> None:
        """With every connection that it carries."""
        for how in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(TimeoutError, ProcessLookupError):
                async with asyncio.timeout(END_S):
                    if (process := self._process()) is None:
                        return
                    os.kill(process, how)
                    while self._process() is not None:
                        await asyncio.sleep(LOOK_S)
        if self._process() is not None:
            raise Unavailable("stunnel does not end")

    def _configuration(self) -> str:
        settings, is_client = self._settings, self._place.role == "initiator"
        options = {
            "foreground": "yes",
            "pid": self._pid,
            "syslog": "no",
            "output": self._log,
            "debug": 5,
            "socket": "l:TCP_NODELAY=1",
        }
        service = {
            "client": "yes" if is_client else "no",
            "accept": settings.listen,
            "connect": settings.connect,
            "PSKsecrets": self._file,
            "sslVersion": "TLSv1.3",
            "ciphersuites": settings.suite,
            "curves": settings.groups,
            "sessionResume": "no",  # a resumed session would not take the fresh key
        }
        head, body = ("".join(f"{key} = {value}\n" for key, value in part.items()) for part in (options, service))
        return f"{head}[{self._place.tunnel}]\n{body}"

    def _probe(self, name: str, psk: Secret) -> None:
        """A handshake with the other end's stunnel. Raises Unavailable."""
        settings = self._settings
        client = PskClient(name.encode(), psk, suite=settings.suite.encode(), groups=settings.groups.encode())
        try:
            with socket.create_connection(host_port(settings.connect), timeout=PROBE_S) as sock:
                sock.settimeout(None)
                seconds = int(PROBE_S).to_bytes(8, "little") + bytes(8)
                for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                    sock.setsockopt(socket.SOL_SOCKET, option, seconds)
                connection = client.connection(sock=sock)
                connection.do_handshake()
                connection.shutdown()
        except (OSError, SSL.Error, ConfigError) as error:
            hint = "do both ends have the same suite and groups?"
            raise Unavailable(f"no handshake under the new key: {str(error) or 'cut'}", hint=hint) from None


def faults_of(settings: StunnelSettings) -> list[tuple[str, str]]:
    """(field, what is wrong)"""
    found = address_faults(TlsSettings(listen=settings.listen, connect=settings.connect))
    if shutil.which(settings.program) is None:
        found.append(("program", f"{settings.program} is missing: apt-get install stunnel4"))
    return found


def limit_of(settings: StunnelSettings) -> CipherLimit:
    if "CHACHA20" in settings.suite:
        return CipherLimit(
            packets=2.0**64, source="the record number of TLS", mode="chacha20-poly1305", record_bytes=16_384
        )
    return LIMIT


KIND = Kind(name=NAME, settings=StunnelSettings, open=Stunnel, faults=faults_of, limit=limit_of)
