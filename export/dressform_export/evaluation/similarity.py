"""How alike two pictures are: SSIM and PSNR, over all pixels or inside a mask, and IoU of masks."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.functional.image import structural_similarity_index_measure

from dressform_export import fidelity
from dressform_export.evaluation.sizing import Pixels, Region

SSIM_RADIUS = 5
"""Of the Gaussian window: sigma 1.5, cut off at 3.5 sigma, so 11 × 11 pixels."""

_SSIM = (
    "map of structural similarity (Wang et al. 2004) of the RGB channels, torchmetrics: Gaussian window 11 × 11, "
    "sigma 1.5, K1 0.01, K2 0.03, data range 255, borders reflected"
)
_PSNR = f"10 log10(255² / MSE) in dB, {fidelity.PSNR_CEILING:g} where the pictures are equal; MSE over channels and"

HOW = {
    "ssim": f"mean over all pixels of the {_SSIM}",
    "ssim_in_mask": f"mean over the mask's pixels of the {_SSIM}",
    "psnr": f"{_PSNR} all pixels",
    "psnr_in_mask": f"{_PSNR} the mask's pixels",
}


def ssim_map(a: Pixels, b: Pixels) -> NDArray[np.float32]:
    """The SSIM index at each pixel, mean of the channels, [H, W] in -1 to 1; ``a``, ``b`` uint8 [H, W, 3].

    Raises:
        ValueError: if the shapes differ, or a side is not above the window's radius.
    """
    _check(a, b)
    if min(a.shape[:2]) <= SSIM_RADIUS:
        raise ValueError(f"SSIM needs sides above {SSIM_RADIUS} pixels, not {a.shape[0]} × {a.shape[1]}")
    _, full = structural_similarity_index_measure(as_tensor(a), as_tensor(b), data_range=1.0, return_full_image=True)
    return full[0].mean(0).numpy()


def ssim(a: Pixels, b: Pixels, mask: Region | None = None) -> float:
    """Mean of `ssim_map`, over the pixels where ``mask`` bool [H, W] is true if given.

    Raises:
        ValueError: as `ssim_map`, or if the mask is empty or of another size.
    """
    return float(_inside(ssim_map(a, b), mask).mean())


def psnr(a: Pixels, b: Pixels, mask: Region | None = None) -> float:
    """Peak signal-to-noise ratio in dB (`fidelity.psnr`), over the pixels where ``mask`` is true if given.

    Raises:
        ValueError: if the shapes differ, or the mask is empty or of another size.
    """
    _check(a, b)
    return fidelity.psnr(_inside(a, mask), _inside(b, mask))


def mean_absolute_difference(a: Pixels, b: Pixels, mask: Region) -> float:
    """Mean absolute difference of 8-bit values where ``mask`` is true; 0 if it is empty."""
    return float(np.abs(a[mask].astype(np.int16) - b[mask]).mean()) if mask.any() else 0.0


def iou(a: Region, b: Region) -> float:
    """Intersection over union of two masks bool [H, W]; 1 if both are empty."""
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 1.0


def covered(mask: Region, region: Region) -> float:
    """The share of ``region`` bool [H, W] that ``mask`` covers; 0 if the region is empty."""
    return int((mask & region).sum()) / max(1, int(region.sum()))


def as_tensor(pixels: Pixels) -> torch.Tensor:
    """``pixels`` uint8 [H, W, 3] as float32 [1, 3, H, W] in 0 to 1."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[None].float() / 255


def _inside(values: NDArray[np.generic], mask: Region | None) -> NDArray[np.generic]:
    if mask is None:
        return values
    if mask.shape != values.shape[:2]:
        raise ValueError(f"the mask is {mask.shape[0]} × {mask.shape[1]}, the pictures are {_size(values)}")
    if not mask.any():
        raise ValueError("the mask is empty: there is nothing to compare inside it")
    return values[mask]


def _check(a: Pixels, b: Pixels) -> None:
    if a.shape != b.shape:
        raise ValueError(f"the pictures differ in size: {_size(a)} and {_size(b)}")


def _size(pixels: NDArray[np.generic]) -> str:
    return f"{pixels.shape[0]} × {pixels.shape[1]}"
