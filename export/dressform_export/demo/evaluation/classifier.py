"""A small network that tells a garment's pattern from the garment's pixels alone; trained on the wardrobe's looks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from dressform_export.demo.wardrobe import PATTERNS

WEIGHTS = Path(__file__).with_name("classifier.safetensors")

SIDE = 64
"""Pixels along a side of what the network sees: the region's box, stretched."""


class PatternClassifier(nn.Module):
    """Five convolutions and a mean: 0.22 M parameters."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after, stride in ((4, 24, 1), (24, 48, 2), (48, 96, 2), (96, 96, 2), (96, 96, 1)):
            layers += [nn.Conv2d(before, after, 3, stride, 1), nn.GroupNorm(8, after), nn.SiLU()]
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(96, len(PATTERNS))

    def forward(self, crops: Tensor) -> Tensor:
        """Logits [n, 6] in the order of ``PATTERNS`` for crops [n, 4, 64, 64] as `garment_crops` makes them."""
        logits: Tensor = self.head(self.features(crops).mean((2, 3)))
        return logits

    @torch.inference_mode()
    def predict(self, images: NDArray[np.uint8], regions: NDArray[np.bool_]) -> list[str]:
        """The pattern of the garment in each image uint8 [n, H, W, 3]; regions bool [n, H, W] are where it is.

        Raises:
            ValueError: if a region is empty.
        """
        return [PATTERNS[number] for number in self(garment_crops(images, regions)).argmax(1).tolist()]


def garment_crops(images: NDArray[np.uint8], regions: NDArray[np.bool_]) -> Tensor:
    """The boxes of the regions at 64 × 64, float32 [n, 4, 64, 64]: colours in [-1, 1], 0 outside; the region.

    Raises:
        ValueError: if a region is empty.
    """
    crops = []
    for image, region in zip(images, regions, strict=True):
        rows, columns = np.flatnonzero(region.any(1)), np.flatnonzero(region.any(0))
        if not len(rows):
            raise ValueError("a garment's region is empty")
        box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        inside = region[box][..., None]
        planes = np.concatenate([(image[box] / np.float32(127.5) - 1) * inside, inside], 2, dtype=np.float32)
        crop = torch.from_numpy(planes).permute(2, 0, 1)[None]
        crops.append(F.interpolate(crop, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False))
    return torch.cat(crops)


def load_classifier(path: Path = WEIGHTS) -> PatternClassifier:
    """The trained classifier, on the CPU in FP32.

    Raises:
        OSError: if its weights are not there.
    """
    classifier = PatternClassifier()
    classifier.load_state_dict({name: values.float() for name, values in load_file(path).items()})
    return classifier.eval()


def save_classifier(classifier: PatternClassifier, path: Path) -> None:
    """Write the weights, FP16."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: values.half().contiguous() for name, values in classifier.state_dict().items()}, path)
