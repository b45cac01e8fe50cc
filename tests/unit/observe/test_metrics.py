"""The exposition: names from the table, values from events and gauges, bounded labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from keystrand.core.events import KINDS, Event
from keystrand.observe import metrics as metrics_module
from keystrand.observe.feed import AuditGauge, Gauges, LinkGauge, PeerGauge
from keystrand.observe.metric_table import METRICS, reference_page
from keystrand.observe.metrics import Metrics

REFERENCE = Path(__file__).parents[3] / "docs" / "reference" / "metrics.md"

LEDGER = {
    "ingested": 1000,
    "available": 600,
    "reserved": 100,
    "delivered": 200,
    "burnt": 50,
    "expired": 30,
    "quarantined": 20,
}


class FixedClock:
    def now_s(self) -> float:
        return 1000.0

    def monotonic_s(self) -> float:
        return 1000.0


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = text_string_to_metric_families(metrics.render().decode())
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return samples(metrics)[name, tuple(sorted(labels.items()))]


def test_the_reference_page_is_what_the_table_prints() -> None:
    assert REFERENCE.read_text() == reference_page()


def test_every_row_has_its_unit_last_and_is_named_once() -> None:
    units = ("_total", "_bits", "_bps", "_ratio", "_seconds", "_records", "_bytes")
    exempt = {"qkd_link_state", "qkd_finite_key_epsilon", "peer_up", "peer_epoch", "peer_tls_group", "waivers_active"}
    exempt |= {"tunnel_up", "tunnel_protection_level"}
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)
    assert {name for name in names if not name.endswith(units)} == exempt


def test_no_label_can_hold_a_key_id() -> None:
    assert not [m.name for m in METRICS if {"key_id", "request_id", "transfer_id"} & set(m.labels)]


def test_a_block_counts_its_bits_and_sets_its_epsilon() -> None:
    metrics = Metrics(links=["ab"], clock=FixedClock())
    assert value(metrics, "qkd_blocks_total", link="ab") == 0
    fields = {
        "link": "ab",
        "sifted_bits": 900,
        "secret_bits": 300,
        "leak_ec_bits": 120,
        "eps_sec": 1e-10,
        "eps_cor": 1e-15,
    }
    metrics.emit(Event("link.block", 990.0, fields))
    metrics.update(Gauges(links=(LinkGauge(link="ab", peer="bravo", state="up"),)))
    assert value(metrics, "qkd_blocks_total", link="ab") == 1
    assert value(metrics, "qkd_secret_bits_total", link="ab") == 300
    assert value(metrics, "qkd_leak_ec_bits_total", link="ab") == 120
    assert value(metrics, "qkd_finite_key_epsilon", link="ab") == pytest.approx(1e-10 + 1e-15, rel=1e-12)
    assert value(metrics, "qkd_last_block_age_seconds", link="ab") == 10.0


@pytest.mark.proves("R090")
def test_I9_the_ledger_and_its_imbalance_are_exported() -> None:
    metrics = Metrics(clock=FixedClock())
    metrics.update(Gauges(links=(LinkGauge(link="ab", peer="bravo", state="up", ledger=LEDGER),)))
    assert value(metrics, "pool_bits", link="ab", state="available") == 600
    assert value(metrics, "pool_ledger_imbalance_bits", link="ab") == 0
    broken = LEDGER | {"burnt": 42}
    metrics.update(Gauges(links=(LinkGauge(link="ab", peer="bravo", state="down", ledger=broken),)))
    assert value(metrics, "pool_ledger_imbalance_bits", link="ab") == 8
    assert value(metrics, "qkd_link_state", link="ab") == 0


@pytest.mark.proves("R090")
def test_time_to_empty_is_infinite_while_the_pool_does_not_shrink() -> None:
    metrics = Metrics()
    metrics.update(Gauges(links=(LinkGauge(link="ab", peer="bravo", state="up"),)))
    assert value(metrics, "pool_time_to_empty_seconds", link="ab") == float("inf")
    metrics.update(Gauges(links=(LinkGauge(link="ab", peer="bravo", state="up", time_to_empty_s=90.0),)))
    assert value(metrics, "pool_time_to_empty_seconds", link="ab") == 90.0


@pytest.mark.parametrize(
    ("kind", "who", "metric"),
    [
        ("pool.low", "link", "pool_low_total"),
        ("strand.missing", "peer", "strand_missing_total"),
        ("draw.abnormal", "sae", "draws_abnormal_total"),
    ],
)
def test_warnings_of_the_key_service_are_counted(kind: str, who: str, metric: str) -> None:
    metrics = Metrics()
    metrics.emit(Event(kind, 1.0, {who: "bravo"}))
    assert value(metrics, metric, **{who: "bravo"}) == 1


def test_a_new_tls_group_retires_the_old_one() -> None:
    metrics = Metrics()
    for group in ("X25519MLKEM768", "x25519"):
        metrics.update(Gauges(peers=(PeerGauge(peer="bravo", up=True, since_s=970.0, group=group),)))
    assert value(metrics, "peer_tls_group", peer="bravo", group="X25519MLKEM768") == 0
    assert value(metrics, "peer_tls_group", peer="bravo", group="x25519") == 1
    assert value(metrics, "peer_since_timestamp_seconds", peer="bravo") == 970.0


def test_audit_lag_is_what_no_peer_has_signed() -> None:
    metrics = Metrics(clock=FixedClock())
    metrics.update(Gauges(audit=AuditGauge(size=50, last_checkpoint_size=45, cosigned_size=40, cosigned_at_s=970.0)))
    assert value(metrics, "audit_cosign_lag_records") == 10
    assert value(metrics, "audit_cosign_age_seconds") == 30.0


def test_a_request_is_counted_and_timed() -> None:
    metrics = Metrics()
    metrics.observe_request("enc_keys", 200, 0.003)
    metrics.observe_request("enc_keys", 503, 0.3)
    assert value(metrics, "requests_total", method="enc_keys", status="503") == 1
    assert value(metrics, "request_latency_seconds_bucket", method="enc_keys", le="0.005") == 1
    assert value(metrics, "request_latency_seconds_count", method="enc_keys") == 2


def test_labels_from_outside_cannot_grow_the_exposition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_module, "CHILDREN_MAX", 8)
    metrics = Metrics()
    for number in range(100):
        metrics.emit(Event("quota.denied", 0.0, {"sae": f"sae-{number}"}))
    found = {labels: count for (name, labels), count in samples(metrics).items() if name == "quota_denied_total"}
    assert len(found) == 8
    assert found[("sae", "other"),] == 93
    assert sum(found.values()) == 100


SCALAR = st.one_of(st.text(max_size=20), st.integers(), st.floats(), st.booleans())
FIELDS = st.dictionaries(st.sampled_from(["link", "reason", "bits", "secret_bits", "sae", "eps_sec", "peer"]), SCALAR)


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.sampled_from(["link.block", *sorted(KINDS)]), FIELDS)
def test_no_event_breaks_a_sink(kind: str, fields: dict[str, str | int | float | bool]) -> None:
    metrics = Metrics()
    metrics.emit(Event(kind, 1.0, fields))
    assert value(metrics, "events_total", kind=kind, severity=KINDS[kind].value) == 1


def test_every_configured_link_has_series_of_its_own() -> None:
    names = [f"line-{number}" for number in range(1000)]
    metrics = Metrics(links=names)
    ledger = LEDGER | {"ingested": 1000}
    metrics.update(Gauges(links=tuple(LinkGauge(link=name, peer="bravo", state="up", ledger=ledger) for name in names)))
    found = [dict(labels) for (name, labels) in samples(metrics) if name == "pool_bits"]
    assert {labels["link"] for labels in found} == set(names)
    assert len(found) == 7 * len(names)


def test_a_scrape_shows_what_changed_since_the_last_one() -> None:
    metrics = Metrics(links=["line"])
    link = LinkGauge(link="line", peer="bravo", state="up", ledger=LEDGER, owned_free_bits=5)
    for bits in (5, 5, 7):
        metrics.update(Gauges(links=(replace(link, owned_free_bits=bits),)))
        assert value(metrics, "pool_owned_free_bits", link="line") == bits
    for count in (1, 2):
        metrics.emit(Event("quota.denied", 0.0, {"sae": 'a"b\\c\nd'}))
        assert value(metrics, "quota_denied_total", sae='a"b\\c\nd') == count


def test_operations_that_nobody_knows_cannot_grow_the_latencies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_module, "CHILDREN_MAX", 8)
    metrics = Metrics()
    for number in range(100):
        metrics.observe_request(f"verb-{number}", 401, 0.001)
    counts = {
        labels: count for (name, labels), count in samples(metrics).items() if name == "request_latency_seconds_count"
    }
    assert len(counts) == 8
    assert counts[("method", "other"),] == 93
