"""Networks: routing as they grow, what a compromised site could have seen, faults in simulated time, and real sites.

Goals: a million keys asked in 1 s, no violation in simulation, 2,000 keys a second over three hops, another way within 2 s, and
fills that give the pair that is worst off at least 0.8 of what the best routing could.
`--live` starts real sites; `--hours` is how long each simulated network lives.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

from bench.network_shares import lived, planned
from bench.report import Row, publish
from keystrand.core.protection import Strand
from keystrand.core.register import KeyRecord, Origin, Scope, Stage
from keystrand.crypto.onetime import pad_bytes
from keystrand.crypto.seal import RootKey, Sealer
from keystrand.lab.network import NetworkLab
from keystrand.relay.atlas import Atlas, RelayedLink, SiteFacts, Terms
from keystrand.relay.flow import fill_bps
from keystrand.relay.linkstate import LinkState
from keystrand.relay.pace import Pace
from keystrand.relay.routes import disjoint_routes
from keystrand.store.sqlite import SqliteStore
from keystrand.testing.clock import VirtualClock
from keystrand.testing.network.maps import drawn_atlas, drawn_hops, names_of, network_text
from keystrand.testing.network.post import sign_as, verify
from keystrand.testing.network.world import Network
from keystrand.testing.world.faults import Faults
from keystrand.wire.relay import SignedAdvert, Span, decode, encode

BLOCK_BITS = 262_144
KEYS_PER_BLOCK = BLOCK_BITS // 256
BACKBONE_SITES = 32
T = TypeVar("T")
STORMY = Faults(loss=0.01, duplicate=0.01, crash_every_s=600.0, partition_every_s=300.0, down_s=20.0)
CHAIN = network_text("ab bc cd", ad="")
RING = network_text("ab bd ac cd", ad="")


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """What one site of a network needs. hear_s: processor to take in everybody's adverts once, signatures left out."""

    decide_ms: float
    fill_ms: float
    state_kib: float
    advert_bytes: float
    hear_s: float


