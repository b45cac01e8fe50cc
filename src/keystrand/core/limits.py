"""Every limit of the implementation, in one place: named, with unit, tunable, enforced, and listed in the docs."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Ours to tune (what a standard fixes is not here). Raises ValueError where two limits contradict each other."""

    key_size_bits_default: int = 256
    key_size_bits_min: int = 64
    key_size_bits_max: int = 4096
    keys_per_request_max: int = 128
    additional_recipients_max: int = 8
    keys_stored_max: int = 1_000_000
    key_ttl_s: float = 3600.0  # an undelivered key is destroyed after this long
    block_ttl_s: float = 86_400.0  # unused bits are destroyed after this long
    block_size_bits: int = 8192  # a delivered block is cut into pool blocks of this size
    device_block_size_bits_max: int = 16_000_000
    pool_size_bits_max: int = 512_000_000
    cryptoperiod_s: float = 86_400.0  # a key is deactivated after this long
    rotation_uses: int = 4_294_967_296  # a key is due for rotation after so many uses (NIST SP 800-38D, 8.3),
    rotation_bytes: int = 68_719_476_736  # or so many bytes
    register_ttl_s: float = 2_592_000.0  # what is known of a finished key is forgotten after this long
    peer_reply_timeout_s: float = 2.0
    peer_retry_s: float = 1.0
    peer_frame_bytes_max: int = 4_194_304
    device_frame_bytes_max: int = 4_194_304
    pending_requests_max: int = 4096
    stock_keys_max: int = 1024  # keys agreed ahead of demand, per pair of SAEs that draws often
    stock_from_per_s: float = 80.0  # which means from so many requests per second on
    stock_idle_s: float = 5.0  # what nobody drew for so long is given up at both ends
    tombstones_max: int = 100_000
    strand_epoch_s: float = 300.0  # a fresh ML-KEM exchange this often
    strand_epoch_keys_max: int = 1_000_000
    checkpoint_records: int = 1000
    checkpoint_s: float = 30.0
    http_body_bytes_max: int = 65_536
    http_connections_max: int = 2048
    http_connections_per_holder_max: int = 512
    tls_handshake_timeout_s: float = 10.0
    tls_handshake_bytes_max: int = 131_072
    http_idle_timeout_s: float = 75.0
    http_header_timeout_s: float = 10.0
    json_depth_max: int = 16
    unknown_key_rate_per_s: float = 5.0  # per SAE: more misses than this look like enumeration and raise an event

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if not 0 < getattr(self, name) < math.inf:  # not a number is refused too
                raise ValueError(f"{name}={getattr(self, name)} must be positive and finite")
        if not self.key_size_bits_min <= self.key_size_bits_default <= self.key_size_bits_max:
            raise ValueError(
                f"key_size_bits_default={self.key_size_bits_default} is outside "
                f"key_size_bits_min={self.key_size_bits_min} .. key_size_bits_max={self.key_size_bits_max}"
            )
        if self.block_size_bits % 8:
            raise ValueError(f"block_size_bits={self.block_size_bits} must be a multiple of 8")
        if self.pool_size_bits_max < self.block_size_bits:
            raise ValueError(f"pool_size_bits_max={self.pool_size_bits_max} < block_size_bits={self.block_size_bits}")
