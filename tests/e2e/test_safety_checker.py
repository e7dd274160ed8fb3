"""A pipeline with a safety checker, served: flagged pictures come back black and are reported, as diffusers would."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

import safety
from dressform import Client, DressformInpaintPipeline
from dressform_export import export_pipeline, read_manifest
from dressform_server import Server
from e2e.conftest import differences

PROMPT = "a red and white striped t-shirt"
SEEDS = range(8)
OPTIONS: dict[str, Any] = {"num_inference_steps": 3, "height": 64, "width": 64}


@pytest.fixture(scope="module")
def source(
    tiny_tryon_source: Path, photo: Image.Image, mask: Image.Image, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The tiny pipeline with a checker that flags some of the pictures of ``SEEDS`` and not the others."""
    folder = tmp_path_factory.mktemp("source") / "checked"
    shutil.copytree(tiny_tryon_source, folder, copy_function=os.link)
    unchecked = _pipeline(folder, safety_checker=None, requires_safety_checker=False)
    pictures = [_made(unchecked, photo, mask, seed).images[0] for seed in SEEDS]
    checker = safety.random_checker()
    safety.set_threshold(checker, pictures)
    safety.add_checker(folder, checker)
    return folder


def _pipeline(folder: Path, **components: Any) -> Any:
    loaded = diffusers.StableDiffusionInpaintPipeline.from_pretrained(folder, **components)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def _made(pipeline: Any, photo: Image.Image, mask: Image.Image, seed: int) -> Any:
    generator = torch.Generator("cpu").manual_seed(seed)
    return pipeline(PROMPT, photo, mask, generator=generator, **OPTIONS)


@pytest.fixture(scope="module")
def checked(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    out = tmp_path_factory.mktemp("repository") / "checked"
    manifest = export_pipeline(source, out)
    assert manifest.safety_checker
    assert manifest.warnings == ()
    assert "safety_checker/model.safetensors" in manifest.source.sha256
    log = tmp_path_factory.mktemp("triton") / "triton.log"
    with Server(out, http_port=0, grpc_port=0, metrics_port=0, log=log) as running:
        running.wait_ready(120)
        with Client(running.grpc_url, timeout=120) as client:
            yield client


def test_pictures_and_flags_are_those_of_diffusers(
    checked: Client, source: Path, photo: Image.Image, mask: Image.Image
) -> None:
    pipeline = _pipeline(source)
    outcomes = []
    for seed in SEEDS:
        expected = _made(pipeline, photo, mask, seed)
        served = checked.inpaint(photo, mask, PROMPT, seed=seed, composite="none", **OPTIONS)
        assert served.info["flagged"] == expected.nsfw_content_detected
        assert (differences(served.image, expected.images[0]) <= 1).mean() >= 0.999
        (flag,) = served.info["flagged"]
        assert flag == (np.asarray(served.image).max() == 0)
        assert flag == bool(served.warnings)
        outcomes.append(flag)
    assert set(outcomes) == {False, True}


def test_of_several_pictures_only_the_flagged_are_blanked(
    checked: Client, photo: Image.Image, mask: Image.Image
) -> None:
    alone = [checked.inpaint(photo, mask, PROMPT, seed=seed, **OPTIONS).info["flagged"][0] for seed in SEEDS]
    first = next(seed for seed in SEEDS if len(set(alone[seed : seed + 4])) == 2 and seed + 4 <= len(SEEDS))
    several = checked.inpaint(photo, mask, PROMPT, seed=first, num_images=4, **OPTIONS)
    assert several.info["flagged"] == alone[first : first + 4]
    assert [np.asarray(image).max() == 0 for image in several.images] == several.info["flagged"]
    blanked = [number for number, flag in enumerate(several.info["flagged"], 1) if flag]
    assert [text.split(" was blanked")[0] for text in several.warnings] == [f"picture {n} of 4" for n in blanked]


def test_the_stand_in_for_diffusers_tells_of_flagged_pictures(
    checked: Client, source: Path, photo: Image.Image, mask: Image.Image
) -> None:
    pipelines = _pipeline(source), DressformInpaintPipeline(checked)
    flags = [[_made(pipeline, photo, mask, seed).nsfw_content_detected for seed in SEEDS] for pipeline in pipelines]
    assert flags[0] == flags[1]


def test_tryon_is_checked_too(checked: Client, photo: Image.Image, mask: Image.Image, garment: Image.Image) -> None:
    answer = checked.tryon(photo, garment, mask=mask, seed=1, num_inference_steps=2)
    assert len(answer.info["flagged"]) == 1


def test_an_export_without_a_checker_says_so(
    client: Client, source: Path, tmp_path: Path, photo: Image.Image, mask: Image.Image
) -> None:
    """The session's server has none: its pictures are not said to have passed."""
    assert client.inpaint(photo, mask, PROMPT, seed=1, **OPTIONS).info["flagged"] is None
    export_pipeline(source, tmp_path / "out", safety_checker=False)
    manifest = read_manifest(tmp_path / "out")
    assert not manifest.safety_checker
    assert manifest.warnings == ("the pipeline's safety_checker is left out: pictures are served unchecked",)
    assert not (tmp_path / "out" / "safety_checker").exists()
