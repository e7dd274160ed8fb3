"""What is judged on a picture of the wardrobe's: the garment's pixels, its named colours, its pattern."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from dressform_contract import LABELS
from dressform_export import stages
from dressform_export.demo.evaluation.classifier import WEIGHTS, load_classifier
from dressform_export.demo.wardrobe import COLOURS, PATTERNS, Garment, Look
from dressform_export.evaluation.colour import shares
from dressform_export.evaluation.errors import NotComputedError
from dressform_export.evaluation.sizing import Pixels, Region

stages.importable()
from mask.agnostic import GARMENTS  # noqa: E402

MIX = "mix"
"""Pixels halfway between a garment's two colours, as checks have where their bands cross."""

LEAST_SHARE = {"print": 0.02}
LEAST_SHARE_OTHERWISE = 0.1
"""Of the garment, for each of two named colours to count as present. (In true pictures the least is 0.04 and 0.17.)"""

HOW = {
    "colour_dominates": "the garment's pixels (its labels in the true picture, less one pixel at the border) are each "
    "given the nearest of the wardrobe's 12 colours by CIEDE2000, or the equal mix (in sRGB) of the two named ones; "
    "the named colours and their mix must hold more than half",
    "colours_present": "and each named colour must hold at least "
    f"{LEAST_SHARE_OTHERWISE} of the pixels (a print's second colour {LEAST_SHARE['print']})",
    "pattern_recognised": "the classifier, trained on true pictures, names the garment's pattern from the pixels that "
    f"have its label in the true picture; chance is 1 in {len(PATTERNS)}",
}


def region(look: Look, category: str) -> Region:
    """Where ``look`` wears its garment of ``category``, bool [H, W]."""
    return np.isin(look.labels, [LABELS.index(name) for name in GARMENTS[category]])


def inner(area: Region) -> Region:
    """``area`` less the pixels at its border; ``area`` itself where nothing would be left."""
    eroded = np.asarray(Image.fromarray(area.astype(np.uint8)).filter(ImageFilter.MinFilter(3))) > 0
    return eroded if eroded.any() else area


def named_shares(pixels: Pixels, garment: Garment) -> dict[str, float]:
    """For each colour of the wardrobe, and `MIX` where the garment has two, its share of ``pixels`` uint8 [N, 3]."""
    palette = dict(COLOURS)
    if garment.second is not None:
        red, green, blue = (np.add(COLOURS[garment.colour], COLOURS[garment.second]) // 2).tolist()
        palette[MIX] = (red, green, blue)
    return shares(pixels, palette)


def named_share(found: dict[str, float], garment: Garment) -> float:
    """The share of the garment's own colours and their mix among `named_shares`."""
    return found[garment.colour] + (0.0 if garment.second is None else found[garment.second] + found[MIX])


def colours_present(found: dict[str, float], garment: Garment) -> bool:
    """Whether the named colours dominate and each is there; see `HOW`."""
    least = LEAST_SHARE.get(garment.pattern, LEAST_SHARE_OTHERWISE)
    second = garment.second is None or found[garment.second] >= least
    return named_share(found, garment) > 0.5 and found[garment.colour] >= LEAST_SHARE_OTHERWISE and second


class Patterns:
    """The pattern classifier.

    Raises:
        NotComputedError: where its weights are not there.
    """

    def __init__(self, weights: Path = WEIGHTS) -> None:
        try:
            self._classifier = load_classifier(weights)
        except OSError as error:
            raise NotComputedError(f"the pattern classifier cannot be loaded: {error}") from error

    def seen(self, pictures: Sequence[Pixels], regions: Sequence[Region]) -> list[str]:
        """The pattern of the garment in each picture."""
        return self._classifier.predict(np.stack(pictures), np.stack(regions))
