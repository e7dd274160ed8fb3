"""The agnostic mask: from a parser's labels to what a garment of a category may cover. Pure numpy.

As in CatVTON's AutoMasker (Chong et al. 2024): the category's garments and the body parts it may cover, their convex
hull (so that the outline of what is worn gives nothing away), grown a little, minus all that must stay. Labels are
``LABELS`` of the contract, uint8 [H, W]; left and right are the wearer's.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from dressform_contract import LABELS
from preprocess.errors import GarmentNotFound, PersonNotFound
from preprocess.masks import grown

Labels = NDArray[np.uint8]
Region = NDArray[np.bool_]

GARMENTS: dict[str, tuple[str, ...]] = {
    "upper": ("Upper-clothes",),
    "lower": ("Skirt", "Pants"),
    "overall": ("Dress",),
}
"""What decides a category."""

ARMS, LEGS = ("Left-arm", "Right-arm"), ("Left-leg", "Right-leg")
IDENTITY = ("Hair", "Face", "Sunglasses", "Hat")
BODY = ("Hair", "Face", *ARMS, *LEGS)

COVERED: dict[str, tuple[str, ...]] = {
    "upper": ("Upper-clothes", "Dress", *ARMS),
    "lower": ("Skirt", "Pants", "Dress", "Belt", *LEGS),
    "overall": ("Upper-clothes", "Skirt", "Pants", "Dress", "Belt", *ARMS, *LEGS),
}
"""Labels that a garment of the category may cover; a dress goes where either half of it changes."""

SPARED: dict[str, tuple[str, ...]] = {
    category: tuple(label for label in LABELS[1:] if label not in (*covered, *IDENTITY))
    for category, covered in COVERED.items()
}
"""Labels that stay within the hull, to the pixel. `IDENTITY` and hands stay too, with a margin."""

DILATION = 0.03
"""Of the height: how far the hull grows; a skirt flares beyond trousers."""

MARGIN = 1 / 64
"""Of the height: how far face, hair and hands are kept clear, for a parser's border is a pixel or two off now and then.

With the demonstration's parser, of 400 held-out people 1 lost pixels of these to the mask; at half the margin 8 did.
"""

SMALLEST = 0.01
"""Share of the picture below which a thing counts as not found."""

SMALLEST_BODY = 0.02
"""Share of what is not background below which there is no body, hence no person: a head has about 0.1, hands 0.03."""

SPECK = 0.03
"""A connected part of a region is taken for the parser's mistake below this share of the largest."""

HAND_PER_FACE = 0.9
"""Length of a hand by the square root of the visible face's area, neck included. A stretched hand is as long as a face
is high (0.108 of stature, Drillis & Contini 1966), a relaxed one 0.8 of that; a face of height h covers 0.75 h²."""

HAND_PER_FIGURE = 0.15
"""Length of a hand by the figure's height, where no face is seen: 0.108 of a whole body's, more of a part's."""

GRID = 160
"""Most lines of the grid on which distances within an arm are measured."""


def agnostic_mask(labels: Labels, category: str) -> Region:
    """What a garment of ``category`` (upper, lower, overall) may cover on the person in ``labels``, bool [H, W].

    Raises:
        PersonNotFound: where there is no person, or too little of what the category covers.
        ValueError: for another ``category``.
    """
    if category not in COVERED:
        raise ValueError(f"category must be one of {', '.join(COVERED)}, not {category!r}")
    _check_person(labels)
    region = _any_of(labels, COVERED[category])
    if region.mean() < SMALLEST:
        raise PersonNotFound(_sentence(f"nothing of the category {category}", COVERED[category], labels))
    height = labels.shape[0]
    hull = _dilated(convex_hull(_without_specks(region)), max(1, round(DILATION * height)))
    kept = _dilated(_any_of(labels, IDENTITY) | hands(labels), max(1, round(MARGIN * height)))
    return hull & ~kept & ~_any_of(labels, SPARED[category])


def category_of_garment(labels: Labels) -> str:
    """The category of the garment in a picture of it: that of the largest share.

    Raises:
        GarmentNotFound: where none is seen.
    """
    shares = {category: float(_any_of(labels, names).mean()) for category, names in GARMENTS.items()}
    largest = max(shares, key=lambda category: shares[category])
    if shares[largest] < SMALLEST:
        raise GarmentNotFound(_sentence("no garment", [name for names in GARMENTS.values() for name in names], labels))
    return largest


def category_of_person(labels: Labels) -> str:
    """The category to change on the person in ``labels``: overall where a dress is worn, else upper.

    Raises:
        PersonNotFound: where there is no person.
    """
    _check_person(labels)
    dress, upper = (int(_any_of(labels, GARMENTS[category]).sum()) for category in ("overall", "upper"))
    return "overall" if dress > upper else "upper"


