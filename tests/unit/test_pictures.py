"""Decoding survives anything, and says what is wrong."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from postprocess.encoding import encoded, encoded_mask
from preprocess.pictures import Picture, PictureError, decode, decode_mask

SAMPLE = np.random.default_rng(0).integers(0, 256, (7, 9, 3), np.uint8)


def saved(kind: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(SAMPLE).save(stream, kind)
    return stream.getvalue()


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=300))
@example(b"\x89PNG\r\n\x1a\n")
@example(b"data:")
@example(b"\x93NUMPY")
@example(b"\x93NUMPY\x01\x00\xff\xff")
def test_any_bytes_are_a_picture_or_a_picture_error(data: bytes) -> None:
    for reader in (decode, decode_mask):
        try:
            assert isinstance(reader(data), Picture)
        except PictureError as error:
            assert str(error)


@settings(max_examples=300, deadline=None)
@given(kind=st.sampled_from(["PNG", "JPEG", "WEBP"]), at=st.floats(0, 1), value=st.integers(0, 255))
def test_a_damaged_picture_is_a_picture_or_a_picture_error(kind: str, at: float, value: int) -> None:
    data = bytearray(saved(kind))
    data[int(at * (len(data) - 1))] = value
    try:
        decode(bytes(data))
    except PictureError as error:
        assert str(error)


@settings(max_examples=50, deadline=None)
@given(height=st.integers(1, 20), width=st.integers(1, 20), seed=st.integers(0, 99))
def test_lossless_formats_round_trip(height: int, width: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    for output_format in ("png", "npy", "data_url"):
        back = decode(encoded(pixels, output_format, 90, None))
        assert np.array_equal(back.pixels, pixels)
        assert back.from_data_url == (output_format == "data_url")
    mask = np.where(pixels[..., 0] > 127, 255, 0).astype(np.uint8)
    for output_format in ("png", "jpeg", "npy", "data_url"):
        assert np.array_equal(decode_mask(encoded_mask(mask, output_format)).pixels, mask)


def test_unknown_output_format() -> None:
    with pytest.raises(ValueError, match="'bmp'"):
        encoded(SAMPLE, "bmp", 90, None)


def test_data_urls_of_every_accepted_format() -> None:
    for kind in ("PNG", "JPEG", "WEBP"):
        url = f"data:image/{kind.lower()};base64,".encode() + base64.b64encode(saved(kind))
        assert decode(url).size == (7, 9)


def test_an_animation_gives_its_first_frame() -> None:
    stream = io.BytesIO()
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(stream, "PNG", save_all=True, append_images=frames[1:])
    assert (decode(stream.getvalue()).pixels == (255, 0, 0)).all()
