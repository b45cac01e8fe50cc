"""TLS 1.3 as a connector: steers a `keystrand proxy` at this end, which it starts where none runs.

The initiator's proxy takes the applications' connections, so it is the one that proves a fresh key by a handshake before new
connections begin under it. The PSK is derived from the generation, and imported for TLS 1.3 and HKDF-SHA384 (RFC 9258).
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from hashlib import sha256
from typing import Final

from keystrand.core.errors import Unavailable
from keystrand.core.labels import LABELS
from keystrand.core.secret import Secret
from keystrand.transport.tls.control import Order, ProxyAbsent, health_of, is_of, tell
from keystrand.transport.tls.importer import ImportedIdentity, import_psk
from keystrand.transport.tls.proxy import Way
from keystrand.transport.tls.settings import TlsSettings, faults_of, host_port
from keystrand.transport.tunnel.contract import Connector, Generation, Health, Place
from keystrand.transport.tunnel.derive import derive
from keystrand.transport.tunnel.kinds import Kind
from keystrand.transport.tunnel.wear import CipherLimit

NAME: Final = "tls"
READY_S: Final = 20.0
LOOK_S: Final = 0.02


class TlsConnector(Connector):
    """One end."""

    def __init__(self, place: Place, settings: TlsSettings) -> None:
        self._place, self._settings = place, settings
        self._socket = place.state_dir / "proxy.sock"
        self._way = Way(
            role=place.role,
            listen=host_port(settings.listen),
            connect=host_port(settings.connect),
            peer_sae=place.peer_sae,
            drain_s=settings.drain_s,
            connections_max=settings.connections_max,
        )

    async def prepare(self, generation: Generation) -> None:
        await self._have_proxy()
        identity, psk = psk_of(generation, self._place)
        try:
            order = Order(verb="prepare", number=generation.number, identity=identity.hex(), psk=psk.reveal().hex())
            await tell(self._socket, order)
        finally:
            psk.wipe()

    async def activate(self, number: int) -> None:
        await self._tell("activate", number)

    async def confirm(self, number: int) -> None:
        await self._tell("confirm", number)

    async def retire(self, number: int) -> None:
        await self._tell("retire", number)

    async def drop(self, number: int) -> None:
        await self._tell("drop", number)

    async def block(self) -> None:
        with contextlib.suppress(ProxyAbsent):  # without a proxy nothing passes
            await self._tell("block", 0)

    async def health(self) -> Health:
        try:
            return health_of(await tell(self._socket, Order(verb="health")))
        except Unavailable as problem:
            return Health(up=False, number=0, facts={"problem": str(problem)})

    async def close(self) -> None:
        """The proxy stays."""

    async def _tell(self, verb: str, number: int) -> None:
        await tell(self._socket, Order(verb=verb, number=number))

    async def _is_there(self) -> bool:
        try:
            await tell(self._socket, Order(verb="way"))
        except ProxyAbsent:
            return False
        except Unavailable:
            pass  # it does not answer now, and yet it is there
        return True

    async def _have_proxy(self) -> None:
        """Of these settings. Raises Unavailable."""
        with contextlib.suppress(ProxyAbsent):
            if is_of(await tell(self._socket, Order(verb="way")), self._way):
                return
            await self._tell("stop", 0)
            while await self._is_there():
                await asyncio.sleep(LOOK_S)
        self._place.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self._place.state_dir / "proxy.log").open("a") as log:
            # a session of its own: it goes on when whoever steers it ends
            program = subprocess.Popen(  # noqa: S603
                self._command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_S):
                while not await self._is_there():
                    if program.poll() is not None:
                        break
                    await asyncio.sleep(LOOK_S)
                else:
                    return
        raise Unavailable("the proxy does not come up", hint=f"see {self._place.state_dir / 'proxy.log'}")

    def _command(self) -> list[str]:
        settings = self._settings
        inside = ["ip", "netns", "exec", settings.namespace] if settings.namespace else []
        words = [sys.executable, "-m", "keystrand", "proxy", str(self._socket), "--role", self._place.role]
        words += ["--listen", settings.listen, "--connect", settings.connect, "--peer-sae", self._place.peer_sae]
        log = self._place.log
        words += ["--tunnel", self._place.tunnel, "--log-level", log.level, "--log-format", log.form]
        words += ["--log-collector", log.collector] if log.collector else []
        words += ["--drain-s", str(settings.drain_s), "--connections-max", str(settings.connections_max)]
        return inside + words


def psk_of(generation: Generation, place: Place) -> tuple[bytes, Secret]:
    """Identity as on the wire, and PSK. Who speaks to whom stands in the context as a digest: the identity goes in clear."""
    names = b"".join(
        len(name.encode()).to_bytes(2) + name.encode() for name in (place.initiator_sae, place.responder_sae)
    )
    context = sha256(LABELS["tunnel/parties"] + names).digest()
    identity = ImportedIdentity(external=generation.key_id.encode(), context=context)
    epsk = derive(generation, place, kind=NAME)
    try:
        return identity.encode(), import_psk(epsk, identity)
    finally:
        epsk.wipe()


LIMIT: Final = CipherLimit(
    packets=2.0**24.5, source="the limit of AES-GCM records for a connection (RFC 8446, 5.5)", record_bytes=16_384
)
KIND = Kind(
    name=NAME,
    settings=TlsSettings,
    open=TlsConnector,
    faults=faults_of,
    limit=lambda settings: LIMIT,
    stage="keystrand.lab.tls:stage",
)
