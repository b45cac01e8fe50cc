"""Load for ETSI GS QKD 014: every connection draws a key and lets the other end pick it up, again and again.

A pair is one enc_keys answered, one dec_keys answered, and the bytes compared. Run alone it measures the edge in memory
(parsing, routing, printing; no TLS, no store): `python -m bench.load014`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from bench.lean import materials
from keystrand.wire import etsi014 as wire


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What a load run saw. Latencies in seconds, sorted; one per HTTP exchange."""

    pairs: int
    mismatches: int
    refusals: dict[int, int]  # status -> answers, where it was not 200
    wall_s: float
    enc_s: tuple[float, ...] = field(repr=False)
    dec_s: tuple[float, ...] = field(repr=False)

    @property
    def pairs_per_s(self) -> float:
        return self.pairs / self.wall_s if self.wall_s else 0.0


def percentile(latencies_s: Sequence[float], share: float) -> float:
    """The latency that `share` of the sorted exchanges stay within; 0 when there are none."""
    return latencies_s[min(len(latencies_s) - 1, int(share * len(latencies_s)))] if latencies_s else 0.0


@dataclass(slots=True)
class _Tally:
    left: int
    pairs: int = 0
    mismatches: int = 0
    refusals: dict[int, int] = field(default_factory=dict)
    enc_s: list[float] = field(default_factory=list)
    dec_s: list[float] = field(default_factory=list)

    def refuse(self, status: int) -> None:
        self.refusals[status] = self.refusals.get(status, 0) + 1


class Answer(Protocol):
    @property
    def status(self) -> int: ...
    @property
    def body(self) -> bytes: ...


class Poster(Protocol):
    """A client with one SAE's certificate, connected to that SAE's KME."""

    async def request(self, method: str, path: str, body: bytes | None = None, /) -> Answer: ...


async def load(
    initiator: Poster,
    responder: Poster,
    *,
    initiator_id: str,
    responder_id: str,
    pairs: int,
    connections: int = 16,
    size_bits: int = 256,
    number: int = 1,
    pairs_per_s: float = 0.0,
) -> LoadResult:
    """Ask `pairs` times for `number` keys over `connections` lines at once; the callers keep that many connections alive.

    pairs_per_s: begin them at this pace, all lines together; 0: as fast as they are answered. A refusal (a drained pool, say)
    counts as an attempt and is reported, never repeated.
    """
    tally = _Tally(pairs)
    body = wire.print_key_request(wire.KeyRequest(number=number, size_bits=size_bits))
    draw, pick_up = f"/api/v1/keys/{responder_id}/enc_keys", f"/api/v1/keys/{initiator_id}/dec_keys"
    begun_s = time.perf_counter()

    async def line() -> None:
        while tally.left > 0:
            tally.left -= 1
            if pairs_per_s:
                due_s = begun_s + (pairs - tally.left) / pairs_per_s
                await asyncio.sleep(due_s - time.perf_counter())
            await _pair(tally, initiator, responder, draw, pick_up, body)

    await asyncio.gather(*(line() for _ in range(connections)))
    wall_s = time.perf_counter() - begun_s
    return LoadResult(
        tally.pairs, tally.mismatches, tally.refusals, wall_s, tuple(sorted(tally.enc_s)), tuple(sorted(tally.dec_s))
    )


async def _pair(tally: _Tally, initiator: Poster, responder: Poster, draw: str, pick_up: str, body: bytes) -> None:
    begun_s = time.perf_counter()
    drawn = await initiator.request("POST", draw, body)
    tally.enc_s.append(time.perf_counter() - begun_s)
    if drawn.status != 200:
        tally.refuse(drawn.status)
        return
    ours = materials(drawn.body)
    begun_s = time.perf_counter()
    picked = await responder.request("POST", pick_up, wire.print_key_ids(ours))
    tally.dec_s.append(time.perf_counter() - begun_s)
    if picked.status != 200:
        tally.refuse(picked.status)
        return
    theirs = materials(picked.body)
    tally.pairs += 1
    tally.mismatches += sum(theirs.get(key_id) != key for key_id, key in ours.items())


def table(result: LoadResult) -> str:
    """The figures as text."""
    figures = [f"{result.pairs} pairs in {result.wall_s:.2f} s: {result.pairs_per_s:.0f} pairs/s"]
    for name, latencies_s in (("enc_keys", result.enc_s), ("dec_keys", result.dec_s)):
        p50, p99 = (1000 * percentile(latencies_s, share) for share in (0.5, 0.99))
        figures.append(f"{name}: p50 {p50:.2f} ms, p99 {p99:.2f} ms")
    figures.append(f"mismatches: {result.mismatches}, refusals: {result.refusals or 'none'}")
    return "\n".join(figures)


def main() -> None:
    from keystrand.api.etsi014 import Etsi014
    from keystrand.core.events import Event
    from keystrand.core.limits import Limits
    from keystrand.testing.asgi import AsgiCaller
    from keystrand.testing.keyservice import MemoryNetwork

    class Deaf:
        def emit(self, event: Event, /) -> None:
            """Nobody watches a bench of the edge."""

    network = MemoryNetwork({"sae-a": "alpha", "sae-b": "bravo"}, stored_bits=1 << 40)
    alpha, bravo = (Etsi014(network.at(site), limits=Limits(), sink=Deaf()) for site in ("alpha", "bravo"))
    callers = AsgiCaller(alpha, "sae-a"), AsgiCaller(bravo, "sae-b")
    print(table(asyncio.run(load(*callers, initiator_id="sae-a", responder_id="sae-b", pairs=10_000))))


if __name__ == "__main__":
    main()
