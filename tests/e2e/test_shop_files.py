"""The files that shops really have: CMYK, 16-bit, palettes, cut-outs, rotated phone pictures, wide colour profiles."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFilter

from dressform import Client


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def unchanged(result: Any, expected: np.ndarray, mask: Image.Image, tolerance: int = 0) -> None:
    outside = np.asarray(mask.filter(ImageFilter.GaussianBlur(4))) == 0
    apart = np.abs(np.asarray(result.image, np.int16) - expected.astype(np.int16))[outside]
    assert apart.max() <= tolerance


def run(client: Client, data: bytes, mask: Image.Image) -> Any:
    return client.inpaint(data, mask, "a coat", num_inference_steps=1, seed=1)


def test_cmyk_jpeg(client: Client, photo: Image.Image, mask: Image.Image) -> None:
    data = saved(photo.convert("CMYK"), "JPEG", quality=100, subsampling=0)
    result = run(client, data, mask)
    assert result.image.mode == "RGB"
    unchanged(result, np.asarray(photo), mask, tolerance=30)  # JPEG's own loss
    unchanged(result, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")), mask)


def test_16_bit_png(client: Client, photo: Image.Image, mask: Image.Image) -> None:
    grey = np.asarray(photo.convert("L"))
    wide = Image.fromarray(grey.astype(np.uint16) * 257)
    assert wide.mode == "I;16"
    unchanged(run(client, saved(wide, "PNG"), mask), np.stack([grey] * 3, axis=2), mask)


def test_palette_png(client: Client, photo: Image.Image, mask: Image.Image) -> None:
    palette = photo.quantize(32)
    unchanged(run(client, saved(palette, "PNG"), mask), np.asarray(palette.convert("RGB")), mask)


def test_transparent_palette_png_lies_on_white(client: Client, photo: Image.Image, mask: Image.Image) -> None:
    palette = photo.quantize(32)
    seen = palette.convert("RGB")
    clear = np.asarray(palette) == 3
    assert clear.any()
    expected = np.where(clear[..., None], 255, np.asarray(seen))
    unchanged(run(client, saved(palette, "PNG", transparency=3), mask), expected, mask)


def test_cut_out_lies_on_white(client: Client, photo: Image.Image, mask: Image.Image, garment: Image.Image) -> None:
    cut = photo.convert("RGBA")
    alpha = np.full(photo.size[::-1], 255, np.uint8)
    alpha[:20] = 0
    cut.putalpha(Image.fromarray(alpha))
    expected = np.asarray(photo).copy()
    expected[:20] = 255
    unchanged(run(client, saved(cut, "PNG"), mask), expected, mask)
    clear = garment.convert("RGBA")
    clear.putalpha(Image.fromarray(np.where((np.asarray(garment) == 255).all(2), 0, 255).astype(np.uint8)))
    options: dict[str, Any] = {"mask": mask, "num_inference_steps": 2, "seed": 1}
    on_white, cut_out = (
        client.tryon(photo, garment, **options),
        client.tryon(photo, saved(clear, "WEBP", lossless=True), **options),
    )
    assert np.array_equal(on_white.image, cut_out.image)


def test_exif_rotation_is_applied_and_exif_is_gone(client: Client, photo: Image.Image, mask: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90° to show
    exif.get_ifd(0x8825)[1] = "N"  # GPS
    stored = photo.transpose(Image.Transpose.ROTATE_90)
    data = saved(stored, "PNG", exif=exif)
    assert Image.open(io.BytesIO(data)).getexif()[0x0112] == 6
    result = run(client, data, mask)
    unchanged(result, np.asarray(photo), mask)
    assert not dict(result.image.getexif())
    assert b"GPS" not in result.encoded[0]
    assert b"eXIf" not in result.encoded[0]


def test_display_p3_profile_is_kept(client: Client, photo: Image.Image, mask: Image.Image) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    named = profile.replace("sRGB built-in".encode("utf-16-be"), "Display P3 xx".encode("utf-16-be"))
    assert named != profile
    for output_format in ("png", "jpeg", "webp"):
        result = client.inpaint(
            saved(photo, "PNG", icc_profile=named), mask, "a", num_inference_steps=1, output_format=output_format
        )
        assert result.image.info["icc_profile"] == named


def test_greyscale_and_grey_profile(client: Client, photo: Image.Image, mask: Image.Image) -> None:
    grey = photo.convert("L")
    result = run(client, saved(grey, "WEBP", lossless=True), mask)
    unchanged(result, np.stack([np.asarray(grey)] * 3, axis=2), mask)
    assert "icc_profile" not in result.image.info


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_masks_of_every_mode(client: Client, photo: Image.Image, mask: Image.Image, mode: str) -> None:
    if mode == "I;16":
        drawn = Image.fromarray(np.asarray(mask).astype(np.uint16) * 257)
    elif mode == "RGBA":  # as a browser's canvas has it: white strokes on nothing
        drawn = Image.new("RGBA", mask.size, (255, 255, 255, 0))
        drawn.putalpha(mask)
    else:
        drawn = mask.convert(mode)
    result = client.inpaint(photo, saved(drawn, "PNG"), "a", num_inference_steps=1)
    assert np.array_equal(np.asarray(result.mask_used), np.asarray(mask))
