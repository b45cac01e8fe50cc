"""The chapters about links: map, curves, feasibility, readiness, reasons, threats."""

from __future__ import annotations

from collections.abc import Iterator

from keystrand.plan import relays
from keystrand.plan.buffer import EXPOSURE_MEANS
from keystrand.plan.check import Domain, readiness
from keystrand.plan.comparison import why_not
from keystrand.plan.drawing import Band, Chart, Mark, chart, estate_map
from keystrand.plan.exposure import Case
from keystrand.plan.fact import Span, figure
from keystrand.plan.feasibility import choose
from keystrand.plan.outcome import Outcome, Plan
from keystrand.plan.page import Cell, Picture, Section, Table, lasting, merged, ranged, row, shown
from keystrand.plan.pattern import Layer, Pattern
from keystrand.plan.relays import Path
from keystrand.plan.survey import arrival
from keystrand.plan.threats import Effect, threats

YEARS_SHOWN = 50
LOSS_SHOWN_DB = 45.0


def where(plan: Plan) -> Section:
    """The map."""
    drawn = estate_map(plan.estate, plan.patterns)
    says = "; ".join(f"{name}: {pattern}" for name, pattern in plan.patterns.items())
    missing = [name for name, site in plan.estate.sites.items() if site.lat is None or site.lon is None]
    return Section(
        name="map",
        title="The estate",
        paragraphs=(f"Not on the map, for their coordinates are unknown: {', '.join(missing)}.",) if missing else (),
        parts=(Picture(name="map", title="Sites and links, by what was decided", says=says, svg=drawn),)
        if drawn
        else (),
    )


def curves(plan: Plan) -> Section:
    """Exposure over the horizon, and key rate over loss where there is a link to show it for."""
    return Section(
        name="curves",
        title="Two curves behind the decisions",
        paragraphs=(
            "The first needs no QKD: it shows why the horizon of the data decides. The second shows how far keys of QKD reach.",
        ),
        parts=(_exposure(plan), *_rate(plan)),
    )


def _exposure(plan: Plan) -> Picture:
    a, estate = plan.estate.assumptions, plan.estate
    when = arrival(a, estate.planned)
    migration, lag, recorded = (figure(stated).span for stated in (a.migration_years, a.lag_years, a.recorded))
    xs = [float(year) for year in range(YEARS_SHOWN + 1)]
    spans = []
    for x in xs:
        low = Case.of(x, migration.low, lag.high, recorded.low).share(when.late)
        high = Case.of(x, migration.high, lag.low, recorded.high).share(when.early)
        spans.append(Span(low, (low + high) / 2, high))
    marks = [
        Mark(name, horizon, 0.16)
        for name, horizon in _horizons(plan).items()
        if horizon.high >= 1
    ]  # fmt: skip
    title = "Share of classically protected traffic that is read while it must be secret"
    says = f"At 10 years {100 * spans[10].low:.0f} to {100 * spans[10].high:.0f} %, at 25 years {100 * spans[25].low:.0f} to "
    says += f"{100 * spans[25].high:.0f} %. Brackets show the horizons of this estate's data."
    svg = chart(
        Chart(
            name="exposure",
            title=title,
            says=says,
            x_title="years that the data must stay secret",
            y_title="share that is read",
            bands=[Band("expert survey, machine late to early; all other ranges as assumed", xs, spans)],
            marks=[Mark(m.label, _upto(m.x, YEARS_SHOWN), m.y) for m in marks],
            share=True,
        )
    )
    return Picture(name="exposure", title=title, says=says, svg=svg)


def _upto(span: Span, most: float) -> Span:
    return Span(min(span.low, most), min(span.likely, most), min(span.high, most))


def _horizons(plan: Plan) -> dict[str, Span]:
    """By data class, those that links carry; the longest known of each."""
    found: dict[str, Span] = {}
    for outcome in plan.outcomes:
        years = outcome.classified.horizon_years
        if years is not None and len(outcome.classified.carries) == 1 and years.span.low <= YEARS_SHOWN:
            found.setdefault(outcome.classified.carries[0], years.span)
    return found


def _rate(plan: Plan) -> Iterator[Picture]:
    """Of the devices that the first QKD link, or else the first link with a path of light, is planned with."""
    shown_for = next(iter(plan.with_qkd), None) or next((o for o in plan.outcomes if o.feasibility.skr_bps), None)
    if shown_for is None:
        return
    choices, _, _ = choose(plan.estate, shown_for.name, {})
    dbs = [LOSS_SHOWN_DB * n / 90 for n in range(91)]
    rates = [(db, relays.hop_rate(choices, Path(Span.point(db)), 1)) for db in dbs] if choices else []
    known = [(db, rate) for db, rate in rates if rate is not None and rate.likely >= 1.0]
    if not known:
        return
    marks = [
        Mark(o.name, o.feasibility.loss_db.span, o.feasibility.skr_bps.span.likely)
        for o in plan.outcomes
        if o.feasibility.loss_db and o.feasibility.loss_db.span.high <= LOSS_SHOWN_DB
        if o.feasibility.skr_bps and o.feasibility.skr_bps.span.likely >= 1.0
    ]
    title = f"Key rate over loss, of {', '.join(shown_for.feasibility.chosen)}"
    ends = " down to ".join(f"{ranged(rate, 'bit/s')} at {db:.0f} dB" for db, rate in (known[0], known[-1]))
    says = f"From {ends}. Brackets: losses of this estate's links. Dashed: what the link needs with its margin."
    label = "model of the device, and down to what published field links reached"
    bands = [Band(label, [db for db, _ in known], [rate for _, rate in known])]
    levels = [(f"needed by {shown_for.name}", shown_for.feasibility.wanted_bps)]
    asked = Chart(
        name="rate", title=title, says=says, x_title="loss of the path, dB", y_title="secret key rate, bit/s",
        bands=bands, marks=marks, levels=levels, log_y=True,
    )  # fmt: skip
    yield Picture(name="rate", title=title, says=says, svg=chart(asked))


