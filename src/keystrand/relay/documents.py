"""Documents of a network's sites as days pass: which will count no more soon, and which routes end where they do not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Final

from keystrand.core.events import Scalar
from keystrand.relay.atlas import STATED, Atlas, RelayedLink, day_of

DUE_DAYS: Final = 14


def lapsed(atlas: Atlas, today: date) -> dict[str, tuple[str, ...]]:
    """Sites that were documented and are no more, and what they miss."""
    missing = {name: facts.missing(today) for name, facts in atlas.sites.items() if not facts.missing(STATED)}
    return {name: gaps for name, gaps in missing.items() if gaps}


@dataclass(slots=True)
class Documents:
    """Looks once a day at the sites that may carry blocks of the links that end at `site`, and at `site` itself."""

    site: str
    atlas: Atlas
    _day: date | None = None
    _lapsed: set[str] = field(default_factory=set)  # told of

    def look(self, now_s: float) -> Iterator[tuple[str, dict[str, Scalar]]]:
        """Events to tell, as kinds and fields: what lapsed is told once, what is about to is told every day."""
        today = day_of(now_s)
        if today == self._day:
            return
        self._day = today
        for name, links in self.concerned(today).items():
            facts = self.atlas.sites[name]
            missing = facts.missing(today)
            if facts.lapses_within(today, DUE_DAYS):
                yield "relay.documents_due", {"site": name, "days": DUE_DAYS}
            elif missing and name not in self._lapsed and not facts.missing(STATED):
                self._lapsed.add(name)
                closed = [link.name for link in links if not link.terms.accept_undocumented]
                yield (
                    "relay.documents_lapsed",
                    {"site": name, "missing": ", ".join(missing), "closed": ", ".join(closed)},
                )
            elif not missing:
                self._lapsed.discard(name)

    def concerned(self, today: date) -> dict[str, list[RelayedLink]]:
        """Sites whose documents matter here, and for which links."""
        concerned: dict[str, list[RelayedLink]] = {self.site: []}
        for link in self.atlas.links.values():
            if self.site in link.ends:
                free = replace(link, terms=replace(link.terms, accept_undocumented=True))
                for name in self.atlas.sites:
                    if self.atlas.permits(free, name, today):
                        concerned.setdefault(name, []).append(link)
        return concerned
