"""What the safety checker's scores mean: which pictures are blanked, and what the client is told."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


def flagged(scores: NDArray[np.float32]) -> list[bool]:
    """Whether each picture is to be blanked: its score is above 0 in three decimals.

    As diffusers' ``StableDiffusionSafetyChecker.forward`` rounds it.
    """
    return [round(float(score), 3) > 0 for score in scores]


def blanked(pictures: Sequence[Pixels], flags: Sequence[bool]) -> list[Pixels]:
    """``pictures`` [H, W, 3], the flagged ones black as in diffusers, the original around the mask included."""
    return [np.zeros_like(picture) if flag else picture for picture, flag in zip(pictures, flags, strict=True)]


def warnings(flags: Sequence[bool]) -> list[str]:
    """A sentence for each picture that was blanked."""
    return [
        f"picture {number} of {len(flags)} was blanked: the safety checker flagged it; try another seed or prompt"
        for number, flag in enumerate(flags, 1)
        if flag
    ]
