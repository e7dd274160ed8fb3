"""How many floating-point operations a picture takes, as counted at export: nothing is run for it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dressform_bench.peers.request import Task
from dressform_export.manifest import Manifest
from dressform_export.trajectory import paint


def operations(task: Task, repository: Path, manifest: Manifest) -> float:
    """Those of the picture of ``task``, if it has the export's default size.

    The UNet's were counted at the latents of a try-on, which may have the garment's beside the person's; those of
    another height are taken to cost in proportion (attention, which costs less then, is counted too high).
    """
    counted_at, total = usual_height(manifest), 0.0

    def counted(name: str, inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        nonlocal total
        share = inputs["sample"].shape[2] / counted_at if name == "unet" else 1.0
        total += share * manifest.flops[name] * len(next(iter(inputs.values())))
        return _empty(name, inputs, manifest)

    paint(task.request(), repository, manifest, counted)
    return total


def usual_height(manifest: Manifest) -> int:
    """Of the UNet's latents, in the call whose operations the manifest tells."""
    return manifest.size.height // manifest.vae.factor * (2 if manifest.tryon == "concat" else 1)


def _empty(name: str, inputs: Mapping[str, NDArray[Any]], manifest: Manifest) -> NDArray[Any]:
    """An answer of the shape that the leaf's has."""
    channels, factor = manifest.vae.latent_channels, manifest.vae.factor
    if name == "text_encoder":
        return np.zeros((*inputs["input_ids"].shape, 1), np.float32)
    if name == "vae_encoder":
        rows, count, height, width, _ = inputs["canvases"].shape
        return np.zeros((rows, count, 2 * channels, height // factor, width // factor), np.float32)
    if name == "unet":
        rows, _, height, width = inputs["sample"].shape
        return np.zeros((rows, manifest.unet.out_channels, height, width), np.float32)
    rows, count, _, height, width = inputs["latents"].shape
    return np.zeros((rows, count, height * factor, width * factor, 3), np.uint8)
