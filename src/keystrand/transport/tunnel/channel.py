"""The channel between two ends of a tunnel: framed messages over mutual TLS, from SAE to SAE.

The responder listens, the initiator connects; each lets in the one SAE that its file names. An empty frame says "still
here": a channel that is silent for QUIET_S is given up and made anew.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Final, Protocol

from keystrand.core.errors import KeystrandError, NotPermitted, PeerFault, PeerUnavailable
from keystrand.core.limits import Limits
from keystrand.net.frames import FrameStream, connect_frames, serve_frames
from keystrand.net.tls import TlsContexts, TlsPeer
from keystrand.transport.tunnel.contract import Role
from keystrand.transport.tunnel.messages import Message, decode, encode

BEAT_S: Final = 2.0
QUIET_S: Final = 7.0
FRAME_BYTES_MAX: Final = 2048
AGAIN_S: Final = 0.2  # doubled after each failure, up to AGAIN_MAX_S
AGAIN_MAX_S: Final = 5.0


class Listener(Protocol):
    """Who hears what the other end says."""

    def joined(self) -> None: ...
    def heard(self, message: Message, /) -> None: ...
    def parted(self, reason: str, /) -> None: ...


@dataclass(slots=True)
class Channel:
    """One end. address: where the responder listens, or where the initiator finds it. expect: (kind, name) of the peer."""

    tunnel: str
    role: Role
    address: tuple[str, int]
    contexts: TlsContexts
    expect: tuple[str | None, str]
    listener: Listener
    limits: Limits
    port: int = 0  # of the responder, once it listens
    _stream: FrameStream | None = None

    async def run(self) -> None:
        """Keep it up until cancelled. Raises ConfigError where the address cannot be had."""
        await (self._listen() if self.role == "responder" else self._connect())

    def send(self, message: Message) -> None:
        """What cannot be sent now is lost; who needs an answer says it again."""
        if self._stream is not None:
            with contextlib.suppress(PeerUnavailable):
                self._stream.write(encode(message))

    async def _listen(self) -> None:
        server = await serve_frames(
            self.address,
            self.contexts,
            self._serve,
            allow=self._is_peer,
            limits=self.limits,
            frame_bytes_max=FRAME_BYTES_MAX,
            connections_max=4,
        )
        self.port = server.port
        try:
            await asyncio.Event().wait()
        finally:
            await server.close()

    def _is_peer(self, peer: TlsPeer) -> bool:
        kind, name = self.expect
        return (peer.identity.kind, peer.identity.name) == (kind, name)

    async def _connect(self) -> None:
        pause_s = AGAIN_S
        while True:
            try:
                stream = await connect_frames(
                    *self.address,
                    self.contexts,
                    expect=self.expect,
                    limits=self.limits,
                    frame_bytes_max=FRAME_BYTES_MAX,
                )
                pause_s = AGAIN_S
                await self._serve(stream)
            except (PeerUnavailable, PeerFault, NotPermitted) as problem:
                if not isinstance(problem, PeerUnavailable):
                    self.listener.parted(str(problem))
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, AGAIN_MAX_S)

    async def _serve(self, stream: FrameStream) -> None:
        """A newer stream takes the place of one that may be dead without knowing it."""
        if self._stream is not None:
            self._stream.abort()
        self._stream = stream
        beat = asyncio.get_running_loop().create_task(self._beat(stream))
        reason = "the other end has gone"
        self.listener.joined()
        try:
            while True:
                async with asyncio.timeout(QUIET_S):
                    frame = await stream.read()
                if frame:
                    self._take(frame)
        except TimeoutError:
            reason = "the other end is silent"
        except KeystrandError as problem:
            reason = str(problem)
        finally:
            beat.cancel()
            stream.abort()
            if self._stream is stream:
                self._stream = None
                self.listener.parted(reason)

    def _take(self, frame: bytes) -> None:
        message = decode(frame)
        if message.tunnel != self.tunnel:
            raise PeerFault(
                f"the other end calls this tunnel {message.tunnel!r}, here it is {self.tunnel!r}",
                hint="[tunnel.NAME] has the same NAME in both files",
            )
        self.listener.heard(message)

    @staticmethod
    async def _beat(stream: FrameStream) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            try:
                stream.write(b"")
                await stream.drain()
            except PeerUnavailable:
                return
