"""Masks: white (at least 128 of 255) is repainted. Pure functions on uint8 arrays [H, W].

The order is the contract's: invert, then grow, make the mask; blurring only softens compositing (postprocess).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from preprocess.errors import RequestError

Mask = NDArray[np.uint8]


def adjusted(mask: Mask, *, invert: bool, grow: int) -> Mask:
    """``mask`` inverted, then grown (or shrunk) by ``grow`` pixels; grey levels survive where nothing is grown.

    Raises:
        RequestError: if nothing of it is left.
    """
    if invert:
        mask = ~mask
    if grow:
        mask = grown(mask, grow)
    if not (mask >= 128).any():
        after = " after mask_invert" * invert + f" after mask_grow {grow}" * (grow != 0)
        raise RequestError(
            f"mask is empty{after}: no pixel is white (128 or more of 255), so nothing would be repainted"
        )
    return mask


def binary(mask: Mask) -> Mask:
    """0 and 255: diffusers' threshold, 0.5 of the grey value."""
    return np.where(mask >= 128, 255, 0).astype(np.uint8)


def grown(mask: Mask, pixels: int) -> Mask:
    """The binary mask dilated by a square of ``2 * pixels + 1``, or eroded where ``pixels`` is negative.

    The border of the picture neither adds nor eats: outside counts as black for growing and as white for shrinking.
    """
    if pixels < 0:
        return ~grown(~binary(mask), -pixels)
    white = mask >= 128
    for axis in (0, 1):
        white = _window_any(white, pixels, axis)
    return np.where(white, 255, 0).astype(np.uint8)


def _window_any(white: NDArray[np.bool_], radius: int, axis: int) -> NDArray[np.bool_]:
    """Whether any value within ``radius`` along ``axis`` is true, by running sums."""
    n = white.shape[axis]
    sums = np.cumsum(white, axis=axis, dtype=np.int32)
    sums = np.concatenate([np.zeros_like(np.take(sums, [0], axis)), sums], axis=axis)
    high = np.minimum(np.arange(n) + radius + 1, n)
    low = np.maximum(np.arange(n) - radius, 0)
    return np.asarray(np.take(sums, high, axis) > np.take(sums, low, axis))


def latent(mask: Mask, factor: int) -> NDArray[np.float32]:
    """The binary canvas mask [H, W] reduced by nearest neighbour to latents, float32 [1, H / factor, W / factor]."""
    return (mask[::factor, ::factor] >= 128).astype(np.float32)[None]
