"""What an operator should hear of before an SAE does: pools that run low, strands that are missing, guessed key IDs.

Every warning comes once when its condition begins, and again only after the condition has clearly ended.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from keystrand.kme.pool import Pool
from keystrand.kme.site import Site
from keystrand.kme.strands import Strands

LOW_KEYS: Final = 64  # of default size: fewer than these left of our own, and the pool is low
REFILLED_KEYS: Final = 2 * LOW_KEYS  # so many again, and the next low is worth another warning
STRAND_PATIENCE_S: Final = 10.0  # a fresh connection has this long to agree on a strand


class Pace:
    """So many occurrences of each SAE per second are ordinary; a pause earns one second's worth of them, not more."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self._left: dict[str, tuple[float, float]] = {}  # SAE -> tokens, at monotonic second

    @property
    def burst(self) -> float:
        return max(1.0, self.site.limits.unknown_key_rate_per_s)

    def left(self, sae: str) -> float:
        now_s = self.site.clock.monotonic_s()
        tokens, at_s = self._left.get(sae, (self.burst, now_s))
        return min(self.burst, tokens + (now_s - at_s) * self.site.limits.unknown_key_rate_per_s)

    def keep(self, sae: str) -> bool:
        """Count one occurrence. Whether the SAE is still within its pace."""
        tokens = self.left(sae)
        if len(self._left) >= self.site.limits.tombstones_max:
            self._left.clear()
        self._left[sae] = (tokens - 1 if tokens >= 1 else tokens, self.site.clock.monotonic_s())
        return tokens >= 1


class Watch:
    """In memory: after a restart, what is still amiss is said once more."""

    def __init__(self, site: Site, pool: Pool, strands: Strands) -> None:
        self.site = site
        self.pool = pool
        self.strands = strands
        self._low: set[str] = set()  # links
        self._without_since_s: dict[str, float] = {}  # peer -> when we first saw it connected without strand
        self._said: set[str] = set()  # peers whose strand is known to be missing
        self._misses = Pace(site)
        self._guessing: set[str] = set()  # SAEs

    def tick(self, connected: Iterable[str]) -> None:
        """Look at every pool, and at the strand with every peer that is connected."""
        for link in self.site.links:
            self._look_at_pool(link.name)
        up = set(connected)
        for peer in self.site.peer_kme_ids:
            if peer in up and not self.strands.usable(peer):
                self._miss_strand(peer)
            else:
                self._without_since_s.pop(peer, None)
                self._said.discard(peer)

    def _look_at_pool(self, link: str) -> None:
        bits, key_bits = self.pool.owned_bits(link), self.site.limits.key_size_bits_default
        enough_bits = REFILLED_KEYS * key_bits
        if bits >= enough_bits:
            self._low.discard(link)
        elif bits < LOW_KEYS * key_bits and link not in self._low:
            self._low.add(link)
            self.site.emit("pool.low", link=link, bits=bits, enough_bits=enough_bits)  # where it is over

    def _miss_strand(self, peer: str) -> None:
        now_s = self.site.clock.monotonic_s()
        since_s = self._without_since_s.setdefault(peer, now_s)
        if now_s - since_s > STRAND_PATIENCE_S and peer not in self._said:
            self._said.add(peer)
            self.site.emit("strand.missing", peer=peer)

    def unknown_key(self, sae: str) -> None:
        """An SAE asked for a key ID that it has no copy of. Too many of these look like guessing."""
        if self._misses.left(sae) >= self._misses.burst:
            self._guessing.discard(sae)
        if not self._misses.keep(sae) and sae not in self._guessing:
            self._guessing.add(sae)
            self.site.emit("draw.abnormal", sae=sae)
