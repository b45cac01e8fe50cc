"""Every limit of the implementation on one page: `python docs/limits.py` writes docs/limits.md from core/limits.py."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from keystrand.core.limits import Limits

PAGE = Path(__file__).parent / "limits.md"

HEAD = """\
# Limits

<!-- Printed by `python docs/limits.py`; a test compares, and fails for a limit that is not explained here. -->

Set them in the `[limits]` section of a site's file; what is left out has the default. All must be positive and finite.
Figures that a standard fixes are not here.

| name | default | unit | meaning |
|---|---|---|---|
"""

TAIL = """
Limits of the data-transfer gateway (record size, waiting times, connections) stand in
`keystrand/transport/gateway/ports.py`; limits of a link (block size, error rate at which a block is dropped) are fields
of its profile, see [the link](concepts/link.md).
"""

UNITS = {"_bits": "bit", "_bytes": "byte", "_s": "s", "_per_s": "1/s", "_bps": "bit/s"}

MEANINGS = {
    "key_size_bits_default": "size of a key when the request names none",
    "key_size_bits_min": "smallest key that may be asked for",
    "key_size_bits_max": "largest key that may be asked for",
    "keys_per_request_max": "most keys, or key IDs, in one request",
    "additional_recipients_max": "most further SAEs that one key may be shared with",
    "keys_stored_max": "most stored keys that the status answer ever states",
    "key_ttl_s": "a key that nobody fetched is destroyed after this long",
    "block_ttl_s": "bits that were not used are destroyed after this long",
    "block_size_bits": "a block from a module is cut into pool blocks of this size; must be the same at both ends",
    "device_block_size_bits_max": "largest block that a module may hand over",
    "pool_size_bits_max": "free bits of one link above which blocks are refused",
    "cryptoperiod_s": "a key is deactivated after this long, where its policy states no other cryptoperiod",
    "rotation_uses": "a key is due for rotation after so many reported uses, where its policy states no other number",
    "rotation_bytes": "a key is due for rotation after so many reported bytes, where its policy states no other number",
    "register_ttl_s": "what is known of a key is forgotten so long after its life has ended",
    "peer_reply_timeout_s": "a reservation that the peer has not confirmed by then is burnt",
    "peer_retry_s": "what the peer has not answered is said again this often",
    "peer_frame_bytes_max": "largest frame on the stream between two KMEs",
    "device_frame_bytes_max": "largest frame on the stream from a module",
    "pending_requests_max": "most reservations that wait for peers at a time",
    "stock_keys_max": "most keys that are agreed ahead of demand, for each pair of SAEs that draws often",
    "stock_from_per_s": "a pair of SAEs that asks so many times per second draws often",
    "stock_idle_s": "keys agreed ahead that nobody drew for so long are burnt at both ends",
    "tombstones_max": "most callers whose refusals are counted one by one, to bound what a flood can make us remember",
    "strand_epoch_s": "a fresh ML-KEM exchange with each peer this often; after twice as long the strand counts as missing",
    "strand_epoch_keys_max": "most keys made under one ML-KEM exchange",
    "checkpoint_records": "a signed checkpoint of the audit log after so many records",
    "checkpoint_s": "a signed checkpoint of the audit log at least this often, when there are new records",
    "http_body_bytes_max": "largest body of an API request",
    "http_connections_max": "most connections to the API at a time, handshakes included; the oldest handshake makes room",
    "http_connections_per_holder_max": "most of them for one holder of certificates",
    "tls_handshake_timeout_s": "a TLS handshake that takes longer is cut off",
    "tls_handshake_bytes_max": "a TLS handshake that needs more bytes is cut off",
    "http_idle_timeout_s": "an idle API connection is closed after this long",
    "http_header_timeout_s": "the head of an API request must be complete by then",
    "json_depth_max": "deepest nesting of a JSON body",
    "unknown_key_rate_per_s": "more misses per second of one SAE raise an event; more of its refusals are not recorded",
}


def unit_of(name: str) -> str:
    """From the end of the name: units stand last, before `_max`, `_min` and `_default`."""
    stem = name.removesuffix("_max").removesuffix("_min").removesuffix("_default")
    return next((UNITS[end] for end in sorted(UNITS, key=len, reverse=True) if stem.endswith(end)), "–")


def page() -> str:
    """The whole of limits.md. Raises KeyError for a limit without a meaning."""
    lines = []
    for limit in fields(Limits):
        default = f"{limit.default:_}".replace("_", " ")
        lines.append(f"| `{limit.name}` | {default} | {unit_of(limit.name)} | {MEANINGS[limit.name]} |")
    return HEAD + "\n".join(lines) + "\n" + TAIL


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
