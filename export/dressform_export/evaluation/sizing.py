"""A prediction beside its truth, at one size."""

from __future__ import annotations

from argparse import ArgumentTypeError
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from dressform_export.evaluation.errors import EvaluationError

Pixels = NDArray[np.uint8]
Region = NDArray[np.bool_]

INTERPOLATIONS = {
    "lanczos": Image.Resampling.LANCZOS,
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "box": Image.Resampling.BOX,
}


def height_and_width(text: str) -> tuple[int, int]:
    """512 and 384 of ``512x384``: for a command's option.

    Raises:
        ArgumentTypeError: if it is something else.
    """
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise ArgumentTypeError(f"{text!r} must be a height and a width, as 512x384")
    return int(height), int(width)


@dataclass(frozen=True)
class Pair:
    """A prediction and its truth (in unpaired evaluation: a real picture), and the mask, white where repainted."""

    name: str
    truth: Path
    prediction: Path
    mask: Path | None


@dataclass(frozen=True)
class Sizing:
    """At what size pictures are compared: ``size`` (height, width), or None for their own, which must then agree."""

    size: tuple[int, int] | None = None
    interpolation: str = "lanczos"

    def __post_init__(self) -> None:
        if self.interpolation not in INTERPOLATIONS:
            allowed = ", ".join(INTERPOLATIONS)
            raise EvaluationError(f"interpolation must be one of {allowed}, not {self.interpolation!r}")

    def loaded(self, pair: Pair) -> tuple[Pixels, Pixels, Region | None]:
        """Truth and prediction uint8 [H, W, 3], and the mask bool [H, W], at the size of comparison.

        Raises:
            EvaluationError: where a file cannot be read, or sizes differ and none was given.
        """
        truth, prediction = opened(pair.truth), opened(pair.prediction)
        if self.size is None and truth.size != prediction.size:
            raise EvaluationError(
                f"{pair.name}: the prediction is {_size(prediction)}, the truth {_size(truth)} (height × width); "
                f"--size {prediction.height}x{prediction.width} compares both at one size"
            )
        mask = None
        if pair.mask is not None:
            picture = opened(pair.mask, "L")
            if picture.size != truth.size:
                raise EvaluationError(f"{pair.mask} is {_size(picture)}, its person {_size(truth)} (height × width)")
            mask = np.asarray(self._resized(picture, Image.Resampling.NEAREST)) >= 128
        filter_ = INTERPOLATIONS[self.interpolation]
        return np.asarray(self._resized(truth, filter_)), np.asarray(self._resized(prediction, filter_)), mask

    def _resized(self, picture: Image.Image, filter_: Image.Resampling) -> Image.Image:
        wanted = picture.size if self.size is None else self.size[::-1]
        return picture if picture.size == wanted else picture.resize(wanted, filter_)

    def described(self) -> dict[str, str]:
        """For the report."""
        if self.size is None:
            return {"compared_at": "the pictures' own size", "resize": "none"}
        resize = f"truth and prediction where their size differs, Pillow {self.interpolation}; masks nearest"
        return {"compared_at": f"{self.size[0]} × {self.size[1]}", "resize": resize}


def opened(path: Path, mode: str = "RGB") -> Image.Image:
    """The picture in ``path``, upright, in ``mode``.

    Raises:
        EvaluationError: where it cannot be read.
    """
    try:
        with Image.open(path) as picture:
            return ImageOps.exif_transpose(picture).convert(mode)
    except OSError as error:
        raise EvaluationError(f"{path} cannot be read: {error.strerror or error}") from error


def _size(picture: Image.Image) -> str:
    return f"{picture.height} × {picture.width}"
