"""Routes into a tunnel's interface, and what lies below them: no way around it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from keystrand.transport.tunnel.command import run

LAST_RESORT: Final = "4294967000"  # metric of the route to nowhere


@dataclass(frozen=True, slots=True, kw_only=True)
class Routes:
    """Of one tunnel. networks: behind the other end; source: own address that traffic there comes from.

    gateway: the next hop, where the interface is a network of its own.
    """

    networks: tuple[str, ...]
    source: str | None = None
    gateway: str | None = None
    namespace: str = ""

    async def lead(self, interface: str | None) -> None:
        """All networks into `interface`; None: nowhere, and not around the tunnel either.

        Below it lies a route to nowhere that stays when the interface vanishes: then traffic must not find another way.
        """
        source = f" src {self.source}" if self.source else ""
        via = f" via {self.gateway}" if self.gateway else ""
        for family in dict.fromkeys(map(_family, self.networks)):
            orders = []
            for network in self.networks:
                if _family(network) == family:
                    nowhere = f"route replace unreachable {network}"
                    orders.append(f"{nowhere} metric {LAST_RESORT}")
                    orders.append(f"route replace {network}{via} dev {interface}{source}" if interface else nowhere)
            batch = "\n".join(orders).encode() + b"\n"
            await run("ip", family, "-batch", "-", stdin=batch, namespace=self.namespace)

    async def led(self) -> str:
        """The interface that the first of the networks is led into; empty: none."""
        network = self.networks[0]
        text = await run("ip", _family(network), "route", "show", "exact", network, namespace=self.namespace)
        lines = [line for line in text.splitlines() if not line.startswith("unreachable")]
        found = re.search(r"\bdev (\S+)", lines[0]) if lines else None
        return found[1] if found else ""


def _family(network: str) -> str:
    return "-6" if ":" in network else "-4"
