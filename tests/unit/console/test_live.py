"""The live picture of two sites: the page's figures, at any width, from nothing on."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keystrand.console.live import TRACE_WIDTH, Canvas, Scene, bar, render_scene, sparkline
from keystrand.core.events import Event
from keystrand.observe.feed import Feed, Gauges, LinkGauge

STEERING = re.compile(r"\x1b\[[0-9]+m")


def scene_of(link: str = "ab", available: int = 250_000, name: str = "alpha") -> Scene:
    feed = Feed(name)
    ledger = {"ingested": 2 * available, "available": available, "delivered": available}
    feed.update(Gauges(links=(LinkGauge(link=link, peer="b", state="up", ledger=ledger),)))
    for sequence, rate in enumerate((9_000.0, 18_000.0)):
        measured = {
            "sequence": sequence,
            "qber": 0.0213,
            "skr_bps": rate,
            "secret_bits": 70_000,
            "sifted_bits": 262_144,
        }
        feed.emit(Event("link.block", 1.0, {"link": link, **measured}))
    drawn = {"initiator": "a", "responder": "b", "protection": "hybrid"}
    feed.emit(Event("key.delivered", 2.0, drawn))
    moved = {"bytes_done": 5_000_000, "bytes_total": 10_000_000, "rotations": 3, "throughput_bytes_per_s": 2e8}
    feed.emit(Event("transfer.progress", 3.0, {"transfer_id": "t", "sae": "a", **moved}))
    return Scene(link=link, sites={name: feed.snapshot(), "bravo": None}, elapsed_s=75.0, doing="sending")


def test_it_says_what_the_sites_say() -> None:
    said = "\n".join(render_scene(scene_of(), Canvas()))
    for part in ("sending, 1 min 15 s", "2.13%", "18.00 kbit/s  ▅█", "70,000 secret of 262,144 sifted bits",
                 "[##########..........] 250 of 500 kbit, 250 drawn", "alpha 1   bravo 0   hybrid",
                 "50% of 10.0 MB, 200 MB/s, 3 rotations"):  # fmt: skip
        assert part in said, part


def test_sites_that_do_not_answer_yet_have_the_same_height() -> None:
    silent = Scene(link="ab", sites={"alpha": None, "bravo": None}, elapsed_s=0.0, doing="waiting")
    early = render_scene(silent, Canvas())
    assert "starting" in early[1]
    assert len(early) == len(render_scene(scene_of(), Canvas())) == 9


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.text(max_size=100), st.integers(0, 10**12), st.integers(8, 200), st.booleans())
def test_no_name_and_no_figure_breaks_out_of_the_width(name: str, bits: int, columns: int, colour: bool) -> None:
    for line in render_scene(scene_of(name, bits, name or "-"), Canvas(columns=columns, colour=colour)):
        shown = STEERING.sub("", line)
        assert len(shown) <= columns
        assert shown.isprintable()


def test_colour_changes_no_word() -> None:
    plain, coloured = (render_scene(scene_of(), Canvas(colour=colour)) for colour in (False, True))
    assert plain != coloured
    assert plain == [STEERING.sub("", line) for line in coloured]
    assert "\x1b" not in "".join(plain)


@pytest.mark.parametrize(("values", "drawn"), [([], ""), ([0.0, 0.0], "▁▁"), ([0.0, 1.0, 2.0], "▁▅█"), ([-1.0], "▁")])
def test_sparklines_start_at_zero(values: list[float], drawn: str) -> None:
    assert sparkline(values) == drawn
    assert sparkline(values, blocks=False).isascii()
    assert len(sparkline([1.0] * 500)) == TRACE_WIDTH


@pytest.mark.parametrize("share", [-1.0, 0.0, 0.5, 1.0, 7.0])
def test_bars_have_one_width(share: float) -> None:
    assert len(bar(share)) == len(bar(0.3))
