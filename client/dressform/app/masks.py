"""Masks: shown over the person, and corrected by hand. Pure functions on PIL images and arrays.

A mask is 8-bit grey at the photo's size; white is repainted. Strokes are what the canvas gives back: uint8
``[h, w, 4]`` of the photo's shape at the canvas's size, painted in one colour to add and in another to remove.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ADD, REMOVE = (230, 0, 110), (0, 130, 255)
OPACITY = 0.6
"""Of both paints; above 0.5, so that the last stroke has the larger share of the mixed colour."""

CANVAS_WIDTH, CANVAS_HEIGHT = 342, 456
"""Largest canvas in CSS pixels: as wide as a phone's column (390 pixels less its margins)."""


def paint(colour: tuple[int, int, int]) -> str:
    """``colour`` as CSS."""
    return f"rgba({', '.join(map(str, colour))}, {OPACITY})"


def canvas_size(size: tuple[int, int]) -> tuple[int, int]:
    """(width, height) of the canvas for a photo of ``size``."""
    scale = min(CANVAS_WIDTH / size[0], CANVAS_HEIGHT / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def empty(size: tuple[int, int]) -> Image.Image:
    """A mask of nothing."""
    return Image.new("L", size, 0)


def overlay(shown: Image.Image, mask: Image.Image) -> Image.Image:
    """``shown`` (RGB) with what ``mask`` repaints tinted."""
    weight = mask.resize(shown.size, Image.Resampling.BILINEAR).point(lambda value: round(value * OPACITY))
    return Image.composite(Image.new("RGB", shown.size, ADD), shown, weight)


def corrected(mask: Image.Image, strokes: NDArray[np.uint8] | None) -> Image.Image:
    """``mask`` with what was painted added or removed: 0 and 255."""
    pixels = np.asarray(mask) >= 128
    if strokes is not None:
        drawn = np.asarray(Image.fromarray(strokes).resize(mask.size, Image.Resampling.NEAREST))
        colours = drawn[..., :3].astype(np.int32)
        from_add, from_remove = (((colours - colour) ** 2).sum(axis=-1) for colour in (ADD, REMOVE))
        pixels = np.where(drawn[..., 3] >= 128 * OPACITY, from_add < from_remove, pixels)
    return Image.fromarray(np.where(pixels, 255, 0).astype(np.uint8))


def share(mask: Image.Image) -> float:
    """How much of the picture is repainted, 0 to 1."""
    return float((np.asarray(mask) >= 128).mean())
