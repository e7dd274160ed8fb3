"""Colours as people see them: CIELAB, CIEDE2000, and which named colour a pixel is."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from skimage.color import deltaE_ciede2000, rgb2lab

Colours = NDArray[np.uint8]
Lab = NDArray[np.float64]


def lab(colours: Colours) -> Lab:
    """sRGB uint8 [..., 3] in CIELAB (D65, 2° observer) [..., 3]."""
    return rgb2lab(colours / 255.0)


def mean_difference(a: Colours, b: Colours) -> float:
    """CIEDE2000 (Sharma et al. 2005) between the mean colours of ``a`` [N, 3] and ``b`` [M, 3] in CIELAB."""
    return float(deltaE_ciede2000(lab(a).mean(0), lab(b).mean(0)))


def pixel_difference(a: Colours, b: Colours) -> float:
    """Mean CIEDE2000 over the pixels of ``a`` and ``b`` [N, 3], each with its own."""
    return float(deltaE_ciede2000(lab(a), lab(b)).mean())


def chroma(colours: Colours) -> float:
    """Mean CIELAB chroma C* = √(a*² + b*²) of ``colours`` [N, 3]."""
    return float(np.hypot(*np.moveaxis(lab(colours)[..., 1:], -1, 0)).mean())


def shares(colours: Colours, palette: Mapping[str, tuple[int, int, int]]) -> dict[str, float]:
    """For each name of ``palette`` (sRGB) the share of ``colours`` [N, 3] to which it is the nearest by CIEDE2000."""
    entries = lab(np.array(list(palette.values()), np.uint8))
    nearest = deltaE_ciede2000(lab(colours)[:, None], entries[None]).argmin(1)
    counts = np.bincount(nearest, minlength=len(palette)) / max(1, len(colours))
    return dict(zip(palette, counts.tolist(), strict=True))
