"""Networks of sites in virtual time: keys over relays, under faults and liars, and what a relay alone can know."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

import pytest

from keystrand.core.key import Key
from keystrand.core.pool import Account
from keystrand.core.register import Scope
from keystrand.core.secret import Secret
from keystrand.core.way import Way
from keystrand.crypto import field
from keystrand.crypto.onetime import TAG_BYTES, TAG_KEY_BYTES, unlock
from keystrand.kme.service import Kme
from keystrand.relay.atlas import Atlas, RelayedLink, SiteFacts, Terms
from keystrand.relay.carrier import Carrier
from keystrand.relay.ports import Deliver, Order
from keystrand.relay.relay import Relay
from keystrand.testing.network.liars import LIARS
from keystrand.testing.network.maps import drawn_atlas
from keystrand.testing.network.post import FILL
from keystrand.testing.network.world import DAY_S, SLOW, SLOW_FAULTS, SLOW_LIMITS, Network, Rhythm
from keystrand.testing.world.faults import Faults
from keystrand.testing.world.planted import NoNewEpoch
from keystrand.wire.relay import Carry, Place, context_of, decode

STORMY = Faults(
    loss=0.02, duplicate=0.02, crash_every_s=200.0, partition_every_s=200.0, crash_per_operation=0.0005, down_s=10.0
)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.proves("R021", "R098", "R101")
def test_keys_over_relays_through_crashes_cuts_and_losses(seed: int) -> None:
    """I1, I2, I4, I5, I6, I9, I13 over a network; and keys do come."""
    network = Network(seed, drawn_atlas(random.Random(seed), 8, 3), faults=STORMY)
    tally = network.run(900.0)
    assert network.judge.violations == []
    assert tally.crashes > 0
    assert tally.cuts > 0
    assert tally.fetched > 50


def test_sites_put_back_from_old_backups_and_disks_that_are_full() -> None:
    """I1, I2, I6, I14 of a relay that knows less than its neighbours do; and keys come again."""
    hard = replace(STORMY, crash_every_s=0.0, restore_every_s=60.0, disk_full_per_commit=0.002)
    network = Network(8, ladder(paths=1), faults=hard)
    tally = network.run(900.0)
    assert network.judge.violations == []
    assert tally.restores > 5
    assert tally.fetched > 10


@pytest.mark.parametrize(("kme_type", "is_found"), [(Kme, False), (NoNewEpoch, True)])
def test_a_site_that_goes_on_from_a_backup_as_if_nothing_was_is_found_out(kme_type: type[Kme], is_found: bool) -> None:
    """I14: the judges see it use bits again that it gave out before."""
    rhythm, faults = Rhythm(key_s=1.0, hop_block_s=10.0), Faults(restore_every_s=40.0)
    network = Network(2, ladder(paths=1), faults=faults, rhythm=rhythm, kme_type=kme_type)
    network.run(500.0)
    assert bool(network.judge.violations) is is_found


@pytest.mark.proves("R098")
def test_months_of_a_small_network_pass_in_seconds() -> None:
    """The rhythm of `make simulate-network`: I1, I2, I4, I5, I6, I9, I13 while sites sleep, and links fail for hours."""
    network = Network(3, drawn_atlas(random.Random(3), 6, 2), faults=SLOW_FAULTS, rhythm=SLOW, limits=SLOW_LIMITS)
    tally = network.run(40 * DAY_S)
    assert network.judge.violations == []
    assert tally.crashes > 30
    assert tally.cuts > 60
    assert tally.fetched > 40


@pytest.mark.proves("R040", "R037")
def test_a_pool_that_was_quarantined_whole_fills_again() -> None:
    """After a compromise consumers have keys again: what is quarantined does not count as stock, however much it is."""
    network = Network(7, ladder(paths=1), faults=Faults())
    network.begin()
    network.schedule.run_until(200.0)
    lost = Scope(link="a-d")
    network.posts["a"].sitting.run(lambda kme: kme.lifecycle.compromise(lost, actor="ann", reason="break-in"))
    network.schedule.run_until(201.0)  # the other end has heard of it, and no block set out since has come
    for site in "ad":
        store = network.posts[site].sitting.store
        assert store.ledger("a-d")[Account.QUARANTINED] > FILL.floor_bits / 2
        assert store.ledger("a-d")[Account.AVAILABLE] < FILL.floor_bits / 2
    fetched = network.tally.fetched
    network.schedule.run_until(600.0)
    assert network.posts["a"].sitting.store.ledger("a-d")[Account.AVAILABLE] > FILL.floor_bits / 2
    assert network.tally.fetched > fetched + 5
    assert network.judge.violations == []


def test_one_seed_is_one_history() -> None:
    first, again = (Network(11, drawn_atlas(random.Random(11), 6, 2), faults=STORMY) for _ in range(2))
    first.run(300.0)
    again.run(300.0)
    assert first.schedule.trace_hash() == again.schedule.trace_hash()


@pytest.mark.parametrize("liar", LIARS, ids=lambda liar: liar.__name__)
@pytest.mark.proves("R037")
def test_a_lying_relay_costs_blocks_and_no_more(liar: type[Relay]) -> None:
    """Never two keys that differ (I2); and the link goes another way, so that keys come all the same."""
    network = Network(2, ladder(), liars={"x": liar})
    tally = network.run(900.0)
    assert network.judge.violations == []
    assert tally.fetched > 20, tally


def ladder(paths: int = 2) -> Atlas:
    """Three ways from a to d, one of them over x."""
    hops = [("a", "b"), ("b", "d"), ("a", "c"), ("c", "d"), ("a", "x"), ("d", "x")]
    sites = {name: SiteFacts(name=name) for name in "abcdx"}
    return Atlas(
        sites,
        tuple(hops),
        {"a-d": RelayedLink(name="a-d", ends=("a", "d"), terms=Terms(paths=paths, accept_undocumented=True))},
    )


# what a relay can know ------------------------------------------------------------------------------------------------


class Listening(Carrier):
    """Keeps what it saw."""

    def forward(self, place: Place, hop: int, text: Secret) -> None:
        if hop > 1:
            Recorder.texts[place.route[hop - 1]][place] = text.reveal()
        super().forward(place, hop, text)

    def drawn(self, ticket: int, keys: list[Key] | None) -> None:
        if keys:
            Recorder.pads[tuple(key.key_id for key in keys)] = b"".join(key.material.reveal() for key in keys)
        super().drawn(ticket, keys)


class Recorder(Relay):
    """An honest relay that keeps what it saw, and the blocks that end at its site."""

    carrier_type = Listening
    texts: ClassVar[dict[str, dict[Place, bytes]]] = defaultdict(dict)
    pads: ClassVar[dict[tuple[str, ...], bytes]] = {}
    blocks: ClassVar[dict[tuple[str, int], bytes]] = {}

    def drain(self) -> list[Order]:
        orders = super().drain()
        for order in orders:
            if isinstance(order, Deliver) and order.number is None:
                self.blocks[order.link, order.sequence] = order.material.reveal()
        return orders


@pytest.fixture
def recorded() -> Iterator[Network]:
    for record in (Recorder.texts, Recorder.pads, Recorder.blocks):
        record.clear()
    network = Network(4, ladder(), liars=dict.fromkeys("abcdx", Recorder))
    network.listening = True
    network.run(300.0)
    assert len(Recorder.blocks) > 5
    yield network
    for record in (Recorder.texts, Recorder.pads, Recorder.blocks):
        record.clear()


@pytest.mark.proves("R035", "R040")
def test_any_one_relay_and_all_wires_fit_every_block(recorded: Network) -> None:
    """Perfect secrecy, shown on the recorded transcript: for another block there are another share and other pads that
    give every frame on every wire and everything that the relay saw, to the bit, tags included."""
    rng = random.Random(0)
    checked = 0
    carried = [message for _, _, frame in recorded.frames if isinstance(message := decode(frame), Carry)]
    for site in "bcx":
        for seen, known in Recorder.texts[site].items():
            block = Recorder.blocks.get((seen.link, seen.sequence))
            if block is None:
                continue
            other_block = rng.randbytes(len(block))
            other_text = field.add((other_block, known), len(block))
            for carry in carried:
                if (carry.place.link, carry.place.sequence) != (seen.link, seen.sequence) or carry.place == seen:
                    continue
                assert site not in carry.place.route, "routes share no site"
                key = Recorder.pads[carry.key_ids][:TAG_KEY_BYTES]
                mask = field.add((carry.box[:-TAG_BYTES], other_text), len(block))
                found = unlock(carry.box, Secret(key + mask), context_of(carry.place, carry.hop, carry.key_ids))
                assert field.add((found.reveal(), known), len(block)) == other_block
                checked += 1
    assert checked > 10


def test_with_one_path_the_relay_has_the_block() -> None:
    """What is claimed of one path is no more than this: the site between sees everything (R035)."""
    for record in (Recorder.texts, Recorder.pads, Recorder.blocks):
        record.clear()
    network = Network(5, ladder(paths=1), liars=dict.fromkeys("abcdx", Recorder))
    network.run(120.0)
    seen = {text for texts in Recorder.texts.values() for text in texts.values()}
    assert Recorder.blocks
    assert set(Recorder.blocks.values()) <= seen
    assert any(post.told["relay.saw", "whole"] for post in network.posts.values())


@pytest.mark.proves("R035")
def test_a_block_names_its_routes_at_both_ends() -> None:
    network = Network(6, ladder())
    network.run(200.0)
    told = [
        {origin.sequence: origin.source for origin in network.posts[name].sitting.store.register.origins("a-d", 0, 10)}
        for name in "ad"
    ]
    both = told[0].keys() & told[1].keys()  # one may be on its way back to its origin
    assert len(both) > 2
    assert all(told[0][sequence] == told[1][sequence] for sequence in both)
    assert all(Way.parse(source) is not None for source in told[0].values())
