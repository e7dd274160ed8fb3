"""Training of the evaluation's pattern classifier on true pictures."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dressform_export.demo.evaluation.classifier import PatternClassifier, garment_crops
from dressform_export.demo.training.rendered import Rendered
from dressform_export.demo.wardrobe import PATTERNS

SHIFT = 2
"""Pixels by which a region is off: a garment that was painted does not end where the true one does."""

JITTER = 0.15
"""Of each colour's contrast and brightness."""


class ClassifierLosses:
    """Batches of garments as worn, mirrored and recoloured a little."""

    def __init__(self, classifier: PatternClassifier, wardrobe: Rendered, batch: int) -> None:
        self.classifier, self.wardrobe, self.batch = classifier, wardrobe, batch
        self._patterns = [PATTERNS.index(wardrobe.garment(row).pattern) for row in range(len(wardrobe))]

    def __call__(self, rng: np.random.Generator) -> Mapping[str, Tensor]:
        """Cross entropy, and the share that is wrong."""
        chosen = rng.integers(len(self.wardrobe), size=self.batch)
        numbers = self.wardrobe.labels[1, chosen].max((1, 2), keepdims=True)
        regions = np.roll(self.wardrobe.labels[0, chosen] == numbers, rng.integers(-SHIFT, SHIFT + 1, 2), (1, 2))
        crops = garment_crops(self.wardrobe.looks[chosen], regions)
        mirror = torch.from_numpy(rng.random(self.batch) < 0.5).view(-1, 1, 1, 1)
        crops = torch.where(mirror, crops.flip(3), crops)
        contrast, brightness = torch.from_numpy(rng.uniform(-JITTER, JITTER, (2, self.batch, 3, 1, 1))).float()
        colours = (crops[:, :3] * (1 + contrast) + brightness * crops[:, 3:]).clamp(-1, 1)
        logits = self.classifier(torch.cat([colours, crops[:, 3:]], 1))
        truth = torch.tensor([self._patterns[row] for row in chosen])
        wrong = (logits.argmax(1) != truth).float().mean()
        return {"loss": F.cross_entropy(logits, truth), "wrong": wrong}
