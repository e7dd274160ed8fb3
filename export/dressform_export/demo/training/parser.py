"""The garment parser: a small Segformer (Xie et al. 2021) with the 18 ATR labels, for looks and flat garments."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from transformers import SegformerConfig, SegformerForSemanticSegmentation, SegformerImageProcessor

from dressform_export.demo.training.rendered import Rendered
from dressform_export.demo.wardrobe import ATR

LOOKS = 0.8
"""Share of people in a batch; the others are garments laid flat, which are learned soon."""

SHIFT, SCALE, JITTER = 0.1, 0.2, 0.2
"""Augmentation: shift as a share of the side, scale and the colours' contrast and brightness about 1."""

KEPT, KEPT_WEIGHT = ("Hair", "Face", "Left-arm", "Right-arm"), 4.0
"""What a mask must never cover, hands among it, weighs more in the loss: missing it is worse than seeing too much."""

_SIDES = {"Left": "Right", "Right": "Left"}
MIRRORED = [ATR.index(re.sub("Left|Right", lambda side: _SIDES[side[0]], name)) for name in ATR]
"""Label → label in the mirror image: left and right are the wearer's."""


def new_parser() -> SegformerForSemanticSegmentation:
    """An untrained Segformer of 0.5 M parameters; its logits have half the picture's sides, for hands are small."""
    config = SegformerConfig(
        strides=(2, 2, 2, 2),
        depths=(2, 2, 2, 2),
        hidden_sizes=(16, 32, 64, 96),
        num_attention_heads=(1, 2, 4, 6),
        mlp_ratios=(3, 3, 3, 3),
        decoder_hidden_size=64,
        drop_path_rate=0.0,
        classifier_dropout_prob=0.0,
        id2label=dict(enumerate(ATR)),
        label2id={name: number for number, name in enumerate(ATR)},
    )
    return SegformerForSemanticSegmentation(config)


def processor_for(height: int, width: int) -> SegformerImageProcessor:
    """What stands before the parser: the picture stretched to ``height`` × ``width``, ImageNet's mean and deviation."""
    return SegformerImageProcessor(size={"height": height, "width": width})


class ParserLosses:
    """Batches of looks and flat garments, each mirrored, moved, scaled and recoloured a little."""

    def __init__(self, parser: SegformerForSemanticSegmentation, wardrobe: Rendered, batch: int) -> None:
        self.parser, self.wardrobe, self.batch = parser, wardrobe, batch
        processor = processor_for(*wardrobe.looks.shape[1:3])
        self._mean, self._deviation = (
            torch.tensor(values).view(3, 1, 1) for values in (processor.image_mean, processor.image_std)
        )
        self._weights = torch.tensor([KEPT_WEIGHT if name in KEPT else 1.0 for name in ATR])

    def __call__(self, rng: np.random.Generator) -> Mapping[str, Tensor]:
        """Weighted cross entropy at the pictures' own resolution, and the share of pixels that are wrong."""
        images, labels = self._drawn(rng)
        logits = self.parser((images - self._mean) / self._deviation).logits.float()
        logits = F.interpolate(logits, labels.shape[1:], mode="bilinear", align_corners=False)
        right = (logits.argmax(1) == labels).float().mean()
        return {"loss": F.cross_entropy(logits, labels, self._weights), "wrong": 1 - right}

    def _drawn(self, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Images float32 [n, 3, H, W] in [0, 1] and labels int64 [n, H, W]."""
        chosen = list(zip(rng.random(self.batch) >= LOOKS, rng.integers(len(self.wardrobe), size=self.batch)))
        pictures = np.stack([self.wardrobe.pictures[int(flat), row] for flat, row in chosen])
        labels = np.stack([self.wardrobe.labels[int(flat), row] for flat, row in chosen])
        return augmented(pictures, labels, rng)


def augmented(
    pictures: NDArray[np.uint8], labels: NDArray[np.uint8], rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Pictures uint8 [n, H, W, 3] and labels uint8 [n, H, W] as float32 [n, 3, H, W] in [0, 1] and int64 [n, H, W]."""
    images, numbers = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255, torch.from_numpy(labels).long()
    n = len(images)
    mirror = torch.from_numpy(rng.random(n) < 0.5)
    numbers = torch.where(mirror[:, None, None], torch.tensor(MIRRORED)[numbers], numbers)
    placing = np.zeros((n, 2, 3), np.float32)
    scale = 1 + SCALE * rng.uniform(-1, 1, n)
    placing[:, 0, 0], placing[:, 1, 1] = scale * np.where(mirror, -1, 1), scale
    placing[:, :, 2] = 2 * SHIFT * rng.uniform(-1, 1, (n, 2))
    grid = F.affine_grid(torch.from_numpy(placing), [n, 1, *numbers.shape[1:]], align_corners=False)
    images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    moved = F.grid_sample(numbers[:, None].float(), grid, mode="nearest", padding_mode="border", align_corners=False)
    contrast, brightness = torch.from_numpy(rng.uniform(-JITTER, JITTER, (2, n, 3, 1, 1))).float()
    images = ((images - 0.5) * (1 + contrast) + 0.5 + brightness / 2).clamp(0, 1)
    return images, moved[:, 0].long()


def save_parser(parser: SegformerForSemanticSegmentation, height: int, width: int, folder: Path) -> None:
    """Write weights (FP16), config and image processor in ``save_pretrained`` layout."""
    parser.half().save_pretrained(folder)
    processor_for(height, width).save_pretrained(folder)
