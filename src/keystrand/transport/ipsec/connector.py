"""IPsec as a connector: a fresh IKE_SA for each generation stands beside the one before, then takes over.

RFC 8784 mixes a PPK only in IKE_AUTH, so a key comes into use by a new IKE_SA and never by rekeying one. Each generation is a
connection of its own in the daemon: the name of an IKE_SA says at both ends which key it is under, over restarts of either.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from keystrand.core.errors import Unavailable
from keystrand.transport.ipsec.barrier import Barrier
from keystrand.transport.ipsec.charon import Charon, IkeSa
from keystrand.transport.ipsec.settings import IpsecSettings, faults_of
from keystrand.transport.tunnel.contract import Connector, Generation, Health, Place
from keystrand.transport.tunnel.derive import derive
from keystrand.transport.tunnel.kinds import Kind
from keystrand.transport.tunnel.wear import CipherLimit, Mode

NAME: Final = "ipsec"
SEEN_S: Final = 5.0
LOOK_S: Final = 0.005
DUE_PACKETS: Final = 2**31
LINGER_S: Final = {"initiator": 0.5, "responder": 1.0}  # for packets on their way; one end's deletion ends both


class Ipsec(Connector):
    """One end."""

    def __init__(self, place: Place, settings: IpsecSettings) -> None:
        self._place = place
        self._charon = Charon(place.tunnel, settings, place.role)
        self._barrier = Barrier(settings.remote_networks, settings.namespace or "")
        self._coming: int | None = None
        self._blocked: bool | None = None  # not known yet
        self._going: set[asyncio.Task[None]] = set()

    async def prepare(self, generation: Generation) -> None:
        await self._barrier.stand(await self._charon.plane())
        await self._charon.load_authentication()
        ppk = derive(generation, self._place, kind=NAME)
        try:
            await self._charon.offer(generation.number, generation.key_id, ppk)
        finally:
            ppk.wipe()
        self._coming = generation.number

    async def activate(self, number: int) -> None:
        if not await self._in_use(number):
            await self._charon.initiate(number)
            if not await self._in_use(number):
                raise Unavailable("the daemon made an IKE_SA, and it is not under the new key")
        await self._follow()

    async def confirm(self, number: int) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SEEN_S):
                while not await self._in_use(number):
                    await asyncio.sleep(LOOK_S)
                await self._follow()
                return
        raise Unavailable(f"no IKE_SA under key {number} within {SEEN_S:g} s", hint="swanctl --list-sas")

    async def _in_use(self, number: int) -> bool:
        return any(sa.number == number and sa.in_use for sa in await self._charon.sas())

    async def _follow(self) -> None:
        """IKE_AUTH is over: the daemon needs the key no more."""
        self._coming = None
        await self._charon.forget_secrets()
        if self._blocked is not False:
            await self._barrier.lift()
        self._blocked = False

    async def retire(self, number: int) -> None:
        task = asyncio.get_running_loop().create_task(self._retire_later(number))
        self._going.add(task)
        task.add_done_callback(self._going.discard)

    async def _retire_later(self, number: int) -> None:
        try:
            await asyncio.sleep(LINGER_S[self._place.role])
        finally:
            with contextlib.suppress(Unavailable):  # a daemon that is gone took them along
                await self._end([sa for sa in await self._charon.sas() if sa.number < number])

    async def drop(self, number: int) -> None:
        if self._coming == number:
            self._coming = None
            await self._charon.forget_secrets()
            await self._charon.forget_connections()
        await self._end([sa for sa in await self._charon.sas() if sa.number == number])

    async def _end(self, sas: list[IkeSa]) -> None:
        await asyncio.gather(*(self._charon.terminate(sa) for sa in sas))

    async def block(self) -> None:
        """The kernel stops traffic, whatever the daemon does; a generation that is coming may still come."""
        await self._barrier.block()
        self._blocked = True
        with contextlib.suppress(Unavailable):
            await self._end([sa for sa in await self._charon.sas() if sa.number != self._coming])

    async def health(self) -> Health:
        try:
            if self._blocked is None:
                self._blocked = await self._barrier.blocked()
            sas = [sa for sa in await self._charon.sas() if sa.in_use]
        except Unavailable as problem:
            return Health(up=False, facts={"problem": str(problem)})
        if not sas or self._blocked:
            return Health(up=False, number=0, facts={"blocked": "yes"} if self._blocked else {})
        newest = sas[-1]
        facts: dict[str, str | int | float] = {
            "suite": newest.suite,
            "spis": newest.spis,
            "ml_kem": "yes" if newest.ml_kem else "no",
            "ike_sas": len(sas),
        }
        due = newest.packets >= DUE_PACKETS  # sequence numbers of 32 bits must not run out before the next key
        return Health(up=True, number=newest.number, bytes_used=newest.bytes_used, due=due, facts=facts)

    async def close(self) -> None:
        """The tunnel stays; what was going goes now."""
        going = list(self._going)
        for task in going:
            task.cancel()
        await asyncio.gather(*going, return_exceptions=True)


def limit_of(settings: IpsecSettings) -> CipherLimit:
    """Sequence numbers, unless every suite has the extended ones; then what the cipher bears."""
    extended = bool(settings.esp_proposals) and all("-esn" in suite for suite in settings.esp_proposals)
    mode: Mode = (
        "chacha20-poly1305" if all("chacha20" in suite for suite in settings.esp_proposals or ("",)) else "aes-gcm"
    )
    if extended:
        return CipherLimit(packets=2.0**64, source="the extended ESP sequence number (RFC 4303, 2.2.1)", mode=mode)
    return CipherLimit(packets=2.0**32, source="the ESP sequence number of 32 bits (RFC 4303, 3.3.3)", mode=mode)


KIND = Kind(
    name=NAME,
    settings=IpsecSettings,
    open=Ipsec,
    faults=faults_of,
    limit=limit_of,
    stage="keystrand.lab.ipsec:stage",
)
