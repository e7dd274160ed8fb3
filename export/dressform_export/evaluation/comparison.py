"""Predictions on disk against truths on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dressform_export.evaluation import perceptual, similarity
from dressform_export.evaluation.errors import EvaluationError, NotComputedError
from dressform_export.evaluation.similarity import mean_absolute_difference, psnr, ssim
from dressform_export.evaluation.sizing import Pair, Pixels, Region, Sizing
from dressform_export.progress import Progress

GREY = 128
"""What a hole is filled with for the control."""

HOW = {
    **similarity.HOW,
    **perceptual.HOW,
    "mae_outside_mask": "mean absolute difference of 8-bit values outside the mask: 0 where the original was put back",
    "control_grey": f"the same metrics of the truth with the mask's pixels at {GREY}",
}

Figures = dict[str, float]


def compare(
    pairs: Sequence[Pair], *, paired: bool, sizing: Sizing, inception: Path | None, progress: Progress
) -> dict[str, Any]:
    """The report on ``pairs``: metrics, what was not computed and why, and each pair's own figures.

    In unpaired evaluation only FID and KID mean something.

    Raises:
        EvaluationError: as `Sizing.loaded`, or if a picture is too small or a mask empty.
    """
    report: dict[str, Any] = {"pictures": len(pairs), **sizing.described(), "metrics": {}, "not_computed": {}}
    if paired:
        _each(report, pairs, sizing, progress)
    else:
        sentence = "unpaired: there is no picture of this person in this garment"
        report["not_computed"] |= dict.fromkeys(("ssim", "psnr", "lpips"), sentence)
    try:
        network = perceptual.Inception(inception)
        features = []
        for side in ("truth", "prediction"):
            with progress.bar(f"Inception features, {side}s", len(pairs)) as advance:
                features.append(network.features(_side(pairs, sizing, side, advance)))
        report["metrics"]["fid"], report["metrics"]["kid"] = perceptual.frechet_and_kernel_distance(*features)
    except NotComputedError as reason:
        report["not_computed"] |= {"fid": str(reason), "kid": str(reason)}
    return report


def _each(report: dict[str, Any], pairs: Sequence[Pair], sizing: Sizing, progress: Progress) -> None:
    try:
        lpips: perceptual.Distance | None = perceptual.lpips()
    except NotComputedError as reason:
        lpips = None
        report["not_computed"]["lpips"] = str(reason)
    found, controls, sizes = [], [], set()
    with progress.bar("comparing", len(pairs)) as advance:
        for pair in pairs:
            truth, prediction, mask = sizing.loaded(pair)
            sizes.add(f"{truth.shape[0]} × {truth.shape[1]}")
            try:
                found.append({"name": pair.name, **figures(truth, prediction, mask, lpips)})
                if mask is not None:
                    controls.append(figures(truth, with_hole(truth, mask), mask, lpips))
            except ValueError as error:
                raise EvaluationError(f"{pair.name}: {error}") from error
            advance()
    report["sizes"] = sorted(sizes)
    report["metrics"] |= means(found)
    if len(controls) == len(found):
        report["control_grey"] = means(controls)
    else:
        sentence = f"{len(found) - len(controls)} of {len(found)} pictures have no mask"
        report["not_computed"] |= dict.fromkeys(("ssim_in_mask", "psnr_in_mask", "mae_outside_mask"), sentence)
    report["samples"] = found


def figures(truth: Pixels, made: Pixels, mask: Region | None, lpips: perceptual.Distance | None) -> Figures:
    """The metrics of one pair; those inside ``mask`` where there is one, LPIPS where its weights are."""
    found = {"ssim": ssim(truth, made), "psnr": psnr(truth, made)}
    if lpips is not None:
        found["lpips"] = lpips(truth, made)
    if mask is not None:
        found |= {"ssim_in_mask": ssim(truth, made, mask), "psnr_in_mask": psnr(truth, made, mask)}
        found["mae_outside_mask"] = mean_absolute_difference(truth, made, ~mask)
    return found


def means(rows: Sequence[Mapping[str, Any]]) -> Figures:
    """The mean of each figure that all ``rows`` have."""
    shared = [key for key in rows[0] if all(isinstance(row.get(key), (int, float)) for row in rows)]
    return {key: float(np.mean([row[key] for row in rows])) for key in shared}


def with_hole(pixels: Pixels, mask: Region) -> Pixels:
    """``pixels`` [H, W, 3] with grey where ``mask`` is true."""
    return np.where(mask[..., None], np.uint8(GREY), pixels)


def _side(pairs: Sequence[Pair], sizing: Sizing, side: str, advance: Callable[[], None]) -> Iterator[Pixels]:
    for pair in pairs:
        truth, prediction, _ = sizing.loaded(replace(pair, mask=None))
        yield truth if side == "truth" else prediction
        advance()
