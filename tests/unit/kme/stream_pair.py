"""Two sites that serve key streams, over the wire of kme_pair. Whoever uses it puts StreamingKme in the place of Kme."""

from __future__ import annotations

from typing import Any

from kme_pair import SITE_OF, Pair

from keystrand.core.policy import Rule
from keystrand.core.protection import Protection
from keystrand.kme.stream import Streams
from keystrand.kme.streaming import StreamingKme
from keystrand.wire.etsi004 import Chunk, Opened, Qos, Status

QOS = Qos(chunk_bytes=32, ttl_s=600)
KSID = "6a0f2f5e-6f0e-4f57-9d3c-2f4f4d1c9f10"
ROOM = 1024
RULES = (
    Rule(initiator="a1", responder="b1"),
    Rule(initiator="b1", responder="a1"),
    Rule(initiator="a2", responder="b2", require=Protection.PQC),
    Rule(initiator="a3", responder="b3", quota_bps=256.0, quota_burst_bits=1024),
    Rule(initiator="b4", responder="a1"),
)


class StreamPair(Pair):
    """Two sites that serve streams; SAEs a… at alpha, b… at bravo."""

    def streams(self, sae: str) -> Streams:
        kme = self.sides[SITE_OF[sae]].kme
        assert isinstance(kme, StreamingKme)
        return kme.streams

    def run(self, sae: str, operation: Any) -> Any:
        return self.sides[SITE_OF[sae]].run(lambda kme: operation(kme.streams))

    def open(self, caller: str, source: str, destination: str, qos: Qos = QOS, ksid: str | None = None) -> Opened:
        answer: Opened = self.run(caller, lambda streams: streams.open_connect(caller, source, destination, qos, ksid))
        self.pump()
        return answer

    def both(self, first: str = "a1", second: str = "b1", qos: Qos = QOS) -> str:
        opened = self.open(first, first, second, qos)
        assert opened.status is Status.PEER_NOT_CONNECTED
        ksid = str(opened.ksid)
        assert self.open(second, first, second, qos, ksid).status is Status.SUCCESSFUL
        return ksid

    def get(self, caller: str, ksid: str, index: int, room: int = ROOM) -> Chunk:
        answer: Chunk = self.run(caller, lambda streams: streams.get_key(caller, ksid, index, room))[0]
        self.pump()
        return answer

    def wait(self, caller: str, ksid: str, index: int, timeout_s: float = 3.0) -> Chunk:
        """As the edge does: ask again while it may come."""
        end_s = self.clock.monotonic_s() + timeout_s
        while True:
            chunk, may_come = self.run(caller, lambda streams: streams.get_key(caller, ksid, index, ROOM))
            self.pump()
            if not may_come or self.clock.monotonic_s() >= end_s:
                return chunk  # type: ignore[no-any-return]
            self.advance(0.25)

    def close(self, caller: str, ksid: str) -> None:
        assert self.run(caller, lambda streams: streams.close(caller, ksid)) is Status.SUCCESSFUL
        self.pump()


def bits(chunk: Chunk) -> bytes:
    assert chunk.status is Status.SUCCESSFUL, chunk
    assert chunk.material is not None
    return chunk.material.reveal()
