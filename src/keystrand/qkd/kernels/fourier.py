"""What a Toeplitz product by blocks does between its Fourier transforms."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from keystrand.qkd.kernels import kernel

Spectra = NDArray[np.complex128]

TILE = 1024  # frequencies that stay in the first cache while all blocks add to them


@kernel
def accumulate(windows: Spectra, inputs: Spectra, row: int, total: Spectra) -> None:
    """total = sum over c of windows[columns - 1 - c + row] * inputs[c]; all complex, rows of frequencies."""
    columns = inputs.shape[0]
    for start in range(0, total.size, TILE):
        end = min(start + TILE, total.size)
        part = total[start:end]
        part[:] = 0.0
        for c in range(columns):
            window, vector = windows[columns - 1 - c + row, start:end], inputs[c, start:end]
            for i in range(part.size):
                part[i] += window[i] * vector[i]
