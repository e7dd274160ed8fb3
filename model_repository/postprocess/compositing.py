"""The original put back around what was repainted. Pure functions on uint8 arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from preprocess.placement import Box, Placement

Pixels = NDArray[np.uint8]


def opacity(mask: Pixels, *, soft: bool, blur: float) -> Pixels:
    """How much of the repainted picture shows, uint8 [H, W]: the binary mask, with a Gaussian edge where ``soft``."""
    if not soft or blur == 0:
        return mask
    return np.asarray(Image.fromarray(mask).filter(ImageFilter.GaussianBlur(blur)))


def composite(original: Pixels, canvas: Pixels, alpha: Pixels, placement: Placement) -> Pixels:
    """The original [H, W, 3] with the canvas [h, w, 3] shown by ``alpha`` [H, W] where the canvas covers it.

    Where alpha is 0, and outside the canvas, every pixel is the original's.
    """
    region, box = placement.from_canvas(canvas)
    result = original.copy()
    left, top, right, bottom = _busy(alpha, box)
    if right <= left or bottom <= top:
        return result
    a = alpha[top:bottom, left:right, None].astype(np.uint16)
    new = region[top - box[1] : bottom - box[1], left - box[0] : right - box[0]]
    mixed = (original[top:bottom, left:right] * (255 - a) + new * a + 127) // 255
    result[top:bottom, left:right] = mixed
    return result


def _busy(alpha: Pixels, box: Box) -> Box:
    """The part of ``box`` that holds all of alpha above 0."""
    part = alpha[box[1] : box[3], box[0] : box[2]]
    rows, columns = np.flatnonzero(part.any(1)), np.flatnonzero(part.any(0))
    if not len(rows):
        return box[0], box[1], box[0], box[1]
    return (
        box[0] + int(columns[0]),
        box[1] + int(rows[0]),
        box[0] + int(columns[-1]) + 1,
        box[1] + int(rows[-1]) + 1,
    )
