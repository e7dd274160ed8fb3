"""Tensors in KServe's binary form, the same in gRPC's ``raw_*_contents`` and behind HTTP's JSON header."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LENGTH = struct.Struct("<I")


def packed(data: bytes) -> bytes:
    """A BYTES tensor of the one element ``data``."""
    return _LENGTH.pack(len(data)) + data


def unpacked(datatype: str, shape: Sequence[int], raw: bytes) -> NDArray[Any]:
    """The tensor of ``datatype`` BYTES (an array of ``bytes``) or INT64, and ``shape``, in ``raw``.

    Raises:
        ValueError: if it is another type, or ``raw`` does not hold that many elements.
    """
    import numpy as np

    if datatype == "INT64":
        return np.frombuffer(raw, "<i8").reshape(shape)
    if datatype != "BYTES":
        raise ValueError(f"a tensor of type {datatype}, where BYTES and INT64 are known")
    elements, offset = [], 0
    while offset < len(raw):
        try:
            (length,) = _LENGTH.unpack_from(raw, offset)
        except struct.error as error:
            raise ValueError("a BYTES tensor that ends within a length") from error
        offset += _LENGTH.size
        elements.append(raw[offset : offset + length])
        offset += length
    if offset > len(raw):
        raise ValueError("a BYTES tensor that ends within an element")
    array = np.empty(len(elements), np.object_)
    array[:] = elements
    return array.reshape(shape)
