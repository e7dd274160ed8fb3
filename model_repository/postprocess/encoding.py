"""Pictures out: arrays to encoded bytes."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]


def encoded(pixels: Pixels, output_format: str, quality: int, icc_profile: bytes | None) -> bytes:
    """``pixels`` uint8 [H, W, 3] or [H, W] as png, jpeg, webp, npy or data_url (a PNG in base64).

    ``quality`` 1–100 is JPEG's and WebP's. PNG is compressed lightly: speed matters more than size here.
    """
    stream = io.BytesIO()
    if output_format == "npy":
        np.save(stream, pixels, allow_pickle=False)
        return stream.getvalue()
    image = Image.fromarray(pixels)
    profile = {"icc_profile": icc_profile} if icc_profile else {}
    if output_format in ("png", "data_url"):
        image.save(stream, "PNG", compress_level=1, **profile)
    elif output_format == "jpeg":
        image.save(stream, "JPEG", quality=quality, subsampling=0 if quality >= 90 else 2, **profile)
    elif output_format == "webp":
        image.save(stream, "WEBP", quality=quality, **profile)
    else:
        raise ValueError(f"output_format must be png, jpeg, webp, npy or data_url, not {output_format!r}")
    data = stream.getvalue()
    return b"data:image/png;base64," + base64.b64encode(data) if output_format == "data_url" else data


def encoded_mask(mask: Pixels, output_format: str) -> bytes:
    """A mask uint8 [H, W], without loss: npy or data_url where the pictures are, else PNG."""
    return encoded(mask, output_format if output_format in ("npy", "data_url") else "png", 100, None)
