"""The key service that the API edge sees: each call becomes an operation of the engine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import cast

from keystrand.core.errors import KeystrandError
from keystrand.core.key import Key
from keystrand.core.pool import PoolStatus, Wants
from keystrand.core.register import KeyRecord
from keystrand.kme.ports import AuditValue
from keystrand.kme.service import Kme
from keystrand.node.engine import Engine
from keystrand.observe.gauges import LinkGauge
from keystrand.wire.keyuse import KeyStand, UseReport
from keystrand.wire.tunnelreport import TunnelReport


class EngineKeys:
    """Satisfies api.etsi014.KeyService. `links`: the latest readings of the site's links."""

    def __init__(
        self,
        engine: Engine,
        heed: Callable[[Kme, str, UseReport], None] | None = None,
        links: Callable[[], Sequence[LinkGauge]] = tuple,
    ) -> None:
        """heed: hears of every use that was noted, in its transaction."""
        self._engine = engine
        self._heed = heed
        self._links = links

    def status(self, caller: str, other: str, /) -> Awaitable[PoolStatus]:
        return self._engine.call(lambda kme: self._outlook(kme, other, kme.status(caller, other)))

    def _outlook(self, kme: Kme, other: str, status: PoolStatus) -> PoolStatus:
        """With what a planner of transfers wants to know beside the standard's counts: how fast the pool fills.

        An SAE of another network has no link, as its keys are made on demand.
        """
        peer = kme.site.policy.site_of.get(other)
        links = [link for link in self._links() if link.peer == peer]
        if not links:
            return status
        facts: dict[str, str | int | float] = {
            "keystrand_fill_bps": round(sum(link.fill_bps for link in links), 1),
            "keystrand_simulated": int(any(link.simulated for link in links)),
        }
        return replace(status, extension=status.extension | facts)

    def get_key(
        self, caller: str, other: str, /, *, number: int | None, size_bits: int | None, additional: tuple[str, ...]
    ) -> Awaitable[list[Key]]:
        def begin(kme: Kme, ticket: object) -> None:
            kme.get_key(ticket, caller, other, number=number, size_bits=size_bits, additional=additional)

        return cast(Awaitable[list[Key]], self._engine.ask(begin, refused=_note("enc_keys", caller, other)))

    def get_key_with_ids(self, caller: str, other: str, key_ids: tuple[str, ...], /) -> Awaitable[list[Key]]:
        return self._engine.call(
            lambda kme: kme.get_key_with_ids(caller, other, key_ids),
            refused=_note("dec_keys", caller, other),
            wants=Wants(key_ids),
        )

    async def note_use(self, caller: str, key_id: str, report: UseReport, /) -> KeyStand:
        def note(kme: Kme) -> KeyRecord:
            record = kme.lifecycle.note_use(
                caller, key_id, consumer=report.consumer, uses=report.uses, used_bytes=report.used_bytes
            )
            if self._heed is not None:
                self._heed(kme, key_id, report)
            return record

        record = await self._engine.call(note, refused=_note("use", caller, ""))
        return KeyStand(state=record.state, rotation_due=record.rotation_due_s > 0)

    async def note_tunnel(self, caller: str, tunnel: str, report: TunnelReport, /) -> None:
        said: dict[str, AuditValue] = {
            "sae": caller,
            "tunnel": tunnel,
            "peer_sae": report.peer_sae,
            "protection": report.protection or "none",
            "key_id": report.key_id,
            "reason": report.reason,
        }
        await self._engine.call(lambda kme: kme.note_told(f"tunnel.{report.happened}", caller, said))


def _note(operation: str, caller: str, other: str) -> Callable[[Kme, KeystrandError], None]:
    return lambda kme, error: kme.note_refusal(operation, caller, other, error)
