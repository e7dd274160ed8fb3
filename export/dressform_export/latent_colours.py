"""A linear map from latents to colours, so that the denoiser can show a job on its way without the VAE decoder.

One latent stands for a square of ``factor`` × ``factor`` pixels; the mean colour of that square is nearly linear in the
latent's channels. The map is the least-squares fit over pictures that the VAE has encoded and decoded again.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from dressform_export.repository import VERSION

PICTURES = 32
SIDE = 8
"""Latents along a side of those pictures; small, because decoding one costs as much as some steps of the UNet."""
_PATCHES = 4  # patches of one colour along a side, before they are blurred into one another

Floats = NDArray[np.float32]


def latent_to_rgb(repository: Path, factor: int, scaling_factor: float) -> tuple[tuple[float, ...], ...]:
    """The map [C + 1][3] of the VAE graphs in ``repository``: weights of the channels and, last, an offset.

    Latents are scaled, colours 0 to 255.
    """
    encoder, decoder = _graph(repository / "vae_encoder"), _graph(repository / "vae_decoder")
    samples = []
    for canvas in pictures(np.random.default_rng(0), PICTURES, SIDE * factor):
        moments = encoder(canvases=canvas[None, None], keep=np.ones((1, 1, *canvas.shape[:2]), np.uint8))[0, 0]
        latents = np.float32(scaling_factor) * moments[: len(moments) // 2]
        decoded = decoder(latents=latents[None, None])[0, 0]
        samples.append((latents, mean_colours(decoded, factor)))
    return fitted(samples)


def pictures(generator: np.random.Generator, count: int, side: int) -> NDArray[np.uint8]:
    """Pictures of soft patches in all colours, uint8 [count, side, side, 3]."""
    patches = generator.uniform(0, 255, (count, _PATCHES, _PATCHES, 3))
    weights = _interpolation(_PATCHES, side)
    return np.einsum("yi,xj,nijc->nyxc", weights, weights, patches).round().astype(np.uint8)


def mean_colours(picture: NDArray[np.uint8], factor: int) -> Floats:
    """The mean colour of each square of ``factor`` pixels: [H, W, 3] → float32 [H / factor, W / factor, 3]."""
    height, width = picture.shape[0] // factor, picture.shape[1] // factor
    return picture.reshape(height, factor, width, factor, 3).mean(axis=(1, 3), dtype=np.float32)


def fitted(samples: list[tuple[Floats, Floats]]) -> tuple[tuple[float, ...], ...]:
    """The least-squares map of pairs of latents [C, h, w] and colours [h, w, 3]."""
    latents = np.concatenate([z.reshape(len(z), -1).T for z, _ in samples])
    colours = np.concatenate([c.reshape(-1, 3) for _, c in samples])
    solution = np.linalg.lstsq(np.c_[latents, np.ones(len(latents))], colours, rcond=None)[0]
    return tuple(tuple(round(float(value), 4) for value in row) for row in solution)


def _interpolation(points: int, side: int) -> NDArray[np.float64]:
    """Weights [side, points] of linear interpolation between ``points`` that span ``side`` pixels."""
    at = np.linspace(0, points - 1, side)
    return np.clip(1 - np.abs(at[:, None] - np.arange(points)), 0, 1)


def _graph(model: Path) -> Callable[..., NDArray[np.float32]]:
    session = onnxruntime.InferenceSession(str(model / VERSION / "model.onnx"), providers=["CPUExecutionProvider"])
    return lambda **inputs: session.run(None, inputs)[0]
