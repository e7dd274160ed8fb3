"""What every peer is asked to paint."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from dressform import Client, Result
    from dressform_export.trajectory import Request

PROMPT = "a red woollen coat"
GUIDANCE = 7.5

REFERENCE = "diffusers-fp32"
"""The peer whose picture the others' are held against."""


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

    def seeded(self, seed: int) -> Task:
        """The same with another seed."""
        return replace(self, seed=seed)

    @property
    def options(self) -> dict[str, Any]:
        """As the contract names them."""
        width, height = self.image.size
        size = {"height": height, "width": width}
        return {"num_inference_steps": self.steps, "guidance_scale": GUIDANCE, "seed": self.seed, **size}

    def asked(self, client: Client) -> Result:
        """The answer of a server."""
        return client.inpaint(self.image, self.mask, PROMPT, composite="none", **self.options)

    def request(self) -> Request:
        """As the trajectory without a server takes it."""
        from dressform_export.trajectory import Request

        return Request(pixels(self.image), np.asarray(self.mask), None, PROMPT, self.options)

    def write(self, folder: Path) -> None:
        """Write the pictures to ``folder``."""
        self.image.save(folder / "image.png")
        self.mask.save(folder / "mask.png")


def drawn_task(width: int, height: int, steps: int) -> Task:
    """A drawn person whose upper garment is repainted."""
    from dressform_export.demo.wardrobe import HELD_OUT, sample

    drawn = sample(HELD_OUT, "upper", 256, 192)
    image = Image.fromarray(drawn.look.image).resize((width, height), Image.Resampling.LANCZOS)
    return Task(image, Image.fromarray(drawn.mask()).resize((width, height), Image.Resampling.NEAREST), steps)


def pixels(image: Image.Image) -> NDArray[np.uint8]:
    """uint8 [H, W, 3]."""
    return np.asarray(image.convert("RGB"))


def picture_file(peer: str) -> str:
    """The name of the file with the peer's picture."""
    return f"{peer.replace(':', '-')}.png"
