"""One simulated site: the real KME over a store that may crash, be full or be replaced by an old backup."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from keystrand.core.errors import KeystrandError, StoreUnavailable
from keystrand.core.limits import Limits
from keystrand.core.policy import Policy
from keystrand.crypto.combine import StrandCombiner
from keystrand.kme.service import Kme
from keystrand.kme.site import Effect, Link, Site
from keystrand.observe.audit import AuditLog
from keystrand.store.memory import MemoryStore
from keystrand.testing.clock import SeededEntropy, VirtualClock
from keystrand.testing.kem import ToyKem
from keystrand.testing.world.faults import Faults

T = TypeVar("T")


class Crash(Exception):
    """The process dies here."""


@dataclass(slots=True, kw_only=True)
class Sitting:
    """A site, its durable store, and the process that may or may not be running on it.

    `kme_type` is the service under test: the real one, or one with a planted bug.
    """

    name: str
    peer: str  # of a pair; in a network, the first of its peers
    kme_type: type[Kme]
    policy: Policy
    limits: Limits
    clock: VirtualClock
    rng: random.Random
    faults: Faults
    deliver: Callable[[str, list[Effect]], None]
    crashed: Callable[[str], None]
    reloaded: Callable[[], None]
    store: MemoryStore = field(default_factory=MemoryStore)
    kme: Kme | None = None
    incarnation: int = 0
    links: tuple[Link, ...] = ()  # none: "link" to the peer
    backups: list[Mapping[str, Any]] = field(default_factory=list)

    def start(self, *, restored: bool = False) -> None:
        """Boot: build the service over what is durable, and recover."""
        self.incarnation += 1
        entropy = SeededEntropy(self.rng.getrandbits(64))
        links = self.links or (Link(name="link", peer=self.peer),)
        site = Site(
            name=self.name,
            kme_id=f"kme-{self.name}",
            peer_kme_ids={link.peer: f"kme-{link.peer}" for link in links},
            links=links,
            policy=self.policy,
            limits=self.limits,
            store=self.store,
            audit_trail=AuditLog(self.store, self.clock, self.name),
            kem=ToyKem(entropy),
            combiner=StrandCombiner(),
            clock=self.clock,
            entropy=entropy,
        )
        self.kme = kme = self.kme_type(site)
        with self.store.transaction():
            if restored:
                kme.begin_epoch()
            kme.recover()
        self.deliver(self.name, kme.drain())

    def stop(self) -> None:
        """The process is gone; what was not committed with it."""
        self.kme = None

    def run(self, *operations: Callable[[Kme], object]) -> Sequence[object]:
        """One batch in one transaction, as the engine does it. Each result is a value or the error that refused it.

        The process may die before or after the commit, or the disk may be full at the commit; then all are refused.
        """
        kme = self.kme
        if kme is None:
            return [StoreUnavailable("the site is down")] * len(operations)
        fate = self._fate()
        try:
            results = self._commit(kme, operations, fate)
        except Crash:
            self.crash()
            return [StoreUnavailable("the site crashed")] * len(operations)
        except StoreUnavailable as error:
            self.start()  # memory may be ahead of the disk: begin again from what is durable
            self.reloaded()
            return [error] * len(operations)
        if fate == "after":
            self.crash()
            return [StoreUnavailable("the site crashed")] * len(operations)
        self.deliver(self.name, kme.drain())
        return results

    def _fate(self) -> str:
        if self.rng.random() < self.faults.crash_per_operation:
            return self.rng.choice(("before", "after"))
        return "full" if self.rng.random() < self.faults.disk_full_per_commit else ""

    def _commit(self, kme: Kme, operations: Sequence[Callable[[Kme], object]], fate: str) -> list[object]:
        results: list[object] = []
        with self.store.transaction():
            for operation in operations:
                try:
                    results.append(kme.attempt(lambda operation=operation: operation(kme)))  # type: ignore[misc]
                except KeystrandError as error:
                    results.append(error)
            if fate == "before":
                raise Crash
            if fate == "full":
                raise StoreUnavailable("no space left on device")
        return results

    def crash(self) -> None:
        self.stop()
        self.crashed(self.name)
