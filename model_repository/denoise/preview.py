"""A small picture of a job on its way: latents to colours by the linear map that the export fitted."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LONGEST_SIDE = 128
"""Pixels; a JPEG of that size is below 32 KiB, whatever it shows."""
_QUALITY = 85


def preview(latents: NDArray[np.float32], latent_to_rgb: NDArray[np.float32]) -> bytes:
    """A JPEG, one pixel per latent, at most ``LONGEST_SIDE`` wide and high.

    latents float32 [C, h, w], scaled as the denoiser keeps them: best the predicted clean sample, else the sample.
    latent_to_rgb float32 [C + 1, 3], from the manifest: weights of the channels and, last, an offset; 0 to 255.
    """
    pixels = np.moveaxis(latents, 0, -1) @ latent_to_rgb[:-1] + latent_to_rgb[-1]
    picture = Image.fromarray(np.nan_to_num(pixels).clip(0, 255).round().astype(np.uint8))
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()
