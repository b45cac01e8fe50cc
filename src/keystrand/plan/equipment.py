"""What a QKD device gives at a loss: curves of the link engine's own profiles, or of a data sheet. The one door to both.

There is one source of truth for each class of device: `qkd/profiles`, with the rate model that the running link uses. It is
loaded when the first rate is asked for, sampled once per profile and read between the samples in the log domain.
"""

from __future__ import annotations

import math
import tomllib
from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from importlib import resources
from itertools import pairwise
from typing import Any, Final, Protocol

import msgspec

from keystrand.plan.estate import Device, DeviceKind, Medium
from keystrand.plan.fact import Basis, Span
from keystrand.qkd.profile import Coexistence, Detector, Distillation, Fibre, LinkProfile, Source

FIELD: Final = Span(1 / 19, 1 / 6, 1.0)  # published field rates over those of rate models: 2 to 19 times less
FIELD_ASYMPTOTIC: Final = Span(1 / 100, 1 / 10, 1.0)  # of models without finite-key effects; 50 times at Frankfurt-Kehl
FASTER: Final = (
    5.0  # devices faster than any shipped class exist: 13.7 Mb/s at 2 dB (Yuan et al. 2018) is 4.2 times ours
)
RANGES_DB: Final = {"gg02": 15.0, "bbm92": 40.0, "twin-field": 110.0}  # about where published links of the kind end
QBER_FIELD: Final = 3.0  # field links err by 1 to 4 % where our models do by about one; assumed
FARTHER_DB: Final = 7.0  # and such that bear more loss: 51.9 dB (Korzh et al. 2014) where our best class ends at 46
STEP_DB: Final = 0.25
LIT_KEPT: Final = 4096  # rates beside other light that are kept: they depend on too much to be sampled
LOSS_MAX_DB: Final = 120.0
CLOCK_MAX_HZ: Final = 5e9  # of a device that does not state its clock: the fastest published ones
RAMAN_O_PER_KM_NM: Final = 4e-11  # light at 1550 nm into a quantum channel at 1310 nm; assumed
MUX_DB: Final = Span(1.0, 2.0, 3.0)  # of the filters that join and part quantum and classical light; assumed


Kind = DeviceKind
QUANTUM: Final = (Kind.DV_QKD, Kind.CV_QKD, Kind.ENTANGLED, Kind.MDI_TF, Kind.FREE_SPACE, Kind.SATELLITE)
AIR: Final = (Kind.FREE_SPACE, Kind.SATELLITE)
MEDIA: Final = {Kind.FREE_SPACE: Medium.FREE_SPACE, Kind.SATELLITE: Medium.SATELLITE}

DEFAULTS: Final[dict[Kind, tuple[str, ...]]] = {
    Kind.DV_QKD: ("class-ingaas", "class-ingaas-1ghz", "class-snspd"),
    Kind.CV_QKD: ("model-gg02",),
    Kind.ENTANGLED: ("model-bbm92",),
    Kind.MDI_TF: ("model-twin-field",),
    Kind.FREE_SPACE: ("free-space-urban",),
    Kind.SATELLITE: (),
}
KIND_OF: Final = {"bb84-decoy": Kind.DV_QKD, "bbm92": Kind.ENTANGLED, "gg02": Kind.CV_QKD, "twin-field": Kind.MDI_TF}


@dataclass(frozen=True, slots=True)
class Light:
    """Classical channels beside the quantum one: how many, power of each at launch, band of the quantum light, km together."""

    channels: int = 0
    launch_dbm: float = 0.0
    band: str = "C"
    km: float = 0.0


DARK: Final = Light()


class Model(Protocol):
    """A rate model of a protocol that the link engine does not run."""

    @property
    def clock_hz(self) -> float: ...

    def rate(self, loss_db: float) -> tuple[float, float]: ...


@dataclass(frozen=True, slots=True)
class Curve:
    """Samples of a rate over loss: `dbs` rise, `bps` belong to them. Outside: `beyond`, or None for unknown."""

    dbs: tuple[float, ...]
    bps: tuple[float, ...]
    beyond: float | None

    def at(self, loss_db: float) -> float | None:
        """Straight in the log domain; nothing between a sample and one without key, so never more than there is."""
        if not self.dbs[0] <= loss_db <= self.dbs[-1]:
            return self.beyond
        after = max(1, bisect_left(self.dbs, loss_db))
        (left, right), (one, other) = self.dbs[after - 1 : after + 1], self.bps[after - 1 : after + 1]
        if loss_db in (left, right):
            return one if loss_db == left else other
        if min(one, other) <= 0:
            return 0.0
        share = (loss_db - left) / (right - left)
        return math.exp((1 - share) * math.log(one) + share * math.log(other))


