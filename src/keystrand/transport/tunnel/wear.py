"""How much traffic one key may carry: counters that must not wrap, and what the mode of the cipher bears.

Two rules, whichever comes first:
counter   packets (or records) that the protocol can number under one key
mode      packets before the advantage of who guesses that these are not random exceeds `CONFIDENTIALITY`. For AES-GCM, with
          one key: q <= (sqrt(p) * 2^64.5 - 1) / (L + 1), L blocks of 128 bits a packet (draft-irtf-cfrg-aead-limits, 5.1.1)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

CONFIDENTIALITY: Final = 2.0**-57  # the bound that TLS 1.3 takes for its own limit (RFC 8446, 5.5)
BLOCK_BYTES: Final = 16
Mode = Literal["aes-gcm", "chacha20-poly1305"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CipherLimit:
    """packets: what the protocol's counter allows under one key, by `source`. record_bytes: where the protocol cuts traffic
    into records of its own size, whatever the packets of the link are.

    ChaCha20-Poly1305 has no bound on confidentiality below its own counter (same draft, 5.2.1).
    """

    packets: float
    source: str
    mode: Mode = "aes-gcm"
    record_bytes: int = 0

    def packets_max(self, packet_bytes: int) -> tuple[float, str]:
        """The lower of both rules, for packets of this size, and its name."""
        size_bytes = self.record_bytes or packet_bytes
        mode = gcm_packets(size_bytes) if self.mode == "aes-gcm" else math.inf
        if mode < self.packets:
            return mode, "what AES-GCM bears under one key (p = 2^-57)"
        return self.packets, self.source

    def least_s(self, rate_bps: int, packet_bytes: int) -> tuple[float, str]:
        """Seconds at this rate until the limit is reached, and the rule that says so."""
        packets, rule = self.packets_max(packet_bytes)
        return packets * 8 * (self.record_bytes or packet_bytes) / rate_bps, rule


def gcm_packets(size_bytes: int) -> float:
    """AES-GCM, one key, packets of `size_bytes` with at most one block of associated data."""
    blocks = math.ceil(size_bytes / BLOCK_BYTES) + 1
    return float(math.sqrt(CONFIDENTIALITY) * 2.0**64.5 - 1) / (blocks + 1)
