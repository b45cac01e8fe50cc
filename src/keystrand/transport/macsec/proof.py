"""Before a key comes into use: both ends prove by frames on the wire that they have the same, and that it is installed.

MACsec has no handshake. So the initiator sends a frame under the new SAK by its own hand, with one of the packet numbers below
FIRST_PN, which the interface never uses. The other end's interface validates it; its connector, which sees a copy, answers
with a frame of its own direction. Neither end sends anything else under the new key until then.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from keystrand.core.errors import BadRequest, Tampered, Unavailable
from keystrand.crypto.macsec import Sak
from keystrand.transport.macsec.frames import protect, validate
from keystrand.transport.macsec.wire import Filter, Wire
from keystrand.wire.macsec import parse

FIRST_PN: Final = 1024  # of the interface
PROOF_S: Final = 3.0
AGAIN_S: Final = 0.1
ETHERTYPE: Final = b"\x88\xb5"  # local experimental: nobody above the interface listens
MARK: Final = b"keystrand "
DATA_BYTES: Final = 48  # a frame of these is long enough as it is
ASK, ANSWER = b"?", b"!"


@dataclass(slots=True)
class Proof:
    """Of one generation at one end. accepted: has the own interface taken a frame under the new key yet?"""

    wire: Wire
    an: int
    number: int
    ours: Sak
    theirs: Sak
    accepted: Callable[[], Awaitable[bool]]
    _pn: int = field(default=0)

    async def ask(self) -> None:
        """Returns when the other end has answered. Raises Unavailable."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PROOF_S):
                asking = asyncio.get_running_loop().create_task(self._repeat())
                try:
                    while True:
                        await self._heard(ANSWER)
                        if await self.accepted():
                            return
                finally:
                    asking.cancel()
        hint = "is the wire up, do both ends name each other's MAC address, and have they the same suite?"
        raise Unavailable(f"no frame under the new key came back within {PROOF_S:g} s", hint=hint)

    async def answer(self) -> None:
        """To each question, until cancelled."""
        while self._pn < FIRST_PN - 1:
            await self._heard(ASK)
            if await self.accepted():
                self._say(ANSWER)

    async def _repeat(self) -> None:
        while self._pn < FIRST_PN - 1:
            with contextlib.suppress(Unavailable):  # a wire that is down may be up again in time
                self._say(ASK)
            await asyncio.sleep(AGAIN_S)

    def _say(self, what: bytes) -> None:
        self._pn += 1  # before it is used, and never again
        data = (MARK + what + self.number.to_bytes(8, "big")).ljust(DATA_BYTES, b"\0")
        plain = self.theirs.sci[:6] + self.ours.sci[:6] + ETHERTYPE + data
        self.wire.send(protect(self.ours, plain, an=self.an, pn=self._pn))

    async def _heard(self, what: bytes) -> None:
        wanted = ETHERTYPE + MARK + what + self.number.to_bytes(8, "big")
        while True:
            with contextlib.suppress(BadRequest, Tampered):
                plain, _ = validate(self.theirs, parse(await self.wire.receive()))
                if plain[12:].startswith(wanted):
                    return


def only_proofs(an: int) -> Filter:
    """Lets pass: MACsec, this association number, packet numbers below FIRST_PN."""
    load_half, load_byte, load_word, mask, equal, reach, give = 0x28, 0x30, 0x20, 0x54, 0x15, 0x35, 0x06
    return (
        (load_half, 0, 0, 12),
        (equal, 0, 6, 0x88E5),
        (load_byte, 0, 0, 14),
        (mask, 0, 0, 3),
        (equal, 0, 3, an),
        (load_word, 0, 0, 16),
        (reach, 1, 0, FIRST_PN),
        (give, 0, 0, 0x40000),
        (give, 0, 0, 0),
    )
