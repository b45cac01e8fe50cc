"""The service of a site that other networks reach: the ordinary one, with keys across the border taken and given there."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from keystrand.core.errors import BadRequest
from keystrand.core.key import Key
from keystrand.core.pool import PoolStatus
from keystrand.kme.border import ALONE, Terms
from keystrand.kme.ends import Ends
from keystrand.kme.interdomain import Interdomain, check_key_ids
from keystrand.kme.jobs import Task
from keystrand.kme.site import Site
from keystrand.kme.streaming import StreamingKme
from keystrand.kme.ways import Domain
from keystrand.wire.handover import HandoverStore

COLLECT_S = 10.0


class BorderingKme(StreamingKme):
    """A StreamingKme and its Interdomain, in one transaction."""

    def __init__(
        self,
        site: Site,
        handovers: HandoverStore,
        domains: Iterable[Domain],
        *,
        timeout_s: float,
        wake: Callable[[], None],
        terms: Terms = ALONE,
        ends: Ends | None = None,
    ) -> None:
        super().__init__(site)
        self.interdomain = Interdomain(
            site, self.register, handovers, domains, timeout_s=timeout_s, wake=wake, terms=terms, ends=ends
        )

    def _is_abroad(self, sae: str) -> bool:
        return self.interdomain.ways.leads_to(sae)

    def recover(self) -> None:
        """As of Kme."""
        super().recover()
        self.interdomain.recover()

    def begin_epoch(self) -> None:
        """As of Kme."""
        super().begin_epoch()
        self.interdomain.begin_epoch()

    def status(self, caller: str, other: str) -> PoolStatus:
        """As of Kme."""
        return self.interdomain.status(caller, other) if self._is_abroad(other) else super().status(caller, other)

    def get_key(
        self,
        ticket: object,
        caller: str,
        other: str,
        *,
        number: int | None = None,
        size_bits: int | None = None,
        additional: tuple[str, ...] = (),
    ) -> None:
        """As of Kme; keys across a border have one recipient."""
        if not self._is_abroad(other):
            super().get_key(ticket, caller, other, number=number, size_bits=size_bits, additional=additional)
            return
        if additional:
            raise BadRequest("keys shared with another network have one recipient")
        self.interdomain.draw(ticket, caller, other, number, size_bits)

    def get_key_with_ids(self, caller: str, other: str, key_ids: tuple[str, ...]) -> list[Key]:
        """As of Kme."""
        if not self._is_abroad(other):
            return super().get_key_with_ids(caller, other, key_ids)
        check_key_ids(key_ids, self.site.limits.keys_per_request_max)
        return self.interdomain.pick_up(caller, other, key_ids)

    def _tasks(self) -> tuple[Task, ...]:
        return (*super()._tasks(), Task("handovers", COLLECT_S, lambda: self.interdomain.collect()))
