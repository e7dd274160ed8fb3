"""Mask rules and placement on the canvas, against plain definitions and against diffusers' image processor."""

from __future__ import annotations

import numpy as np
import pytest
from diffusers.image_processor import VaeImageProcessor
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from postprocess.compositing import composite, opacity
from preprocess import masks
from preprocess.errors import RequestError
from preprocess.placement import Placement, masked_region, placed

SIDES = st.integers(1, 40)


@st.composite
def binary_masks(draw: st.DrawFn) -> np.ndarray:
    height, width, seed = draw(SIDES), draw(SIDES), draw(st.integers(0, 2**32 - 1))
    share = draw(st.sampled_from([0.02, 0.3, 0.9]))
    return np.where(np.random.default_rng(seed).random((height, width)) < share, 255, 0).astype(np.uint8)


@settings(max_examples=100, deadline=None)
@given(mask=binary_masks(), pixels=st.integers(1, 12))
def test_growing_is_the_square_dilation(mask: np.ndarray, pixels: int) -> None:
    expected = np.zeros_like(mask)
    for y, x in np.argwhere(mask):
        expected[max(y - pixels, 0) : y + pixels + 1, max(x - pixels, 0) : x + pixels + 1] = 255
    assert np.array_equal(masks.grown(mask, pixels), expected)


@settings(max_examples=100, deadline=None)
@given(mask=binary_masks(), pixels=st.integers(1, 12))
def test_shrinking_is_growing_the_rest(mask: np.ndarray, pixels: int) -> None:
    assert np.array_equal(masks.grown(mask, -pixels), 255 - masks.grown(255 - mask, pixels))
    opened = masks.grown(masks.grown(mask, -pixels), pixels)
    assert not (opened > mask).any()


@settings(max_examples=60, deadline=None)
@given(mask=binary_masks())
def test_inverting_twice_changes_nothing(mask: np.ndarray) -> None:
    assume(0 < mask.mean() < 255)
    once = masks.adjusted(mask, invert=True, grow=0)
    assert np.array_equal(masks.adjusted(once, invert=True, grow=0), mask)


@settings(max_examples=60, deadline=None)
@given(mask=binary_masks(), invert=st.booleans(), grow=st.sampled_from([-40, -1, 0, 1]))
def test_a_mask_of_nothing_is_refused(mask: np.ndarray, invert: bool, grow: int) -> None:
    start = ~mask if invert else mask
    left = masks.grown(start, grow) if grow else start
    if left.any():
        assert np.array_equal(masks.adjusted(mask, invert=invert, grow=grow), left)
        return
    with pytest.raises(RequestError, match="mask is empty" + " after mask_invert" * invert):
        masks.adjusted(mask, invert=invert, grow=grow)


def picture(height: int, width: int, seed: int) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 256, (6, 5, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


@settings(max_examples=60, deadline=None)
@given(
    mode=st.sampled_from(["default", "fill", "crop"]),
    height=st.integers(8, 90),
    width=st.integers(8, 90),
    canvas=st.sampled_from([(64, 64), (72, 104), (104, 40)]),
    seed=st.integers(0, 1000),
)
def test_placement_equals_diffusers(mode: str, height: int, width: int, canvas: tuple[int, int], seed: int) -> None:
    pixels = picture(height, width, seed)
    ours = placed((height, width), canvas, mode).onto_canvas(pixels)
    theirs = VaeImageProcessor().resize(Image.fromarray(pixels), canvas[0], canvas[1], resize_mode=mode)
    left, top, right, bottom = placed((height, width), canvas, mode).target
    inner = (slice(max(top, 0), min(bottom, canvas[0])), slice(max(left, 0), min(right, canvas[1])))
    # diffusers' bands run over the picture's last line where they are of unequal size: ours do not.
    common = (
        slice(inner[0].start, min(inner[0].stop, canvas[0] - inner[0].start)),
        slice(inner[1].start, min(inner[1].stop, canvas[1] - inner[1].start)),
    )
    assert np.array_equal(ours[common], np.asarray(theirs)[common])
    # Beyond it the edges continue; diffusers resizes a box of no height there, which blends in the next line.
    bands = [(span.start, side - span.stop) for span, side in zip(inner, canvas)]
    assert np.array_equal(ours, np.pad(ours[inner], [*bands, (0, 0)], mode="edge"))


@settings(max_examples=100, deadline=None)
@given(mask=binary_masks(), margin=st.integers(0, 20), canvas=st.sampled_from([(64, 64), (72, 104), (104, 40)]))
def test_masked_region_equals_diffusers(mask: np.ndarray, margin: int, canvas: tuple[int, int]) -> None:
    if not mask.any():
        with pytest.raises(ValueError, match="empty"):
            masked_region(mask, canvas, margin)
        return
    theirs = VaeImageProcessor.get_crop_region(Image.fromarray(mask), canvas[1], canvas[0], pad=margin)
    assert masked_region(mask, canvas, margin) == theirs


@settings(max_examples=100, deadline=None)
@given(
    mask=binary_masks(),
    mode=st.sampled_from(["default", "fill", "crop"]),
    canvas=st.sampled_from([(64, 64), (72, 104), (16, 128)]),
    soft=st.booleans(),
    blur=st.sampled_from([0.0, 1.0, 4.0]),
)
def test_compositing_keeps_every_pixel_outside(
    mask: np.ndarray, mode: str, canvas: tuple[int, int], soft: bool, blur: float
) -> None:
    original = picture(*mask.shape, seed=1)
    placement = placed(mask.shape, canvas, mode)
    alpha = opacity(mask, soft=soft, blur=blur)
    result = composite(original, np.full((*canvas, 3), 77, np.uint8), alpha, placement)
    left, top, right, bottom = placement.visible
    shown = np.zeros_like(mask)
    shown[top:bottom, left:right] = alpha[top:bottom, left:right]
    assert np.array_equal(result[shown == 0], original[shown == 0])
    assert (result[shown == 255] == 77).all()


@settings(max_examples=60, deadline=None)
@given(height=st.integers(1, 60), width=st.integers(1, 60), mode=st.sampled_from(["default", "fill", "crop"]))
def test_a_round_trip_returns_the_visible_box(height: int, width: int, mode: str) -> None:
    placement = placed((height, width), (64, 48), mode)
    region, (left, top, right, bottom) = placement.from_canvas(np.zeros((64, 48, 3), np.uint8))
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    assert region.shape == (bottom - top, right - left, 3)


def test_an_empty_box_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        Placement((0, 0, 0, 4), (0, 0, 8, 8), 8, 8)


def test_latent_mask_is_nearest() -> None:
    mask = np.zeros((16, 24), np.uint8)
    mask[8, 16] = 255
    mask[1:8, 1:8] = 255  # seen by no latent's own pixel
    assert masks.latent(mask, 8).tolist() == [[[0, 0, 0], [0, 0, 1]]]
