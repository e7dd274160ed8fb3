"""Random inpainting pipelines with the real classes, so that everything runs at any size without a model hub.

``tiny`` takes seconds on two cores; ``sd15`` has the very architecture of Stable Diffusion 1.5 inpainting (859.5 M
parameters in the UNet, 83.7 M in the VAE, CLIP ViT-L/14 as text encoder). The weights are random, the pictures
therefore abstract, but finite and neither flat nor saturated: a random network's last convolution gives too small an
output, so it is scaled to what a trained one gives (unit variance for noise, half the range for pixels).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import diffusers
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    SegformerImageProcessor,
)

from dressform_contract import LABELS
from dressform_export.clip_vocabulary import write_clip_tokenizer
from dressform_export.errors import ExportError

Size = Literal["tiny", "sd15"]
Tryon = Literal["none", "concat"]
PredictionType = Literal["epsilon", "v_prediction"]


@dataclass(frozen=True)
class Architecture:
    """Configs of the networks, where they differ by size."""

    unet: Mapping[str, Any]
    vae: Mapping[str, Any]
    text: Mapping[str, Any]
    parser: Mapping[str, Any]
    parser_size: tuple[int, int]
    """Height and width of the parser's pictures."""


UNET_GAIN = 3.0
"""Last convolution: noise of standard deviation 1 (0.3 without)."""

DECODER_GAIN = 1.5
"""Last convolution: pixels of standard deviation 0.4 in [-1, 1] (0.3 without)."""

MEAN_GAIN, LOGVAR_SHIFT = 20.0, -8.0
"""Moments: means of standard deviation 1 / scaling factor = 5.5 (0.25 without), and a posterior far narrower."""


_TEXT: dict[str, Any] = {
    "vocab_size": 49408,
    "max_position_embeddings": 77,
    "bos_token_id": 49406,
    "eos_token_id": 49407,
}

ARCHITECTURES: dict[str, Architecture] = {
    "tiny": Architecture(
        unet={
            "sample_size": 8,
            "block_out_channels": (32, 32, 64),
            "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
            "layers_per_block": 1,
            "cross_attention_dim": 32,
            "attention_head_dim": 4,
            "norm_num_groups": 8,
        },
        vae={"sample_size": 64, "block_out_channels": (8, 16, 16, 16), "layers_per_block": 1, "norm_num_groups": 8},
        text=_TEXT
        | {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "projection_dim": 32,
        },
        parser={"hidden_sizes": [8, 16, 40, 64], "depths": [1, 1, 1, 1], "decoder_hidden_size": 16},
        parser_size=(128, 96),
    ),
    "sd15": Architecture(
        unet={
            "sample_size": 64,
            "block_out_channels": (320, 640, 1280, 1280),
            "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
            "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
            "layers_per_block": 2,
            "cross_attention_dim": 768,
            "attention_head_dim": 8,
        },
        vae={"sample_size": 512, "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2},
        text=_TEXT
        | {
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "projection_dim": 768,
        },
        parser={"hidden_sizes": [64, 128, 320, 512], "depths": [3, 4, 6, 3], "decoder_hidden_size": 768},
        parser_size=(512, 512),
    ),
}
"""Known sizes. ``sd15`` is the config of stable-diffusion-v1-5/stable-diffusion-inpainting, with a Segformer b2."""


def build_random_pipeline(
    size: Size,
    folder: str | Path,
    *,
    tryon: Tryon = "none",
    in_channels: int = 9,
    prediction_type: PredictionType = "epsilon",
    parser: bool = False,
    seed: int = 0,
) -> Path:
    """Write a random pipeline in ``save_pretrained`` layout, with a ``dressform.json``, and return its folder.

    The same arguments give the same bytes. ``in_channels`` is 9 (an inpainting UNet: latents, mask, masked-image
    latents) or 4 (a plain one). ``parser`` adds a garment parser, whose labels are as random as the pictures.

    Raises:
        ExportError: if ``folder`` has something in it already, or an argument is not among those allowed.
    """
    folder = Path(folder)
    if size not in ARCHITECTURES:
        raise ExportError(f"size must be one of {', '.join(ARCHITECTURES)}, not {size!r}")
    if in_channels not in (9, 4):
        raise ExportError(f"in_channels must be 9 (inpainting) or 4 (plain), not {in_channels}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ExportError(f"{folder} exists already and is not an empty folder: name another")
    architecture = ARCHITECTURES[size]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _write_text_encoder(architecture, folder)
        _write_vae(architecture, folder)
        _write_unet(architecture, folder, in_channels)
        if parser:
            _write_parser(architecture, folder)
    write_clip_tokenizer(folder / "tokenizer")
    _scheduler(prediction_type).save_pretrained(folder / "scheduler")
    _write_index(folder)
    steps = {"tryon": tryon, "num_inference_steps": 30, "solver": "ddim", "tryon_eta": 0.0}
    (folder / "dressform.json").write_text(json.dumps(steps, indent=2) + "\n", encoding="utf-8")
    return folder


def _write_text_encoder(architecture: Architecture, folder: Path) -> None:
    CLIPTextModel(CLIPTextConfig(**architecture.text)).save_pretrained(folder / "text_encoder")


def _write_vae(architecture: Architecture, folder: Path) -> None:
    levels = len(architecture.vae["block_out_channels"])
    vae = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        scaling_factor=0.18215,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        **architecture.vae,
    )
    with torch.no_grad():
        vae.decoder.conv_out.weight.mul_(DECODER_GAIN)
        vae.quant_conv.weight[: vae.config.latent_channels].mul_(MEAN_GAIN)
        vae.quant_conv.bias[vae.config.latent_channels :].add_(LOGVAR_SHIFT)
    vae.save_pretrained(folder / "vae")


def _write_unet(architecture: Architecture, folder: Path, in_channels: int) -> None:
    unet = UNet2DConditionModel(in_channels=in_channels, out_channels=4, **architecture.unet)
    with torch.no_grad():
        unet.conv_out.weight.mul_(UNET_GAIN)
    unet.save_pretrained(folder / "unet", max_shard_size="10GB")


def _write_parser(architecture: Architecture, folder: Path) -> None:
    labels = dict(enumerate(LABELS))
    config = SegformerConfig(id2label=labels, label2id={v: k for k, v in labels.items()}, **architecture.parser)
    SegformerForSemanticSegmentation(config).save_pretrained(folder / "parser")
    height, width = architecture.parser_size
    SegformerImageProcessor(size={"height": height, "width": width}).save_pretrained(folder / "parser")


def _scheduler(prediction_type: PredictionType) -> DDIMScheduler:
    """Stable Diffusion's noise schedule, every option spelled out."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction_type,
        thresholding=False,
        timestep_spacing="leading",
        rescale_betas_zero_snr=False,
    )


def _write_index(folder: Path) -> None:
    """model_index.json, as ``StableDiffusionInpaintPipeline.save_pretrained`` writes it."""
    index = {
        "_class_name": "StableDiffusionInpaintPipeline",
        "_diffusers_version": diffusers.__version__,
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