def hands(labels: Labels) -> Region:
    """The hands, bool [H, W]: of each arm what lies within a hand's length of its tip.

    The tip is farthest from the neck within the arm's label, or within the last part of it where clothing divides it.
    """
    step = -(-labels.shape[0] // GRID)
    grid = labels[::step, ::step]
    y, x = np.ogrid[: labels.shape[0], : labels.shape[1]]
    found = np.zeros(labels.shape, bool)
    for name in ARMS:
        if (arm := _any_of(grid, [name])).any():
            row, column = _tip(arm, _neck(grid))
            near = np.hypot(y / step - row, x / step - column) <= _hand_length(grid)
            found |= near & _any_of(labels, [name])
    return found


def convex_hull(region: Region) -> Region:
    """The pixels whose centres lie in the convex hull of the region's pixel centres."""
    hull = np.zeros_like(region)
    rows = np.flatnonzero(region.any(1))
    if not len(rows):
        return hull
    width = region.shape[1]
    every = np.arange(rows[0], rows[-1] + 1)
    right = np.interp(every, *_upper_chain(rows, width - 1 - region[rows, ::-1].argmax(1)))
    left = -np.interp(every, *_upper_chain(rows, -region[rows].argmax(1)))
    x, rounding = np.arange(width), 1e-9 * width
    hull[every] = (x >= left[:, None] - rounding) & (x <= right[:, None] + rounding)
    return hull


def connected_parts(region: Region) -> NDArray[np.intp]:
    """The connected parts of a region (eight neighbours), numbered from 1; 0 off the region."""
    steps = np.diff(region.astype(np.int8), axis=1, prepend=0, append=0)
    (line, start), (_, end) = np.nonzero(steps > 0), np.nonzero(steps < 0)
    stride = region.shape[1] + 2
    # Runs along the lines, in reading order: those of the line above that touch a run are neighbours in it.
    first = np.searchsorted(line * stride + end, (line - 1) * stride + start)
    last = np.searchsorted(line * stride + start, (line - 1) * stride + end, side="right")
    root = list(range(len(line)))

    def root_of(run: int) -> int:
        while root[run] != run:
            root[run] = run = root[root[run]]
        return run

    for run, above in enumerate(zip(first.tolist(), last.tolist(), strict=True)):
        for other in range(*above):
            root[root_of(other)] = root_of(run)
    _, number = np.unique([root_of(run) for run in range(len(line))], return_inverse=True)
    parts = np.zeros(region.shape, np.intp)
    parts[region] = np.repeat(number + 1, end - start)
    return parts


def _upper_chain(x: NDArray[np.intp], y: NDArray[np.intp]) -> tuple[list[int], list[int]]:
    """The upper half of the convex hull of points with ascending ``x`` (Andrew's monotone chain, 1979)."""
    chain: list[tuple[int, int]] = []
    for px, py in zip(x.tolist(), y.tolist(), strict=True):
        while len(chain) > 1:
            (ax, ay), (bx, by) = chain[-2:]
            if (by - ay) * (px - ax) > (py - ay) * (bx - ax):  # b lies above the line from a to p
                break
            chain.pop()
        chain.append((px, py))
    return [px for px, _ in chain], [py for _, py in chain]


def _any_of(labels: Labels, names: Iterable[str]) -> Region:
    table = np.zeros(len(LABELS), bool)
    table[[LABELS.index(name) for name in names]] = True
    return table[labels]


def _dilated(region: Region, pixels: int) -> Region:
    return grown(region.astype(np.uint8) * np.uint8(255), pixels) > 0


def _without_specks(region: Region) -> Region:
    parts = connected_parts(region)
    sizes = np.bincount(parts.reshape(-1))
    sizes[0] = 0
    return region & (sizes >= SPECK * sizes.max())[parts]


def _check_person(labels: Labels) -> None:
    figure, body = (labels > 0).mean(), _any_of(labels, BODY).mean()
    if figure < SMALLEST or body < SMALLEST_BODY * figure:
        raise PersonNotFound(_sentence("no person", BODY, labels))


def _sentence(missing: str, names: Iterable[str], labels: Labels) -> str:
    """What was looked for, and what was found instead."""
    shares = np.bincount(labels.reshape(-1), minlength=len(LABELS)) / labels.size
    found = sorted(((share, name) for share, name in zip(shares, LABELS, strict=True) if share >= 0.001), reverse=True)
    seen = ", ".join(f"{name} {100 * share:.1f} %" for share, name in found)
    return f"{missing} was found: looked for {', '.join(names)}; the picture shows {seen}"


def _neck(labels: Labels) -> tuple[float, float]:
    """Line and column of the face's lowest point, else of the top of what is worn, else of the figure's top."""
    face, worn = _any_of(labels, ["Face"]), _any_of(labels, ["Upper-clothes", "Dress"])
    if face.any():
        line = int(np.flatnonzero(face.any(1))[-1])
        return line, float(np.flatnonzero(face[line]).mean())
    figure = worn if worn.any() else labels > 0
    line = int(figure.any(1).argmax())
    return line, float(np.flatnonzero(figure[line]).mean())


def _hand_length(labels: Labels) -> float:
    face = int(_any_of(labels, ["Face", "Sunglasses"]).sum())
    return HAND_PER_FACE * float(np.sqrt(face)) if face else HAND_PER_FIGURE * int((labels > 0).any(1).sum())


def _tip(arm: Region, neck: tuple[float, float]) -> tuple[int, int]:
    """The end of an arm: the pixel farthest along it from where it is nearest to the neck."""
    y, x = np.indices(arm.shape)
    from_neck = np.hypot(y - neck[0], x - neck[1])
    parts = connected_parts(_without_specks(arm))
    last = max(range(1, parts.max() + 1), key=lambda part: from_neck[parts == part].mean())
    limb = parts == last
    distance = _path_length(limb, limb & (from_neck <= from_neck[limb].min() + 1))
    line, column = np.unravel_index(int(np.argmax(np.where(limb, distance, -1))), arm.shape)
    return int(line), int(column)


def _path_length(region: Region, seeds: Region) -> NDArray[np.float64]:
    """Length of the shortest path from ``seeds`` within ``region``, over the eight neighbours; inf off the region."""
    height, width = region.shape
    distance = np.where(seeds, 0.0, np.inf)
    while True:
        around = np.pad(distance, 1, constant_values=np.inf)
        offsets = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
        paths = [around[1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width] + np.hypot(dy, dx) for dy, dx in offsets]
        shorter = np.where(region, np.minimum.reduce(paths), np.inf)
        if np.array_equal(shorter, distance):
            return distance
        distance = shorter
