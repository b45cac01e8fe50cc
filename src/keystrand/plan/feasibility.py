"""Whether QKD can feed a link, as a range: loss, key rate, relays, demand, stores, and all that stands in its way.

Nothing here recommends anything. A verdict is yes only where the worst case of the range is enough, no where the best case is
not, and unknown in between or where an input is missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from keystrand.plan import buffer, ciphers, equipment, loss, relays
from keystrand.plan.classify import weakest_control
from keystrand.plan.demand import DIRECTIONS, KEY_BITS, MARGIN, Demand, demand
from keystrand.plan.equipment import Equipment, Kind, Light
from keystrand.plan.estate import Control, Device, Estate, Link, Medium, Segment
from keystrand.plan.fact import Answer, Basis, Figure, Span, figure
from keystrand.plan.finding import Finding, Severity
from keystrand.plan.loss import PathLoss
from keystrand.plan.relays import Path

NOBODYS: Final[Mapping[str, Equipment]] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Feasibility:
    """Of one link. Figures that could not be found are None, and `reasons` say why. skr_bps: end to end with `relays`;
    alone_bps: the same without relays; wanted_bps: demand times margin; sites: where relays may stand, None where unknown;
    shortfall: how many times more key is wanted than there is at least (1 or less: enough); run, equipment: light and devices
    that the rates were computed from."""

    link: str
    path: PathLoss
    chosen: tuple[str, ...]
    skr_bps: Figure | None
    alone_bps: Figure | None
    plob_bps: float | None
    hops: int | None
    sites: tuple[str, ...] | None
    demand: Demand
    wanted_bps: float
    otp: Answer
    otp_shortfall: float | None
    store: buffer.Store | None
    raman: Answer
    verdict: Answer
    reasons: tuple[str, ...]
    findings: tuple[Finding, ...]

    run: Path | None = None
    equipment: tuple[Equipment, ...] = ()

    def trades(self, relays_max: int, columns: Sequence[tuple[str, relays.Column]] = ()) -> list[relays.Trade]:
        """Reach against trust, up to so many relays; empty where the loss or the device is unknown."""
        if self.run is None or not self.equipment:
            return []
        return list(relays.trades(self.equipment, self.run, self.wanted_bps, relays_max, columns))

    @property
    def loss_db(self) -> Figure | None:
        return self.path.loss_db

    @property
    def relays(self) -> int | None:
        return None if self.hops is None else self.hops - 1

    @property
    def margin(self) -> float | None:
        """Key at least over key spent at most; 1 is just enough."""
        if self.skr_bps is None:
            return None
        spent = self.demand.total.span.high
        return self.skr_bps.span.low / spent if spent > 0 else None

    @property
    def shortfall(self) -> float | None:
        if self.skr_bps is None or self.skr_bps.span.low <= 0:
            return None
        return self.wanted_bps / self.skr_bps.span.low


def feasible(estate: Estate, name: str, own: Mapping[str, Equipment] = NOBODYS) -> Feasibility:
    """Of the link `name`. `own`: profiles from the user's files by the names that the estate gives them."""
    link = estate.links[name]
    path, needs = loss.path_loss(estate, name), demand(link)
    choices, reasons, findings = choose(estate, name, own)
    wanted = MARGIN * needs.total.span.high
    refresh_wanted = MARGIN * needs.refresh_bps
    light = _light(link, path)
    run = None if path.loss_db is None else Path(_with_filters(path.loss_db.span, light), light, path.km)
    rates = _rates(link, path, choices, run, refresh_wanted)
    reasons += [] if _held(link) else ["a segment is not under contract: what is said of it may change without notice"]
    reasons += [*path.reasons, *needs.assumed, *rates.reasons]
    found = (
        findings
        + ciphers.check_refresh(name, link)
        + ciphers.check_ciphers(name, link)
        + _raman_finding(name, light, choices, run)
    )
    verdict = _verdict(link, path, rates, refresh_wanted, [f for f in found if f.severity is Severity.BLOCKING])
    return Feasibility(
        link=name,
        path=path,
        chosen=tuple(each.name for each in choices),
        skr_bps=rates.skr,
        alone_bps=rates.alone,
        plob_bps=None if run is None or not choices else max(c.plob_bps(run.loss_db.low) for c in choices),
        hops=rates.hops,
        sites=None if rates.hops is None else relays.sites_between(estate, link.ends, rates.hops - 1),
        demand=needs,
        wanted_bps=refresh_wanted,
        otp=_otp(link, rates, wanted),
        otp_shortfall=_shortfall(rates.skr, wanted) if link.otp_bytes_per_day is not None else None,
        store=_store(link, needs, rates.skr),
        raman=_raman(light),
        verdict=verdict,
        reasons=tuple(reasons),
        findings=tuple(found),
        run=run,
        equipment=tuple(choices),
    )


