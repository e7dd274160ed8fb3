"""The sample gallery: people and garments that the demonstration's wardrobe drew, none of them trained on.

A file's name is its kind and its seed in ``dressform_export.demo.wardrobe``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from dressform.app.order import Category
from dressform.app.photos import Photo

FOLDER = Path(__file__).parent / "samples"


@dataclass(frozen=True)
class Sample:
    """A picture of the gallery: of a person, or of a garment of a category."""

    kind: Category | Literal["person"]
    seed: int
    name: str
    caption: str

    @property
    def path(self) -> Path:
        """Its file: WebP without loss, 384 × 512 pixels."""
        return FOLDER / f"{self.kind}-{self.seed}.webp"

    @property
    def photo(self) -> Photo:
        """The picture."""
        return _read(self.path, self.name)


@cache
def _read(path: Path, name: str) -> Photo:
    return Photo.read(name, path.read_bytes())


PEOPLE = (
    Sample("person", 1_020_309, "Person 1", "a purple and white checked t-shirt, black trousers"),
    Sample(
        "person", 1_020_302, "Person 2", "a green and white vertically striped t-shirt, grey trousers with yellow dots"
    ),
    Sample(
        "person", 1_020_300, "Person 3", "a red t-shirt with yellow dots, a black and white vertically striped skirt"
    ),
    Sample("person", 1_020_308, "Person 4", "a yellow and pink striped dress"),
)
GARMENTS = (
    Sample("upper", 1_020_002, "T-shirt", "a yellow t-shirt with a black heart"),
    Sample("upper", 1_020_003, "Shirt", "a white long-sleeved shirt with black dots"),
    Sample("lower", 1_020_107, "Trousers", "white and blue vertically striped trousers"),
    Sample("lower", 1_020_100, "Skirt", "a turquoise and black striped skirt"),
    Sample("overall", 1_020_203, "Dress 1", "a red and black checked dress"),
    Sample("overall", 1_020_205, "Dress 2", "a blue dress with yellow dots"),
)
