"""Pictures in: encoded bytes of any origin to 8-bit RGB arrays, safely.

Accepted are PNG, JPEG, WebP, ``.npy`` (uint8 [H, W], [H, W, 1], [H, W, 3] or [H, W, 4]) and base64 ``data:`` URLs of
those; HEIC where pillow-heif is installed. EXIF orientation is applied and EXIF dropped; an RGB colour profile is kept.
"""

from __future__ import annotations

import base64
import binascii
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps

from dressform_contract import MAX_ENCODED_BYTES, MAX_PIXELS
from preprocess.errors import RequestError

try:
    from pillow_heif import register_heif_opener

    register_heif_opener()
    _FORMATS: tuple[str, ...] = ("PNG", "JPEG", "WEBP", "HEIF")
except ImportError:
    _FORMATS = ("PNG", "JPEG", "WEBP")

Image.MAX_IMAGE_PIXELS = None  # our own limit is checked before any pixel is decoded

_DATA_URL = re.compile(rb"data:[\w/+.-]*(?:;[\w=.-]+)*;base64,")
_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")

Pixels = NDArray[np.uint8]


class PictureError(RequestError):
    """Bytes that are no acceptable picture; the message says what came and what is allowed."""


@dataclass(frozen=True)
class Picture:
    """A decoded picture: ``pixels`` uint8 [H, W, 3] (masks: [H, W]), its ICC profile, and whether it was a data URL."""

    pixels: Pixels
    icc_profile: bytes | None = None
    from_data_url: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.pixels.shape[0], self.pixels.shape[1]


def decoded(name: str, data: bytes, decoder: Callable[[bytes], Picture]) -> Picture:
    """The picture that ``decoder`` makes of ``data``; ``name`` is what the request calls it, for the error's sentence.

    Raises:
        RequestError: as ``decoder`` does.
    """
    try:
        return decoder(data)
    except PictureError as error:
        raise RequestError(f"{name} is {error}") from error


def decode(data: bytes) -> Picture:
    """A picture as RGB; transparency is flattened on white.

    Raises:
        PictureError: for too many bytes or pixels, damaged data, or a format that is not accepted.
    """
    image, profile, from_data_url = _open(data)
    return Picture(np.asarray(_flattened(image, "RGB", "white")), profile, from_data_url)


def decode_mask(data: bytes) -> Picture:
    """A mask as one grey channel [H, W]; transparent places are black (kept)."""
    image, _, from_data_url = _open(data)
    return Picture(np.asarray(_flattened(image, "L", "black")), None, from_data_url)


def _open(data: bytes) -> tuple[Image.Image, bytes | None, bool]:
    if len(data) > MAX_ENCODED_BYTES:
        raise PictureError(
            f"{len(data) / 2**20:.1f} MB of encoded data; at most {MAX_ENCODED_BYTES // 2**20} MB are allowed"
        )
    from_data_url = data[:5].lower() == b"data:"
    if from_data_url:
        data = _from_data_url(data)
    if data[:6] == b"\x93NUMPY":
        return Image.fromarray(_from_npy(data)), None, from_data_url
    if data[4:8] == b"ftyp" and data[8:12] in _HEIC_BRANDS and "HEIF" not in _FORMATS:
        raise PictureError("a HEIC picture, which this server does not read; send PNG, JPEG or WebP")
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except Exception as error:
        raise PictureError(
            f"{len(data)} bytes that are no PNG, JPEG, WebP, .npy or data: URL (they begin with {data[:8]!r})"
        ) from error
    _check_pixels(image.height, image.width)
    try:
        image.load()
        upright = ImageOps.exif_transpose(image)
        return *_standard(upright, image.info.get("icc_profile")), from_data_url
    except Exception as error:  # decoders raise many kinds on hostile data
        raise PictureError(f"a damaged {image.format} picture: {error}") from error


def _from_data_url(data: bytes) -> bytes:
    header = _DATA_URL.match(data[:200])
    if header is None:
        raise PictureError(f"a data: URL without ';base64,' (it begins with {data[:40]!r})")
    try:
        return base64.b64decode(data[header.end() :], validate=True)
    except binascii.Error as error:
        raise PictureError(f"a data: URL whose base64 is damaged: {error}") from error


def _from_npy(data: bytes) -> Pixels:
    stream = io.BytesIO(data)
    try:
        npy: Any = np.lib.format
        read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
        shape, fortran_order, dtype = read_header[npy.read_magic(stream)](stream)
    except Exception as error:
        raise PictureError(f"an .npy array with a damaged header: {error}") from error
    fits = len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3, 4))
    if dtype != np.uint8 or not fits or fortran_order or 0 in shape:
        raise PictureError(f"an .npy array of {dtype} {list(shape)}; allowed is C-ordered uint8 [H, W], [H, W, 1|3|4]")
    _check_pixels(shape[0], shape[1])
    body = data[stream.tell() :]
    if len(body) != int(np.prod(shape)):
        raise PictureError(f"an .npy array {list(shape)} with {len(body)} bytes of data")
    array = np.frombuffer(body, np.uint8).reshape(shape)
    return array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else array


def _check_pixels(height: int, width: int) -> None:
    if height * width > MAX_PIXELS:
        raise PictureError(f"{width} × {height} pixels; at most {MAX_PIXELS // 10**6} megapixels are allowed")


def _standard(image: Image.Image, profile: bytes | None) -> tuple[Image.Image, bytes | None]:
    """``image`` as 8-bit L, RGB or RGBA, and its profile if that is an RGB one."""
    space = profile[16:20] if profile else b""
    if image.mode in ("I", "I;16", "I;16B", "I;16L", "F"):
        wide = np.asarray(image).astype(np.float64)
        image = Image.fromarray(np.clip(np.round(wide / 257), 0, 255).astype(np.uint8))
    elif image.mode in ("CMYK", "LAB"):
        image = _to_srgb(image, profile if space == b"CMYK" else None)
    elif "transparency" in image.info or image.mode in ("LA", "La", "PA", "RGBa"):
        image = image.convert("RGBA")
    elif image.mode not in ("L", "RGB", "RGBA"):
        image = image.convert("RGB")
    return image, profile if space == b"RGB " else None


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """CMYK by its own profile where it has a usable one, else by Pillow's plain formula."""
    if profile is not None:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
        except ImageCms.PyCMSError:
            converted = None
        if converted is not None:
            return converted
    return image.convert("RGB")


def _flattened(image: Image.Image, mode: str, ground: str) -> Image.Image:
    if image.mode == "RGBA":
        base = Image.new("RGBA", image.size, ground)
        image = Image.alpha_composite(base, image)
    return image if image.mode == mode else image.convert(mode)
