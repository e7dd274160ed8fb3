"""From the encoders' outputs to a job: its generators, its first sample, its conditioning.

Draw order is that of diffusers' ``StableDiffusionInpaintPipeline``: the image's VAE sample (where it is needed), the
first noise, the masked image's VAE sample (drawn and dropped for 4-channel UNets); for try-on the garment's follows.
Image i draws from its own generator,
seeded seed + i.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from denoise.job import NO_TEXT, Conditioning, Floats, Job, JobOptions, Known
from denoise.noise import TorchGenerator
from denoise.schedule import SchedulerConfig
from denoise.solvers import Plan, make_plan


@lru_cache(maxsize=256)
def _plan(schedule: SchedulerConfig, solver: str, steps: int, strength: float, eta: float) -> Plan:
    return make_plan(schedule, solver, steps, strength, eta)


def admit(
    options: JobOptions,
    schedule: SchedulerConfig,
    scaling_factor: float,
    moments: Floats,
    latent_mask: Floats,
    hidden_states: Floats = NO_TEXT,
) -> Job:
    """A new job.

    moments [k, 2C, h, w], one for each of ``options.canvases``; latent_mask [1, h, w]; hidden_states [1 or 2, L, D].
    """
    plan = _plan(schedule, options.solver, options.num_inference_steps, options.strength, options.eta)
    generators = [TorchGenerator(options.seed + i) for i in range(options.num_images)]
    by_name = dict(zip(options.canvases, moments, strict=True))
    garment = by_name.get("garment")
    channels, height, width = moments.shape[1] // 2, *moments.shape[2:]
    shape = (1, channels, height * 2 if garment is not None else height, width)

    def sampled(name: str) -> Floats:
        return np.stack([sample_moments(by_name[name], generator, scaling_factor) for generator in generators])

    image = sampled("image") if "image" in by_name else None
    noise = np.concatenate([generator.normal(shape) for generator in generators])
    if "masked" in by_name:
        masked = sampled("masked")
    else:  # a 4-channel UNet has no use for it, but diffusers draws it all the same
        masked = None
        for generator in generators:
            generator.normal((1, channels, height, width))
    if garment is not None and masked is not None:
        dressed = sampled("garment")
        image = None if image is None else np.concatenate([image, dressed], axis=2)
        extra = _tryon_extra(latent_mask, masked, dressed)
    elif masked is not None:
        extra = _extra(latent_mask, masked)[None]
    else:
        extra = np.zeros((1, options.num_images, 0, height, width), np.float32)
    signal, level = plan.start
    sample = np.float32(level) * noise
    if signal and image is not None:
        sample = np.float32(signal) * image + sample
    known = None if masked is not None or image is None else Known(image, noise, latent_mask[None])
    return Job(
        options=options,
        plan=plan,
        conditioning=Conditioning(hidden_states, extra),
        sample=sample,
        generators=generators,
        known=known,
        crop_height=None if garment is None else height,
    )


def sample_moments(moments: Floats, generator: TorchGenerator, scaling_factor: float) -> Floats:
    """A scaled VAE sample [C, h, w] from moments [2C, h, w] (mean, log-variance clamped to [-30, 20])."""
    mean, log_variance = np.split(moments, 2)
    noise = generator.normal((1, *mean.shape))[0]
    return np.asarray(np.float32(scaling_factor) * (mean + np.exp(0.5 * np.clip(log_variance, -30, 20)) * noise))


def _extra(latent_mask: Floats, masked: Floats) -> Floats:
    """Mask and masked-image latents [n, 1 + C, h, w]."""
    return np.concatenate([np.broadcast_to(latent_mask, (len(masked), *latent_mask.shape)), masked], axis=1)


def _tryon_extra(latent_mask: Floats, masked: Floats, garment: Floats) -> Floats:
    """The garment below the person on the height axis (Chong et al. 2024, CatVTON), mask 0 over it.

    Row 0, unconditional, has zeros in the garment's place; row 1 the garment: [2, n, 1 + C, 2h, w].
    """
    person = _extra(latent_mask, masked)
    below = _extra(np.zeros_like(latent_mask), garment)
    without = np.zeros_like(below)
    return np.stack([np.concatenate([person, part], axis=2) for part in (without, below)])
