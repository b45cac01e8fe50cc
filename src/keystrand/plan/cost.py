"""What each layer of a pattern costs on a link: ranges from the estate's own tariffs, or the names of those that are missing.

Nothing is filled in for the user. One price is published well enough to be suggested, and is only ever suggested.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from keystrand.plan.estate import Control, Estate, Link, Medium
from keystrand.plan.fact import Basis, Figure, Quantity, Span, Unknown, figure
from keystrand.plan.finding import Finding
from keystrand.plan.pattern import Layer, Pattern
from keystrand.plan.tariffs import Tariffs

SUGGESTED: Final = {
    "qkd_pair": "published: about EUR 180,000 to 250,000 for one system under 100 km of dedicated fibre (Orange)",
}
"""What may stand beside a missing tariff as a hint; never computed with."""

HARDWARE: Final = ("qkd_pair", "kms", "hsm", "encryptor")
QKD_HARDWARE: Final = ("qkd_pair", "relay_site", "kms", "hsm", "encryptor")
NOTHING: Final = Span(0.0, 0.0, 0.0)
SHARE_MAX: Final = 0.5  # assumed: above it most of the money is for hardware


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """What has to be bought for one link or several. sites: ends that need a key manager and an HSM, each once."""

    endpoints: int
    pqc: bool
    links: int = 0
    pairs: int = 0
    relays: int = 0
    sites: tuple[str, ...] = ()
    tunnel_ends: int = 0
    leased_km: Span = NOTHING

    def __add__(self, other: Bill) -> Bill:
        return Bill(
            endpoints=self.endpoints + other.endpoints,
            pqc=self.pqc or other.pqc,
            links=self.links + other.links,
            pairs=self.pairs + other.pairs,
            relays=self.relays + other.relays,
            sites=tuple(dict.fromkeys((*self.sites, *other.sites))),
            tunnel_ends=self.tunnel_ends + other.tunnel_ends,
            leased_km=self.leased_km + other.leased_km,
        )


def bill_of(link: Link, pattern: Pattern, hops: int | None) -> Bill | Unknown:
    """Two endpoints, and for QKD on each disjoint path `hops` pairs of modules with a relay between two."""
    if not pattern.has_qkd:
        return Bill(endpoints=2, pqc=pattern is not Pattern.CLASSICAL)
    leased = leased_km(link)
    missing = ["how many hops of QKD it takes: its feasibility is unknown"] if hops is None else []
    missing += leased.reasons if isinstance(leased, Unknown) else ()
    if hops is None or isinstance(leased, Unknown):
        return Unknown(tuple(missing))
    paths = max(2, link.disjoint_paths) if pattern is Pattern.PQC_QKD_MULTI else link.disjoint_paths
    return Bill(
        endpoints=2,
        pqc=True,
        links=1,
        pairs=hops * paths,
        relays=(hops - 1) * paths,
        sites=link.ends,
        tunnel_ends=2 * link.tunnels,
        leased_km=leased.times(paths),
    )


def leased_km(link: Link) -> Span | Unknown:
    """Length of all dark fibre on the way that is not the estate's own."""
    found, missing = NOTHING, []
    for place, segment in enumerate(link.segments):
        if segment.medium is Medium.DARK_FIBRE and segment.control is not Control.OWNED:
            if segment.length_km is None:
                missing.append(f"segments.{place}.length_km")
            else:
                found += figure(segment.length_km).span
    return Unknown(tuple(missing)) if missing else found


@dataclass(frozen=True, slots=True)
class Item:
    """One line of a calculation, over the years of the tariffs. yearly: its price is per year."""

    tariff: str
    count: Span
    price: Figure
    years: float

    @property
    def yearly(self) -> bool:
        return self.tariff.endswith("_per_year")

    @property
    def total(self) -> Span:
        each = self.count * self.price.span
        return each.times(self.years) if self.yearly else each


@dataclass(frozen=True, slots=True)
class LayerCost:
    """What one layer adds. once, per_year: in the estate's currency; total: over `years`."""

    layer: Layer
    items: tuple[Item, ...]
    years: float

    @property
    def once(self) -> Span:
        return _sum(item.total for item in self.items if not item.yearly)

    @property
    def per_year(self) -> Span:
        return _sum(item.total for item in self.items if item.yearly).times(1 / self.years)

    @property
    def total(self) -> Span:
        return _sum(item.total for item in self.items)

    @property
    def basis(self) -> Basis:
        return Basis.weakest(item.price.basis for item in self.items)


