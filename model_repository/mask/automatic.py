"""The automatic mask of a picture: parsed at the parser's own size, masked there, brought back. No Triton here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mask.agnostic import agnostic_mask, category_of_garment, category_of_person
from preprocess.masks import binary

Pixels = NDArray[np.uint8]
Parse = Callable[[Pixels], Pixels]
"""Pictures uint8 [k, H, W, 3] → labels uint8 [k, H, W], numbered as ``LABELS`` of the contract."""


@dataclass(frozen=True)
class AutomaticMask:
    """``pixels`` uint8 [H, W], 0 and 255, at the person's size; the category, and where it is from (given, auto)."""

    pixels: Pixels
    category: str
    category_from: str

    @property
    def story(self) -> dict[str, str]:
        """For ``info``."""
        return {"category": self.category, "category_from": self.category_from}


@dataclass(frozen=True)
class AutomaticMasks:
    """Makes masks with a parser that takes pictures of ``height`` × ``width``, stretched by Pillow's ``resample``."""

    parse: Parse
    height: int
    width: int
    resample: int

    @classmethod
    def from_manifest(cls, parser: Mapping[str, Any], parse: Parse) -> AutomaticMasks:
        """As ``parser`` of the manifest says."""
        return cls(parse, parser["height"], parser["width"], parser["resample"])

    def made(self, person: Pixels, category: str, garment: Pixels | None = None) -> AutomaticMask:
        """The mask of ``person`` [H, W, 3] for ``category``; auto is what ``garment`` is, else what the person wears.

        Raises:
            PersonNotFound, GarmentNotFound: as `mask.agnostic` does.
        """
        garments = [garment] if garment is not None and category == "auto" else []
        labels = self.parse(np.stack([self._stretched(pixels) for pixels in (person, *garments)]))
        origin = "auto" if category == "auto" else "given"
        if category == "auto":
            category = category_of_garment(labels[1]) if garments else category_of_person(labels[0])
        mask = agnostic_mask(labels[0], category)
        return AutomaticMask(_smoothly(mask, person.shape[1::-1]), category, origin)

    def _stretched(self, pixels: Pixels) -> Pixels:
        """As the parser's image processor resizes."""
        image = Image.fromarray(pixels).resize((self.width, self.height), Image.Resampling(self.resample))
        return np.asarray(image)


def _smoothly(mask: NDArray[np.bool_], size: tuple[int, ...]) -> Pixels:
    """``mask`` at ``size`` (width, height), its border interpolated between the parser's pixels."""
    image = Image.fromarray(mask.astype(np.uint8) * np.uint8(255))
    return binary(np.asarray(image.resize((size[0], size[1]), Image.Resampling.BILINEAR)))
