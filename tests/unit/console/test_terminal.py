"""The terminal view: 80 columns, every account named, the same figures as the page."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keystrand.console.terminal import bits, render_status, span
from keystrand.core.events import Event
from keystrand.core.pool import Account
from keystrand.observe.feed import AuditGauge, Feed, Gauges, LinkGauge, PeerGauge


def feed_of(name: str, ledger: dict[str, int], empty_s: float | None = None) -> Feed:
    link = LinkGauge(
        link=name, peer=name, state="up", qber=0.0213, skr_bps=9123.0, ledger=ledger, time_to_empty_s=empty_s
    )
    feed = Feed(name)
    peer = PeerGauge(peer=name, up=True, since_s=970.0, group="X25519MLKEM768", epoch=3, strand_age_s=42.0)
    audit = AuditGauge(size=9, last_checkpoint_size=8, cosigned_size=8, cosigned_at_s=time.time())
    feed.update(Gauges(links=(link,), peers=(peer,), audit=audit))
    feed.emit(Event("transfer.started", 1.0, {"transfer_id": name, "bytes_total": 10, "bytes_done": 5}))
    return feed


def test_it_says_what_the_page_says() -> None:
    ledger = {"ingested": 4_000_000, "available": 3_000_000, "delivered": 900_000, "burnt": 100_000}
    said = render_status(json.loads(json.dumps(feed_of("ab", ledger, 500.0).snapshot())))
    for part in ("QBER 2.13 %", "9.12 kbit/s", "photons simulated", "3.00 Mbit available", "- delivered 900.00 kbit",
                 "x burnt 100.00 kbit", "empty in 8 min 20 s", "X25519MLKEM768", "50 %", "no alarms",
                 "up since 1970-01-01 00:16:10 UTC"):  # fmt: skip
        assert part in said, part


def test_an_alarm_is_told_whole() -> None:
    feed, reason = (
        Feed("alpha"),
        "audit sink archive: OSError: [Errno 28] No space left on device, see the end of this line",
    )
    feed.emit(Event("audit.failed", time.time(), {"reason": reason}))
    said = render_status(feed.snapshot())
    assert reason in " ".join(said.split())
    assert max(map(len, said.split("\n"))) <= 80


def test_a_site_without_anything_renders() -> None:
    assert "no figures yet" in render_status(Feed().snapshot())


@settings(derandomize=True, max_examples=150, deadline=None)
@given(st.text(max_size=200), st.dictionaries(st.sampled_from([str(a.value) for a in Account]), st.integers(0, 10**12)))
def test_no_name_and_no_figure_breaks_out_of_80_columns(name: str, ledger: dict[str, int]) -> None:
    for line in render_status(feed_of(name, ledger).snapshot()).split("\n"):
        assert len(line) <= 80
        assert line.isprintable()


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(None, "-"), (-1, "0 s"), (59.9, "59 s"), (60, "1 min 00 s"), (3661, "1 h 01 min"), (90_000, "1 d 1 h")],
)
def test_spans(seconds: float | None, said: str) -> None:
    assert span(seconds) == said


def test_bits_use_decimal_prefixes() -> None:
    assert [bits(n) for n in (0, 999, 1000, 2_500_000, 3e9)] == [
        "0 bit",
        "999 bit",
        "1.00 kbit",
        "2.50 Mbit",
        "3.00 Gbit",
    ]
