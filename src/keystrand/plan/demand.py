"""How many secret bits per second a link spends: refresh of its tunnels, one-time pad, tags, and the copies of relays.

c = tunnels * 256 * d / T + payload + tags. A relayed bit is spent once on every hop, so a path of n hops spends n * c in all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from keystrand.plan.estate import Link
from keystrand.plan.fact import Basis, Figure, Span, figure

KEY_BITS: Final = 256
DIRECTIONS: Final = 2  # each direction of a tunnel has a key of its own
REKEY_S: Final = 120.0  # where a link does not state it; 12 tunnels every 120 s: Singapore 2024, arXiv:2405.04415
DAY_S: Final = 86_400.0
TAG_BITS: Final = 128  # one-time tag of a record under the one-time pad (Wegman-Carter)
RECORD_BITS: Final = 8 * 16_384  # of such a record; assumed
MARGIN: Final = 2.0  # a rate must be so many times the demand: planning reserve for drift and growth


@dataclass(frozen=True, slots=True)
class Demand:
    """Bits per second of one link, end to end. rekey_s: as stated or assumed, and `assumed` says which."""

    refresh_bps: float
    otp: Span
    tags: Span
    rekey_s: float
    assumed: tuple[str, ...]

    @property
    def total(self) -> Figure:
        """On every hop of the path."""
        span = Span.point(self.refresh_bps) + self.otp + self.tags
        return Figure(span, Basis.ASSUMED)

    def spent_bps(self, hops: int) -> Span:
        """Over all hops: the relay copies together."""
        return self.total.span.times(hops)


def refresh_bps(tunnels: int, rekey_s: float) -> float:
    return tunnels * KEY_BITS * DIRECTIONS / rekey_s


def otp_bps(bytes_per_day: float) -> float:
    return 8 * bytes_per_day / DAY_S


def tunnels_fed(skr_bps: float, rekey_s: float) -> int:
    """Tunnels whose keys this rate refreshes."""
    return int(skr_bps // refresh_bps(1, rekey_s))


def demand(link: Link) -> Demand:
    """Of a link, with what had to be assumed."""
    assumed = () if link.rekey_s else (f"refresh interval not stated: {REKEY_S:g} s is assumed",)
    rekey_s = link.rekey_s or REKEY_S
    otp = Span.point(0.0) if link.otp_bytes_per_day is None else figure(link.otp_bytes_per_day).span.times(otp_bps(1.0))
    return Demand(refresh_bps(link.tunnels, rekey_s), otp, otp.times(TAG_BITS / RECORD_BITS), rekey_s, assumed)
