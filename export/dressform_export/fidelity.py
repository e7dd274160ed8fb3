"""How close two pictures are."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

PSNR_CEILING = 100.0
"""PSNR of equal pictures, in dB: it would be infinite."""


def psnr(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Peak signal-to-noise ratio of uint8 values of one shape in dB, at most `PSNR_CEILING`."""
    mse = float(np.square(a.astype(np.float64) - b.astype(np.float64)).mean())
    return PSNR_CEILING if mse == 0 else min(PSNR_CEILING, float(10 * np.log10(255**2 / mse)))
