"""Pictures of a plan as SVG: the map, a chart of curves with bands, intervals side by side. No library, no external resource.

Every difference is shown by form (dashes, marks, words) as well as by colour, and every picture has a title and a description.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from xml.etree import ElementTree as ET

from keystrand.plan.estate import Estate
from keystrand.plan.fact import Span
from keystrand.plan.pattern import Pattern

INK: Final = "#1c2530"
FAINT: Final = "#8a94a0"
GRID: Final = "#dde2e8"
PAPER: Final = "#ffffff"
WIDTH: Final = 760.0
CHAR: Final = 6.3  # width of a letter at 11 px, on average, for keeping labels apart
KM_PER_DEGREE: Final = 111.2


@dataclass(frozen=True, slots=True)
class Stroke:
    """How a pattern is drawn: colour, dashes and width."""

    colour: str
    dashes: str
    width: float


STROKES: Final[Mapping[Pattern, Stroke]] = {
    Pattern.CLASSICAL: Stroke("#8a94a0", "2 4", 1.5),
    Pattern.PQC: Stroke("#1f5fa8", "", 1.6),
    Pattern.PQC_QKD: Stroke("#a3341c", "", 4.0),
    Pattern.PQC_QKD_MULTI: Stroke("#a3341c", "10 4", 4.5),
    Pattern.PQC_QKD_OTP: Stroke("#6b2fa0", "12 3 3 3", 4.5),
}


class Canvas:
    """An SVG under construction, with the words that stand for it where it cannot be seen."""

    def __init__(self, name: str, title: str, says: str, height: float) -> None:
        box = f"0 0 {WIDTH:g} {height:g}"
        attributes = {"xmlns": "http://www.w3.org/2000/svg", "viewBox": box, "role": "img", "font-size": "11"}
        attributes |= {"aria-labelledby": f"{name}-t {name}-d", "font-family": "Helvetica, Arial, sans-serif"}
        self.root = ET.Element("svg", attributes)
        ET.SubElement(self.root, "title", {"id": f"{name}-t"}).text = title
        ET.SubElement(self.root, "desc", {"id": f"{name}-d"}).text = says
        self.taken: list[tuple[float, float, float, float]] = []

    def put(self, tag: str, text: str | None = None, **attributes: object) -> None:
        plain = {key.replace("_", "-"): _plain(value) for key, value in attributes.items()}
        ET.SubElement(self.root, tag, plain).text = text

    def line(self, x1: float, y1: float, x2: float, y2: float, stroke: Stroke) -> None:
        dashes = {"stroke_dasharray": stroke.dashes} if stroke.dashes else {}
        self.put(
            "line",
            x1=x1,
            y1=y1,
            x2=x2,
            y2=y2,
            stroke=stroke.colour,
            stroke_width=stroke.width,
            stroke_linecap="round",
            **dashes,
        )

    def text(
        self,
        x: float,
        y: float,
        words: str,
        *,
        anchor: str = "start",
        fill: str = INK,
        size: float = 11,
        bold: bool = False,
    ) -> None:
        weight = {"font_weight": "bold"} if bold else {}
        self.put("text", words, x=x, y=y, fill=fill, text_anchor=anchor, font_size=size, **weight)

    def label(self, x: float, y: float, words: str) -> None:
        """Beside a point, where nothing else has been put yet."""
        wide, high = CHAR * len(words), 12.0
        places = [(x + dx * (9 if dx > 0 else 9 + wide) if dx else x - wide / 2, y + dy) for dx, dy in _AROUND]
        boxes = [(px, py - 10, px + wide, py - 10 + high) for px, py in places]
        inside = [box for box in boxes if box[0] > 2 and box[2] < WIDTH - 2]
        free = next((box for box in inside if not any(_overlap(box, other) for other in self.taken)), None)
        box = free or (inside or boxes)[0]
        self.taken.append(box)
        self.put("text", words, x=box[0], y=box[1] + 10, fill=INK, stroke=PAPER, stroke_width=3, paint_order="stroke")

    def svg(self) -> str:
        return ET.tostring(self.root, encoding="unicode")


_AROUND: Final = ((1, 4), (-1, 4), (0, -9), (0, 19), (1, -6), (-1, -6), (1, 15), (-1, 15), (0, -21), (0, 31))


def _plain(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


# the map ------------------------------------------------------------------------------------------------------------


def estate_map(estate: Estate, patterns: Mapping[str, Pattern]) -> str | None:
    """Sites where they lie and links by their pattern; None where fewer than two sites have coordinates."""
    placed = {
        name: (site.lon, site.lat)
        for name, site in estate.sites.items()
        if site.lon is not None and site.lat is not None
    }
    if len(placed) < 2:
        return None
    height = 430.0
    at, km_per_px = _project(placed, height - 70)
    used = [pattern for pattern in Pattern if pattern in patterns.values()]
    says = f"{len(placed)} sites and {len(estate.links)} links. " + ". ".join(
        _told(patterns, pattern) for pattern in used
    )
    canvas = Canvas("map", f"Map of {estate.name}", says, height)
    for pattern in used:  # the strongest last, on top
        for name, link in estate.links.items():
            if patterns[name] is pattern and all(end in at for end in link.ends):
                (x1, y1), (x2, y2) = (at[end] for end in link.ends)
                canvas.line(x1, y1, x2, y2, STROKES[pattern])
    for x, y in at.values():
        canvas.put("circle", cx=x, cy=y, r=4.5, fill=PAPER, stroke=INK, stroke_width=1.8)
        canvas.taken.append((x - 6, y - 6, x + 6, y + 6))
    for name, (x, y) in at.items():
        canvas.label(x, y, name)
    _legend(canvas, used, height - 16)
    _scale(canvas, km_per_px, height - 44)
    return canvas.svg()


def _told(patterns: Mapping[str, Pattern], pattern: Pattern) -> str:
    names = [name for name, of in patterns.items() if of is pattern]
    return (
        f"{pattern.value}: {', '.join(names)}"
        if pattern.has_qkd or len(names) <= 3
        else f"{pattern.value}: {len(names)} links"
    )


def _project(placed: Mapping[str, tuple[float, float]], height: float) -> tuple[dict[str, tuple[float, float]], float]:
    """Equirectangular around the middle, filling the canvas; and how many km a pixel is."""
    lats = [lat for _, lat in placed.values()]
    shrink = math.cos(math.radians((min(lats) + max(lats)) / 2))
    flat = {name: (lon * shrink, -lat) for name, (lon, lat) in placed.items()}
    left, top = min(x for x, _ in flat.values()), min(y for _, y in flat.values())
    wide, high = max(x for x, _ in flat.values()) - left, max(y for _, y in flat.values()) - top
    scale = min((WIDTH - 160) / max(wide, 1e-6), (height - 60) / max(high, 1e-6))
    dx, dy = (WIDTH - wide * scale) / 2, (height - high * scale) / 2 + 6
    return {
        name: ((x - left) * scale + dx, (y - top) * scale + dy) for name, (x, y) in flat.items()
    }, KM_PER_DEGREE / scale


def _legend(canvas: Canvas, patterns: Iterable[Pattern], y: float) -> None:
    x = 14.0
    for pattern in patterns:
        canvas.line(x, y - 4, x + 34, y - 4, STROKES[pattern])
        canvas.text(x + 40, y, pattern.value)
        x += 62 + CHAR * len(pattern.value)


def _scale(canvas: Canvas, km_per_px: float, y: float) -> None:
    km = _round_down(120 * km_per_px)
    canvas.line(14, y, 14 + km / km_per_px, y, Stroke(INK, "", 1.5))
    canvas.text(20 + km / km_per_px, y + 4, f"{km:g} km")


def _round_down(value: float) -> float:
    """To 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return max(step * power for step in (1, 2, 5) if step * power <= value)


