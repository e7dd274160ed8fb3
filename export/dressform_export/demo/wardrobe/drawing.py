"""A canvas on which shaded, antialiased shapes are painted, with the parsing label of each pixel kept beside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageOps

Plane = NDArray[np.float32]
Point = tuple[float, float]
Colouring = Callable[[Plane, Plane], NDArray[np.float32]]
"""Colours [n, m, 3] in 0 to 255 at coordinates x and y [n, m]."""

SUPERSAMPLING = 3

_EDGE = (1 - np.clip(2 * np.arange(256) / 255 - 1, 0, 1) ** 0.7).astype(np.float32)
"""By the blurred mask's value: 1 at a shape's edge, 0 well inside."""


class Disc(NamedTuple):
    """A filled circle."""

    centre: Point
    radius: float


class Canvas:
    """A picture being painted, in units of 1/128 of its height, y downwards."""

    def __init__(self, height: int, width: int) -> None:
        self.size = (height, width)
        self.scale = SUPERSAMPLING * height / 128
        rows, columns = height * SUPERSAMPLING, width * SUPERSAMPLING
        self.pixels = np.full((rows, columns, 3), 255, np.float32)
        self.labels = np.zeros((rows, columns), np.uint8)

    @property
    def width(self) -> float:
        """Units from the left edge to the right."""
        return self.pixels.shape[1] / self.scale

    def shape(self, *parts: Sequence[Point] | Disc) -> Image.Image:
        """A mask: the union of polygons and discs."""
        rows, columns = self.labels.shape
        mask = Image.new("L", (columns, rows), 0)
        draw = ImageDraw.Draw(mask)
        for part in parts:
            if isinstance(part, Disc):
                (x, y), r = part.centre, part.radius
                draw.ellipse([c * self.scale for c in (x - r, y - r, x + r, y + r)], fill=255)
            else:
                draw.polygon([(x * self.scale, y * self.scale) for x, y in part], fill=255)
        return mask

    def paint(
        self,
        mask: Image.Image,
        colouring: Colouring,
        *,
        label: int | None = None,
        round_: float = 4.0,
        depth: float = 0.3,
    ) -> None:
        """Paint within ``mask``, darker towards its edges: by ``depth`` over about ``round_`` units."""
        box = mask.getbbox()
        if box is None:
            return
        window = (slice(box[1], box[3]), slice(box[0], box[2]))
        cut = mask.crop(box)
        inside = np.asarray(cut) >= 128
        y, x = np.ogrid[window]
        x, y = ((axis.astype(np.float32) + 0.5) / self.scale for axis in (x, y))
        colours = colouring(*np.broadcast_arrays(x, y))
        if depth:
            reach = round_ * self.scale / 2
            margin = int(2 * reach) + 1
            soft = (
                ImageOps.expand(cut, margin)
                .filter(ImageFilter.GaussianBlur(reach))
                .crop((margin, margin, margin + cut.width, margin + cut.height))
            )
            edge = _EDGE[np.asarray(soft)]
            colours = colours * (1 - depth * edge)[..., None]
        np.copyto(self.pixels[window], colours, where=inside[..., None])
        if label is not None:
            self.labels[window][inside] = label

    def shadow(self, mask: Image.Image, softness: float, strength: float) -> None:
        """Darken softly around ``mask`` whatever has no label: a cast shadow, behind what is labelled."""
        soft = np.asarray(mask.filter(ImageFilter.GaussianBlur(softness * self.scale)), np.float32) / 255
        self.pixels *= np.where(self.labels > 0, np.float32(1), 1 - strength * soft)[..., None]

    def image(self) -> NDArray[np.uint8]:
        """The picture [H, W, 3], antialiased."""
        rows, columns = self.size
        pixels = self.pixels.reshape(rows, SUPERSAMPLING, columns, SUPERSAMPLING, 3).mean((1, 3))
        return np.clip(pixels + 0.5, 0, 255).astype(np.uint8)

    def label_map(self) -> NDArray[np.uint8]:
        """The labels [H, W]: of each pixel's centre."""
        return self.labels[SUPERSAMPLING // 2 :: SUPERSAMPLING, SUPERSAMPLING // 2 :: SUPERSAMPLING].copy()


def flat(rgb: ArrayLike) -> Colouring:
    """One colour everywhere."""
    colour = np.array(rgb, np.float32)
    return lambda x, _: np.broadcast_to(colour, (*x.shape, 3))


def curve(points: Sequence[Point], steps: int = 8) -> list[Point]:
    """A uniform Catmull–Rom spline through ``points`` (open), ``steps`` points per span."""
    p = np.array([points[0], *points, points[-1]], float)
    t = np.linspace(0, 1, steps, endpoint=False)[:, None]
    spans = []
    for a, b, c, d in zip(p, p[1:], p[2:], p[3:]):
        spans.append(0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3))
    return [(float(x), float(y)) for x, y in np.concatenate([*spans, p[-1:]])]


def tube(a: Point, b: Point, start: float, end: float) -> list[Point]:
    """A tapered strip from ``a`` to ``b`` with half widths ``start`` and ``end``."""
    along = np.subtract(b, a) / (np.hypot(*np.subtract(b, a)) + 1e-9)
    normal = np.array([-along[1], along[0]])
    corners = (a + start * normal, b + end * normal, b - end * normal, a - start * normal)
    return [(float(x), float(y)) for x, y in corners]


def between(a: Point, b: Point, share: float) -> Point:
    """The point ``share`` of the way from ``a`` to ``b``."""
    return (a[0] + share * (b[0] - a[0]), a[1] + share * (b[1] - a[1]))
