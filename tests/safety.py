"""Small random safety checkers for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker, cosine_distance
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessor

SIDE = 32
"""Pixels along a side of what the small CLIP sees."""


def random_checker(seed: int = 0) -> StableDiffusionSafetyChecker:
    """A checker of a tiny CLIP that flags nothing: all thresholds are 1."""
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": SIDE,
        "patch_size": 8,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        checker = StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, projection_dim=16)).eval()
        checker.vision_model.vision_model.embeddings.patch_embedding.weight.data.mul_(20)  # so that pictures matter
        checker.concept_embeds.data.normal_()
        checker.special_care_embeds.data.normal_()
    return checker


def processor() -> CLIPImageProcessor:
    return CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})


@torch.inference_mode()
def cosines(checker: Any, pictures: list[Image.Image]) -> tuple[torch.Tensor, torch.Tensor]:
    """Of each picture with the concepts [k, 17], and with those of special care [k, 3]."""
    pixels = processor()(pictures, return_tensors="pt").pixel_values
    embeddings = checker.visual_projection(checker.vision_model(pixels)[1])
    return (
        cosine_distance(embeddings, checker.concept_embeds),
        cosine_distance(embeddings, checker.special_care_embeds),
    )


def set_threshold(checker: Any, pictures: list[Image.Image]) -> None:
    """Make one concept flag some of ``pictures`` and not the others: those beyond the widest gap of all cosines."""
    concepts, _ = cosines(checker, pictures)
    ordered = concepts.sort(0).values
    gaps = ordered[1:] - ordered[:-1]
    row, concept = divmod(int(gaps.argmax()), gaps.shape[1])
    checker.concept_embeds_weights.data[concept] = (ordered[row, concept] + ordered[row + 1, concept]) / 2


def add_checker(source: Path, checker: Any) -> None:
    """Make ``checker`` part of the pipeline in ``source``."""
    checker.save_pretrained(source / "safety_checker")
    processor().save_pretrained(source / "feature_extractor")
    index = json.loads((source / "model_index.json").read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    index["feature_extractor"] = ["transformers", "CLIPImageProcessor"]
    (source / "model_index.json").unlink()  # the folder may be made of hard links
    (source / "model_index.json").write_text(json.dumps(index))
