"""Where a picture lies on the processing canvas, and how to bring it back.

A `Placement` maps a box of the original onto a box of the canvas by LANCZOS resizing; the resize modes and
``padding_mask_crop`` of diffusers' VaeImageProcessor differ only in those two boxes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
Box = tuple[int, int, int, int]
"""Left, top, right, bottom; right and bottom excluded."""


@dataclass(frozen=True)
class Placement:
    """``source`` box of the original ↔ ``target`` box of a canvas of ``height`` × ``width``.

    The target may reach beyond the canvas (crop) or leave bands of it free (fill).
    """

    source: Box
    target: Box
    height: int
    width: int

    def __post_init__(self) -> None:
        for name, (left, top, right, bottom) in (("source", self.source), ("target", self.target)):
            if right <= left or bottom <= top:
                raise ValueError(f"the {name} box {(left, top, right, bottom)} is empty")

    def onto_canvas(self, pixels: Pixels, ground: tuple[int, int, int] | None = None) -> Pixels:
        """``pixels`` [H, W(, 3)] on the canvas; bands left free continue the edges or are ``ground``."""
        left, top, right, bottom = self.target
        cut = Image.fromarray(pixels).crop(self.source) if self.source != (0, 0, *pixels.shape[1::-1]) else pixels
        image = cut if isinstance(cut, Image.Image) else Image.fromarray(cut)
        size = (right - left, bottom - top)
        # "reducing_gap" is not used: diffusers resizes in one LANCZOS pass.
        resized = np.asarray(image if image.size == size else image.resize(size, Image.Resampling.LANCZOS))
        inner = resized[max(-top, 0) : self.height - top, max(-left, 0) : self.width - left]
        bands = [(max(top, 0), max(self.height - bottom, 0)), (max(left, 0), max(self.width - right, 0))]
        if not any(band for pair in bands for band in pair):
            return np.ascontiguousarray(inner)
        if ground is None:
            return np.pad(inner, bands + [(0, 0)] * (inner.ndim - 2), mode="edge")
        canvas = np.full((self.height, self.width, 3), ground, np.uint8)
        canvas[bands[0][0] : self.height - bands[0][1], bands[1][0] : self.width - bands[1][1]] = inner
        return canvas

    def from_canvas(self, canvas: Pixels) -> tuple[Pixels, Box]:
        """The part of the original that the canvas [height, width, 3] shows, at the original's scale, and its box."""
        left, top, right, bottom = self.target
        shown = (max(left, 0), max(top, 0), min(right, self.width), min(bottom, self.height))
        box = self.visible
        size = (box[2] - box[0], box[3] - box[1])
        image = Image.fromarray(canvas).crop(shown)
        return np.asarray(image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)), box

    @property
    def visible(self) -> Box:
        """The box of the original that lies on the canvas; at least one pixel each way."""
        left, top, right, bottom = self.target
        x0, x1 = _visible((self.source[0], self.source[2]), (left, right), self.width)
        y0, y1 = _visible((self.source[1], self.source[3]), (top, bottom), self.height)
        return x0, y0, x1, y1


def _visible(source: tuple[int, int], target: tuple[int, int], limit: int) -> tuple[int, int]:
    """The span of ``source`` whose image in ``target`` lies within [0, limit]."""
    scale = (source[1] - source[0]) / (target[1] - target[0])
    low = min(source[0] + round(max(-target[0], 0) * scale), source[1] - 1)
    high = source[1] - round(max(target[1] - limit, 0) * scale)
    return low, max(high, low + 1)


def placed(original: tuple[int, int], canvas: tuple[int, int], mode: str, source: Box | None = None) -> Placement:
    """The placement of an ``original`` (height, width) on a ``canvas`` (height, width) by resize mode.

    ``default`` stretches, ``fill`` fits the whole, ``crop`` covers the canvas; ``source`` takes a part of the original.
    """
    height, width = canvas
    left, top, right, bottom = source or (0, 0, original[1], original[0])
    part_w, part_h = right - left, bottom - top
    if mode == "default":
        return Placement((left, top, right, bottom), (0, 0, width, height), height, width)
    wider = width / height < part_w / part_h
    if wider == (mode == "fill"):
        w, h = width, max(part_h * width // part_w, 1)
    else:
        w, h = max(part_w * height // part_h, 1), height
    x, y = width // 2 - w // 2, height // 2 - h // 2
    return Placement((left, top, right, bottom), (x, y, x + w, y + h), height, width)


def masked_region(mask: NDArray[np.uint8], canvas: tuple[int, int], margin: int) -> Box:
    """The box around the white of ``mask`` [H, W] with ``margin`` pixels, widened to the canvas's aspect ratio.

    As diffusers' ``get_crop_region``. Raises ValueError where the mask has no white.
    """
    rows, columns = np.flatnonzero((mask >= 128).any(1)), np.flatnonzero((mask >= 128).any(0))
    if not len(rows):
        raise ValueError("the mask is empty")
    height, width = mask.shape
    x = (max(int(columns[0]) - margin, 0), min(int(columns[-1]) + 1 + margin, width))
    y = (max(int(rows[0]) - margin, 0), min(int(rows[-1]) + 1 + margin, height))
    ratio = canvas[1] / canvas[0]
    if (x[1] - x[0]) / (y[1] - y[0]) > ratio:
        y = _widened(y, int((x[1] - x[0]) / ratio - (y[1] - y[0])), height)
    else:
        x = _widened(x, int((y[1] - y[0]) * ratio - (x[1] - x[0])), width)
    return x[0], y[0], x[1], y[1]


def _widened(span: tuple[int, int], by: int, limit: int) -> tuple[int, int]:
    low, high = span[0] - by // 2, span[1] + by - by // 2
    if high >= limit:
        low, high = low - (high - limit), limit
    if low < 0:
        low, high = 0, high - low
    return low, min(high, limit)