@dataclass(frozen=True, slots=True)
class Costs:
    """All layers of a bill; what each one adds."""

    layers: tuple[LayerCost, ...]
    currency: str
    years: float

    @property
    def total(self) -> Span:
        return _sum(layer.total for layer in self.layers)

    @property
    def per_link_year(self) -> Span:
        """For one link: what it costs to protect it for a year."""
        return self.total.times(1 / self.years)

    @property
    def hardware_share(self) -> float:
        """Of the likely total: what goes into QKD modules, relays, their key managers and encryptors."""
        spent = sum(i.total.likely for layer in self.layers for i in layer.items if i.tariff in QKD_HARDWARE)
        return spent / self.total.likely if self.total.likely else 0.0


def cost(estate: Estate, bill: Bill) -> Costs | Unknown:
    """The bill at the estate's tariffs, or every tariff that is missing for it."""
    tariffs = estate.tariffs
    wanted = [(Layer.HARDENED, _hardening(bill))]
    wanted += [(Layer.PQC, _pqc(bill))] if bill.pqc else []
    wanted += [(Layer.QKD_REFRESH, _qkd(bill))] if bill.links else []
    names = [name for _, counts in wanted for name, count in counts if count.high > 0]
    missing = [_missing(name) for name in names if _stated(tariffs, name) is None]
    missing += [] if estate.currency else ["currency"]
    if missing:
        return Unknown(tuple(dict.fromkeys(missing)))
    layers = [LayerCost(layer, _items(tariffs, counts), tariffs.years) for layer, counts in wanted]
    return Costs(tuple(layers), estate.currency, tariffs.years)


Counts = Sequence[tuple[str, Span]]


def _hardening(bill: Bill) -> Counts:
    return [("hardening_endpoint", Span.point(bill.endpoints))]


def _pqc(bill: Bill) -> Counts:
    return [("pqc_endpoint", Span.point(bill.endpoints))]


def _qkd(bill: Bill) -> Counts:
    managed = len(bill.sites) + bill.relays
    return [
        ("qkd_pair", Span.point(bill.pairs)),
        ("relay_site", Span.point(bill.relays)),
        ("kms", Span.point(managed)),
        ("hsm", Span.point(managed)),
        ("encryptor", Span.point(bill.tunnel_ends)),
        ("fibre_km_per_year", bill.leased_km),
        ("relay_site_per_year", Span.point(bill.relays)),
        ("support_share_per_year", Span.point(1)),
        ("staff_per_year", Span.point(bill.links)),
    ]


def _stated(tariffs: Tariffs, name: str) -> Quantity | None:
    stated: Quantity | None = getattr(tariffs, name)
    return stated


def _missing(name: str) -> str:
    hint = f" ({SUGGESTED[name]})" if name in SUGGESTED else ""
    return f"tariffs.{name}{hint}"


def _items(tariffs: Tariffs, counts: Counts) -> tuple[Item, ...]:
    """Support is a share of the hardware on the same bill."""
    found: list[Item] = []
    for name, count in counts:
        stated = _stated(tariffs, name)
        if count.high > 0 and stated is not None:
            of = _sum(i.total for i in found if i.tariff in HARDWARE) if name == "support_share_per_year" else count
            found.append(Item(name, of, figure(stated), tariffs.years))
    return tuple(found)


def _sum(spans: Iterable[Span]) -> Span:
    return sum(spans, NOTHING)


def per_point(total: Span, removed: Span) -> Span:
    """Money for one percentage point of risk that is removed; infinite where nothing may be removed for it.

    removed: difference of two chances.
    """

    def each(money: float, chance: float) -> float:
        return money / (100 * chance) if chance > 0 else math.inf

    low, high = each(total.low, removed.high), each(total.high, removed.low)
    return Span(low, min(max(low, each(total.likely, removed.likely)), high), high)


def hardware_findings(costs: Costs, open_findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Money for quantum hardware while questions of governance are open: the usual way to spend much and gain little."""
    share = costs.hardware_share
    if not share or not open_findings:
        return ()
    weight = "most" if share > SHARE_MAX else "part"
    asked = f"{len(open_findings)} questions of governance are open"
    says = f"{weight} of the money ({share:.0%}) is for QKD hardware while {asked}"
    return (Finding(("tariffs",), says, "R011", hint=f"answer them first, such as: {open_findings[0].says}"),)