def choose(estate: Estate, name: str, own: Mapping[str, Equipment]) -> tuple[list[Equipment], list[str], list[Finding]]:
    """The devices that a link is planned with: those it names, else the classes that ship, with what speaks against them."""
    link = estate.links[name]
    named = [(each, estate.devices[each]) for each in link.devices if each in estate.devices]
    findings = _unfit(name, link, named)
    if findings and any(f.severity is Severity.BLOCKING for f in findings):
        return [], [f.says for f in findings if f.severity is Severity.BLOCKING], findings
    try:
        choices, reasons = _equipment(link, named, own)
    except ValueError as error:
        return [], [str(error)], [*findings, Finding(("links", name, "profile"), str(error), "R002", Severity.BLOCKING)]
    fitting = [each for each in choices if _fits(each, link)]
    if choices and not fitting:
        reasons.append(f"a {choices[0].kind} device does not work over {', '.join(sorted(_media(link)))}")
    return fitting, reasons, findings


def _equipment(
    link: Link, named: list[tuple[str, Device]], own: Mapping[str, Equipment]
) -> tuple[list[Equipment], list[str]]:
    quantum = [(name, device) for name, device in named if device.kind in equipment.QUANTUM]
    if quantum:
        name, device = quantum[0]
        if device.curve:
            return [equipment.of_device(name, device)], []
        if device.profile:
            return [_profile(device.profile, own)], []
        kind = device.kind
    elif link.profile:
        return [_profile(link.profile, own)], []
    else:
        kind = Kind.FREE_SPACE if _media(link) & {Medium.FREE_SPACE, Medium.SATELLITE} else Kind.DV_QKD
        if Medium.SATELLITE in _media(link):
            kind = Kind.SATELLITE
    names = equipment.DEFAULTS[kind]
    if not names:
        return [], [f"no {kind} device ships with the planner: state its curve, or a measured skr_bps"]
    return [equipment.shipped(each) for each in names], []


def _profile(name: str, own: Mapping[str, Equipment]) -> Equipment:
    return own[name] if name in own else equipment.shipped(name)


def _unfit(name: str, link: Link, named: list[tuple[str, Device]]) -> list[Finding]:
    """Devices next to each other on a link that have no interface in common, or state none."""
    found = []
    for (one, first), (other, second) in pairwise([n for n in named if n[1].kind is not Kind.QRNG]):
        if not first.interfaces or not second.interfaces:
            silent = one if not first.interfaces else other
            says = f"device {silent} states no interface: whether {one} and {other} work together is unknown"
            found.append(Finding(("devices", silent, "interfaces"), says, "R010"))
        elif not set(first.interfaces) & set(second.interfaces):
            speak = " and ".join(f"{n} ({', '.join(d.interfaces)})" for n, d in ((one, first), (other, second)))
            says = f"{speak} share no interface"
            hint = "a device, or a key manager between them, that speaks an interface of each"
            found.append(Finding(("links", name, "devices"), says, "R010", Severity.BLOCKING, hint))
    return found


def _media(link: Link) -> set[Medium]:
    return {segment.medium for segment in link.segments}


def _fits(each: Equipment, link: Link) -> bool:
    """Fibre devices over fibre, and those for air or space over those."""
    wants = equipment.MEDIA.get(each.kind)
    media = _media(link) - {Medium.UNKNOWN, Medium.SERVICE}
    return media <= {wants} if wants else not media & {Medium.FREE_SPACE, Medium.SATELLITE}


@dataclass(frozen=True, slots=True)
class _Rates:
    skr: Figure | None
    alone: Figure | None
    hops: int | None
    reasons: tuple[str, ...] = ()


def _rates(link: Link, path: PathLoss, choices: list[Equipment], run: Path | None, wanted_bps: float) -> _Rates:
    """With the fewest relays at which every hop gives what is wanted, or without any where no number does."""
    if link.skr_bps is not None:
        stated = figure(link.skr_bps)
        return _Rates(stated, stated, 1)
    if run is None or path.loss_db is None or not choices:
        return _Rates(None, None, None)
    open_share = _availability(link)
    if open_share is None:
        return _Rates(None, None, None, ("the share of time that light passes is not stated (availability)",))
    alone = relays.hop_rate(choices, run, 1)
    relayed = choices[0].kind not in (*equipment.AIR, Kind.MDI_TF)
    hops = relays.fewest_hops(choices, run, wanted_bps / open_share.low) if relayed and open_share.low > 0 else None
    if alone is None and hops is None:
        return _Rates(None, None, None, ("the loss is outside what is known of the device",))
    basis = Basis.weakest([path.loss_db.basis, *(each.basis for each in choices)])

    def found(rate: Span | None) -> Figure | None:
        return None if rate is None else Figure(rate * open_share, basis)

    if hops is None:
        return _Rates(found(alone), found(alone), 1)
    return _Rates(found(relays.hop_rate(choices, run, hops)), found(alone), hops)


