"""The transmitter's choices for every pulse, as a stream that can be entered anywhere.

Bit, basis and intensity of pulse i are AES-256 of the counter i under a secret seed that lives for one run. So nothing is
stored per pulse: for the few pulses that clicked the transmitter derives them again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from keystrand.core.secret import Secret
from keystrand.qkd.profile import Source

KEY_BASIS: Final = 0
TEST_BASIS: Final = 1
SIGNAL: Final = 0
DECOY: Final = 1
VACUUM: Final = 2

Bits = NDArray[np.uint8]  # one 0 or 1 per element
Indices = NDArray[np.int64]  # pulse numbers, ascending
Thresholds = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Choices:
    """What was sent in some pulses, as arrays of the same length; intensities are SIGNAL, DECOY or VACUUM."""

    bits: Bits
    bases: Bits
    intensities: Bits


class ChoiceStream:
    """`Choices` of any pulses of one run. `seed` is 32 secret bytes."""

    def __init__(self, seed: Secret, source: Source) -> None:
        assert len(seed) == 32
        # One block per counter value: ECB over distinct counters is counter mode that can be entered anywhere.
        self._cipher = Cipher(algorithms.AES256(seed.reveal()), modes.ECB())  # noqa: S305
        self.levels = len(source.intensities)
        self._test_from = round(source.p_key_basis * 2**32)
        self._decoy_from = round(source.p_mu * 2**32)
        self._vacuum_from = round((1 - source.p_vacuum) * 2**32)

    def rules(self) -> Thresholds:
        """From which values of their 32 bits on basis and intensities are the next ones, for kernels that derive choices."""
        return np.array([self._test_from, self._decoy_from, self._vacuum_from], np.uint64)

    def at(self, indices: Indices) -> Choices:
        """Choices for the pulses `indices` (int64, not negative)."""
        counters = np.zeros((indices.size, 2), np.int64)
        counters[:, 0] = indices
        encryptor = self._cipher.encryptor()
        words = np.frombuffer(encryptor.update(counters.tobytes()), np.uint32).reshape(-1, 4)
        intensities = (words[:, 2] >= self._decoy_from).astype(np.uint8)
        if self._vacuum_from < 2**32:
            intensities += words[:, 2] >= self._vacuum_from
        return Choices(
            bits=(words[:, 0] & 1).astype(np.uint8),
            bases=(words[:, 1] >= self._test_from).astype(np.uint8),
            intensities=intensities,
        )
