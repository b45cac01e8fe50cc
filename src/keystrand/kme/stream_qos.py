"""What a link can carry, and what quality of service a stream may therefore have."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import replace
from typing import Final

from keystrand.core.limits import Limits
from keystrand.core.pool import Account
from keystrand.kme.site import Site
from keystrand.wire.etsi004 import METADATA_TYPE, Qos

WINDOW_S: Final = 60.0  # rates are measured, and stocks are counted on, over so long
SAMPLE_S: Final = 5.0
TIMEOUT_MS_MAX: Final = 60_000
AHEAD_S: Final = 2.0  # chunks are agreed so far ahead of the readers, at the rate that the stream asked for


class Rates:
    """How fast key comes in on each link. In memory: after a restart a link counts with its stock alone."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self._samples: dict[str, deque[tuple[float, int]]] = {}

    def tick(self) -> None:
        now_s = self.site.clock.monotonic_s()
        for link in self.site.links:
            samples = self._samples.setdefault(link.name, deque())
            if samples and now_s - samples[-1][0] < SAMPLE_S:
                continue
            samples.append((now_s, self.site.store.ledger(link.name)[Account.INGESTED]))
            while samples[0][0] < now_s - WINDOW_S:
                samples.popleft()

    def available_bps(self, peer: str) -> int:
        """What the best link to `peer` can sustain for a minute: what comes in, and what is at hand."""
        return max((self._link_bps(link) for link in self.site.links_to(peer)), default=0)

    def _link_bps(self, link: str) -> int:
        samples = self._samples.get(link) or ((0.0, 0),)
        (begin_s, begin_bits), (end_s, end_bits) = samples[0], samples[-1]
        inflow_bps = (end_bits - begin_bits) / (end_s - begin_s) if end_s > begin_s else 0.0
        stock_bits = self.site.store.free_bits(link, self.site.name)
        return int(inflow_bps + stock_bits / WINDOW_S)


def offer(asked: Qos, limits: Limits, available_bps: int | None) -> tuple[Qos, bool]:
    """What can be had instead of `asked`, and whether that is what was asked for. available_bps None: no bound.

    0 for the size or the lifetime of chunks means no wish, and is filled in.
    """
    wanted = replace(
        asked,
        chunk_bytes=asked.chunk_bytes or limits.key_size_bits_default // 8,
        ttl_s=asked.ttl_s or int(limits.key_ttl_s),
    )
    least_bps = wanted.min_bps if available_bps is None else min(wanted.min_bps, available_bps)
    offered = replace(
        wanted,
        chunk_bytes=min(max(wanted.chunk_bytes, -(-limits.key_size_bits_min // 8)), limits.key_size_bits_max // 8),
        min_bps=least_bps,
        max_bps=max(wanted.max_bps, least_bps) if wanted.max_bps else 0,
        timeout_ms=min(wanted.timeout_ms, TIMEOUT_MS_MAX),
        ttl_s=max(1, min(wanted.ttl_s, int(limits.key_ttl_s))),
        mimetype=wanted.mimetype if wanted.mimetype in ("", METADATA_TYPE) else METADATA_TYPE,
    )
    return offered, offered == wanted


def window_of(qos: Qos, chunks_max: int) -> int:
    """Chunks to hold ready: AHEAD_S at the stream's rate, but no more than its lifetime lets an SAE read; at least one."""
    ahead_s = min(AHEAD_S, qos.ttl_s / 2)
    return min(max(1, math.ceil(qos.min_bps * ahead_s / (8 * qos.chunk_bytes))), chunks_max)
