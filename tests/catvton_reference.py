"""CatVTON in torch, told from its paper and public pipeline, apart from all of Dressform: exports are held against it.

Its one departure from the published loop: the VAE's samples come from the request's generator, after the first noise
(CatVTON takes them from torch's global generator, before it), so that a seed tells the picture.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file, save_file

MODULES_PER_ATTENTION = 8
"""In CatVTON's numbering: the attention, its five projections and lists, its dropout, its processor."""


def write_checkpoint(source: Path, folder: Path, seed: int = 1, dtype: torch.dtype = torch.float32) -> Path:
    """A random checkpoint for the UNet of the pipeline ``source``, laid out and numbered as the published ones are."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        other = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(source / "unet"))
    tensors = {}
    for number, name in enumerate(_attentions(other)):
        for parameter, value in other.get_submodule(name).state_dict().items():
            gain = 3.0 if parameter.startswith(("to_q", "to_k")) else 1.0  # so that where one looks matters
            tensors[f"{number * MODULES_PER_ATTENTION}.{parameter}"] = (gain * value).to(dtype)
    (folder / "attention").mkdir(parents=True)
    save_file(tensors, folder / "attention" / "model.safetensors")
    return folder


def _attentions(unet: Any) -> list[str]:
    """The self-attentions in the order in which ``named_modules`` meets them."""
    names = {name.removesuffix(".processor") for name in unet.attn_processors if ".attn1." in name}
    parts = ("down_blocks", "up_blocks", "mid_block")
    return sorted(names, key=lambda name: (parts.index(name.split(".")[0]), name))


class _Skip:
    """An attention processor that does nothing: the block adds its own normalised input."""

    def __call__(self, attn: Any, hidden_states: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return hidden_states


class CatVTON:
    """The pipeline ``source`` with the self-attention of ``checkpoint``."""

    def __init__(self, source: Path, checkpoint: Path) -> None:
        self.unet = UNet2DConditionModel.from_pretrained(source / "unet").eval()
        self.vae = AutoencoderKL.from_pretrained(source / "vae").eval()
        self.scheduler = DDIMScheduler.from_pretrained(source / "scheduler")
        processors = self.unet.attn_processors
        self.unet.set_attn_processor(
            {name: _Skip() if ".attn2." in name else processor for name, processor in processors.items()}
        )
        weights = load_file(checkpoint / "attention" / "model.safetensors")
        for number, name in enumerate(_attentions(self.unet)):
            prefix = f"{number * MODULES_PER_ATTENTION}."
            own = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
            self.unet.get_submodule(name).load_state_dict({key: value.float() for key, value in own.items()})

    @torch.inference_mode()
    def __call__(
        self,
        person: Image.Image,
        garment: Image.Image,
        mask: Image.Image,
        *,
        height: int,
        width: int,
        seed: int,
        num_inference_steps: int,
        guidance_scale: float = 2.5,
        eta: float = 1.0,
    ) -> Image.Image:
        """``person`` and ``mask`` must have the shape of the picture, so that nothing is cropped."""
        hole = np.asarray(mask.convert("L").resize((width, height), Image.Resampling.LANCZOS)) / 255 >= 0.5
        hole_tensor = torch.from_numpy(hole)[None, None].float()
        image = _tensor(person.convert("RGB").resize((width, height), Image.Resampling.LANCZOS))
        cloth = _tensor(_padded(garment.convert("RGB"), height, width))
        generator = torch.Generator("cpu").manual_seed(seed)
        h, w = height // 8, width // 8
        latents = torch.randn(1, 4, 2 * h, w, generator=generator)
        masked, dressed = (self._encoded(x, generator) for x in (image * (hole_tensor < 0.5), cloth))
        small = torch.nn.functional.interpolate(hole_tensor, (h, w), mode="nearest")
        masks = torch.cat([small, torch.zeros_like(small)], dim=2)
        conditioned = torch.cat([masked, dressed], dim=2)
        bare = torch.cat([masked, torch.zeros_like(dressed)], dim=2)
        self.scheduler.set_timesteps(num_inference_steps)
        latents = latents * self.scheduler.init_noise_sigma
        for timestep in self.scheduler.timesteps:
            noise = self._predicted(latents, masks, conditioned, timestep)
            if guidance_scale > 1:
                without = self._predicted(latents, masks, bare, timestep)
                noise = without + guidance_scale * (noise - without)
            latents = self.scheduler.step(noise, timestep, latents, eta=eta, generator=generator).prev_sample
        pixels = self.vae.decode(latents[:, :, :h] / self.vae.config.scaling_factor).sample[0]
        values = (pixels / 2 + 0.5).clamp(0, 1).permute(1, 2, 0).numpy()
        return Image.fromarray((values * 255).round().astype(np.uint8))

    def _encoded(self, pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        sample: torch.Tensor = self.vae.encode(pixels).latent_dist.sample(generator)
        return sample * self.vae.config.scaling_factor

    def _predicted(
        self, latents: torch.Tensor, masks: torch.Tensor, pictures: torch.Tensor, timestep: torch.Tensor
    ) -> torch.Tensor:
        rows = torch.cat([latents, masks, pictures], dim=1)
        noise: torch.Tensor = self.unet(rows, timestep, encoder_hidden_states=None).sample
        return noise


def _tensor(picture: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(picture, np.float32)).permute(2, 0, 1)[None] / 127.5 - 1


def _padded(picture: Image.Image, height: int, width: int) -> Image.Image:
    """The whole picture in the middle of a white canvas."""
    w, h = picture.size
    size = (w * height // h, height) if w / h < width / height else (width, h * width // w)
    canvas = Image.new("RGB", (width, height), (255, 255, 255))
    canvas.paste(picture.resize(size, Image.Resampling.LANCZOS), ((width - size[0]) // 2, (height - size[1]) // 2))
    return canvas
