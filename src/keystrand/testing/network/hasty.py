"""Relays that share nothing: whoever comes first takes what a hop has. What fair fills are measured against."""

from __future__ import annotations

from keystrand.relay.relay import Relay
from keystrand.relay.routes import Route
from keystrand.relay.supply import Supply


class Hasty(Relay):
    """Sends a block wherever there are bits for it, and leaves nothing to the neighbours' own applications."""

    def up(self, neighbour: str, bits: int, rate_bps: int, demand_bps: float = 0.0) -> None:
        super().up(neighbour, bits, rate_bps)

    def _turn(self, supply: Supply, routes: list[Route]) -> list[Route]:
        return routes