# charts -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Band:
    """A curve with its range: x, and low, likely, high at each. `dashes` tells it from others without colour."""

    label: str
    xs: Sequence[float]
    spans: Sequence[Span]
    colour: str = "#1f5fa8"
    dashes: str = ""


@dataclass(frozen=True, slots=True)
class Mark:
    """A range on the chart: from x.low to x.high, at height y, with its name."""

    label: str
    x: Span
    y: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """What a chart shows. log_y: decades. share: y is a chance, and is printed in per cent."""

    name: str
    title: str
    says: str
    x_title: str
    y_title: str
    bands: Sequence[Band]
    marks: Sequence[Mark] = ()
    levels: Sequence[tuple[str, float]] = ()
    log_y: bool = False
    share: bool = False


@dataclass(slots=True)
class _Axes:
    chart: Chart
    canvas: Canvas
    x_max: float
    y_min: float
    y_max: float
    left: float = 62.0
    top: float = 12.0
    right: float = WIDTH - 16
    bottom: float = 250.0
    inner: list[float] = field(default_factory=list)

    def x(self, value: float) -> float:
        return self.left + (self.right - self.left) * min(value, self.x_max) / self.x_max

    def y(self, value: float) -> float:
        if self.chart.log_y:
            value = max(value, self.y_min)
            part = (math.log10(value) - math.log10(self.y_min)) / (math.log10(self.y_max) - math.log10(self.y_min))
        else:
            part = (value - self.y_min) / (self.y_max - self.y_min)
        return self.bottom - (self.bottom - self.top) * min(part, 1.0)