@dataclass(frozen=True, slots=True, eq=False)
class Equipment:
    """A class of device. `curve`: without other light; `lit`: bit/s at a loss beside other light, None where nobody knows.

    qber: of its model at a loss without other light; None where only a data sheet is known, or the device counts no bits (CV).
    """

    name: str
    kind: Kind
    clock_hz: float
    curve: Curve
    basis: Basis = Basis.SIMULATED
    lit: Callable[[float, Light], float] | None = None
    field: Span = FIELD
    qber: Callable[[float], float] | None = None

    def bps(self, loss_db: float, light: Light = DARK) -> float | None:
        """Secret bits per second before the derating of the field; None outside what is known of the device."""
        if light.channels == 0:
            return self.curve.at(loss_db)
        return None if self.lit is None else self.lit(loss_db, light)

    def plob_bps(self, loss_db: float) -> float:
        """What no device without a repeater exceeds: Pirandola et al., Nat. Commun. 8, 15043 (2017). Twin field has one."""
        if self.kind is Kind.MDI_TF:
            return math.inf
        eta: float = 10 ** (-loss_db / 10)
        return math.inf if eta >= 1 else -self.clock_hz * math.log1p(-eta) / math.log(2)


def of_profile(name: str, protocol: str, profile: LinkProfile, model: Model | None) -> Equipment:
    """From a profile as the link engine has it."""
    kind = Kind.FREE_SPACE if profile.free_space is not None else KIND_OF[protocol]

    def quiet(loss_db: float) -> float:
        return _modelled(profile, model, loss_db, DARK)

    @lru_cache(LIT_KEPT)
    def lit(loss_db: float, light: Light) -> float:
        return _modelled(profile, model, loss_db, light)

    def astray(loss_db: float) -> float:
        return _modelled_qber(profile, model, loss_db)

    if model is not None:
        curve = sampled(quiet, RANGES_DB[protocol])
        counts_bits = kind is not Kind.CV_QKD
        qber = astray if counts_bits else None
        return Equipment(name, kind, model.clock_hz, curve, field=FIELD_ASYMPTOTIC, qber=qber)
    return Equipment(name, kind, profile.source.clock_hz, sampled(quiet), lit=lit, qber=astray)


def of_device(name: str, device: Device) -> Equipment:
    """From the curve of a data sheet. Raises ValueError for one that does not rise in dB or has a negative rate."""
    rows = device.curve
    if len(rows) < 2 or any(b[0] <= a[0] for a, b in pairwise(rows)) or min(r for _, r in rows) < 0:
        raise ValueError("a curve needs two points or more, with rising dB and no negative rate")
    curve = Curve(tuple(db for db, _ in rows), tuple(bps for _, bps in rows), None)
    field = Span.point(1.0) if device.curve_basis is Basis.MEASURED else FIELD
    return Equipment(name, device.kind, device.clock_hz or CLOCK_MAX_HZ, curve, device.curve_basis, field=field)


@cache
def shipped(name: str) -> Equipment:
    """By the name of a profile that comes with the program. Raises ValueError for another."""
    folder = resources.files("keystrand.qkd") / "profiles"
    if name not in shipped_names():
        raise ValueError(f"there is no device profile {name!r}: one of {', '.join(shipped_names())}")
    raw = tomllib.loads((folder / f"{name}.toml").read_text())
    from keystrand.qkd import rate_models

    kinds = {"pairs": rate_models.EntangledPairs, "gaussian": rate_models.GaussianStates, "twin": rate_models.TwinField}
    model = next((msgspec.convert(raw[table], kind) for table, kind in kinds.items() if table in raw), None)
    return of_profile(name, raw["protocol"], _profile(raw), model)


