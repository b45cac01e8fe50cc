"""A quota and a floor are the site's: replicas that take turns on one store serve together what one process would."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from keystrand.core.errors import QuotaExceeded
from keystrand.core.limits import Limits
from keystrand.core.policy import Policy, Rule, Tenant
from keystrand.core.protection import Protection
from keystrand.crypto.combine import StrandCombiner
from keystrand.crypto.seal import RootKey, Sealer
from keystrand.kme.ask import check_ask
from keystrand.kme.draws import Draws
from keystrand.kme.quota import Quotas
from keystrand.kme.share import Shares
from keystrand.kme.site import Link, Site
from keystrand.observe.audit import AuditLog
from keystrand.store.memory import MemoryStore
from keystrand.store.sql import SqlStore
from keystrand.testing.clock import SeededEntropy, VirtualClock
from keystrand.testing.kem import ToyKem
from keystrand.testing.postgres import postgres_server, why_not

KEY_BITS = 256
POLICY = Policy.of(
    (
        Rule(initiator="a1", responder="b1", require=Protection.QKD, quota_bps=256.0, quota_burst_bits=10 * KEY_BITS),
        Rule(initiator="a2", responder="b1", require=Protection.QKD, floor_bps=64.0, floor_burst_bits=8 * KEY_BITS),
        Rule(initiator="a3", responder="b1", require=Protection.QKD),
    ),
    {"a1": "alpha", "a2": "alpha", "a3": "alpha", "b1": "bravo"},
    tenants={"default": Tenant()},
)


class Replica:
    """Quotas and shares of one process of alpha."""

    def __init__(self, name: str, store: Any, clock: VirtualClock) -> None:
        entropy = SeededEntropy(name)
        self.site = Site(
            name="alpha",
            kme_id="kme-alpha",
            peer_kme_ids={"bravo": "kme-bravo"},
            links=(Link(name="l1", peer="bravo"),),
            policy=POLICY,
            limits=Limits(),
            store=store,
            audit_trail=AuditLog(store, clock, "alpha"),
            kem=ToyKem(entropy),
            combiner=StrandCombiner(),
            clock=clock,
            entropy=entropy,
            incarnation=name,
        )
        draws = Draws(self.site)
        self.quotas, self.shares = Quotas(self.site, draws), Shares(self.site, draws)

    def draw(self, sae: str, have_bits: int) -> bool:
        """One key in a turn; whether it passed."""
        with self.site.store.transaction():
            ask = check_ask(self.site, sae, "b1", 1, KEY_BITS, ())
            try:
                self.quotas.check(ask)
                self.shares.check(ask, have_bits)
            except QuotaExceeded:
                return False
            self.shares.spend(ask, have_bits)
            self.quotas.spend(ask)
        return True


@pytest.fixture(params=["memory", "postgres"])
def replicas(request: pytest.FixtureRequest) -> Iterator[Callable[[VirtualClock], list[Replica]]]:
    """Two of them over one store, each with a connection of its own."""
    if request.param == "memory":
        one = MemoryStore()
        yield lambda clock: [Replica(name, one, clock) for name in ("r1", "r2")]
        return
    if reason := why_not():
        pytest.skip(reason)
    from keystrand.store.postgres import PostgresDatabase

    address, root = postgres_server().new_database(), RootKey.generate()
    stores = [SqlStore(PostgresDatabase(address, "alpha"), Sealer(root)) for _ in range(2)]
    with closing(stores[0]), closing(stores[1]):
        yield lambda clock: [Replica(name, store, clock) for name, store in zip(("r1", "r2"), stores, strict=True)]


def begun(made: list[Replica]) -> list[Replica]:
    """Each has looked once; what was drawn before does not count."""
    for replica in made:
        assert replica.draw("a3", 10**9)
    return made


@pytest.mark.proves("R022", "R056")
def test_a_quota_is_served_once_however_many_replicas_serve(
    replicas: Callable[[VirtualClock], list[Replica]],
) -> None:
    clock = VirtualClock()
    made = begun(replicas(clock))
    served = sum(made[turn % 2].draw("a1", 10**9) for turn in range(60))
    assert served == 10, "the burst, once"
    clock.move_to(20.0)  # at 256 bits a second the bucket is full again, not twice
    served = sum(made[turn % 2].draw("a1", 10**9) for turn in range(60))
    assert served == 10


def test_what_one_replica_served_is_missing_at_the_other_at_once(
    replicas: Callable[[VirtualClock], list[Replica]],
) -> None:
    one, two = begun(replicas(VirtualClock()))
    assert sum(one.draw("a1", 10**9) for _ in range(20)) == 10
    assert not two.draw("a1", 10**9)


def test_a_floor_is_held_back_once_and_paid_once(replicas: Callable[[VirtualClock], list[Replica]]) -> None:
    """The pool has just the floor of a2: nobody else gets a bit, a2 gets its eight keys over both replicas and no ninth."""
    one, two = begun(replicas(VirtualClock()))
    have_bits = 8 * KEY_BITS
    for turn in range(8):
        assert not (two, one)[turn % 2].draw("a3", have_bits)
        assert (one, two)[turn % 2].draw("a2", have_bits)
        have_bits -= KEY_BITS
    assert two.shares.reserved_bits("bravo") == pytest.approx(0.0)
    have_bits = 4 * KEY_BITS  # new bits came: they are surplus at either replica
    assert two.draw("a3", have_bits)


def test_a_replica_that_starts_later_does_not_pay_for_what_was_before(
    replicas: Callable[[VirtualClock], list[Replica]],
) -> None:
    clock = VirtualClock()
    one, two = replicas(clock)
    assert one.draw("a3", 10**9)
    assert sum(one.draw("a1", 10**9) for _ in range(4)) == 4
    assert sum(two.draw("a1", 10**9) for _ in range(20)) == 10, "it begins full, as after every restart"
    assert not one.draw("a1", 10**9)
