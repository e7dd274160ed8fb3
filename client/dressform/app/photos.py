"""Photos as people bring them: checked, shown upright and small, and sent as they came."""

from __future__ import annotations

import base64
import hashlib
import io
from dataclasses import dataclass, field
from functools import cached_property

from PIL import Image, ImageOps

from dressform import InvalidRequest
from dressform_contract import MAX_ENCODED_BYTES, MAX_PIXELS

FILE_TYPES = ("jpg", "jpeg", "png", "webp")
LONGEST_SHOWN = 1024
"""Longest side of what the page shows, in pixels. What is sent keeps its size."""

JPEG_QUALITIES = (95, 85, 75)
"""Tried in turn with a picture that has too many bytes to be sent."""


@dataclass(frozen=True)
class Photo:
    """A picture: ``data`` as it came, and ``shown``, RGB, upright and small. ``size`` is (width, height) upright."""

    name: str
    data: bytes = field(repr=False)
    shown: Image.Image = field(repr=False, compare=False)
    size: tuple[int, int]

    @cached_property
    def digest(self) -> str:
        """What tells it from other pictures."""
        return hashlib.sha256(self.data).hexdigest()[:16]

    @classmethod
    def read(cls, name: str, data: bytes) -> Photo:
        """The photo in an encoded picture.

        Raises:
            InvalidRequest: if it is none, or larger than the server takes.
        """
        if len(data) > MAX_ENCODED_BYTES:
            mega = 2**20
            raise InvalidRequest(
                f"{name} has {len(data) / mega:.0f} MB, and {MAX_ENCODED_BYTES // mega} are allowed: save it smaller"
            )
        try:
            with Image.open(io.BytesIO(data)) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise InvalidRequest(
                        f"{name} has {image.width} × {image.height} pixels, and {MAX_PIXELS // 1_000_000} million are "
                        "allowed: save it smaller"
                    )
                upright = ImageOps.exif_transpose(image)
                size, shown = upright.size, flattened(upright)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise InvalidRequest(
                f"{name} cannot be read as a picture ({error}): save it as JPEG, PNG or WebP, and choose it again"
            ) from error
        shown.thumbnail((LONGEST_SHOWN, LONGEST_SHOWN))
        return cls(name, data, shown, size)


def sendable(data: bytes) -> bytes:
    """``data``, a picture, as it is where the server takes it; else as a JPEG of the best quality that it takes.

    A photo of 24 million pixels has 40 MB as PNG, which is what results come as.
    """
    fitting = data
    for quality in JPEG_QUALITIES:
        if len(fitting) <= MAX_ENCODED_BYTES:
            break
        stream = io.BytesIO()
        with Image.open(io.BytesIO(data)) as image:
            profile = image.info.get("icc_profile") if image.mode == "RGB" else None
            flattened(image).save(stream, "JPEG", quality=quality, subsampling=0, icc_profile=profile)
        fitting = stream.getvalue()
    return fitting


def flattened(image: Image.Image) -> Image.Image:
    """``image`` in RGB, transparent parts white."""
    if "A" not in image.getbands() and "transparency" not in image.info:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def encoded(image: Image.Image, form: str = "WEBP") -> bytes:
    """``image`` as the browser gets it."""
    stream = io.BytesIO()
    image.save(stream, form, quality=90)
    return stream.getvalue()


def data_url(image: Image.Image) -> str:
    """``image`` as the browser gets it along with the page."""
    return "data:image/webp;base64," + base64.b64encode(encoded(image)).decode()
