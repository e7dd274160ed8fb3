"""What every peer is asked to paint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PROMPT = "a red woollen coat"
GUIDANCE = 7.5


@dataclass(frozen=True)
class Task:
    """``image`` and ``mask`` are pictures of the processing size, RGB and L; ``solver`` is the export's own."""

    image: Image.Image
    mask: Image.Image
    steps: int
    seed: int = 0

    @classmethod
    def read(cls, folder: Path, steps: int) -> Task:
        """The task whose pictures lie in ``folder``."""
        with Image.open(folder / "image.png") as image, Image.open(folder / "mask.png") as mask:
            return cls(image.convert("RGB"), mask.convert("L"), steps)

    def write(self, folder: Path) -> None:
        """Write the pictures to ``folder``."""
        self.image.save(folder / "image.png")
        self.mask.save(folder / "mask.png")


def pixels(image: Image.Image) -> NDArray[np.uint8]:
    """uint8 [H, W, 3]."""
    return np.asarray(image.convert("RGB"))


def picture_file(peer: str) -> str:
    """The name of the file with the peer's picture."""
    return f"{peer.replace(':', '-')}.png"
