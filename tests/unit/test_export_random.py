"""The random pipelines: the same bytes every time, the true vocabulary and sizes, pictures worth comparing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionInpaintPipeline
from PIL import Image
from transformers import CLIPTextConfig, CLIPTokenizer

from dressform_export import ExportError, build_random_pipeline
from dressform_export.__main__ import main
from dressform_export.random_pipeline import ARCHITECTURES
from dressform_export.source import MODELS, open_source, sha256

KNOWN_IDS = {
    "a photo of a cat": [320, 1125, 539, 320, 2368],
    "hello world!": [3306, 1002, 256],
    "": [],
}
"""Prompt → ids, as OpenAI's CLIP and the hub's tokenizer give them."""


def _hashes(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): sha256(p) for p in sorted(folder.rglob("*")) if p.is_file()}


def test_same_seed_same_bytes(tiny_source: Path, tmp_path: Path) -> None:
    torch.manual_seed(1234)  # the state of torch's own generator is neither used nor changed
    before = torch.get_rng_state()
    again = build_random_pipeline("tiny", tmp_path / "again")
    assert torch.equal(before, torch.get_rng_state())
    assert _hashes(again) == _hashes(tiny_source)


def test_another_seed_other_weights(tiny_source: Path, tmp_path: Path) -> None:
    other = build_random_pipeline("tiny", tmp_path / "other", seed=1)
    differing = {name for name, value in _hashes(other).items() if value != _hashes(tiny_source)[name]}
    assert differing == {f"{name}/{file}" for name, file in _weight_files()}


def _weight_files() -> list[tuple[str, str]]:
    diffusers_file = "diffusion_pytorch_model.safetensors"
    return [("text_encoder", "model.safetensors"), ("vae", diffusers_file), ("unet", diffusers_file)]


def test_options_reach_the_configs(tmp_path: Path) -> None:
    source = open_source(
        str(
            build_random_pipeline("tiny", tmp_path / "p", tryon="concat", in_channels=4, prediction_type="v_prediction")
        )
    )
    assert source.dimensions.in_channels == 4
    assert source.settings.tryon == "concat"
    assert source.scheduler["prediction_type"] == "v_prediction"
    assert source.size == (64, 64)


def test_a_parser_is_added_beside_the_rest(tiny_source: Path, tmp_path: Path) -> None:
    assert main(["random", "tiny", str(tmp_path / "one"), "--parser"]) == 0
    one, again = _hashes(tmp_path / "one"), _hashes(build_random_pipeline("tiny", tmp_path / "two", parser=True))
    assert one == again
    added = set(one) - set(_hashes(tiny_source))
    assert added == {f"parser/{name}" for name in ("config.json", "preprocessor_config.json", "model.safetensors")}
    assert {name: value for name, value in one.items() if name not in added} == _hashes(tiny_source)
    assert StableDiffusionInpaintPipeline.from_pretrained(tmp_path / "one").unet.config.in_channels == 9


def test_scheduler_is_spelled_out(tiny_source: Path) -> None:
    config = json.loads((tiny_source / "scheduler" / "scheduler_config.json").read_text())
    wanted = {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1, "beta_schedule": "scaled_linear"}
    assert wanted.items() <= config.items()
    assert (config["beta_start"], config["beta_end"]) == (0.00085, 0.012)


def test_folder_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(ExportError, match="exists already"):
        build_random_pipeline("tiny", tmp_path)


@pytest.mark.parametrize("prompt", KNOWN_IDS)
def test_known_token_ids(tiny_source: Path, prompt: str) -> None:
    tokenizer = CLIPTokenizer.from_pretrained(tiny_source / "tokenizer")
    assert tokenizer(prompt).input_ids == [49406, *KNOWN_IDS[prompt], 49407]
    assert len(tokenizer) == 49408
    assert tokenizer.model_max_length == 77


def test_full_size_counts() -> None:
    """``sd15`` has exactly Stable Diffusion 1.5 inpainting's parameters (counted without making any)."""
    architecture = ARCHITECTURES["sd15"]
    with torch.device("meta"):
        unet = MODELS["unet"](in_channels=9, out_channels=4, **architecture.unet)
        text = MODELS["text_encoder"](CLIPTextConfig(**architecture.text))
        vae = MODELS["vae"](
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4, **architecture.vae
        )
    counts = [sum(p.numel() for p in model.parameters()) for model in (unet, vae, text)]
    assert counts == [859_535_364, 83_653_863, 123_060_480]


def test_pictures_are_neither_flat_nor_saturated(tiny_source: Path) -> None:
    pipeline = StableDiffusionInpaintPipeline.from_pretrained(tiny_source)
    pipeline.set_progress_bar_config(disable=True)
    grey, white = Image.new("RGB", (72, 104), (128, 128, 128)), Image.new("L", (72, 104), 255)
    (picture,) = pipeline(
        "a red shirt",
        grey,
        white,
        height=104,
        width=72,
        num_inference_steps=3,
        generator=torch.Generator().manual_seed(0),
    ).images
    values = np.asarray(picture, dtype=np.float64)
    assert 20 < values.std() < 100
    assert np.mean((values == 0) | (values == 255)) < 0.1
