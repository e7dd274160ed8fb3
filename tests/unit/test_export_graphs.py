"""The exported graphs against diffusers' own code paths, at sizes that neither the trace nor the exporter saw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from diffusers import StableDiffusionInpaintPipeline
from diffusers.image_processor import VaeImageProcessor
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer

from dressform_export import ExportError
from dressform_export.graphs import PROBES, TRACED, Probe, UNet
from dressform_export.runner import runner
from dressform_export.source import open_source
from dressform_export.verification import Reference, compare, references, verify_graph

SIZES = [(8, 16), (11, 7), (16, 9), (10, 18)]
"""Latent height and width."""


@pytest.fixture(scope="module")
def pipeline(tiny_source: Path) -> StableDiffusionInpaintPipeline:
    return StableDiffusionInpaintPipeline.from_pretrained(tiny_source)


def _run(repository: Path, leaf: str, **inputs: NDArray[np.generic]) -> NDArray[np.generic]:
    session = onnxruntime.InferenceSession(str(repository / leaf / "1" / "model.onnx"))
    (output,) = session.run(None, inputs)
    return np.asarray(output)


def test_sizes_are_unseen() -> None:
    assert not {(p.height, p.width) for p in (TRACED, *PROBES)} & set(SIZES)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_unet_has_a_timestep_for_each_row(
    tiny_repository: Path, pipeline: StableDiffusionInpaintPipeline, height: int, width: int
) -> None:
    generator = torch.Generator().manual_seed(7)
    sample = torch.randn(5, 9, height, width, generator=generator)
    timestep = torch.tensor([999.0, 946.42, 500.5, 1.0, 0.0])
    text = torch.randn(5, 77, 32, generator=generator)
    with torch.inference_mode():  # one row at a time, each with its scalar timestep, as a pipeline calls it
        rows = [pipeline.unet(sample[i : i + 1], timestep[i], text[i : i + 1]).sample for i in range(5)]
    expected = torch.cat(rows).numpy()
    actual = _run(
        tiny_repository, "unet", sample=sample.numpy(), timestep=timestep.numpy(), encoder_hidden_states=text.numpy()
    )
    np.testing.assert_allclose(actual, expected, atol=1e-4)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_vae_encoder_is_diffusers_preprocessing_and_encoder(
    tiny_repository: Path, pipeline: StableDiffusionInpaintPipeline, height: int, width: int
) -> None:
    random = np.random.default_rng(3)
    canvases = random.integers(0, 256, (2, 2, height * 8, width * 8, 3), dtype=np.uint8)
    keep = random.integers(0, 2, canvases.shape[:-1], dtype=np.uint8)
    actual = _run(tiny_repository, "vae_encoder", canvases=canvases, keep=keep)
    for b, k in np.ndindex(2, 2):
        pixels = VaeImageProcessor(vae_scale_factor=8).preprocess(Image.fromarray(canvases[b, k]))
        masked = pixels * torch.from_numpy(keep[b, k])
        with torch.inference_mode():
            expected = pipeline.vae.encode(masked).latent_dist.parameters[0].numpy()
        np.testing.assert_allclose(actual[b, k], expected, atol=1e-5 * np.abs(expected).max() + 1e-4)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_vae_decoder_is_diffusers_decoder_and_postprocessing(
    tiny_repository: Path, pipeline: StableDiffusionInpaintPipeline, height: int, width: int
) -> None:
    latents = torch.randn(2, 3, 4, height, width, generator=torch.Generator().manual_seed(5))
    actual = _run(tiny_repository, "vae_decoder", latents=latents.numpy())
    assert actual.dtype == np.uint8
    with torch.inference_mode():
        decoded = pipeline.vae.decode(latents.flatten(0, 1) / pipeline.vae.config.scaling_factor).sample
    pictures = VaeImageProcessor(vae_scale_factor=8).postprocess(decoded, output_type="pil")
    expected = np.stack([np.asarray(picture) for picture in pictures]).reshape(actual.shape)
    difference = np.abs(actual.astype(int) - expected.astype(int))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3  # values at a rounding boundary; truncation would move half of them


def test_text_encoder_and_tokenizer_are_the_pipelines(
    tiny_repository: Path, pipeline: StableDiffusionInpaintPipeline
) -> None:
    # Neighbouring CJK characters are left out: transformers' slow tokenizer splits them where ftfy is not installed,
    # OpenAI's and the fast one do not.
    prompts = ["a photo of a cat", "", "A  RED summer dress, 100% linen — naïve café", "it's won't ΣΠ 你 🙂", "x" * 400]
    tokenizer = Tokenizer.from_file(str(tiny_repository / "preprocess" / "tokenizer.json"))
    assert tokenizer.truncation is None
    assert tokenizer.padding is None
    ids = np.array([_padded(tokenizer.encode(prompt).ids) for prompt in prompts], dtype=np.int64)
    actual = _run(tiny_repository, "text_encoder", input_ids=ids[:, None].repeat(2, axis=1))
    expected, _ = pipeline.encode_prompt(prompts, "cpu", 1, False)
    for count in range(2):
        np.testing.assert_allclose(actual[:, count], expected.detach().numpy(), atol=1e-4)


def _padded(ids: list[int]) -> list[int]:
    kept = ids if len(ids) <= 77 else [*ids[:76], 49407]
    return kept + [49407] * (77 - len(kept))


def test_verification_finds_a_changed_weight(tiny_repository: Path, tiny_source: Path) -> None:
    source = open_source(str(tiny_source))
    leaf, model = UNet(source.dimensions), source.load("unet")
    with torch.no_grad():
        model.conv_out.bias.add_(0.01)  # type: ignore[operator, union-attr]
    with pytest.raises(ExportError, match=r"the unet graph in fp32 differs from torch by 0\.0[01].* allowed"):
        verify_graph(
            leaf.name, references(leaf, leaf.module(model)), runner(tiny_repository / "unet" / "1" / "model.onnx")
        )


@pytest.mark.parametrize(
    "actual",
    [
        np.full((2, 3), np.nan, np.float32),
        np.zeros((3, 2), np.float32),
        np.zeros((2, 3), np.float64),
        np.full((2, 3), 0.0011, np.float32),
    ],
)
def test_comparison_fails_on_nan_shape_dtype_and_value(actual: NDArray[np.generic]) -> None:
    result = compare(Reference({"rows": 2}, {}, np.zeros((2, 3), np.float32), labels=False), actual)
    assert not result.difference <= result.tolerance


def test_probes_vary_everything() -> None:
    for size in Probe.__dataclass_fields__:
        assert len({getattr(probe, size) for probe in PROBES}) >= 3, size
