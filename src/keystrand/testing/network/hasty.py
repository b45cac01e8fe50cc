"""Relays that share nothing: whoever comes first takes what a hop has. What fair fills are measured against."""

from __future__ import annotations

from keystrand.relay.relay import Relay
from keystrand.relay.routes import Graph, Route
from keystrand.relay.sender import Sender
from keystrand.relay.supply import Supply


class _Grasping(Sender):
    def _turn(self, supply: Supply, routes: list[Route], graph: Graph) -> list[Route]:
        return routes


class Hasty(Relay):
    """Sends a block wherever there are bits for it, and leaves nothing to the neighbours' own applications."""

    sender_type = _Grasping

    def up(self, neighbour: str, bits: int, rate_bps: int, demand_bps: float = 0.0) -> None:
        super().up(neighbour, bits, rate_bps)
