"""What the replicas of a site draw counts at all of them: a quota and a floor are the site's, whichever process answers.

Every draw is added to a row of the site's store, within the turn that makes it; before a replica weighs the next one it takes
what others have added off its own buckets and credit. A site of one process keeps no such rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from keystrand.core.pool import Drawn
from keystrand.kme.ask import Ask
from keystrand.kme.site import Site

NOTHING: Final = Drawn()
Hear = Callable[[str, tuple[str, ...], str, Drawn], None]  # initiator, responders, peer, what others drew


class Draws:
    """What this replica knows of all draws. `hear`: who wants to know what the others have drawn since."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._place = -1  # of the last row that was read or written; -1: none yet
        self._known: dict[str, Drawn] = {}
        self.hear: list[Hear] = []

    def follow(self) -> None:
        """Before a draw is weighed. What was drawn before this replica's first look counts no more: it begins full."""
        if not self._site.incarnation:
            return
        begins = self._place < 0
        for place, who, drawn in self._site.store.draws_since(self._place):
            before, self._known[who], self._place = self._known.get(who, NOTHING), drawn, place
            if not begins:
                initiator, peer, *responders = who.split("\n")
                for hear in self.hear:
                    hear(initiator, tuple(responders), peer, drawn.less(before))
        self._place = max(self._place, 0)

    def note(self, ask: Ask, more: Drawn) -> None:
        """In the transaction of the draw, after `follow`."""
        if not self._site.incarnation:
            return
        who = "\n".join((ask.initiator, ask.peer, *ask.responders))
        self._known[who] = total = self._known.get(who, NOTHING).plus(more)
        self._place += 1
        self._site.store.put_draw(self._place, who, total)
