"""The load client counts what happened: pairs, refusals, and bits that differ."""

from __future__ import annotations

from bench.load014 import LoadResult, load, percentile

from keystrand.api.etsi014 import Etsi014
from keystrand.core.events import Event
from keystrand.core.limits import Limits
from keystrand.testing.asgi import AsgiCaller
from keystrand.testing.keyservice import Fault, MemoryNetwork


class Deaf:
    def emit(self, event: Event) -> None: ...


async def run_load(*faults: Fault, stored_bits: int = 1 << 20) -> LoadResult:
    network = MemoryNetwork({"a": "alpha", "b": "bravo"}, faults=frozenset(faults), stored_bits=stored_bits)
    alpha, bravo = (Etsi014(network.at(site), limits=Limits(), sink=Deaf()) for site in ("alpha", "bravo"))
    callers = AsgiCaller(alpha, "a"), AsgiCaller(bravo, "b")
    return await load(*callers, initiator_id="a", responder_id="b", pairs=50, connections=4)


async def test_I2_every_pair_is_compared() -> None:
    right, wrong = await run_load(), await run_load(Fault.DIFFERENT_BITS)
    assert (right.pairs, right.mismatches, right.refusals) == (50, 0, {})
    assert (wrong.pairs, wrong.mismatches) == (50, 50)
    assert len(right.enc_s) == len(right.dec_s) == 50
    assert percentile(right.enc_s, 0.5) <= percentile(right.enc_s, 0.99) <= right.enc_s[-1]


async def test_a_drained_pool_is_counted_not_hidden() -> None:
    result = await run_load(stored_bits=256 * 30)
    assert (result.pairs, result.refusals) == (30, {503: 20})
