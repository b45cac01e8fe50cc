"""What stops traffic to the far networks when IPsec does not carry it: no packet finds a way around the tunnel.

Two rules, both of the kernel, which stand whatever becomes of the daemon and of us:
last resort   behind the tunnel, always: what no SA takes goes nowhere. Where the kernel does ESP, a policy of the lowest
              priority; where the daemon does it (kernel-libipsec), a routing rule just after the daemon's own
front         before the tunnel, while blocked: a routing rule before the daemon's own
"""

from __future__ import annotations

import ipaddress
import json
from typing import Final, Literal

from keystrand.core.errors import Unavailable
from keystrand.transport.tunnel.command import run

DAEMON_RULE: Final = 220  # strongSwan's routing_table_prio
FRONT, BEHIND = DAEMON_RULE - 1, DAEMON_RULE + 1
LAST_RESORT: Final = "4294967290"  # priority of the policy: any other goes first
ANY: Final = {4: "0.0.0.0/0", 6: "::/0"}
Plane = Literal["kernel", "daemon"]


class Barrier:
    """For one tunnel's far networks. Raises Unavailable where the kernel refuses."""

    def __init__(self, networks: tuple[str, ...], namespace: str = "") -> None:
        self._networks, self._namespace = networks, namespace

    async def stand(self, plane: Plane) -> None:
        """The last resort is there afterwards."""
        for network in self._networks:
            if plane == "daemon":
                await self._rule("add", BEHIND, network)
            else:
                await self._policies(network)

    async def block(self) -> None:
        for network in self._networks:
            await self._rule("add", FRONT, network)

    async def lift(self) -> None:
        for network in self._networks:
            await self._rule("del", FRONT, network)

    async def blocked(self) -> bool:
        """Does the front stand, whoever put it up?"""
        network = ipaddress.ip_network(self._networks[0])
        shown = await self._ip("-json", _family(str(network)), "rule", "show", "priority", str(FRONT))
        rules = json.loads(shown or "[]")
        found = [f"{rule.get('dst')}/{rule.get('dstlen', network.max_prefixlen)}" for rule in rules]
        return str(network) in found

    async def _rule(self, verb: str, priority: int, network: str) -> None:
        words = (_family(network), "rule", verb, "priority", str(priority), "to", network)
        try:
            await self._ip(*words, "type", "unreachable")
        except Unavailable as error:
            if not any(fine in str(error) for fine in ("File exists", "No such file")):
                raise

    async def _policies(self, network: str) -> None:
        """Also for what comes from there without ESP. Their selectors are wider than the daemon's: nobody replaces them."""
        anywhere = ANY[6 if ":" in network else 4]
        for direction in ("out", "in", "fwd"):
            source, target = (anywhere, network) if direction == "out" else (network, anywhere)
            selector = ("src", source, "dst", target, "dir", direction)
            await self._ip("xfrm", "policy", "update", *selector, "priority", LAST_RESORT, "action", "block")

    async def _ip(self, *words: str) -> str:
        return await run("ip", *words, namespace=self._namespace)


def _family(network: str) -> str:
    return "-6" if ":" in network else "-4"
