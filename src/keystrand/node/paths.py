"""What a change of a link's way means to whoever lives on it: told with the tunnels and services concerned.

A hop changes when its module says so. A relayed link changes when the routes that stand are others than before: a hop away, a
site drained for maintenance or barred, documents lapsed, or anything of these back again, wherever in the network. A way that
comes and goes is called unsteady once; how it is then is told when it has come to rest. Routes never wait for that.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from keystrand.config.depends import Dependence, Feed, dependence
from keystrand.config.schema import SiteConfig
from keystrand.core.clock import Clock
from keystrand.core.events import Event, Scalar, Sink
from keystrand.relay.damping import Damper
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


@dataclass(slots=True)
class News:
    """What is told of one link: as it was when last told, as it is, and how often it changed in between."""

    damper: Damper = field(default_factory=Damper)
    told: str = ""
    now: str = ""
    cause: str = ""
    quiet: int = 0


class Paths:
    """Satisfies core.events.Sink. Thread-safe: the engine's thread emits too."""

    def __init__(self, config: SiteConfig, clock: Clock, sink: Sink) -> None:
        self.map: Dependence = dependence(config)
        self._clock, self._sink, self._lock = clock, sink, threading.Lock()
        self._feeds = {feed.link: feed for feed in self.map.feeds}
        self._stands = dict.fromkeys(self._feeds, True)  # until something says otherwise
        self.routes: dict[str, tuple[Route, ...]] = {}  # of relayed links, as of the last look
        self._news = {name: News() for name in self._feeds}

    def emit(self, event: Event, /) -> None:
        """Looks again at whoever lives on a hop whose state changed."""
        feed = self._feeds.get(str(event.fields.get("link", ""))) if event.kind in CAUSES else None
        if feed is not None:
            stands = CAUSES[event.kind]
            if self._turn(feed.link, stands):
                words = {True: "carries keys", False: "carries none"}
                self._changed(feed, event.kind, now=words[stands], before=words[not stands])

    def look(self, relay: Relay) -> None:
        """Compares the routes of every relayed link that ends here with those of the last look."""
        for feed in self.map.feeds:
            if feed.relayed:
                self._compare(feed, tuple(relay.sender.routes(relay.atlas.links[feed.link], spare=0)))

    def _compare(self, feed: Feed, now: tuple[Route, ...]) -> None:
        before = self.routes.get(feed.link)
        if before is None and not now:
            return  # it starts: nobody has spoken yet
        self.routes[feed.link] = now
        self._turn(feed.link, bool(now))
        if before is not None and before != now:
            self._changed(feed, "route", now=_spoken(now), before=_spoken(before))

    def settle(self) -> None:
        """Tells what was held back of ways that have come to rest. To be called every second or so."""
        now_s = self._clock.monotonic_s()
        for name, news in self._news.items():
            with self._lock:
                ready = news.quiet and not news.damper.is_held(now_s)
                quiet, news.quiet = (news.quiet, 0) if ready else (0, news.quiet)
            if ready:
                self._tell(self._feeds[name], news.cause, now=news.now, before=news.told, held=quiet)
                news.told = news.now

    def _changed(self, feed: Feed, cause: str, *, now: str, before: str) -> None:
        """Tells it, unless the way has been unsteady."""
        news = self._news[feed.link]
        with self._lock:
            is_held = news.damper.change(self._clock.monotonic_s())
            news.told, news.now, news.cause = news.told if news.quiet else before, now, cause
            news.quiet += is_held
        if not is_held:
            self._tell(feed, cause, now=now, before=before)
        elif news.quiet == 1:
            self._tell(feed, cause, kind="path.unsteady", now=now, before=before)

    def _turn(self, link: str, stands: bool) -> bool:
        with self._lock:
            was, self._stands[link] = self._stands[link], stands
            return was != stands

    def _tell(self, feed: Feed, cause: str, kind: str = "", **words: Scalar) -> None:
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
        kind = kind or ("path.changed" if self._stands[feed.link] or others else "path.lost")
        self._sink.emit(Event(kind, self._clock.now_s(), fields))


def _spoken(routes: tuple[Route, ...]) -> str:
    return "; ".join(" > ".join(route) for route in routes) or "no route"


def _listed(names: list[str]) -> str:
    more = len(names) - NAMES_MAX
    return ", ".join(names[:NAMES_MAX]) + (f" and {more} more" if more > 0 else "")
