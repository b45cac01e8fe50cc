"""Every metric by name, with its labels and meaning: one table for the code, the reference page and the tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class Metric:
    """A row. The unit is the last word of the name, as Prometheus wants it."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    text: str


def _gauge(name: str, text: str, *labels: str) -> Metric:
    return Metric(name, "gauge", labels, text)


def _counter(name: str, text: str, *labels: str) -> Metric:
    return Metric(name, "counter", labels, text)


TUNNEL: Final = ("sae", "tunnel")

METRICS: Final[tuple[Metric, ...]] = (
    # the QKD link
    _gauge("qkd_link_state", "1 while the link delivers key, else 0", "link"),
    _gauge("qkd_qber_ratio", "Quantum bit error rate of the last block, measured", "link"),
    _gauge("qkd_secret_key_rate_bps", "Secret bits per second of the last block", "link"),
    _gauge("qkd_sifted_key_rate_bps", "Sifted bits per second of the last block", "link"),
    _gauge("qkd_auth_key_remaining_bits", "Key left to authenticate the classical channel", "link"),
    _gauge("qkd_finite_key_epsilon", "eps_sec + eps_cor of the last block", "link"),
    _gauge("qkd_last_block_age_seconds", "Time since the last block", "link"),
    _counter("qkd_blocks_total", "Blocks distilled", "link"),
    _counter("qkd_blocks_rejected_total", "Blocks that the module pair refused", "link", "reason"),
    _counter("qkd_sifted_bits_total", "Sifted bits that went into blocks", "link"),
    _counter("qkd_secret_bits_total", "Secret bits that came out of blocks", "link"),
    _counter("qkd_leak_ec_bits_total", "Bits disclosed by error correction, subtracted from the key", "link"),
    # the pool
    _gauge("pool_bits", "Bits of the pool by account; ingested is the sum of all others", "link", "state"),
    _gauge("pool_owned_free_bits", "Free bits that this end may allocate", "link"),
    _gauge("pool_ledger_imbalance_bits", "ingested minus all other accounts; anything but 0 is a fault", "link"),
    _gauge("pool_fill_rate_bps", "Bits per second that come in", "link"),
    _gauge("pool_drain_rate_bps", "Bits per second that go out", "link"),
    _gauge("pool_time_to_empty_seconds", "Free bits over drain minus fill; +Inf while not shrinking", "link"),
    _counter("pool_low_total", "Times the pool ran low: few keys left of our own", "link"),
    _gauge("pool_oldest_block_age_seconds", "Age of the oldest block with free bits", "link"),
    _counter("pool_ingested_bits_total", "Bits taken from the QKD module", "link"),
    # keys and requests
    _counter("keys_delivered_total", "Keys handed out", "initiator", "responder", "protection"),
    _counter("keys_refused_total", "Key requests refused", "reason"),
    _counter("keys_burnt_bits_total", "Bits destroyed because their use was ambiguous", "link", "reason"),
    _counter("dec_keys_unknown_id_total", "Requests for key IDs that the caller has no copy of", "sae"),
    _counter("draws_abnormal_total", "Times an SAE asked for so many unknown key IDs that it may guess", "sae"),
    _counter("quota_denied_total", "Requests above the quota of an SAE", "sae"),
    _counter("requests_total", "API requests answered", "method", "status"),
    _counter("requests_refused_total", "API requests refused before they reached the service", "reason"),
    Metric("request_latency_seconds", "histogram", ("method",), "Time from request to reply"),
    _counter("tls_handshake_failed_total", "TLS handshakes refused", "reason"),
    _gauge("cert_expiry_seconds", "Time until the first certificate of the site expires"),
    # peers and protection
    _gauge("peer_up", "1 while the peer KME answers", "peer"),
    _gauge("peer_since_timestamp_seconds", "Unix time from which peer_up is as it is", "peer"),
    _gauge("peer_epoch", "Epoch of the peer", "peer"),
    _gauge("peer_tls_group", "1 for the TLS key-exchange group in use", "peer", "group"),
    _gauge("strand_age_seconds", "Age of the ML-KEM strand shared with the peer", "peer"),
    _counter("strand_renewed_total", "Fresh ML-KEM exchanges", "peer"),
    _counter("strand_missing_total", "Times a connected peer stayed without an ML-KEM strand", "peer"),
    _gauge("waivers_active", "Waivers that let keys leave below the required protection"),
    # audit
    _gauge("audit_records", "Records in the audit log"),
    _gauge("audit_checkpoint_records", "Records under the last signed checkpoint"),
    _gauge("audit_cosigned_records", "Records under the last checkpoint that a peer co-signed"),
    _gauge("audit_cosign_lag_records", "Records not yet co-signed"),
    _gauge("audit_cosign_age_seconds", "Time since the last co-signature"),
    _counter("audit_write_failures_total", "Audit writes that failed; nothing was released meanwhile"),
    # relays
    _counter("maintenance_begun_total", "Windows of planned maintenance in which this site, or a hop, was drained"),
    _counter("maintenance_short_total", "Of these, how many began although pools did not suffice"),
    _counter("maintenance_short_bits_total", "Bits that these lacked"),
    _counter(
        "relay_documents_lapsed_total", "Sites that may carry our relayed links and are documented no more", "site"
    ),
    _counter("relay_blocks_total", "Blocks that came to this end of a relayed link", "link"),
    _counter("relay_blocks_lost_total", "Blocks of a relayed link that begins here that were given up", "link"),
    _counter("source_blocks_total", "Blocks that both ends took from the devices of a link", "link"),
    _counter("source_bits_total", "Bits of those blocks", "link"),
    _counter("source_lost_bits_total", "Bits that a device gave and that were burnt before they were key", "link"),
    _counter("source_refused_total", "Files and pushed keys that were not used", "link"),
    _counter(
        "relay_exposure_bits_total",
        "Bits that this site had in clear as a relay; seen: whole blocks, or parts that say nothing alone",
        "link",
        "seen",
    ),
    _counter(
        "border_exposure_bits_total",
        "Key bits of other sites' applications that this KME had in clear, on their way between two others",
        "peer",
        "onward",
    ),
    # transport
    _counter("transfers_finished_total", "Transfers that ended with every byte verified", "peer"),
    _counter("transfers_failed_total", "Transfers that ended otherwise", "peer"),
    _counter("transfer_rotations_total", "Key rotations inside transfers", "peer"),
    # tunnels, as their connectors report them
    _gauge("tunnel_up", "1 while the tunnel carries traffic under a key", *TUNNEL),
    _gauge("tunnel_protection_level", "0 none, 1 classical, 2 pqc, 3 qkd, 4 hybrid: of the key in use", *TUNNEL),
    _gauge("tunnel_key_age_seconds", "Age of the key in use", *TUNNEL),
    _gauge("tunnel_exposure_window_seconds", "Age of the oldest key that may still carry traffic", *TUNNEL),
    _gauge(
        "tunnel_fallback_active_seconds", "How long the tunnel has run below its protection; 0: it does not", *TUNNEL
    ),
    _gauge("tunnel_key_bytes", "Bytes under the key in use, where the daemon counts them", *TUNNEL),
    _gauge("tunnel_reported_timestamp_seconds", "Unix time of the connector's last report", *TUNNEL),
    _counter(
        "tunnel_rotations_total",
        "Keys taken into use; entropy: fresh (quantum bits of its own) or derived",
        *TUNNEL,
        "entropy",
    ),
    _counter("rekey_missed_total", "Keys that did not come into use", *TUNNEL),
    _counter("tunnel_blocks_total", "Times that no key was young enough, and no packet passed", *TUNNEL),
    _counter("tunnel_fallbacks_total", "Keys taken into use below the required protection", *TUNNEL),
    # all of it
    _counter("events_total", "Events by kind", "kind", "severity"),
)


def reference_page() -> str:
    """docs/reference/metrics.md."""
    rows = [f"| `{m.name}` | {m.kind} | {' '.join(m.labels) or '–'} | {m.text} |" for m in METRICS]
    return "\n".join([*_HEAD, *rows, ""])


_HEAD: Final = (
    "# Metrics",
    "",
    "<!-- Printed by `python docs/metrics.py`; a test compares. -->",
    "",
    "`GET /metrics` on the console's address, Prometheus text format 0.0.4. No label ever holds a key ID or a secret.",
    "A metric has at most 512 label sets (about links or peers: 16 for each, where that is more); what comes beyond is",
    "counted under `other`.",
    "QBER, yields and rates are computed by the real protocol; the photons behind them are simulated unless the link is",
    "fed by hardware.",
    "",
    "| name | kind | labels | meaning |",
    "|---|---|---|---|",
)
