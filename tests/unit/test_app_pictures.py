"""The page's pictures: photos as they are read, the gallery, masks shown and corrected."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dressform import InvalidRequest
from dressform.app import gallery, masks, photos
from dressform.app.photos import Photo
from dressform_export.demo.wardrobe import HELD_OUT, sample


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def test_a_photo_is_shown_upright_and_small_and_sent_as_it_came() -> None:
    image = Image.new("RGB", (3000, 2000), "red")
    image.paste("blue", (0, 0, 3000, 1000))
    exif = image.getexif()
    exif[0x0112] = 6  # turn clockwise to be upright
    data = encoded(image, "JPEG", exif=exif)
    photo = Photo.read("me.jpg", data)
    assert photo.data == data
    assert photo.size == (2000, 3000)
    assert photo.shown.size == (683, photos.LONGEST_SHOWN)
    right, left = photo.shown.getpixel((600, 500)), photo.shown.getpixel((80, 500))
    assert right[2] > 200 > 50 > right[0]  # type: ignore[index]
    assert left[0] > 200 > 50 > left[2]  # type: ignore[index]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "1", "CMYK"])
def test_every_mode_is_shown_in_colour_on_white(mode: str) -> None:
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    if mode == "P":
        data = encoded(image.convert("P"), transparency=0)
    elif mode in ("RGBA", "LA"):
        data = encoded(image.convert(mode))
    else:
        data = encoded(Image.new("RGB", (4, 4), "white").convert(mode), "TIFF" if mode == "CMYK" else "PNG")
    shown = Photo.read("garment", data).shown
    assert shown.mode == "RGB"
    assert shown.getpixel((1, 1)) == (255, 255, 255)


@pytest.mark.parametrize(
    "data",
    [b"", b"no picture at all", encoded(Image.new("RGB", (64, 64)))[:60], b"\x89PNG\r\n\x1a\n" + b"\0" * 40],
)
def test_what_is_no_picture_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(InvalidRequest, match=r"holiday\.png cannot be read as a picture .*: save it as JPEG"):
        Photo.read("holiday.png", data)


def test_pictures_too_large_for_the_server_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(Image.new("1", (9000, 8000)))
    with pytest.raises(InvalidRequest, match="9000 × 8000 pixels, and 64 million are allowed"):
        Photo.read("poster.png", data)
    monkeypatch.setattr(photos, "MAX_ENCODED_BYTES", 2**20)
    with pytest.raises(InvalidRequest, match="2 MB, and 1 are allowed"):
        Photo.read("long.png", bytes(2 * 2**20))


def test_what_is_too_large_to_send_is_encoded_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (300, 200, 3), np.uint8)
    data = encoded(Image.fromarray(noise))
    assert photos.sendable(data) is data
    best, worst = (len(encoded(Image.fromarray(noise), "JPEG", quality=q, subsampling=0)) for q in (95, 75))
    for limit, most in ((best, best), (best - 1, best - 1), (worst, worst)):
        monkeypatch.setattr(photos, "MAX_ENCODED_BYTES", limit)
        photo = Photo.read("Picture 1", photos.sendable(data))
        assert len(photo.data) <= most
        assert photo.size == (200, 300)
    monkeypatch.setattr(photos, "MAX_ENCODED_BYTES", worst // 2)
    with pytest.raises(InvalidRequest, match="Picture 1 has"):
        Photo.read("Picture 1", photos.sendable(data))


@pytest.mark.parametrize("of", [*gallery.PEOPLE, *gallery.GARMENTS], ids=lambda of: of.path.stem)
def test_the_gallery_is_the_wardrobes_and_was_never_trained_on(of: gallery.Sample) -> None:
    drawn = sample(of.seed, None if of.kind == "person" else of.kind, 512, 384)
    assert of.seed >= HELD_OUT
    look = drawn.other_look
    pixels = look.image if of.kind == "person" else drawn.flat.image
    assert np.array_equal(np.asarray(Image.open(of.path).convert("RGB")), pixels)
    if of.kind == "person":
        assert set(of.caption.split(", ")) == {garment.caption for garment in look.worn}
    else:
        assert of.caption == drawn.garment.caption


def test_the_gallery_has_no_other_files() -> None:
    known = {of.path.name for of in (*gallery.PEOPLE, *gallery.GARMENTS)}
    assert {path.name for path in gallery.FOLDER.iterdir()} == known


@pytest.mark.parametrize("size", [(384, 512), (4000, 3000), (10, 1000), (1, 1)])
def test_the_canvas_has_the_photos_shape_and_fits_a_phone(size: tuple[int, int]) -> None:
    width, height = masks.canvas_size(size)
    assert 1 <= width <= masks.CANVAS_WIDTH
    assert 1 <= height <= masks.CANVAS_HEIGHT
    assert width == masks.CANVAS_WIDTH or height == masks.CANVAS_HEIGHT
    assert abs(width / height - size[0] / size[1]) < 0.3


def test_the_overlay_tints_what_is_repainted_and_nothing_else() -> None:
    mask = masks.empty((40, 20))
    mask.paste(255, (0, 0, 20, 20))
    shown = Image.new("RGB", (20, 10), (100, 100, 100))
    pixels = np.asarray(masks.overlay(shown, mask)).astype(int)
    assert (pixels[:, 12:] == 100).all()
    assert (abs(pixels[:, :8] - (178, 40, 106)) <= 1).all()


def strokes(*paints: tuple[tuple[int, int, int], tuple[slice, slice]]) -> np.ndarray:
    """What a canvas of 10 × 20 gives back: each paint over those before, as a browser composites."""
    canvas = np.zeros((20, 10, 4))
    for colour, where in paints:
        share, below = masks.OPACITY, canvas[where]
        alpha = share + below[..., 3:] * (1 - share)
        mixed = (share * np.array(colour) + below[..., :3] * below[..., 3:] * (1 - share)) / alpha
        canvas[where] = np.concatenate([mixed, alpha], axis=-1)
    canvas[..., 3] *= 255
    return canvas.round().astype(np.uint8)


def test_the_last_stroke_wins_wherever_they_cross() -> None:
    mask = masks.empty((100, 200))
    mask.paste(255, (0, 0, 50, 200))  # the left half
    top, all_of_it = (slice(0, 4), slice(0, 10)), (slice(0, 20), slice(0, 10))
    after = np.asarray(masks.corrected(mask, strokes((masks.ADD, all_of_it), (masks.ADD, top), (masks.REMOVE, top))))
    assert (after[:40] == 0).all()
    assert (after[40:] == 255).all()
    after = np.asarray(masks.corrected(mask, strokes((masks.REMOVE, all_of_it), (masks.REMOVE, top), (masks.ADD, top))))
    assert (after[:40] == 255).all()
    assert (after[40:] == 0).all()


def test_without_strokes_the_mask_stays_and_becomes_binary() -> None:
    mask = Image.fromarray(np.array([[0, 127, 128, 255]], np.uint8))
    for drawn in (None, np.zeros((1, 4, 4), np.uint8)):
        assert np.asarray(masks.corrected(mask, drawn)).tolist() == [[0, 0, 255, 255]]
    assert masks.share(mask) == 0.5


def test_paint_is_css() -> None:
    assert masks.paint((230, 0, 110)) == "rgba(230, 0, 110, 0.6)"
