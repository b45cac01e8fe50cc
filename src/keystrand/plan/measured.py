"""What a running site measured of one of its links, read from its status page and its metrics. None: it has not measured it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median
from typing import Any, Final

from keystrand.core.protection import Protection
from keystrand.core.way import Way
from keystrand.plan.fact import Basis

GAPS_LEAST: Final = 2  # time between draws says nothing before there were three
DELIVERY: Final = "enc_keys"  # the request by which an application draws a key
HISTOGRAM: Final = "request_latency_seconds"
P95: Final = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Tunnel:
    """As its connector said last. suite: in the daemon's words; empty: it does not tell."""

    name: str
    kind: str
    suite: str
    protection: Protection


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Of one link at one site. drain_bps: what its applications draw at present.

    age_p95_s: of the oldest key material in store, over the samples that the site remembers. rotation_s: median time between
    draws of one pair of applications. delivery_p95_s: from request to reply, of all keys that the site gave. requires: the
    weakest level that the policy asks of a pair over this link. relays: sites that its blocks passed.
    """

    site: str
    link: str
    peer: str
    simulated: bool
    skr_bps: float | None = None
    qber: float | None = None
    stock_bits: float | None = None
    drain_bps: float | None = None
    age_p95_s: float | None = None
    rotation_s: float | None = None
    delivery_p95_s: float | None = None
    given: tuple[Protection, ...] = ()
    requires: Protection | None = None
    relays: tuple[str, ...] | None = None
    tunnels: tuple[Tunnel, ...] = ()

    @property
    def basis(self) -> Basis:
        return Basis.SIMULATED if self.simulated else Basis.MEASURED


def measured_of(status: dict[str, Any], metrics: str = "") -> Iterator[Measured]:
    """From a site's status (the JSON of `keystrand status --json`) and its metrics as text, one for each of its links."""
    delivery_p95_s = quantile(metrics, HISTOGRAM, DELIVERY, P95)
    for link in status["links"]:
        ledger, series = link["ledger"], status["series"].get(link["link"], {})
        yield Measured(
            site=status["site"],
            link=link["link"],
            peer=link["peer"],
            simulated=link["simulated"],
            skr_bps=_mean(series, 2, link["skr_bps"]),
            qber=_mean(series, 1, link["qber"]),
            stock_bits=float(ledger["available"] + ledger["reserved"]),
            drain_bps=link["drain_bps"],
            age_p95_s=_age_p95_s(series),
            rotation_s=_rotation_s(status, link["link"]),
            delivery_p95_s=delivery_p95_s,
            given=_given(status, link["link"]),
            requires=_requires(status, link["peer"]),
            relays=_relays(series, ledger["ingested"]),
            tunnels=_tunnels(status, link["link"]),
        )


def quantile(metrics: str, histogram: str, method: str, share: float) -> float | None:
    """Of a Prometheus histogram, linear within its bucket; its last bound for what lies beyond. None where it holds nothing."""
    from prometheus_client.parser import text_string_to_metric_families

    buckets = sorted(
        (float(sample.labels["le"]), sample.value)
        for family in text_string_to_metric_families(metrics)
        for sample in family.samples
        if sample.name == f"{histogram}_bucket" and sample.labels.get("method") == method
    )
    if not buckets or not buckets[-1][1]:
        return None
    wanted, below_s, below = share * buckets[-1][1], 0.0, 0.0
    for upto_s, count in buckets:
        if count >= wanted:
            return below_s if math.isinf(upto_s) else below_s + (upto_s - below_s) * (wanted - below) / (count - below)
        below_s, below = upto_s, count
    return None


def _mean(series: dict[str, Any], column: int, last: float | None) -> float | None:
    """Over the blocks that the site remembers, or else of the last one."""
    values = [row[column] for row in series.get("blocks", ()) if row[column] is not None]
    return fmean(values) if values else last


def _age_p95_s(series: dict[str, Any]) -> float | None:
    """Nearest rank; a store that is empty holds nothing that could be old."""
    ages = sorted(row[4] for row in series.get("pool", ()) if row[1] > 0)
    return ages[math.ceil(P95 * len(ages)) - 1] if ages else None


def _rotation_s(status: dict[str, Any], link: str) -> float | None:
    """Median time between two draws of the application pair that draws most often from this link."""
    drawn: dict[tuple[str, str], list[float]] = {}
    for delivery in _deliveries(status, link):
        if delivery.get("recipient") == delivery["initiator"]:
            drawn.setdefault((delivery["initiator"], delivery["responder"]), []).append(delivery["at_s"])
    times = max((sorted(at) for at in drawn.values()), key=len, default=list[float]())
    gaps = [later - earlier for earlier, later in pairwise(times)]
    return median(gaps) if len(gaps) >= GAPS_LEAST else None


def _deliveries(status: dict[str, Any], link: str) -> list[dict[str, Any]]:
    return [delivery for delivery in status["deliveries"]["recent"] if delivery.get("link") == link]


def _given(status: dict[str, Any], link: str) -> tuple[Protection, ...]:
    """Levels of the keys that were given lately, the weakest first."""
    return tuple(sorted({Protection.parse(delivery["protection"]) for delivery in _deliveries(status, link)}))


def _requires(status: dict[str, Any], peer: str) -> Protection | None:
    word = next((each.get("requires") for each in status["peers"] if each["peer"] == peer), None)
    return Protection.parse(word) if word else None


def _relays(series: dict[str, Any], ingested: int) -> tuple[str, ...] | None:
    """None before the first block. One that did not come by relays came over a fibre of the site's own."""
    ways = [way for source in series.get("ways", ()) if (way := Way.parse(source)) is not None]
    return tuple(sorted({site for way in ways for site in way.relays})) if ways or ingested else None


def _tunnels(status: dict[str, Any], link: str) -> tuple[Tunnel, ...]:
    """Those whose two ends drew keys of this link; all of the site, where it has no other link."""
    pairs = [{delivery["initiator"], delivery["responder"]} for delivery in _deliveries(status, link)]
    alone = len(status["links"]) == 1
    return tuple(
        Tunnel(
            name=each["tunnel"],
            kind=each.get("kind", ""),
            suite=each.get("suite", ""),
            protection=Protection.parse(each.get("protection") or "none"),
        )
        for each in status["tunnels"]
        if alone or {each["sae"], each.get("peer_sae")} in pairs
    )


def tokens(words: str) -> frozenset[str]:
    """`AES-256-GCM` and `AES_GCM-256/...` have three of them in common."""
    return frozenset(re.findall(r"[a-z]+\d*|\d+", words.lower()))


def covers(suites: Sequence[str], cipher: str) -> bool:
    """Whether a suite in use has every part of this cipher, whatever their order and the marks between them.

    A suite begins with its cipher; what a slash or a comma parts from it is key exchange, hash and the like.
    """
    return any(tokens(cipher) <= tokens(re.split("[/,]", suite)[0]) for suite in suites)
