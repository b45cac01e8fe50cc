"""Two ends of a link in one small picture that is drawn anew as they work: what `keystrand demo` shows on a terminal.

Pure: snapshots in, lines out. Every bar and sparkline has its figures beside it, so that it reads without colour and
without the characters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from keystrand.console.terminal import Snapshot, bits, fit, span

TRACE_WIDTH: Final = 24
BAR_WIDTH: Final = 20
POOL_BITS: Final = 500_000  # a full bar; doubled until the pool fits
_TRACE: Final = "▁▂▃▄▅▆▇█"
_TRACE_ASCII: Final = "_.-=+*%#"
_BOLD, _DIM, _GREEN, _PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[32m", "\x1b[0m"


@dataclass(frozen=True, slots=True, kw_only=True)
class Canvas:
    """What a terminal can show. `blocks`: whether its encoding has the characters of a sparkline."""

    columns: int = 80
    colour: bool = False
    blocks: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What is known now: a snapshot for each site (None while it does not answer), the sender first."""

    link: str
    sites: Mapping[str, Snapshot | None]
    elapsed_s: float
    doing: str


def render_scene(scene: Scene, canvas: Canvas) -> list[str]:
    """Nine lines, each at most `columns` wide on the screen."""
    snapshots = list(scene.sites.values())
    sender = snapshots[0]
    parts = [*_link(scene, sender, canvas), *_pools(scene), *_keys(scene), *_transfer(sender)]
    head = f"-- {scene.doing}, {span(scene.elapsed_s)} "
    lines = [(head.ljust(canvas.columns, "-"), _BOLD), *parts]
    return [_painted(text, style, canvas) for text, style in lines]


Line = tuple[str, str]  # text, style


def sparkline(values: Sequence[float], *, blocks: bool = True) -> str:
    """The last TRACE_WIDTH values as heights from 0 to the largest of them."""
    marks = _TRACE if blocks else _TRACE_ASCII
    shown = [max(0.0, value) for value in values[-TRACE_WIDTH:]]
    top = max(shown, default=0.0)
    return "".join(marks[round((len(marks) - 1) * value / top) if top else 0] for value in shown)


def bar(share: float) -> str:
    """[########......]"""
    filled = int(BAR_WIDTH * max(0.0, min(1.0, share)))
    return f"[{'#' * filled}{'.' * (BAR_WIDTH - filled)}]"


def _painted(text: str, style: str, canvas: Canvas) -> str:
    line = fit(text, canvas.columns)
    return f"{style}{line}{_PLAIN}" if canvas.colour and style else line


def _link(scene: Scene, snapshot: Snapshot | None, canvas: Canvas) -> Iterator[Line]:
    series = _series(snapshot, scene.link)
    block = series.get("last_block") or {}
    gauge = _gauge(snapshot, scene.link)
    points = series.get("blocks", ()) if block else ()
    traces = [sparkline([p[n] for p in points if p[n] is not None], blocks=canvas.blocks) for n in (1, 2)]
    qber, rate = block.get("qber"), block.get("skr_bps")
    photons = "photons simulated" if gauge.get("simulated", True) else "hardware"
    yield f"link      {scene.link}   {gauge.get('state', 'starting')}   ({photons})", ""
    yield f"  QBER      {'-' if qber is None else f'{qber:.2%}':>14}  {traces[0]}", ""
    yield f"  key rate  {'-' if rate is None else f'{bits(rate)}/s':>14}  {traces[1]}", _GREEN
    if block:
        secret = f"{block['secret_bits']:,} secret of {block['sifted_bits']:,} sifted bits"
        yield f"  blocks    {block['sequence'] + 1:>14}  the last: {secret}", ""
    else:
        yield f"  blocks    {0:>14}", ""


def _pools(scene: Scene) -> Iterator[Line]:
    for site, snapshot in scene.sites.items():
        ledger = _gauge(snapshot, scene.link).get("ledger", {})
        available, full = ledger.get("available", 0), POOL_BITS
        while full < available:
            full *= 2
        figures = f"{available / 1e3:,.0f} of {full / 1e3:,.0f} kbit, {ledger.get('delivered', 0) / 1e3:,.0f} drawn"
        yield f"pool {site[:8]:<8} {bar(available / full)} {figures}", _GREEN


def _keys(scene: Scene) -> Iterator[Line]:
    drawn = [f"{site} {_total(snapshot):,}" for site, snapshot in scene.sites.items()]
    kinds = sorted({pair["protection"] for s in scene.sites.values() if s for pair in s["deliveries"]["pairs"]})
    yield f"keys drawn    {'   '.join(drawn)}   {' '.join(kinds)}", ""


def _transfer(snapshot: Snapshot | None) -> Iterator[Line]:
    if not snapshot or not snapshot["transfers"]:
        yield "transfer      none yet", _DIM
        return
    transfer = snapshot["transfers"][0]
    done, total = transfer.get("bytes_done", 0), transfer.get("bytes_total") or 0
    speed = transfer.get("throughput_bytes_per_s", 0) / 1e6
    turns = f"{transfer.get('rotations', 0)} rotations"
    share = done / total if total else 0.0
    yield f"transfer      {bar(share)} {share:4.0%} of {total / 1e6:.1f} MB, {speed:.0f} MB/s, {turns}", _GREEN


def _gauge(snapshot: Snapshot | None, link: str) -> dict[str, Any]:
    links = snapshot["links"] if snapshot else None
    return next((gauge for gauge in links or () if gauge["link"] == link), {})


def _series(snapshot: Snapshot | None, link: str) -> dict[str, Any]:
    series: dict[str, Any] = snapshot["series"].get(link, {}) if snapshot else {}
    return series


def _total(snapshot: Snapshot | None) -> int:
    return int(snapshot["deliveries"]["total"]) if snapshot else 0