@cache
def shipped_names() -> tuple[str, ...]:
    folder = resources.files("keystrand.qkd") / "profiles"
    return tuple(sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml")))


def _profile(raw: dict[str, Any]) -> LinkProfile:
    from keystrand.qkd.profile import FreeSpace

    tables = {"source": Source, "fibre": Fibre, "detector": Detector, "distillation": Distillation}
    parts: dict[str, Any] = {table: msgspec.convert(raw.get(table, {}), kind) for table, kind in tables.items()}
    air = msgspec.convert(raw["free_space"], FreeSpace) if "free_space" in raw else None
    return LinkProfile(**parts, free_space=air)


def sampled(bps: Callable[[float], float], range_db: float = LOSS_MAX_DB) -> Curve:
    """Every quarter of a dB, up to the first loss without key; beyond that there is none, beyond its range it is unknown."""
    dbs: list[float] = []
    rates: list[float] = []
    for step in range(int(range_db / STEP_DB) + 1):
        dbs.append(step * STEP_DB)
        rates.append(bps(dbs[-1]))
        if rates[-1] <= 0 and step > 0:
            return Curve(tuple(dbs), tuple(rates), 0.0)
    return Curve(tuple(dbs), tuple(rates), None)


def _modelled(profile: LinkProfile, model: Model | None, loss_db: float, light: Light) -> float:
    if model is not None:
        return model.rate(loss_db)[0]
    from keystrand.qkd.rates import rate

    return rate(at_loss(profile, loss_db, light)).skr_bps


def _modelled_qber(profile: LinkProfile, model: Model | None, loss_db: float) -> float:
    if model is not None:
        return model.rate(loss_db)[1]
    from keystrand.qkd.rates import rate

    return rate(at_loss(profile, loss_db)).qber


def at_loss(profile: LinkProfile, loss_db: float, light: Light = DARK) -> LinkProfile:
    """The devices of a profile over a path of this loss between them; what the receiver itself loses comes on top."""
    km = light.km or max(loss_db, 0.1) / 0.2
    fibre = replace(profile.fibre, length_km=km, attenuation_db_per_km=loss_db / km, connectors=0, splices=0)
    raman = RAMAN_O_PER_KM_NM if light.band.upper().startswith("O") else Coexistence().raman_per_km_nm
    beside = Coexistence(
        forward=math.ceil(light.channels / 2),
        backward=light.channels // 2,
        launch_dbm=light.launch_dbm,
        raman_per_km_nm=raman,
    )
    return replace(profile, fibre=fibre, free_space=None, coexistence=beside)


def rate_span(choices: Iterable[Equipment], loss_db: Span, light: Light = DARK) -> Span | None:
    """Secret bits per second over the range of a loss, derated for the field, under the bound; None where it is unknown.

    Of several classes: the worst of them at least, the middle one likely, and more than the best of them at most.
    """
    known = [(each, one) for each in choices if (one := _of_one(each, loss_db, light)) is not None]
    if not known:
        return None
    spans = [span for _, span in known]
    if len(spans) == 1:
        return spans[0]
    likely = sorted(span.likely for span in spans)[len(spans) // 2]
    better_db = max(0.0, loss_db.low - FARTHER_DB)
    better = max(each.bps(better_db, light) or 0.0 for each, _ in known)
    bound = max(each.plob_bps(loss_db.low) for each, _ in known)
    return Span(min(s.low for s in spans), likely, min(bound, max(better, FASTER * max(s.high for s in spans))))


def qber_span(choices: Iterable[Equipment], loss_db: Span) -> Span | None:
    """Error rates of the models over the range of a loss, up to `QBER_FIELD` times the highest; None without a model."""
    models = [each.qber for each in choices if each.qber is not None]
    if not models:
        return None
    rates = sorted(qber(db) for qber in models for db in (loss_db.low, loss_db.likely, loss_db.high))
    return Span(0.0, rates[len(rates) // 2], min(0.5, QBER_FIELD * rates[-1]))


def _of_one(each: Equipment, loss_db: Span, light: Light) -> Span | None:
    rates = [each.bps(db, light) for db in (loss_db.high, loss_db.likely, loss_db.low)]
    bounds = [each.plob_bps(db) for db in (loss_db.high, loss_db.likely, loss_db.low)]
    factors = (each.field.low, each.field.likely, each.field.high)
    known = [min(b, r * f) for r, b, f in zip(rates, bounds, factors, strict=True) if r is not None]
    return Span(*sorted(known)) if len(known) == 3 else None
