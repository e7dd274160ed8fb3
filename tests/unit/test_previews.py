"""Previews: the linear map from latents to colours, as it is fitted at export and used by the denoiser."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from denoise.preview import LONGEST_SIDE, preview
from dressform_export import read_manifest
from dressform_export.latent_colours import fitted, mean_colours, pictures
from jobs.table import PREVIEW_BYTES


def test_a_linear_decoder_is_fitted_exactly() -> None:
    generator = np.random.default_rng(1)
    true = generator.normal(0, 40, (5, 3)).astype(np.float32)
    samples = []
    for _ in range(3):
        latents = generator.normal(size=(4, 6, 7)).astype(np.float32)
        samples.append((latents, np.moveaxis(latents, 0, -1) @ true[:-1] + true[-1]))
    np.testing.assert_allclose(fitted(samples), true, atol=1e-3)


def test_mean_colours() -> None:
    picture = np.zeros((4, 6, 3), np.uint8)
    picture[:2, 2:4] = (200, 100, 0)
    picture[2, 0, 0] = 8
    colours = mean_colours(picture, 2)
    assert colours.shape == (2, 3, 3)
    assert colours[0, 1].tolist() == [200, 100, 0]
    assert colours[1, 0].tolist() == [2, 0, 0]


def test_the_pictures_show_all_colours() -> None:
    shown = pictures(np.random.default_rng(0), 32, 64)
    assert shown.shape == (32, 64, 64, 3)
    assert (shown.min(axis=(0, 1, 2)) < 5).all()
    assert (shown.max(axis=(0, 1, 2)) > 250).all()


def test_the_manifests_map_explains_unseen_pictures(tiny_repository: Path) -> None:
    """On pictures that the fit has not seen, the map is closer to the decoded ones than any one colour.

    Not by much: this VAE has random weights.
    """
    manifest = read_manifest(tiny_repository)
    colours = np.array(manifest.latent_to_rgb, np.float32)
    sessions = {
        name: onnxruntime.InferenceSession(str(tiny_repository / name / "1" / "model.onnx"))
        for name in ("vae_encoder", "vae_decoder")
    }
    canvases = pictures(np.random.default_rng(99), 8, 64)[None]
    moments = sessions["vae_encoder"].run(None, {"canvases": canvases, "keep": np.ones(canvases.shape[:4], np.uint8)})
    latents = np.float32(manifest.vae.scaling_factor) * moments[0][:, :, :4]
    (decoded,) = sessions["vae_decoder"].run(None, {"latents": latents})
    expected = np.stack([mean_colours(picture, 8) for picture in decoded[0]])
    mapped = np.moveaxis(latents[0], 1, -1) @ colours[:-1] + colours[-1]
    error, spread = ((mapped - expected) ** 2).mean(), ((expected - expected.mean(axis=(0, 1, 2))) ** 2).mean()
    assert error < 0.95 * spread, f"{error / spread:.2f} of the variance is not explained"


@pytest.mark.parametrize(("height", "width"), [(8, 8), (64, 48), (128, 128), (1, 300), (300, 200)])
def test_a_preview_is_a_small_picture(height: int, width: int) -> None:
    """Noise is the worst a JPEG can get."""
    latents = np.random.default_rng(2).normal(size=(4, height, width)).astype(np.float32)
    colours = np.random.default_rng(3).normal(0, 100, (5, 3)).astype(np.float32)
    jpeg = preview(latents, colours)
    assert len(jpeg) <= PREVIEW_BYTES
    picture = Image.open(io.BytesIO(jpeg))
    assert (picture.format, picture.mode) == ("JPEG", "RGB")
    assert max(picture.size) == min(max(height, width), LONGEST_SIDE)


def test_a_preview_shows_the_colours() -> None:
    latents = np.zeros((4, 8, 8), np.float32)
    latents[0, :, 4:] = 1
    colours = np.array([[180, 0, -60], [0, 0, 0], [0, 0, 0], [0, 0, 0], [20, 120, 90]], np.float32)
    pixels = np.asarray(Image.open(io.BytesIO(preview(latents, colours))), int)
    assert np.abs(pixels[4, 1] - [20, 120, 90]).max() <= 12
    assert np.abs(pixels[4, 6] - [200, 120, 30]).max() <= 12
    latents[:] = np.nan
    assert preview(latents, colours)[:2] == b"\xff\xd8", "a job gone wrong has a preview, too"