# tables -------------------------------------------------------------------------------------------------------------


def links(plan: Plan) -> Section:
    """Physics, keys and readiness of every link."""
    columns = ("link", "loss", "key rate", "needed", "relays", "store bridges", "keys lie in store", "without QKD keys")
    physical = Table(
        name="feasibility",
        title="Whether QKD could feed it",
        columns=columns,
        rows=merged(_physical(o) for o in plan.outcomes),
        note=f"Keys lie in store: {EXPOSURE_MEANS}. Without QKD keys: share of time, at most.",
    )
    domains = Table(
        name="readiness",
        title="Whether it is ready, domain by domain",
        columns=("link", *Domain),
        rows=merged(row(o.name, *(a.value for a in readiness(o.link).values())) for o in plan.outcomes),
    )
    return Section(name="links", title="Links", parts=(physical, domains, _strands(plan)))


def _physical(o: Outcome) -> tuple[Cell, ...]:
    found, store = o.feasibility, o.feasibility.store
    why = why_not(o)
    return (
        Cell(o.name),
        Cell(f"none: {why}") if found.loss_db is None else shown(found.loss_db, "dB"),
        Cell("–") if found.loss_db is None else shown(found.skr_bps, "bit/s", why=why),
        shown(found.demand.total, "bit/s"),
        Cell("–" if found.relays is None else str(found.relays)),
        Cell(lasting(store.outage_s) if store else "–"),
        Cell(lasting(store.exposure_s) if store else "–"),
        Cell("–" if store is None or store.starvation is None else f"{100 * store.starvation:.2g} %"),
    )


def _strands(plan: Plan) -> Table:
    """What keys would be made of, as a share of time (R004): predicted, so that operation can be held against it."""
    rows = []
    for o in plan.outcomes:
        store = o.feasibility.store
        starved = store.starvation if store is not None and o.pattern.has_qkd else None
        if not o.pattern.has_qkd:
            told = (
                "0 %",
                "100 %" if Layer.PQC in o.pattern.layers else "0 %",
                "0 %" if Layer.PQC in o.pattern.layers else "100 %",
            )
        elif starved is None:
            told = ("unknown: up and down times not stated", "unknown", "0 %")
        else:
            told = (f"at least {100 * (1 - starved):.4g} %", f"at most {100 * starved:.2g} %", "0 %")
        rows.append(row(o.name, *told))
    return Table(
        name="strands",
        title="What its keys will be made of",
        columns=("link", "QKD and PQC", "PQC alone", "classical alone"),
        rows=merged(rows),
        note="Predicted share of traffic-hours, by what their keys are made of. Operation measures the same.",
    )


def reasons(plan: Plan) -> Section:
    """Which rules gave each pattern, and what would turn it."""
    rows = merged(
        (Cell(o.name), Cell(o.pattern.value), Cell("; ".join(o.reasons)), Cell(_turns(o))) for o in plan.outcomes
    )
    columns = ("link", "pattern", "rules that led to it, or keep QKD out", "what would change it")
    return Section(
        name="reasons",
        title="Why, and what would change it",
        paragraphs=("Patterns only add layers. What is in force today stays.",),
        parts=(Table(name="reasons", title="Reasons", columns=columns, rows=rows),),
    )


def _turns(o: Outcome) -> str:
    """All flip points, the nearest first."""
    return "; ".join(map(str, o.flips)) or o.unturned


def threat_matrix(plan: Plan) -> Section:
    """Threats against the patterns in use."""
    used = [pattern for pattern in Pattern if pattern in plan.patterns.values()]
    rows = tuple(
        (Cell(t.says), *(Cell(_effect(t.under(pattern))) for pattern in used), Cell(t.validated_by)) for t in threats()
    )
    columns = ("threat", *used, "how one would see it")
    return Section(
        name="threats",
        title="What is reduced, and what is not",
        paragraphs=("The last five are not reduced by any pattern: keys end where data is decrypted.",),
        parts=(Table(name="threats", title="Threats and patterns", columns=columns, rows=rows),),
    )


def _effect(effect: Effect) -> str:
    return f"✓ {effect}" if effect is Effect.REDUCED else f"✗ {effect}"
