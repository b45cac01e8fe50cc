"""The service of a site that also serves key streams: the ordinary one, with the streams told of what concerns them."""

from __future__ import annotations

from keystrand.kme.service import Kme
from keystrand.kme.site import Site
from keystrand.kme.stream import Streams
from keystrand.wire.peer import Hello, Message


class StreamingKme(Kme):
    """A Kme and its Streams, in one transaction."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.streams = Streams(site, self.reservations, self.pickups, self.strands, self._is_up)

    def _is_up(self, peer: str) -> bool:
        return self.sessions[peer].up

    def receive(self, peer: str, message: Message) -> None:
        """As of Kme."""
        if peer in self.sessions and self.streams.hear(peer, message):
            return
        before = self.site.store.peer(peer).epoch
        super().receive(peer, message)
        if isinstance(message, Hello) and before and self.site.store.peer(peer).epoch > before:
            self.streams.abandon(peer, "epoch")

    def peer_up(self, peer: str, group: str = "") -> None:
        """As of Kme."""
        super().peer_up(peer, group)
        self.streams.peer_up(peer)

    def tick(self) -> bool:
        """As of Kme."""
        has_more = super().tick()
        self.streams.tick()
        return has_more