def chart(asked: Chart) -> str:
    """The chart as SVG. Bands need at least one sample each."""
    canvas = Canvas(asked.name, asked.title, asked.says, 330)
    x_max = max(*(x for band in asked.bands for x in band.xs), *(mark.x.high for mark in asked.marks))
    highs = [span.high for band in asked.bands for span in band.spans] + [level for _, level in asked.levels]
    y_max = 1.0 if asked.share else (10 ** math.ceil(math.log10(max(highs))) if asked.log_y else max(highs) * 1.1)
    axes = _Axes(asked, canvas, x_max, 1.0 if asked.log_y else 0.0, y_max)
    _grid(axes)
    for band in asked.bands:
        _band(axes, band)
    for name, level in asked.levels:
        canvas.line(axes.left, axes.y(level), axes.right, axes.y(level), Stroke(INK, "3 3", 1.0))
        canvas.text(axes.right - 4, axes.y(level) - 4, name, anchor="end")
    for mark in asked.marks:
        _mark(axes, mark)
    _key(axes)
    return canvas.svg()


def _grid(axes: _Axes) -> None:
    canvas, asked = axes.canvas, axes.chart
    for value in _ticks(axes):
        y = axes.y(value)
        canvas.line(axes.left, y, axes.right, y, Stroke(GRID, "", 1.0))
        canvas.text(axes.left - 6, y + 4, f"{value:.0%}" if asked.share else _short(value), anchor="end", fill=INK)
    step = _round_down(axes.x_max / 5)
    for number in range(int(axes.x_max / step) + 1):
        x = axes.x(number * step)
        canvas.line(x, axes.bottom, x, axes.bottom + 4, Stroke(INK, "", 1.0))
        canvas.text(x, axes.bottom + 17, f"{number * step:g}", anchor="middle")
    canvas.line(axes.left, axes.bottom, axes.right, axes.bottom, Stroke(INK, "", 1.0))
    canvas.text((axes.left + axes.right) / 2, axes.bottom + 34, asked.x_title, anchor="middle", bold=True)
    canvas.put(
        "text", asked.y_title, x=0, y=0, fill=INK, text_anchor="middle", font_weight="bold",
        transform=f"translate(14 {(axes.top + axes.bottom) / 2:.0f}) rotate(-90)",
    )  # fmt: skip


def _ticks(axes: _Axes) -> list[float]:
    if axes.chart.log_y:
        return [10.0**power for power in range(round(math.log10(axes.y_min)), round(math.log10(axes.y_max)) + 1)]
    step = 0.25 if axes.chart.share else _round_down(axes.y_max / 4)
    return [step * number for number in range(int(axes.y_max / step) + 1)]


def _short(value: float) -> str:
    """1500 -> `1.5 k`"""
    for scale, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= scale:
            return f"{value / scale:g}{unit}"
    return f"{value:g}"


def _band(axes: _Axes, band: Band) -> None:
    over = [f"{axes.x(x):.1f},{axes.y(span.high):.1f}" for x, span in zip(band.xs, band.spans, strict=True)]
    under = [f"{axes.x(x):.1f},{axes.y(span.low):.1f}" for x, span in zip(band.xs, band.spans, strict=True)]
    middle = [f"{axes.x(x):.1f},{axes.y(span.likely):.1f}" for x, span in zip(band.xs, band.spans, strict=True)]
    axes.canvas.put("polygon", points=" ".join(over + under[::-1]), fill=band.colour, fill_opacity=0.13, stroke="none")
    dashes = {"stroke_dasharray": band.dashes} if band.dashes else {}
    axes.canvas.put("polyline", points=" ".join(middle), fill="none", stroke=band.colour, stroke_width=2, **dashes)


