"""Pictures in and out: whatever a caller holds becomes the bytes of an encoded picture, and those become PIL images.

Paths, bytes and file objects are sent untouched. PIL images and arrays are sent as PNG at the fastest compression.
"""

from __future__ import annotations

import base64
import io
import os
import threading
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Union

from PIL import Image, ImageOps

from dressform.errors import InvalidRequest

if TYPE_CHECKING:
    from numpy.typing import NDArray

# numpy takes most of the time that importing this package would take, so it is imported where it is used.

Picture = Union[Image.Image, "NDArray[Any]", bytes, str, "os.PathLike[str]", IO[bytes]]
"""A PIL image, uint8 array ``[H, W(, C)]`` (a mask may be bool), bytes, path, ``data:`` URL or binary file."""

_LOADING = threading.Lock()
"""A lazily opened PIL image reads its file at first use, and may be shared by requests in many threads."""

_PNG_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})


def encoded(picture: Picture, name: str) -> bytes:
    """``picture`` as the bytes of an encoded picture.

    Args:
        name: what the caller calls it ("mask"), for the error's sentence.

    Raises:
        InvalidRequest: if a file cannot be read, or the picture has no 8-bit form.
        TypeError: if it is no picture at all.
    """
    if isinstance(picture, (bytes, bytearray, memoryview)):
        return bytes(picture)
    if isinstance(picture, Image.Image):
        return _png(picture, name)
    import numpy as np

    if isinstance(picture, np.ndarray):
        return _png(_from_array(picture, name), name)
    if isinstance(picture, str) and picture.startswith("data:"):
        return picture.encode()
    if isinstance(picture, (str, os.PathLike)):
        return _read(Path(picture), name)
    content = picture.read() if hasattr(picture, "read") else None
    if not isinstance(content, bytes):
        raise TypeError(
            f"{name} must be a PIL image, a path, bytes, a uint8 array or a file opened in binary mode, "
            f"not {type(picture).__name__}"
        )
    if not content:
        raise InvalidRequest(f"{name}: the file object gives nothing; was it read to its end before?")
    return content


def decoded(data: bytes) -> Image.Image:
    """The picture in ``data``: PNG, JPEG, WebP, ``.npy`` of uint8 ``[H, W(, C)]``, or a base64 ``data:`` URL.

    Raises:
        ValueError, OSError: if it is none of these.
    """
    if data.startswith(b"data:"):
        data = base64.b64decode(data.partition(b",")[2], validate=True)
    if data.startswith(b"\x93NUMPY"):
        import numpy as np

        array = np.load(io.BytesIO(data), allow_pickle=False)
        return Image.fromarray(array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array)
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def _read(path: Path, name: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidRequest(f"{name}: cannot read {path}: {error.strerror or error}") from error


def _from_array(array: NDArray[Any], name: str) -> Image.Image:
    import numpy as np

    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * np.uint8(255)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    grey, colour = array.ndim == 2, array.ndim == 3 and array.shape[2] in (3, 4)
    if array.dtype != np.uint8 or not (grey or colour) or array.size == 0:
        raise InvalidRequest(
            f"{name} must be a uint8 array [H, W] or [H, W, C] with 1, 3 or 4 channels "
            f"(a mask may be bool), not {array.dtype} {list(array.shape)}"
        )
    return Image.fromarray(np.ascontiguousarray(array))


def _png(image: Image.Image, name: str) -> bytes:
    if image.mode == "F":
        raise InvalidRequest(f"{name} holds floating-point pixels: scale them to 0–255 and convert it to RGB or L")
    with _LOADING:
        try:
            image.load()
        except (OSError, ValueError) as error:
            raise InvalidRequest(f"{name} cannot be read: {error}") from error
        # A file's EXIF orientation would be lost with the rest of its EXIF, and the server never see it.
        image = ImageOps.exif_transpose(image)
    if image.mode not in _PNG_MODES:
        image = image.convert("RGB")
        image.info.pop("icc_profile", None)  # it described the other mode
    stream = io.BytesIO()
    image.save(stream, "PNG", compress_level=1)
    return stream.getvalue()
