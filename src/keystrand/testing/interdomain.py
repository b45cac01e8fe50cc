"""A KME between networks, in memory, behind the edge's InterdomainService: one site's end of ETSI GS QKD 020.

Its own network is a table: SAEs that it can reach, and whether the relay to them succeeds, fails, or does not end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from keystrand.api.etsi020_client import InterdomainClient
from keystrand.core.clock import Clock, SystemClock
from keystrand.core.key import Key
from keystrand.testing.handovers import MemoryHandovers
from keystrand.wire.etsi020 import Ack, ExtKeys, ProblemType, Refused, Void
from keystrand.wire.interworking import Interworking


@dataclass(slots=True)
class MemoryInterdomain:
    """callbacks: peer -> own URL for its acks. reach: SAE -> True (relayed at once), False (fails), None (relay goes on)."""

    callbacks: Mapping[str, str | None]
    reach: dict[str, bool | None]
    clock: Clock = field(default_factory=SystemClock)
    store: MemoryHandovers = field(default_factory=MemoryHandovers)
    forwarded: list[ExtKeys] = field(default_factory=list)
    engine: Interworking = field(init=False)

    def __post_init__(self) -> None:
        self.engine = Interworking(self.store, self.callbacks)

    # InterdomainService

    async def holds(self, peer: str, key_ids: tuple[str, ...], /) -> bool:
        return any(self.engine.stage(key_id) for key_id in key_ids)

    async def receive_keys(self, peer: str, keys: ExtKeys, /) -> tuple[Ack, ...] | None:
        if not await self.holds(peer, keys.key_ids):
            self._check_routes(keys)
        now_s = self.clock.now_s()
        new = self.engine.receive_keys(peer, keys, now_s=now_s)
        if new:
            self.forwarded.append(keys)
        ends = {self.reach[target] for target in keys.parties.targets if target in self.reach}
        if None not in ends:
            self.engine.settle(new, relayed=False not in ends, now_s=now_s)
        return self.engine.outcome(keys.key_ids)

    async def acknowledge(self, peer: str, acks: tuple[Ack, ...], /) -> None:
        self.engine.acknowledge(peer, acks, now_s=self.clock.now_s())

    async def void_keys(self, peer: str, void: Void, /) -> tuple[Ack, ...] | None:
        return self.engine.void_keys(peer, void, now_s=self.clock.now_s())

    # the KME's own side

    def release(self, key_id: str) -> Key:
        """The key for an SAE of this network. Raises UnknownKey."""
        key = self.engine.release(key_id, now_s=self.clock.now_s())
        return Key(key_id=key.key_id, material=key.material, strands=frozenset())

    async def pump(self, clients: Mapping[str, InterdomainClient]) -> int:
        """Send what is due, once; how many requests that were."""
        outgoing = self.engine.due(self.clock.now_s())
        for request in outgoing:
            answer = await clients[request.peer].send(request)
            self.engine.answered(request, answer, now_s=self.clock.now_s())
        return len(outgoing)

    def _check_routes(self, keys: ExtKeys) -> None:
        for target in keys.parties.targets:
            if target not in self.reach:
                details = {"target_sae_id_not_recognized": target}
                raise Refused(ProblemType.KEY_ROUTING_ERROR, "a target SAE is not known", details=details)
