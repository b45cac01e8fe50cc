"""What a change of a link's way means to whoever lives on it: told with the tunnels and services concerned.

A hop changes when its module says so. A relayed link changes when the routes that stand are others than before: a hop away, a
site drained for maintenance or barred, documents lapsed, or anything of these back again, wherever in the network.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Final

from keystrand.config.depends import Dependence, Feed, dependence
from keystrand.config.schema import SiteConfig
from keystrand.core.clock import Clock
from keystrand.core.events import Event, Scalar, Sink
from keystrand.relay.relay import Relay
from keystrand.relay.routes import Route

# what an event says of its link: whether keys come over it
CAUSES: Final[Mapping[str, bool]] = {
    "link.up": True,
    "link.down": False,
    "link.attack": False,
    "link.normal": True,
    "source.back": True,
    "source.failed": False,
}
NAMES_MAX: Final = 16  # in one event; the rest as a number


class Paths:
    """Satisfies core.events.Sink. Thread-safe: the engine's thread emits too."""

    def __init__(self, config: SiteConfig, clock: Clock, sink: Sink) -> None:
        self.map: Dependence = dependence(config)
        self._clock, self._sink, self._lock = clock, sink, threading.Lock()
        self._feeds = {feed.link: feed for feed in self.map.feeds}
        self._stands = dict.fromkeys(self._feeds, True)  # until something says otherwise
        self._routes: dict[str, tuple[Route, ...]] = {}

    def emit(self, event: Event, /) -> None:
        """Looks again at whoever lives on a hop whose state changed."""
        feed = self._feeds.get(str(event.fields.get("link", ""))) if event.kind in CAUSES else None
        if feed is not None:
            stands = CAUSES[event.kind]
            if self._turn(feed.link, stands):
                words = {True: "carries keys", False: "carries none"}
                self._tell(feed, event.kind, now=words[stands], before=words[not stands])

    def look(self, relay: Relay) -> None:
        """Compares the routes of every relayed link that ends here with those of the last look."""
        for feed in self.map.feeds:
            if feed.relayed:
                self._compare(feed, tuple(relay.routes(relay.atlas.links[feed.link], spare=0)))

    def _compare(self, feed: Feed, now: tuple[Route, ...]) -> None:
        before = self._routes.get(feed.link)
        if before is None and not now:
            return  # it starts: nobody has spoken yet
        self._routes[feed.link] = now
        self._turn(feed.link, bool(now))
        if before is not None and before != now:
            self._tell(feed, "route", now=_spoken(now), before=_spoken(before))

    def _turn(self, link: str, stands: bool) -> bool:
        with self._lock:
            was, self._stands[link] = self._stands[link], stands
            return was != stands

    def _tell(self, feed: Feed, cause: str, **words: str) -> None:
        users = self.map.drawing((feed,))
        others = [name for name in self.map.others(feed) if self._stands[name]]
        fields: dict[str, Scalar] = {
            "link": feed.link,
            "peer": feed.peer,
            "cause": cause,
            **words,
            "others": _listed(others),
            "tunnels": _listed([one.name for one in users if one.kind == "tunnel"]),
            "services": _listed(list(dict.fromkeys(one.service for one in users))),
        }
        kind = "path.changed" if self._stands[feed.link] or others else "path.lost"
        self._sink.emit(Event(kind, self._clock.now_s(), fields))


def _spoken(routes: tuple[Route, ...]) -> str:
    return "; ".join(" > ".join(route) for route in routes) or "no route"


def _listed(names: list[str]) -> str:
    more = len(names) - NAMES_MAX
    return ", ".join(names[:NAMES_MAX]) + (f" and {more} more" if more > 0 else "")
