"""A tunnel in memory: two connectors over one stretch of air, right by default, or with one stated fault."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from enum import StrEnum

from keystrand.core.errors import Unavailable
from keystrand.transport.tunnel.contract import Connector, Generation, Health, Place, Role
from keystrand.transport.tunnel.derive import derive


class ConnectorFault(StrEnum):
    """What a faulty connector does; the conformance suite must find each."""

    BREAKS_BEFORE_MAKING = "prepare already takes what is in use away"
    ACTIVATES_BLINDLY = "activate returns although the other end has another key"
    OPEN_BLOCK = "block lets traffic pass"
    STAYS_BLOCKED = "a fresh key does not lift the block"
    SAYS_UP = "health says up whatever happens"
    USES_LATE = "the material is read only in activate, when it may be wiped"
    DIES = "close takes the tunnel away"
    FORGETS_NOTHING = "dropped generations stay usable"


@dataclass
class Air:
    """What both daemons have: secrets by number at each end, what each sends under, and who is blocked."""

    secrets: dict[Role, dict[int, bytes]] = field(default_factory=lambda: {"initiator": {}, "responder": {}})
    sends: dict[Role, int] = field(default_factory=lambda: {"initiator": 0, "responder": 0})
    blocked: set[Role] = field(default_factory=set)
    bytes_passed: int = 0

    def passes(self) -> bool:
        """Does a packet get through, both ways?"""
        if self.blocked:
            return False
        for role, number in self.sends.items():
            other: Role = "responder" if role == "initiator" else "initiator"
            if not number or self.secrets[role].get(number) is None:
                return False
            if self.secrets[role][number] != self.secrets[other].get(number):
                return False
        self.bytes_passed += 1000
        return True

    def restart(self, role: Role) -> None:
        """The daemon of one end is started anew, and has forgotten everything."""
        self.secrets[role].clear()
        self.sends[role] = 0


class MemoryConnector(Connector):
    def __init__(self, air: Air, place: Place, faults: frozenset[ConnectorFault] = frozenset()) -> None:
        self._air, self._place, self._faults = air, place, faults
        self._late: dict[int, Generation] = {}

    @property
    def _secrets(self) -> dict[int, bytes]:
        return self._air.secrets[self._place.role]

    async def prepare(self, generation: Generation) -> None:
        await asyncio.sleep(0)
        if ConnectorFault.BREAKS_BEFORE_MAKING in self._faults:
            self._secrets.clear()
        self._late[generation.number] = generation
        self._secrets[generation.number] = derive(generation, self._place, kind="memory").reveal()

    async def activate(self, number: int) -> None:
        if ConnectorFault.USES_LATE in self._faults:
            self._secrets[number] = derive(self._late[number], self._place, kind="memory").reveal()
        if number not in self._secrets:
            raise Unavailable(f"generation {number} is not prepared")
        same = self._air.secrets["responder"].get(number) == self._secrets[number]
        if not same and ConnectorFault.ACTIVATES_BLINDLY not in self._faults:
            raise Unavailable("no handshake under the new key")
        self._send_under(number)

    async def confirm(self, number: int) -> None:
        if self._air.sends["initiator"] != number:
            raise Unavailable(f"generation {number} is not in use at the other end")
        self._send_under(number)

    def _send_under(self, number: int) -> None:
        self._air.sends[self._place.role] = number
        if ConnectorFault.STAYS_BLOCKED not in self._faults:
            self._air.blocked.discard(self._place.role)

    async def retire(self, number: int) -> None:
        for old in [n for n in self._secrets if n < number]:
            del self._secrets[old]

    async def drop(self, number: int) -> None:
        if ConnectorFault.FORGETS_NOTHING not in self._faults:
            self._secrets.pop(number, None)

    async def block(self) -> None:
        if ConnectorFault.OPEN_BLOCK not in self._faults:
            self._air.blocked.add(self._place.role)

    async def health(self) -> Health:
        if ConnectorFault.SAYS_UP in self._faults:
            return Health(up=True)
        up = bool(self._air.sends[self._place.role]) and self._place.role not in self._air.blocked
        return Health(up=up, number=self._air.sends[self._place.role], bytes_used=self._air.bytes_passed)

    async def close(self) -> None:
        if ConnectorFault.DIES in self._faults:
            self._secrets.clear()
