"""The served picture equals the one diffusers makes of the same weights, seed and options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

import diffusers_solvers
from dressform import Client, DressformInpaintPipeline
from e2e.conftest import differences

PROMPT, NEGATIVE = "a red and white striped t-shirt", "blue, torn"


@pytest.fixture(scope="module")
def pipeline(tiny_tryon_source: Path) -> Any:
    loaded = diffusers.StableDiffusionInpaintPipeline.from_pretrained(
        tiny_tryon_source, safety_checker=None, requires_safety_checker=False
    )
    loaded.set_progress_bar_config(disable=True)
    loaded.exported_schedule = dict(loaded.scheduler.config)
    return loaded


def reference(pipeline: Any, photo: Image.Image, mask: Image.Image, solver: str, **options: Any) -> Image.Image:
    pipeline.scheduler = diffusers_solvers.scheduler(solver, pipeline.exported_schedule)
    generator = torch.Generator("cpu").manual_seed(options.pop("seed"))
    made = pipeline(PROMPT, photo, mask, negative_prompt=NEGATIVE, generator=generator, **options)
    return made.images[0]


def check(actual: Image.Image, expected: Image.Image) -> None:
    close = differences(actual, expected) <= 1
    assert close.mean() >= 0.999, f"{(~close).mean():.4%} of the values differ by more than 1"


@pytest.mark.parametrize("guidance_scale", [1.0, 7.5])
@pytest.mark.parametrize("strength", [1.0, 0.6])
@pytest.mark.parametrize("solver", diffusers_solvers.SOLVERS)
def test_picture_equals_diffusers(
    pipeline: Any,
    grpc_client: Client,
    photo: Image.Image,
    mask: Image.Image,
    solver: str,
    strength: float,
    guidance_scale: float,
) -> None:
    options = {
        "height": 72,
        "width": 104,
        "num_inference_steps": 6,
        "strength": strength,
        "guidance_scale": guidance_scale,
        "seed": 5,
    }
    expected = reference(pipeline, photo, mask, solver, **options)
    served = grpc_client.inpaint(
        photo, mask, PROMPT, negative_prompt=NEGATIVE, solver=solver, composite="none", **options
    )
    check(served.image, expected)


@pytest.mark.parametrize("options", [{"eta": 1.0}, {"height": 64, "width": 64, "seed": 2**33 + 7}], ids=str)
def test_other_options_equal_diffusers(
    pipeline: Any, client: Client, photo: Image.Image, mask: Image.Image, options: dict[str, Any]
) -> None:
    common: dict[str, Any] = {"num_inference_steps": 4, "seed": 11, "height": 72, "width": 104} | options
    served = client.inpaint(photo, mask, PROMPT, negative_prompt=NEGATIVE, composite="none", solver="ddim", **common)
    check(served.image, reference(pipeline, photo, mask, "ddim", **common))


def test_padding_mask_crop_equals_diffusers(
    pipeline: Any, client: Client, photo: Image.Image, mask: Image.Image
) -> None:
    """diffusers composites here, resizing the canvas to the cut-out with LANCZOS as we do, by a hard mask."""
    common: dict[str, Any] = {"num_inference_steps": 4, "seed": 11, "padding_mask_crop": 8, "height": 64, "width": 64}
    served = client.inpaint(photo, mask, PROMPT, negative_prompt=NEGATIVE, composite="hard", solver="ddim", **common)
    check(served.image, reference(pipeline, photo, mask, "ddim", **common))


def test_the_client_stands_in_for_the_pipeline(
    pipeline: Any, client: Client, photo: Image.Image, mask: Image.Image
) -> None:
    """One changed line: the same call, answered by the server."""
    pipeline.scheduler = diffusers_solvers.scheduler("ddim", pipeline.exported_schedule)
    steps: list[int] = []

    def note(_pipeline: Any, step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        steps.append(step)
        return tensors

    made = []
    for each in (pipeline, DressformInpaintPipeline(client)):
        generators = [torch.Generator().manual_seed(seed) for seed in (3, 8)]
        words: dict[str, Any] = {"height": 72, "width": 104, "num_inference_steps": 6, "callback_on_step_end": note}
        made.append(each(PROMPT, photo, mask, num_images_per_prompt=2, generator=generators, **words).images)
    assert steps == [*range(6)] * 2
    for served, expected in zip(*reversed(made), strict=True):
        check(served, expected)


def test_the_options_of_the_parity_test_matter(client: Client, photo: Image.Image, mask: Image.Image) -> None:
    """Otherwise equality with diffusers would say little."""
    base: dict[str, Any] = {"num_inference_steps": 6, "seed": 5, "composite": "none"}
    first = client.inpaint(photo, mask, PROMPT, **base)
    for change in ({"seed": 6}, {"solver": "euler_ancestral"}, {"strength": 0.6}, {"guidance_scale": 1.0}):
        other = client.inpaint(photo, mask, PROMPT, **(base | change))
        assert differences(first.image, other.image).max() > 1, f"{change} changed nothing"
    other = client.inpaint(photo, mask, "a green dress", **base)
    assert differences(first.image, other.image).max() > 1, "the prompt changed nothing"


def test_image_i_is_the_picture_of_seed_plus_i(client: Client, photo: Image.Image, mask: Image.Image) -> None:
    several = client.inpaint(
        photo, mask, PROMPT, num_inference_steps=4, seed=20, num_images=3, solver="euler_ancestral"
    )
    assert several.seeds == [20, 21, 22]
    for image, seed in zip(several.images, several.seeds):
        alone = client.inpaint(photo, mask, PROMPT, num_inference_steps=4, seed=seed, solver="euler_ancestral")
        assert differences(image, alone.image).max() <= 1


def test_a_returned_seed_repeats_the_picture(client: Client, photo: Image.Image, mask: Image.Image) -> None:
    first = client.inpaint(photo, mask, PROMPT, num_inference_steps=3)
    again = client.inpaint(photo, mask, PROMPT, num_inference_steps=3, seed=first.seed)
    other = client.inpaint(photo, mask, PROMPT, num_inference_steps=3)
    assert np.array_equal(first.image, again.image)
    assert first.seed != other.seed
