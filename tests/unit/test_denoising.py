"""Jobs in process, with the pipeline's own torch UNet: latents after every step equal diffusers'."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

import diffusers_solvers
from denoise.admission import admit
from denoise.batch import Batch, guide
from denoise.job import Job
from denoise.schedule import SchedulerConfig
from dressform_export import build_random_pipeline
from preprocess import masks
from unit.denoise_fakes import job_options

HEIGHT, WIDTH, FACTOR = 72, 104, 8
PIPELINES = {"9-channel": 9, "4-channel": 4}


@pytest.fixture(scope="module", params=PIPELINES)
def pipeline(request: pytest.FixtureRequest, tiny_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tiny_source
    if PIPELINES[request.param] == 4:
        folder = build_random_pipeline("tiny", tmp_path_factory.mktemp("source") / "four", in_channels=4)
    loaded = diffusers.StableDiffusionInpaintPipeline.from_pretrained(
        folder, safety_checker=None, requires_safety_checker=False
    )
    loaded.set_progress_bar_config(disable=True)
    loaded.exported_schedule = dict(loaded.scheduler.config)
    return loaded


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    small = np.random.default_rng(2).integers(0, 256, (9, 13, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def mask() -> np.ndarray:
    drawn = np.zeros((HEIGHT, WIDTH), np.uint8)
    drawn[20:60, 30:90] = 255
    return drawn


def admitted(pipeline: Any, picture: np.ndarray, mask: np.ndarray, **changes: Any) -> Job:
    """A job as the encoders' graphs would feed it."""
    with torch.no_grad():
        pixels = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None] / 255 * 2 - 1
        keep = torch.from_numpy((mask < 128).astype(np.float32))[None, None]
        canvases = {"masked": pixels * keep, "image": pixels}
        if pipeline.unet.config.in_channels == 4:
            names = ("image",)
        else:
            names = ("masked",) if changes.get("strength", 1.0) == 1.0 else ("masked", "image")
        moments = [pipeline.vae.encode(canvases[name]).latent_dist.parameters[0].numpy() for name in names]
        prompts = ["worst", "a coat"] if changes.get("guidance_scale", 7.5) > 1 else ["a coat"]
        ids = pipeline.tokenizer(prompts, padding="max_length", max_length=77, return_tensors="pt").input_ids
        text = pipeline.text_encoder(ids)[0].numpy()
    return admit(
        job_options(canvases=names, **({"num_inference_steps": 5} | changes)),
        SchedulerConfig.from_json(pipeline.exported_schedule),
        pipeline.vae.config.scaling_factor,
        moments=np.stack(moments),
        latent_mask=masks.latent(mask, FACTOR),
        hidden_states=text,
    )


def torch_unet(pipeline: Any) -> Any:
    def call(sample: np.ndarray, timestep: np.ndarray, text: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            inputs = [torch.from_numpy(array.copy()) for array in (sample, timestep, text)]
            return pipeline.unet(*inputs).sample.numpy()

    return call


def steps(jobs: list[Job], unet: Any) -> Iterator[None]:
    batch = Batch(jobs)
    while live := [job for job in jobs if not job.done]:
        if not batch.fits(live):
            batch.release()
            batch = Batch(live)
        batch.step(unet)
        yield
    batch.release()


CASES = [
    {"solver": solver, "strength": strength, "guidance_scale": scale}
    for solver in ("ddim", "euler", "dpmpp_2m", "unipc", "pndm")
    for strength in (1.0, 0.6)
    for scale in (1.0, 7.5)
] + [{"solver": "euler_ancestral"}, {"solver": "lcm"}, {"solver": "ddim", "eta": 1.0}, {"solver": "dpmpp_2m_karras"}]


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values())))
def test_latents_after_every_step_equal_diffusers(
    pipeline: Any, picture: np.ndarray, mask: np.ndarray, case: dict[str, Any]
) -> None:
    pipeline.scheduler = diffusers_solvers.scheduler(case["solver"], pipeline.exported_schedule)
    expected: list[np.ndarray] = []

    def keep(_: Any, i: int, t: Any, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        expected.append(tensors["latents"].numpy())
        return {}

    pipeline(
        "a coat",
        Image.fromarray(picture),
        Image.fromarray(mask),
        negative_prompt="worst",
        height=HEIGHT,
        width=WIDTH,
        num_inference_steps=5,
        generator=torch.Generator("cpu").manual_seed(4),
        callback_on_step_end=keep,
        output_type="latent",
        **{name: value for name, value in case.items() if name != "solver"},
    )
    job = admitted(pipeline, picture, mask, **case)
    assert len(job.plan) == len(expected)
    for i, _ in enumerate(steps([job], torch_unet(pipeline))):
        error = np.abs(job.latents - expected[i]).max() / np.abs(expected[i]).max()
        assert error <= 1e-4, f"after call {i}: {error}"


def test_batch_mates_do_not_matter(pipeline: Any, picture: np.ndarray, mask: np.ndarray) -> None:
    def job(seed: int) -> Job:
        solver = ["ddim", "euler", "unipc", "pndm"][seed % 4]
        return admitted(pipeline, picture, mask, solver=solver, seed=seed, guidance_scale=[1.0, 7.5][seed % 2])

    unet = torch_unet(pipeline)
    alone, crowded, late = job(5), job(5), job(5)
    for _ in steps([alone], unet):
        pass
    for _ in steps([crowded, *(job(seed) for seed in range(8))], unet):
        pass
    crowd = [job(seed) for seed in range(3)]
    first = Batch(crowd)
    for _ in range(2):
        first.step(unet)
    first.release()
    for _ in steps([*crowd, late], unet):
        pass
    for other in (crowded, late):
        assert np.abs(other.latents - alone.latents).max() <= 1e-4 * np.abs(alone.latents).max()


def test_guidance_interval_saves_rows(pipeline: Any, picture: np.ndarray, mask: np.ndarray) -> None:
    job = admitted(pipeline, picture, mask, num_inference_steps=10, guidance_start=0.2, guidance_end=0.7)
    rows = []
    for _ in steps([job], lambda s, t, e: (rows.append(len(s)), torch_unet(pipeline)(s, t, e))[1]):
        pass
    assert rows == [1, 1, 2, 2, 2, 2, 2, 1, 1, 1]
    assert job.rows_run == sum(rows)


def test_guidance_rescale_equals_diffusers() -> None:
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

    unconditional, conditional = np.random.default_rng(0).normal(size=(2, 3, 4, 5, 6)).astype(np.float32)
    plain = unconditional + 6 * (conditional - unconditional)
    expected = rescale_noise_cfg(torch.from_numpy(plain), torch.from_numpy(conditional), 0.7).numpy()
    scale, rescale = np.full((3, 1, 1, 1), 6, np.float32), np.array([0.7, 0.7, 0], np.float32).reshape(3, 1, 1, 1)
    actual = guide(unconditional, conditional, scale, rescale)
    assert np.abs(actual[:2] - expected[:2]).max() <= 1e-5
    assert np.abs(actual[2] - plain[2]).max() <= 1e-5
