"""What a QKD module hands over is hostile until it has been looked at: sizes, claims and the health of the bits.

The health tests are in the spirit of NIST SP 800-90B 4.4 (repetition count, adaptive proportion) on bytes: they catch a
source that is stuck or badly biased, not a clever one; equality with the peer's block is checked by the KMEs.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass
from typing import Final

from keystrand.core.errors import BadRequest
from keystrand.core.key import Block, Provenance
from keystrand.core.limits import Limits
from keystrand.core.secret import Secret
from keystrand.wire.device import BlockReady

QBER_MAX: Final = 0.11  # above it BB84 yields no key: a block that claims more is not one
RUN_MAX_BYTES: Final = 8  # equal bytes in a row: by chance less than once in 2^48 blocks of 1 MB
WINDOW_BYTES: Final = 512
QUARANTINE_BLOCKS: Final = (
    3  # NIST SP 800-90B, 4.3: a source that failed a test starts anew, and its first samples are not used
)
SHARE_MAX: Final = 32  # of one value in a window of 512 random bytes: by chance about once in 2^80


@dataclass(slots=True)
class Intake:
    """The door of one link. trust: what the site's documents say of this source ("simulated", "certified", …)."""

    link: str
    source: str
    limits: Limits
    trust: str = "simulated"
    owed: int = 0  # healthy blocks that the source has to show first

    def admit(self, ready: BlockReady) -> Block:
        """The block, if it can be what the module says it is. Raises BadRequest that names the fault."""
        self._check(ready)
        if self.owed:
            self.owed -= 1
            raise BadRequest(f"source in quarantine: healthy, and {self.owed} more healthy blocks before one is taken")
        return Block(
            link=self.link,
            sequence=ready.sequence,
            material=Secret(ready.material),
            provenance=Provenance(
                source=self.source,
                sifted_bits=ready.sifted_bits,
                secret_bits=ready.secret_bits,
                bound_bits=ready.bound_bits,
                leak_ec_bits=ready.leak_ec_bits,
                auth_bits=ready.auth_bits,
                qber=ready.qber,
                qber_test=ready.qber_test,
                eps_sec=ready.eps_sec,
                eps_cor=ready.eps_cor,
                duration_s=ready.duration_s,
            ),
        )

    def _check(self, ready: BlockReady) -> None:
        bits = 8 * len(ready.material)
        if not 0 < bits <= self.limits.device_block_size_bits_max:
            raise BadRequest(f"block of {bits} bits is outside the limits")
        if ready.sequence < 0:
            raise BadRequest("negative sequence")
        if bits > ready.secret_bits:
            raise BadRequest(f"block of {bits} bits claims only {ready.secret_bits} secret ones")
        if ready.secret_bits > ready.bound_bits:
            raise BadRequest(f"{ready.secret_bits} bits are above the finite-key bound of {ready.bound_bits}")
        if not (0 <= ready.qber < QBER_MAX and 0 <= ready.qber_test < 0.5):
            raise BadRequest(f"QBER {ready.qber:.3f} cannot give key")
        if problem := health_problem(ready.material):
            self.owed = QUARANTINE_BLOCKS
            raise BadRequest(f"unhealthy source: {problem}")


def health_problem(material: bytes) -> str:
    """What is wrong with these bytes as random ones, or ""."""
    run = 1
    for before, byte in itertools.pairwise(material):
        run = run + 1 if byte == before else 1
        if run >= RUN_MAX_BYTES:
            return f"{run} equal bytes in a row"
    for start in range(0, len(material) - WINDOW_BYTES + 1, WINDOW_BYTES):
        _, times = Counter(material[start : start + WINDOW_BYTES]).most_common(1)[0]
        if times >= SHARE_MAX:
            return f"one value {times} times in {WINDOW_BYTES} bytes"
    return ""