def _mark(axes: _Axes, mark: Mark) -> None:
    """A bracket with its name above, a row of its own where another is near."""
    x1, x2 = axes.x(mark.x.low), axes.x(mark.x.high)
    y = axes.y(mark.y)
    while any(abs(y - other) < 15 for other in axes.inner):
        y -= 15
    axes.inner.append(y)
    axes.canvas.line(x1, y, x2, y, Stroke(INK, "", 2.0))
    for x in (x1, x2):
        axes.canvas.line(x, y - 4, x, y + 4, Stroke(INK, "", 2.0))
    after = x2 + 6 + CHAR * len(mark.label) < axes.right
    axes.canvas.put(
        "text", mark.label, x=x2 + 6 if after else x1 - 6, y=y + 4, text_anchor="start" if after else "end",
        fill=INK, stroke=PAPER, stroke_width=3, paint_order="stroke",
    )  # fmt: skip


def _key(axes: _Axes) -> None:
    x, y = axes.left, axes.bottom + 62
    for band in axes.chart.bands:
        axes.canvas.line(x, y - 4, x + 30, y - 4, Stroke(band.colour, band.dashes, 2.0))
        axes.canvas.text(x + 36, y, band.label)
        x += 58 + CHAR * len(band.label)


@dataclass(frozen=True, slots=True)
class Intervals:
    """One link's risk under several patterns: label of each, with its range (0 to 1)."""

    name: str
    spans: Sequence[tuple[str, Span]]


SHAPES: Final = ("square", "circle", "diamond")


def intervals(rows: Sequence[Intervals], title: str, says: str) -> str:
    """Before and after, side by side: whiskers from low to high, a mark at the likely value, of a shape for each column."""
    per_row = 14.0 * max(len(row.spans) for row in rows) + 14
    height = per_row * len(rows) + 66
    canvas = Canvas("intervals", title, says, height)
    left, right = 150.0, WIDTH - 120

    def x(value: float) -> float:
        return left + (right - left) * value

    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        canvas.line(x(tick), 8, x(tick), height - 46, Stroke(GRID, "", 1.0))
        canvas.text(x(tick), height - 32, f"{tick:.0%}", anchor="middle")
    for number, row in enumerate(rows):
        y = 20 + per_row * number
        canvas.text(left - 10, y + 7 * len(row.spans) - 3, row.name, anchor="end", bold=True)
        for place, (_, span) in enumerate(row.spans):
            _whisker(canvas, x, y + 14 * place, span, place)
            canvas.text(x(span.high) + 8, y + 14 * place + 4, f"{span.low:.0%} to {span.high:.0%}", size=10)
    _shapes(canvas, [label for label, _ in rows[0].spans], height - 10)
    return canvas.svg()


_COLOURS: Final = ("#8a5a00", "#1f5fa8", "#a3341c")


def _whisker(canvas: Canvas, x: object, y: float, span: Span, place: int) -> None:
    assert callable(x)
    canvas.line(x(span.low), y, x(span.high), y, Stroke(_COLOURS[place], "", 2.2))
    for end in (span.low, span.high):
        canvas.line(x(end), y - 3, x(end), y + 3, Stroke(_COLOURS[place], "", 1.6))
    _shape(canvas, x(span.likely), y, place)


def _shape(canvas: Canvas, x: float, y: float, place: int) -> None:
    if SHAPES[place] == "circle":
        canvas.put("circle", cx=x, cy=y, r=4, fill=_COLOURS[place])
        return
    turn = {"transform": f"rotate(45 {x:.1f} {y:.1f})"} if SHAPES[place] == "diamond" else {}
    canvas.put("rect", x=x - 3.5, y=y - 3.5, width=7, height=7, fill=_COLOURS[place], **turn)


def _shapes(canvas: Canvas, labels: Sequence[str], y: float) -> None:
    x = 150.0
    for place, label in enumerate(labels):
        _shape(canvas, x, y - 4, place)
        canvas.text(x + 10, y, label)
        x += 34 + CHAR * len(label)
