"""MACsec as a connector: each key becomes a pair of SAKs at an association number of its own, 0 to 3 in turn.

The responder can read under the new key first, then the initiator; each proves it to the other by frames (see proof); then the
initiator sends under it, then the responder; the old one goes last, a second later. Nothing is lost, as both are readable
meanwhile. Each direction has a SAK of its own, so that no two ends can ever use one nonce twice.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from keystrand.core.errors import Unavailable
from keystrand.crypto.macsec import SALT_BYTES, Extended, Sak
from keystrand.transport.macsec.door import ASSOCIATIONS, Door, Kernel, Mouth, SaKey, State, key_identifier
from keystrand.transport.macsec.mka import Mka
from keystrand.transport.macsec.proof import FIRST_PN, Proof, only_proofs
from keystrand.transport.macsec.settings import MacsecSettings, faults_of
from keystrand.transport.macsec.userspace import Userspace
from keystrand.transport.macsec.wire import Wire
from keystrand.transport.tunnel.contract import Connector, Generation, Health, Place, Role
from keystrand.transport.tunnel.derive import derive
from keystrand.transport.tunnel.kinds import Kind
from keystrand.transport.tunnel.routes import Routes

NAME: Final = "macsec"
LINGER_S: Final = 1.0  # for frames on their way under the key before
OTHER: Final[dict[Role, Role]] = {"initiator": "responder", "responder": "initiator"}
SSCI: Final[dict[Role, int]] = {"initiator": 1, "responder": 2}


class Macsec(Connector):
    """One end with static SAKs."""

    def __init__(self, place: Place, settings: MacsecSettings) -> None:
        self._place, self._settings = place, settings
        mouth: Mouth = Userspace(settings) if settings.plane == "userspace" else Kernel(settings)
        self._door = Door(mouth, settings)
        self._routes = Routes(
            networks=settings.networks,
            source=settings.source,
            gateway=settings.gateway,
            namespace=settings.namespace or "",
        )
        self._coming: tuple[int, Proof] | None = None
        self._answering: asyncio.Task[None] | None = None
        self._going: asyncio.Task[None] | None = None
        self._led = False  # by us, and since then nobody has blocked
        self._octets_before: tuple[int, int] | None = None  # generation in use, and octets before it

    # a key comes -----------------------------------------------------------------------------------------------------

    async def prepare(self, generation: Generation) -> None:
        number = generation.number
        an = number % ASSOCIATIONS
        state = await self._door.make()
        if self._coming is not None and self._coming[0] == number and state.holds(an) == {number}:
            return
        await self._clear(state, an, number)
        ours, theirs = (self._key(generation, role) for role in (self._place.role, OTHER[self._place.role]))
        try:
            await self._door.install(an, rx=theirs, tx=ours, first_pn=FIRST_PN)
            await self._listen(number, state.sci, ours, theirs)
        finally:
            ours.sak.wipe()
            theirs.sak.wipe()

    def _key(self, generation: Generation, sender: Role) -> SaKey:
        """Of the direction that this end sends in."""
        size = self._settings.key_bytes
        sak = derive(generation, self._place, kind=NAME, use=f"sak of the {sender}", length_bytes=size)
        extended = None
        if self._settings.extended:
            salt = derive(generation, self._place, kind=NAME, use=f"salt of the {sender}", length_bytes=SALT_BYTES)
            extended = Extended(ssci=SSCI[sender], salt=salt.reveal())
        return SaKey(identifier=key_identifier(generation.number, generation.key_id), sak=sak, extended=extended)

    async def _clear(self, state: State, an: int, number: int) -> None:
        """Make room at an association number, unless one of the ends may be sending there."""
        held = state.holds(an) - {number}
        rx = state.rx.get(an)
        newest = state.sending.number if state.sending is not None else 0
        taken_up = rx is not None and rx.pn > FIRST_PN and rx.number > newest
        if held and (newest in held or taken_up):
            raise Unavailable(f"association {an} still carries traffic: the next number will do")
        await self._door.forget(state, [an])
        if state.encoding == an:  # nothing is sent now, and nothing may be as soon as there is a key
            await self._door.send_under((an + 2) % ASSOCIATIONS)

    async def _listen(self, number: int, own_sci: bytes, ours: SaKey, theirs: SaKey) -> None:
        await self._end_proof()
        an = number % ASSOCIATIONS
        proof = Proof(
            wire=Wire(self._settings.device, self._settings.namespace or "", only_proofs(an)),
            an=an,
            number=number,
            ours=Sak(ours.sak, own_sci, ours.extended),
            theirs=Sak(theirs.sak, self._door.peer_sci, theirs.extended),
            accepted=lambda: self._accepted(an, number),
        )
        self._coming = number, proof
        if self._place.role == "responder":
            self._answering = asyncio.get_running_loop().create_task(proof.answer())

    async def _accepted(self, an: int, number: int) -> bool:
        """Has our interface taken a frame under this key?"""
        state = await self._door.state()
        return state is not None and _has_accepted(state, an, number)

    async def activate(self, number: int) -> None:
        state = await self._there()
        if state.sending is None or state.sending.number != number:
            if self._coming is None or self._coming[0] != number or state.holds(number % ASSOCIATIONS) != {number}:
                raise Unavailable(f"key {number} is not prepared")
            await self._coming[1].ask()
        await self._follow(state, number)

    async def confirm(self, number: int) -> None:
        """That the initiator sends under it, it has told; that it can, the proof has."""
        state = await self._there()
        if not _has_accepted(state, number % ASSOCIATIONS, number):
            raise Unavailable(f"nothing has come under key {number} yet")
        await self._follow(state, number)

    async def _follow(self, state: State, number: int) -> None:
        """Send under it. state: as it was found just now."""
        an = number % ASSOCIATIONS
        if an not in state.tx or state.tx[an].number != number:
            raise Unavailable(f"key {number} is not in the interface")
        if state.encoding != an:
            await self._door.send_under(an)
        if state.sending is None:
            await self._door.forget_neighbours()
        if self._octets_before is None or self._octets_before[0] != number:
            self._octets_before = number, state.octets
        if self._settings.networks and (state.sending is None or not self._led):
            await self._routes.lead(self._settings.interface)
            self._led = True

    async def _there(self) -> State:
        state = await self._door.state()
        if state is None:
            raise Unavailable(f"the interface {self._settings.interface} has gone")
        return state

    # a key goes ------------------------------------------------------------------------------------------------------

    async def retire(self, number: int) -> None:
        await self._end_proof()
        if self._going is not None:
            self._going.cancel()
        self._going = asyncio.get_running_loop().create_task(self._retire_later(number))

    async def _retire_later(self, number: int) -> None:
        with contextlib.suppress(Unavailable):  # with the interface all keys have gone
            await asyncio.sleep(LINGER_S)
            await self._forget_before(number)

    async def _forget_before(self, number: int) -> None:
        state = await self._there()
        old = [an for an in range(ASSOCIATIONS) if any(held < number for held in state.holds(an))]
        await self._door.forget(state, old)

    async def drop(self, number: int) -> None:
        if self._coming is not None and self._coming[0] == number:
            await self._end_proof()
        state, an = await self._door.state(), number % ASSOCIATIONS
        in_use = state is not None and state.sending is not None and state.sending.number == number
        if state is not None and not in_use and state.holds(an) == {number}:
            await self._door.forget(state, [an])

    async def block(self) -> None:
        """Without keys the interface lets nothing pass, and the routes lead nowhere else."""
        await self._end_proof()
        if (state := await self._door.state()) is not None:
            await self._door.forget(state, range(ASSOCIATIONS))
        self._led = False
        if self._settings.networks:
            await self._routes.lead(None)

    async def _end_proof(self) -> None:
        if self._answering is not None:
            self._answering.cancel()
            await asyncio.gather(self._answering, return_exceptions=True)
        if self._coming is not None:
            self._coming[1].wire.close()
        self._answering = self._coming = None

    # what is there -----------------------------------------------------------------------------------------------------

    async def health(self) -> Health:
        try:
            state = await self._door.state()
            carrier = state is not None and await self._door.carrier()
        except Unavailable as problem:
            return Health(up=False, facts={"problem": str(problem)})
        sending = state.sending if state is not None else None
        if state is None or sending is None:
            return Health(up=False, number=0)
        rx = state.rx.get(state.encoding)
        numbers = [sending.pn, rx.pn if rx is not None else 0]
        before = self._octets_before
        return Health(
            up=carrier and rx is not None and rx.number == sending.number,
            number=sending.number,
            bytes_used=state.octets - before[1] if before is not None and before[0] == sending.number else None,
            due=max(numbers) >= self._settings.pn_last,
            facts={
                "plane": self._settings.plane.replace("auto", "kernel"),
                "suite": state.shape[0],
                "association": state.encoding,
                "tx_next_pn": numbers[0],
                "rx_next_pn": numbers[1],
                "wire": "up" if carrier else "down",
            },
        )

    async def close(self) -> None:
        """The tunnel stays; what was going goes now."""
        await self._end_proof()
        if self._going is not None and not self._going.done():
            self._going.cancel()
            await asyncio.gather(self._going, return_exceptions=True)


def _has_accepted(state: State, an: int, number: int) -> bool:
    rx = state.rx.get(an)
    return rx is not None and rx.number == number and rx.accepted > 0


def _open(place: Place, settings: MacsecSettings) -> Connector:
    return (Mka if settings.keys == "mka" else Macsec)(place, settings)


KIND = Kind(name=NAME, settings=MacsecSettings, open=_open, faults=faults_of, stage="keystrand.lab.macsec:stage")
