"""The journal of one link's source in the store of a running site: every answer is durable.

One replica of a site holds a source: by a lease that is checked in the transaction that writes, so that one which was stopped
and wakes up, or was given up by the others, changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from keystrand.core.errors import BadRequest, StoreUnavailable
from keystrand.core.secret import Secret
from keystrand.kme.service import Kme
from keystrand.node.engine import Engine
from keystrand.sources.device import DeviceKey
from keystrand.sources.journal import Claim, claim_of
from keystrand.store.sources import AT_ONCE, BURNT, SqlSources

CLAIMED: Final = "source.claimed"


class LinkJournal:
    """Implements sources.journal.Journal.

    holds: whether the source is ours, in the present transaction; lost: told how many bits, and why.

    The end that follows needs no lease: whoever hears an offer takes it, and the first claim wins.
    """

    def __init__(
        self,
        link: str,
        engine: Engine,
        sources: SqlSources,
        holds: Callable[[], bool],
        lost: Callable[[int, str], None],
    ) -> None:
        self._link, self._engine, self._sources = link, engine, sources
        self.holds, self._lost = holds, lost

    # sources.journal.Journal -----------------------------------------------------------------------------------------

    async def last_name(self) -> str:
        return await self._engine.call(lambda kme: self._sources.last_name(self._link))

    async def known(self, names: Sequence[str]) -> frozenset[str]:
        return await self._engine.call(lambda kme: self._sources.known(self._link, names))

    async def push(self, keys: Sequence[DeviceKey], *, bits_max: int) -> int:
        taken = [(claim_of(key), key.material) for key in keys]
        return await self._engine.call(
            lambda kme: self._sources.push(self._link, taken, at_s=kme.site.clock.now_s(), bits_max=bits_max)
        )

    async def offer(self, limit: int) -> list[DeviceKey]:
        return _keys(await self._engine.call(lambda kme: self._sources.offer(self._link, limit)))

    async def waiting(self, names: Sequence[str]) -> list[DeviceKey]:
        return _keys(await self._engine.call(lambda kme: self._sources.waiting(self._link, names)))

    async def burn_older(self, wait_s: float) -> None:
        def burn(kme: Kme) -> int:
            return self._sources.burn_older(self._link, kme.site.clock.now_s() - wait_s)

        if bits := await self._engine.call(burn):
            self._lost(bits, f"the other end never spoke of what waited for {wait_s:g} s")

    async def bring_in(self, file: Path) -> None:
        """What an earlier release kept in a file of its own is set aside once it is in the store. Raises StoreUnavailable."""
        for start in range(0, len(claims := await asyncio.to_thread(_claims_in, file)), AT_ONCE):
            await self._engine.call(self._burning(claims[start : start + AT_ONCE]))
        if claims:
            await asyncio.to_thread(file.replace, file.with_suffix(".brought-in"))

    def _burning(self, claims: Sequence[Claim]) -> Callable[[Kme], None]:
        return lambda kme: self._sources.burn(self._link, claims)

    # for the feed ----------------------------------------------------------------------------------------------------

    async def stale(self, keys: Sequence[DeviceKey]) -> frozenset[str]:
        """The names of those that came before."""
        claims = [claim_of(key) for key in keys if key.material.length_bits]
        return frozenset(await self._engine.call(lambda kme: self._sources.came_before(self._link, claims)))

    async def kept_under(self, names: Sequence[str]) -> int:
        return await self._engine.call(lambda kme: self._sources.kept_under(self._link, names))

    def claiming(self, sequence: int, claims: Sequence[Claim]) -> Callable[[Kme], None]:
        """What has to be done in the transaction that takes the block in. Raises BadRequest there."""

        def claim(kme: Kme) -> None:
            if not self.holds():
                raise BadRequest("another replica has this source now")
            self._sources.claim(self._link, sequence, claims)
            self._record(kme, sequence, claims)

        return claim

    async def burn(self, claims: Sequence[Claim]) -> bool:
        """These keys will never be used; False where that is not ours to say any more."""

        def burn(kme: Kme) -> bool:
            if not self.holds():
                return False
            self._sources.burn(self._link, claims)
            self._record(kme, BURNT, claims)
            return True

        return await self._engine.call(burn)

    async def refuse(self, names: Sequence[str]) -> None:
        """Said before the other end hears that we have not got them, so that they are burnt at both ends."""
        await self._engine.call(lambda kme: self._sources.refuse(self._link, names))

    def _record(self, kme: Kme, sequence: int, claims: Sequence[Claim]) -> None:
        """Into the audit log, out of which a restore makes the journal again."""
        names, marks = [name for name, _ in claims], [mark.hex() for _, mark in claims]
        kme.site.record(CLAIMED, link=self._link, sequence=sequence, names=names, marks=marks)


def _keys(found: list[tuple[str, Secret]]) -> list[DeviceKey]:
    return [DeviceKey(name, material) for name, material in found]


def _claims_in(file: Path) -> list[Claim]:
    """`MARK NAME` on each line; a line that a crash cut short was never used."""
    try:
        text = file.read_text("utf-8") if file.exists() else ""
        lines = text[: text.rfind("\n") + 1].splitlines()
        return [(name, bytes.fromhex(mark)) for mark, _, name in (line.partition(" ") for line in lines)]
    except (OSError, ValueError) as error:
        raise StoreUnavailable(f"{file}: the source's journal cannot be read: {error}") from None
