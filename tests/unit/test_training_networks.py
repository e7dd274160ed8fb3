"""The training command, a few steps of everything: out comes a pipeline that diffusers and the exporter take."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionInpaintPipeline
from PIL import Image
from safetensors.torch import load_file
from transformers import CLIPTokenizer, SegformerForSemanticSegmentation, SegformerImageProcessor

from dressform_export import build_random_pipeline
from dressform_export.demo.evaluation.classifier import PatternClassifier, garment_crops, load_classifier
from dressform_export.demo.training.__main__ import main
from dressform_export.demo.training.data import open_examples, write_folder
from dressform_export.demo.wardrobe import ATR, PATTERNS, sample
from dressform_export.progress import Silence
from dressform_export.source import open_source

OPTIONS = ["--data", "wardrobe:3", "--batch", "2"]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All four networks after two steps, and the pipeline."""
    work = tmp_path_factory.mktemp("work")
    assert main(["all", "--work", str(work), "--steps", "2", *OPTIONS]) == 0
    return work


def test_the_pipeline_is_one_of_diffusers(work: Path) -> None:
    pipeline = StableDiffusionInpaintPipeline.from_pretrained(work / "pipeline")
    pipeline.set_progress_bar_config(disable=True)
    white = Image.new("L", (96, 128), 255)
    result = pipeline(
        "a red dress", white.convert("RGB"), white, height=128, width=96, num_inference_steps=2, output_type="np"
    )
    assert result.images.shape == (1, 128, 96, 3)
    assert np.isfinite(result.images).all()


def test_the_exporter_takes_it(work: Path) -> None:
    source = open_source(str(work / "pipeline"))
    assert source.size == (128, 96)
    settings = source.settings
    assert (settings.tryon, settings.num_inference_steps, settings.solver) == ("concat", 20, "ddim")
    assert source.scheduler["prediction_type"] == "v_prediction"
    assert source.dimensions.in_channels == 9
    slow = CLIPTokenizer.from_pretrained(work / "pipeline" / "tokenizer")
    assert source.tokenizer("a red dress").input_ids == slow("a red dress").input_ids


def test_weights_fit_the_repository(work: Path) -> None:
    """FP16 and at most 25 MB together."""
    files = sorted((work / "pipeline").rglob("*.safetensors"))
    assert [file.parent.name for file in files] == ["parser", "text_encoder", "unet", "vae"]
    dtypes = {values.dtype for file in files for values in load_file(file).values()}
    assert dtypes <= {torch.float16, torch.int64}  # whole numbers: the text encoder's positions, batch counts
    assert sum(file.stat().st_size for file in (work / "pipeline").rglob("*.*")) < 25e6


def test_the_parser_labels_pictures(work: Path) -> None:
    folder = work / "pipeline" / "parser"
    parser = SegformerForSemanticSegmentation.from_pretrained(folder)
    assert [parser.config.id2label[number] for number in range(18)] == list(ATR)
    processor = SegformerImageProcessor.from_pretrained(folder)
    inputs = processor(Image.fromarray(sample(0).look.image).resize((300, 500)), return_tensors="pt")
    assert inputs.pixel_values.shape == (1, 3, 128, 96)
    assert parser(inputs.pixel_values).logits.shape == (1, 18, 64, 48)


def test_the_classifier_looks_at_the_garment_alone(work: Path) -> None:
    classifier = load_classifier(work / "classifier" / "classifier.safetensors")
    look, flat = sample(0).look, sample(0).flat
    region = look.labels == flat.labels.max()
    noise = np.random.default_rng(0).integers(0, 256, look.image.shape, np.uint8)
    elsewhere = np.where(region[..., None], look.image, noise)
    crops = garment_crops(np.stack([look.image, elsewhere]), np.stack([region, region]))
    assert crops.shape == (2, 4, 64, 64)
    assert torch.equal(crops[0], crops[1])
    patterns = classifier.predict(np.stack([look.image, elsewhere]), np.stack([region, region]))
    assert patterns[0] == patterns[1]
    assert patterns[0] in PATTERNS
    with pytest.raises(ValueError, match="region is empty"):
        classifier.predict(look.image[None], np.zeros_like(region)[None])
    assert sum(values.numel() for values in PatternClassifier().parameters()) < 300_000


def test_stopped_runs_continue(work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Three steps in two sittings are those of one; the first ends with exit code 3."""
    whole, sittings = tmp_path / "whole", tmp_path / "sittings"
    for folder in (whole, sittings):
        folder.mkdir()
        shutil.copytree(next(work.glob("wardrobe-3-*")), folder / next(work.glob("wardrobe-3-*")).name)
    command = ["parser", "--steps", "3", *OPTIONS]
    assert main([*command, "--work", str(whole)]) == 0
    assert main([*command, "--work", str(sittings), "--max-seconds", "0"]) == 3
    assert "stopped at step 1 of 3; the same command continues" in capsys.readouterr().err
    assert main([*command, "--work", str(sittings)]) == 0
    files = [folder / "parser" / "model" / "model.safetensors" for folder in (whole, sittings)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_pipeline_of_ones_own_is_fine_tuned(work: Path, tiny_source: Path, tmp_path: Path) -> None:
    """From a folder of pictures at the pipeline's own size: the UNet changes, the rest stays, tryon is concat."""
    write_folder(open_examples("wardrobe:3", work, 128, 96, Silence()), tmp_path / "examples")
    command = ["unet", "--from", str(tiny_source), "--data", str(tmp_path / "examples"), "--batch", "2", "--steps", "2"]
    out = tmp_path / "out"
    assert main([*command, "--work", str(tmp_path / "work"), "--out", str(out), "--mirror", "--rate", "1e-3"]) == 0
    before, after = open_source(str(tiny_source)), open_source(str(out))
    assert (after.settings.tryon, after.size, after.settings.num_inference_steps) == ("concat", (64, 64), 30)
    assert after.scheduler["prediction_type"] == before.scheduler["prediction_type"] == "epsilon"
    for component in ("vae", "text_encoder", "unet"):
        old, new = (source.load(component).state_dict() for source in (before, after))
        same = all(torch.equal(values.half(), new[name].half()) for name, values in old.items())
        assert same == (component != "unet")
    record = json.loads((tmp_path / "work" / "unet" / "metrics.jsonl").read_text())
    assert set(record) >= {"loss", "inpaint", "tryon"}


def test_refusals(work: Path, tiny_source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    four = build_random_pipeline("tiny", tmp_path / "four", in_channels=4)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "letter.txt").write_text("mine")
    new = ["--work", str(tmp_path / "new"), *OPTIONS]
    for command, sentence in (
        (["unet", *new], "is missing: the unet learns in a trained vae's latents; train that first"),
        (["parser", "--work", str(tmp_path), "--data", str(work)], "data must be wardrobe:SEEDS, not"),
        (["vae", "--from", str(tiny_source), *new], "--from is for the unet; vae is not trained from a pipeline"),
        (["unet", "--from", str(four), *new], "has a UNet of 4 channels, and only inpainting ones, of 9"),
        (["unet", "--from", str(tmp_path / "nowhere"), *new], "neither a folder nor a hub id"),
        (["vae", "--out", str(tmp_path / "taken"), *new], "is not a pipeline's folder: name another"),
        (["vae", "--steps", "0", *new], "steps must be above 0, not 0"),
        (["parser", "--work", str(work), "--seed", "5", *OPTIONS], "was made with seed 0, not 5"),
    ):
        assert main(command) == 2
        assert sentence in capsys.readouterr().err
