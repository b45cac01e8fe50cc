"""MKA as a connector: the key of each generation is a CAK for wpa_supplicant, which agrees SAKs with its peer by IEEE 802.1X.

wpa_supplicant runs one MKA at a time, so both ends change over together, and traffic stops for the seconds until the new one
has a SAK. The initiator begins; the responder follows when it hears an MKPDU with the new CKN whose ICV is right, which proves
that both have the same CAK. The CKN is the key ID and the generation's number: whoever reads the wire can tell which key it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import uuid
from typing import Final

from keystrand.core.errors import BadRequest, Tampered, Unavailable
from keystrand.core.secret import Secret
from keystrand.crypto.macsec import check_icv, icv_key
from keystrand.transport.macsec.settings import MacsecSettings
from keystrand.transport.macsec.supplicant import Supplicant
from keystrand.transport.macsec.wire import Filter, Wire
from keystrand.transport.tunnel.command import run
from keystrand.transport.tunnel.contract import Connector, Generation, Health, Place
from keystrand.transport.tunnel.derive import derive
from keystrand.transport.tunnel.routes import Routes
from keystrand.wire import mka

KIND_NAME: Final = "macsec"
SECURED_S: Final = 15.0  # hellos come every 2 s, a peer is given up after 6 s
LOOK_S: Final = 0.1
KEEP_S: Final = 0.5
ONLY_EAPOL: Final[Filter] = (
    (0x28, 0, 0, 12),
    (0x15, 0, 1, mka.ETHERTYPE),
    (0x06, 0, 0, 0x40000),
    (0x06, 0, 0, 0),
)


def ckn_of(generation: Generation) -> bytes:
    """24 bytes: the key ID (a UUID as it is, else a hash of it), the number."""
    try:
        key = uuid.UUID(generation.key_id).bytes
    except ValueError:
        key = hashlib.sha256(generation.key_id.encode()).digest()[:16]
    return key + generation.number.to_bytes(8, "big")


class Mka(Connector):
    """One end."""

    def __init__(self, place: Place, settings: MacsecSettings) -> None:
        assert settings.control is not None, "faults_of has run"
        self._place, self._settings, self._namespace = place, settings, settings.namespace or ""
        self._supplicant = Supplicant(settings.control, place.tunnel)
        self._peer_mac = bytes.fromhex(settings.peer_mac.replace(":", ""))
        self._routes = Routes(
            networks=settings.networks,
            source=settings.source,
            gateway=settings.gateway,
            namespace=self._namespace,
        )
        self._following: asyncio.Task[None] | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._prepared = 0

    async def prepare(self, generation: Generation) -> None:
        if self._prepared == generation.number and generation.number in await self._supplicant.networks():
            return
        await self._make_link()
        ckn = ckn_of(generation)
        cak = derive(generation, self._place, kind=KIND_NAME, use="cak")
        try:
            await self._supplicant.add(generation.number, ckn, cak, self._words())
            ick = icv_key(cak, ckn)
        finally:
            cak.wipe()
        await self._stop_following()
        self._prepared = generation.number
        if self._place.role == "responder":
            self._following = asyncio.get_running_loop().create_task(self._follow(generation.number, ckn, ick))

    def _words(self) -> dict[str, str]:
        words = {
            "macsec_replay_window": str(self._settings.replay_window),
            "mka_priority": str(self._settings.priority),
        }
        if self._settings.key_bytes == 32:
            words["macsec_csindex"] = "1"  # wpa_supplicant 2.11 and later
        return words

    async def _make_link(self) -> None:
        """Before wpa_supplicant would: then its addresses and routes outlive each change."""
        name, device = self._settings.interface, self._settings.device
        try:
            await run("ip", "link", "show", "dev", name, namespace=self._namespace)
        except Unavailable:
            kind = (
                "type",
                "macsec",
                "port",
                "1",
                "cipher",
                self._settings.cipher,
                "encrypt",
                "on",
                "validate",
                "strict",
            )
            await run("ip", "link", "add", "link", device, name, *kind, namespace=self._namespace)
        for address in self._settings.addresses:
            await run("ip", "address", "replace", address, "dev", name, namespace=self._namespace)
        await run("ip", "link", "set", name, "up", namespace=self._namespace)

    async def _follow(self, number: int, ckn: bytes, ick: Secret) -> None:
        """Change over when the other end has."""
        wire = Wire(self._settings.device, self._namespace, ONLY_EAPOL)
        try:
            while True:
                frame = await wire.receive()
                with contextlib.suppress(BadRequest, Tampered, Unavailable):
                    heard = mka.parse(frame)
                    if frame[6:12] == self._peer_mac and heard.ckn == ckn:
                        check_icv(ick, heard.signed, heard.icv)
                        await self._supplicant.select(number)
                        return
        finally:
            ick.wipe()
            wire.close()

    async def _stop_following(self) -> None:
        await _end(self._following)
        self._following = None

    async def activate(self, number: int) -> None:
        before = (await self._supplicant.state()).number
        if before != number:
            await self._supplicant.select(number)
        try:
            await self._secured(number)
        except Unavailable:
            if before and before != number:
                await self._supplicant.select(before)  # traffic goes on where it was
            raise
        await self._lead()

    async def confirm(self, number: int) -> None:
        await self._secured(number)
        await self._lead()

    async def _secured(self, number: int) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SECURED_S):
                while True:
                    state = await self._supplicant.state()
                    if state.number == number and state.secured:
                        return
                    await asyncio.sleep(LOOK_S)
        hint = "does the other end's wpa_supplicant run, and do MKPDUs (EtherType 888e) get through?"
        raise Unavailable(f"no SAK under CAK {number} within {SECURED_S:g} s", hint=hint)

    async def _lead(self) -> None:
        """wpa_supplicant takes the interface down with each MKA that ends, and routes go with it."""
        await run("ip", "link", "set", self._settings.interface, "up", namespace=self._namespace)
        if self._settings.networks:
            await self._routes.lead(self._settings.interface)
            if self._keeping is None:
                self._keeping = asyncio.get_running_loop().create_task(self._keep())

    async def _keep(self) -> None:
        """Bring back routes that went with an MKA that ended by itself, as after a pulled wire, once there is a SAK again."""
        while True:
            await asyncio.sleep(KEEP_S)
            with contextlib.suppress(Unavailable):
                if (await self._supplicant.state()).secured and await self._routes.led() != self._settings.interface:
                    await self._lead()

    async def retire(self, number: int) -> None:
        await self._supplicant.remove(*[n for n in await self._supplicant.networks() if n < number])

    async def drop(self, number: int) -> None:
        await self._stop_following()
        networks = await self._supplicant.networks()
        older = [n for n in networks if n < number]
        if (await self._supplicant.state()).number == number and older:
            await self._supplicant.select(max(older))  # we followed, and the other end went back
        await self._supplicant.remove(number)
        self._prepared = 0

    async def block(self) -> None:
        """Without MKA the interface has no SAK, and lets nothing pass."""
        await self._stop_following()
        await _end(self._keeping)
        self._keeping = None
        if self._settings.networks:
            await self._routes.lead(None)
        await self._supplicant.remove(*await self._supplicant.networks())
        self._prepared = 0

    async def health(self) -> Health:
        try:
            state = await self._supplicant.state()
        except Unavailable as problem:
            return Health(up=False, facts={"problem": str(problem)})
        return Health(
            up=state.secured and state.number > 0,
            number=state.number,
            facts={
                "plane": "kernel",
                "suite": self._settings.cipher,
                "ckn": state.ckn.hex(),
                "key_server": "this end" if state.key_server else "other end",
                "saks": state.keys,
            },
        )

    async def close(self) -> None:
        """The tunnel stays."""
        await self._stop_following()
        await _end(self._keeping)
        self._keeping = None


async def _end(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