def routing(sites: int, hops: int) -> Routing:
    """Two disjoint routes, how fast they can fill a link, and what has to be held and heard for that."""
    rng = random.Random(sites)
    names = names_of(sites)
    pairs = drawn_hops(rng, names, hops - sites)
    link = RelayedLink(
        name="far", ends=(names[0], names[sites // 2]), terms=Terms(paths=2, relays_max=62, accept_undocumented=True)
    )
    atlas = Atlas({name: SiteFacts(name=name) for name in names}, pairs, {"far": link})
    adverts = []
    for name in names:
        other = LinkState(name, atlas, VirtualClock(), sign_as(name), verify)
        spans = {
            near: Span(near, rng.randrange(10**6, 10**8), rng.randrange(1000, 10**5)) for near in atlas.neighbours(name)
        }
        advert = other.own(spans)
        assert advert is not None
        adverts.append(encode(advert))
    state = LinkState(names[0], atlas, VirtualClock(), sign_as(names[0]), lambda site, message, signature: None)
    tracemalloc.start()
    began_s = time.process_time()
    for frame in adverts:
        said = decode(frame)
        assert isinstance(said, SignedAdvert)
        if said.advert.site == state.site:
            state.adverts[state.site] = said.advert
        else:
            state.hear(said)
    hear_s = time.process_time() - began_s
    state_kib = tracemalloc.get_traced_memory()[0] / 1024
    tracemalloc.stop()
    decide_ms, found = _timed(lambda: disjoint_routes(state.graph(link, BLOCK_BITS), link.origin, link.target, 2))
    assert len(found) == 2
    fill_ms, rate_bps = _timed(lambda: fill_bps(state.rates(link), link.origin, link.target, 2))
    assert rate_bps > 0
    size = sum(map(len, adverts)) / sites
    return Routing(decide_ms=decide_ms, fill_ms=fill_ms, state_kib=state_kib, advert_bytes=size, hear_s=hear_s)


def _timed(work: Callable[[], T], rounds: int = 10) -> tuple[float, T]:
    """Milliseconds of processor, and what came of it."""
    began_s = time.process_time()
    for _ in range(rounds):
        found = work()
    return 1e3 * (time.process_time() - began_s) / rounds, found


def national_bits() -> float:
    """Bits of hops' key that one end key of 256 bits costs from end to end of a backbone of 32 trusted nodes in a row.

    The size is that of the backbone between Beijing and Shanghai, 2,000 km (Chen et al., Nature 589, 214 (2021)).
    """
    names = names_of(BACKBONE_SITES)
    hops = tuple(pairwise(names))
    link = RelayedLink(name="far", ends=(names[0], names[-1]), terms=Terms(relays_max=62, accept_undocumented=True))
    atlas = Atlas({name: SiteFacts(name=name) for name in names}, hops, {"far": link})
    (route,) = atlas.static_routes(link)
    block_bytes = Pace().block_bytes
    return 256 * (len(route) - 1) * pad_bytes(block_bytes) / block_bytes


def exposure(keys: int) -> float:
    """Seconds to count what one relay could have seen of so many keys, in a store on disk."""
    rng = random.Random(1)
    with tempfile.TemporaryDirectory() as folder:
        store = _filled(Path(folder), keys, rng)
        began_s = time.monotonic()
        groups = store.register.tally(Scope(relay="r3"))
        spent_s = time.monotonic() - began_s
        assert sum(group.keys for group in groups) > 0
        store.close()
    return spent_s


def _filled(folder: Path, keys: int, rng: random.Random) -> SqliteStore:
    folder.chmod(0o700)
    store = SqliteStore(folder / "site.db", Sealer(RootKey.generate()))
    strands = frozenset({Strand.QKD, Strand.PQC})
    blocks = -(-keys // KEYS_PER_BLOCK)
    with store.transaction():
        for sequence in range(blocks):
            one, other = rng.sample(range(10), 2)
            routes = f"relay {rng.choice((1, 2))}/2: a>r{one}>z, a>r{other}>z"
            store.register.add_origin(Origin("a-z", sequence, routes, float(sequence)))
    for start in range(0, keys, 50_000):
        with store.transaction():
            for number in range(start, min(keys, start + 50_000)):
                store.register.add(_record(number, strands))
    return store


def _record(number: int, strands: frozenset[Strand]) -> KeyRecord:
    sequence = number // KEYS_PER_BLOCK
    return KeyRecord(
        key_id=f"{number:032x}",
        initiator="app-a",
        responders=("app-z",),
        peer="z",
        link="a-z",
        first_sequence=sequence,
        last_sequence=sequence,
        strands=strands,
        size_bits=256,
        tenant="default",
        tags=(),
        created_s=float(number),
        activated_s=float(number),
        expires_s=1e12,
        stage=Stage.EXPIRE,
        due_s=1e12,
    )


def simulated(seeds: int, sites: int, hours: float) -> tuple[int, int, int]:
    """Violations, keys fetched and crashes over so many networks under faults."""
    violations = keys = crashes = 0
    for seed in range(seeds):
        network = Network(seed, drawn_atlas(random.Random(seed), sites, sites // 3), faults=STORMY)
        tally = network.run(3600 * hours)
        violations += len(network.judge.violations)
        keys += tally.fetched
        crashes += tally.crashes
        found = len(network.judge.violations)
        print(f"seed {seed}: {tally.fetched} keys, {tally.crashes} crashes, {found} violations", flush=True)
    return violations, keys, crashes


def throughput(seconds: float) -> float:
    """Keys of 256 bits a second that arrive over three hops between real sites."""
    with _Live(CHAIN, 4_000_000.0) as lab:
        time.sleep(3.0)
        before, began_s = _ingested(lab), time.monotonic()
        time.sleep(seconds)
        return (_ingested(lab) - before) / (time.monotonic() - began_s) / 256


def reroute() -> float:
    """Seconds from the end of a relay's process to the next block over another way."""
    with _Live(RING, 1_000_000.0) as lab:
        time.sleep(2.0)
        lab.programs.kill("b-kme")
        began_s, before = time.monotonic(), _ingested(lab)
        while _ingested(lab) <= before + BLOCK_BITS:  # one may have been on its way
            drawn, picked = lab.draw("a-d")
            assert drawn[0].material.matches(picked[0].material), "a delivery failed while another way had keys"
            time.sleep(0.02)
        return time.monotonic() - began_s


class _Live:
    def __init__(self, text: str, rate_bps: float) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="keystrand-net-")
        source = Path(self._folder.name) / "network.toml"
        source.write_text(text)
        self._lab = NetworkLab(source, Path(self._folder.name) / "lab", lambda line: None, rate_bps)

    def __enter__(self) -> NetworkLab:
        self._lab.found()
        for file in self._lab.files.values():
            file.write_text(file.read_text().replace("[relay]\n", "[relay]\nfill_bits = 500000000\n"))
        self._lab.up()
        return self._lab

    def __exit__(self, *problem: object) -> None:
        self._lab.down()
        self._folder.cleanup()


def _ingested(lab: NetworkLab) -> int:
    return int(lab.links_of("d").get("a-d", {}).get("ledger", {}).get("ingested", 0))


def _shares() -> list[Row]:
    """The pair that is worst off, as a part of the linear program's bound: of plans, and of two simulated networks."""
    parts = [worst / best for worst, best in (planned(30, 20, seed) for seed in range(10))]
    note = f"10 networks of 30 sites, 20 pairs; mean {sum(parts) / len(parts):.2f}; 1 is the multicommodity flow bound"
    rows = [Row(name="fair fill, planned, worst-off pair", value=min(parts), unit="x bound", goal=0.8, note=note)]
    seen = lived(12, 8, 1, 0.5)
    note = "12 sites, 8 pairs, half an hour in simulation, by blocks that came"
    rows.append(
        Row(name="fair fill, lived, worst-off pair", value=seen.fair / seen.bound, unit="x bound", goal=0.8, note=note)
    )
    rows.append(Row(name="the same by first come first served", value=seen.naive / seen.bound, unit="x bound"))
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--live", action="store_true")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--keys", type=int, default=1_000_000)
    options = parser.parse_args()
    rows = []
    for sites, hops in ((100, 500), (300, 1500), (1000, 5000)):
        seen, words = routing(sites, hops), f"{sites} sites, {hops} hops"
        rows.append(Row(name=f"two disjoint routes, {words}", value=seen.decide_ms, unit="ms"))
        rows.append(Row(name=f"how fast they fill a link, {words}", value=seen.fill_ms, unit="ms"))
        rows.append(Row(name=f"routing state held, {words}", value=seen.state_kib, unit="KiB"))
        heard = f"one advert is {seen.advert_bytes:.0f} bytes; without signatures"
        rows.append(Row(name=f"all adverts heard once, {words}", value=seen.hear_s, unit="s", note=heard))
    note = f"{BACKBONE_SITES} trusted nodes in a row, one route; twice that for two"
    rows.append(Row(name="hop key for one 256-bit end key", value=national_bits(), unit="bits", note=note))
    rows += _shares()
    words = f"what a site could have seen, {options.keys} keys"
    rows.append(Row(name=words, value=exposure(options.keys), unit="s", goal=1.0, better="lower"))
    violations, keys, crashes = simulated(options.seeds, 30, options.hours)
    note = f"{options.seeds} networks of 30 sites, {options.hours:g} h each, {keys} keys, {crashes} crashes"
    rows.append(Row(name="violations in simulation", value=violations, unit="count", goal=0, better="lower", note=note))
    if options.live:
        rows.append(Row(name="keys over three hops", value=throughput(15.0), unit="1/s", goal=2000))
        rows.append(
            Row(name="another way after a relay is killed", value=reroute(), unit="s", goal=2.0, better="lower")
        )
    return 0 if publish("network", rows) else 1


if __name__ == "__main__":
    sys.exit(main())