def _availability(link: Link) -> Span | None:
    """Of the whole path; 1 for fibre. None where a segment through air or space does not state it."""
    share = Span.point(1.0)
    for segment in link.segments:
        if segment.availability is not None:
            share *= figure(segment.availability).span
        elif segment.medium in (Medium.FREE_SPACE, Medium.SATELLITE):
            return None
    return share


def _light(link: Link, path: PathLoss) -> Light:
    """The worst segment stands for the path: most channels, most power."""
    lit = [segment for segment in link.segments if segment.channels]
    if not lit:
        return equipment.DARK
    launch_dbm = max(0.0 if segment.launch_dbm is None else segment.launch_dbm for segment in lit)
    km = sum(_km(segment) for segment in lit)
    band = "O" if all(segment.band.upper().startswith("O") for segment in lit) else "C"
    return Light(max(segment.channels for segment in lit), launch_dbm, band, km or (path.km.likely if path.km else 0.0))


def _km(segment: Segment) -> float:
    return 0.0 if segment.length_km is None else figure(segment.length_km).span.likely


def _with_filters(loss_db: Span, light: Light) -> Span:
    return loss_db + equipment.MUX_DB if light.channels else loss_db


def _raman(light: Light) -> Answer:
    """Whether classical light on the fibre scatters into the quantum channel."""
    return Answer.YES if light.channels else Answer.NO


def _raman_finding(name: str, light: Light, choices: list[Equipment], run: Path | None) -> list[Finding]:
    if not light.channels or run is None:
        return []
    dark, lit = relays.hop_rate(choices, Path(run.loss_db, km=run.km), 1), relays.hop_rate(choices, run, 1)
    where = ("links", name, "segments")
    if dark is None or lit is None:
        says = f"{light.channels} classical channels share the fibre; what this device gives beside them is unknown"
        return [Finding(where, says, "R015", hint="ask its maker, or plan a fibre without other light")]
    kept = lit.likely / dark.likely if dark.likely > 0 else 0.0
    says = f"{light.channels} classical channels at {light.launch_dbm:g} dBm leave {kept:.0%} of the key rate (Raman noise)"
    hint = "a fibre of its own, quantum light in the O band, or less launch power"
    return [Finding(where, says, "R015", Severity.WARNING if kept < 0.9 else Severity.NOTE, hint if kept < 0.9 else "")]


def _otp(link: Link, rates: _Rates, wanted_bps: float) -> Answer:
    """Whether a one-time pad can carry the payload that asks for it."""
    if link.otp_bytes_per_day is None:
        return Answer.NOT_APPLICABLE
    return relays.enough(None if rates.skr is None else rates.skr.span, wanted_bps)


def _shortfall(skr: Figure | None, wanted_bps: float) -> float | None:
    return wanted_bps / skr.span.low if skr is not None and skr.span.low > 0 else None


def _store(link: Link, needs: Demand, skr: Figure | None) -> buffer.Store | None:
    """The smallest that bridges the longest outage; None where that, or the key rate, is not known."""
    if link.outage_h is None or skr is None:
        return None
    up_down = (link.mtbf_h * 3600, link.mttr_h * 3600) if link.mtbf_h and link.mttr_h else None
    return buffer.store(
        outage_s=3600 * link.outage_h,
        reserve_bits=float(link.tunnels * KEY_BITS * DIRECTIONS),
        drain_bps=needs.total.span.high,
        gain_bps=skr.span.low,
        up_down_s=up_down,
    )


def _verdict(link: Link, path: PathLoss, rates: _Rates, wanted_bps: float, blocking: list[Finding]) -> Answer:
    """Of refresh alone; the one-time pad has an answer of its own."""
    if path.quantum_path is Answer.NO or any(f.requirement in ("R002", "R010") for f in blocking):
        return Answer.NO
    able = relays.enough(None if rates.skr is None else rates.skr.span, wanted_bps)
    unsure = path.quantum_path is Answer.UNKNOWN or not _held(link)
    return Answer.UNKNOWN if able is Answer.YES and unsure else able


def _held(link: Link) -> bool:
    """Whether somebody who is bound by a contract, or the estate itself, decides over every segment."""
    return weakest_control(link) in (Control.OWNED, Control.CONTRACTED)
