"""Which KME of another network keys go to where several reach the SAE: of those that were well when last asked, the cheapest.

A key goes one way only. Where that fails, other keys are made and go another way (kme/interdomain.py): no two KMEs between ever
have to agree on what became of one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from keystrand.core.clock import Clock
from keystrand.core.errors import NotPermitted

ILL_S: Final = (
    5.0  # for so long a KME comes last that gave no answer, or whose keys did not arrive; doubled for each in a row
)
ILL_S_MAX: Final = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """The KME of another network. own_callback: where it shall send acks; None: it settles keys within the request.

    saes: its SAEs, and those behind it, and for each the SAEs of this site, and those behind other KMEs of the table, that may
    share keys with it. operator: who runs it. cost: of a key that goes there, beside others that reach the same SAE.
    """

    kme_id: str
    own_callback: str | None
    saes: Mapping[str, frozenset[str]]
    operator: str = ""
    cost: int = 1


@dataclass(frozen=True, slots=True)
class Illness:
    """silent: it gave no answer, so the next answer ends this; else a key that arrives does. times: in a row."""

    until_s: float
    times: int
    silent: bool


class Ways:
    """The KMEs of one table, and how they are. What is known of that is gone with the process."""

    def __init__(self, domains: Iterable[Domain], clock: Clock) -> None:
        self.domains: Final = {domain.kme_id: domain for domain in domains}
        self._clock = clock
        self._ill: dict[str, Illness] = {}

    def leads_to(self, sae: str) -> bool:
        """Whether it is an SAE of another network that one of them reaches."""
        return any(sae in domain.saes for domain in self.domains.values())

    def to(self, sae: str, partner: str) -> list[Domain]:
        """Those that reach `sae` for keys shared with `partner`, the one to be asked first at the head."""
        found = [domain for domain in self.domains.values() if partner in domain.saes.get(sae, ())]
        return sorted(found, key=lambda domain: (self._is_ill(domain.kme_id), domain.cost))

    def need(self, sae: str, partner: str) -> list[Domain]:
        """The same. Raises NotPermitted where there is none."""
        if found := self.to(sae, partner):
            return found
        raise NotPermitted(f"{partner} and {sae} may not share keys", hint="see [interdomain.peers] in site.toml")

    def _is_ill(self, kme_id: str) -> bool:
        return kme_id in self._ill and self._clock.monotonic_s() < self._ill[kme_id].until_s

    def failed(self, kme_id: str, *, silent: bool = False) -> None:
        """It gave no answer (silent), or keys that it took did not arrive."""
        times = self._ill[kme_id].times + 1 if kme_id in self._ill else 1
        for_s = min(ILL_S * 2.0 ** min(times - 1, 16), ILL_S_MAX)
        self._ill[kme_id] = Illness(self._clock.monotonic_s() + for_s, times, silent)

    def answered(self, kme_id: str) -> None:
        """It says something."""
        if kme_id in self._ill and self._ill[kme_id].silent:
            del self._ill[kme_id]

    def came(self, kme_id: str) -> None:
        """Keys arrived over it."""
        self._ill.pop(kme_id, None)
