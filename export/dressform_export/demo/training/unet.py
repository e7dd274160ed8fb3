"""The denoiser: one UNet for prompt inpainting and for try-on, trained on both in every step.

A row has the channels latents, mask, masked-image latents, as diffusers' inpainting has them. For try-on the garment
lies below the person on the height axis (Chong et al. 2024, CatVTON): mask 0 over it, its own latents as masked image.
Rows as they are served, unconditional ones included: ``model_repository/denoise/admission.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from numpy.typing import NDArray
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from dressform_export.demo.training.latents import Halves, Latents

CAPTION_DROPPED = 0.12
"""Inpainting rows with an empty prompt, for guidance (Ho & Salimans 2022)."""

TRYON_PROMPTED, GARMENT_DROPPED = 0.2, 0.1
"""Try-on rows with a prompt besides the garment, and with neither."""

KEPT_WEIGHT, GARMENT_WEIGHT = 0.1, 0.02
"""Weights of the loss outside the hole and over the garment; 1 in the hole. Only the hole is shown in the end."""


def new_unet(width: int) -> UNet2DConditionModel:
    """An untrained UNet of 7.7 M parameters for prompts of ``width`` channels, with attention down to half the size."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=9,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(96, 128, 144),
        layers_per_block=1,
        attention_head_dim=(3, 4, 4),
        cross_attention_dim=width,
        norm_num_groups=16,
    )


def new_scheduler() -> DDIMScheduler:
    """Stable Diffusion's schedule with more noise at its end (signal 0.015), and v-prediction (Salimans & Ho 2022)."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.02,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,  # without effect when trailing; diffusers warns of another
        thresholding=False,
        rescale_betas_zero_snr=False,
    )


@dataclass(frozen=True)
class Rows:
    """One batch for the UNet: clean latents [n, C, h, w], what is appended to them [n, 1 + C, h, w], the loss's weights
    [n, 1, h, w], token ids int64 [n, L]."""

    clean: Tensor
    extra: Tensor
    weight: Tensor
    tokens: Tensor


class DenoiserLosses:
    """Batches of ``batch`` inpainting rows and as many try-on rows. The text encoder learns where its weights may."""

    def __init__(
        self,
        unet: UNet2DConditionModel,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        scheduler_config: Mapping[str, object],
        latents: Latents,
        batch: int,
    ) -> None:
        self.unet, self.text_encoder, self.latents, self.batch = unet, text_encoder, latents, batch
        self.schedule = DDPMScheduler.from_config(scheduler_config)
        self._prompts = _Prompts(tokenizer, latents.captions)
        # With fused attention the backward pass takes a quarter longer on a CPU.
        if unet.device.type == "cpu":
            unet.set_attn_processor(AttnProcessor())

    def __call__(self, rng: np.random.Generator) -> Mapping[str, Tensor]:
        """The losses of one batch of either task."""
        inpaint, tryon = self._loss(self._inpaint(rng)), self._loss(self._tryon(rng))
        return {"loss": inpaint + tryon, "inpaint": inpaint, "tryon": tryon}

    def _inpaint(self, rng: np.random.Generator) -> Rows:
        chosen = rng.integers(len(self.latents), size=self.batch)
        clean, extra, weight = self._person(chosen)
        return Rows(clean, extra, weight, self._prompts.drawn(rng, chosen, rng.random(self.batch) >= CAPTION_DROPPED))

    def _tryon(self, rng: np.random.Generator) -> Rows:
        chosen = rng.integers(len(self.latents), size=self.batch)
        clean, extra, weight = self._person(chosen)
        garment = self._sampled(self.latents.garments[self.latents.garment_of[chosen]])
        shown = rng.random(self.batch) >= GARMENT_DROPPED
        below = torch.cat([torch.zeros_like(garment[:, :1]), garment], 1) * _column(shown).to(garment)
        return Rows(
            torch.cat([clean, garment], 2),
            torch.cat([extra, below], 2),
            torch.cat([weight, torch.full_like(weight, GARMENT_WEIGHT)], 2),
            self._prompts.drawn(rng, chosen, shown & (rng.random(self.batch) < TRYON_PROMPTED)),
        )

    def _person(self, chosen: NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor]:
        """Clean latents, mask with masked-image latents, and weights of the examples ``chosen``."""
        latents, device = self.latents, self.unet.device
        mask, touched = torch.from_numpy(latents.holes[chosen]).to(device).float().chunk(2, 1)
        extra = torch.cat([mask, self._sampled(latents.masked[chosen])], 1)
        return self._sampled(latents.targets[chosen]), extra, KEPT_WEIGHT + (1 - KEPT_WEIGHT) * touched

    def _sampled(self, kept: Halves) -> Tensor:
        """A draw from the posteriors [n, 2C, h, w]."""
        mean, deviation = torch.from_numpy(kept).to(self.unet.device).float().chunk(2, 1)
        return mean + deviation * torch.randn_like(mean)

    def _loss(self, rows: Rows) -> Tensor:
        """The weighted mean of the squared error of what the UNet predicts, at a random timestep for each row."""
        noise = torch.randn_like(rows.clean)
        steps = self.schedule.config.num_train_timesteps
        timestep = torch.randint(0, steps, (len(noise),), device=noise.device)
        noisy = self.schedule.add_noise(rows.clean, noise, timestep)
        is_v = self.schedule.config.prediction_type == "v_prediction"
        target = self.schedule.get_velocity(rows.clean, noise, timestep) if is_v else noise
        states = self.text_encoder(rows.tokens.to(noise.device)).last_hidden_state
        predicted = self.unet(torch.cat([noisy, rows.extra], 1), timestep, states).sample.float()
        error = ((predicted - target) ** 2).mean(1, keepdim=True)
        return (rows.weight * error).sum() / rows.weight.sum()


class _Prompts:
    """The captions' token ids, and the empty prompt's."""

    def __init__(self, tokenizer: CLIPTokenizer, captions: Sequence[Sequence[str]]) -> None:
        flat = ["", *(text for texts in captions for text in texts)]
        options = {"padding": "max_length", "truncation": True, "max_length": tokenizer.model_max_length}
        self._ids = torch.tensor(tokenizer(flat, **options).input_ids)
        self._count = np.array([len(texts) for texts in captions])
        self._first = 1 + np.concatenate([[0], np.cumsum(self._count)[:-1]])

    def drawn(self, rng: np.random.Generator, chosen: NDArray[np.int64], shown: NDArray[np.bool_]) -> Tensor:
        """One caption's ids for each of the examples ``chosen``, the empty prompt's where not ``shown``, [n, L]."""
        numbers = self._first[chosen] + rng.integers(self._count[chosen])
        return self._ids[torch.from_numpy(np.where(shown, numbers, 0))]


def _column(values: NDArray[np.bool_]) -> Tensor:
    return torch.from_numpy(values).view(-1, 1, 1, 1)
