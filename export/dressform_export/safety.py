"""The safety checker of a pipeline as a leaf: decoded pictures in, scores out.

The network is diffusers' ``StableDiffusionSafetyChecker`` (a CLIP vision model, and the cosines between its embedding
and those of the concepts). CLIP's preprocessing is part of the graph, so that no stage has to do it: Pillow's bicubic
resizing, which filters when it shrinks, is two matrix products, rounded to 8 bits after each as Pillow does.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import CLIPImageProcessor
from typing_extensions import override

from dressform_export.errors import ExportError
from dressform_export.graphs import PROBES, Axes, Graph, Leaf, Probe
from dressform_export.source import SAFETY_CHECKER, Source, read_json

BICUBIC = 3
"""Pillow's number of the filter."""

SPECIAL_CARE = 0.01
"""Added to the scores of a picture that resembles a concept of special care."""

UNIT = 8
"""Pixels for one of a probe's latents."""

_CONFIG = "preprocessor_config.json"


def open_safety_checker(pipeline: Source) -> SafetyChecker | None:
    """The checker of ``pipeline``; None where it has none, or is to be exported without.

    Raises:
        ExportError: if its feature extractor is missing, or prepares pictures otherwise than CLIP's does.
    """
    if SAFETY_CHECKER not in pipeline.components:
        return None
    path = pipeline.folder / "feature_extractor" / _CONFIG
    if not path.is_file():
        raise ExportError(f"the pipeline has a safety_checker, but {path} is missing, which says what it is shown")
    processor = CLIPImageProcessor.from_dict(dict(read_json(path)))
    vision = pipeline.configs[SAFETY_CHECKER].get("vision_config") or {}
    side = int(vision.get("image_size", 224))
    wanted = {
        "do_resize": True,
        "size": {"shortest_edge": side},
        "resample": BICUBIC,
        "do_center_crop": True,
        "crop_size": {"height": side, "width": side},
        "do_rescale": True,
        "do_normalize": True,
    }
    for name, value in wanted.items():
        if getattr(processor, name) != value:
            raise ExportError(f"{path} must say {name} {value} for this safety_checker, not {getattr(processor, name)}")
    return SafetyChecker(processor, side)


class SafetyChecker(Leaf):
    """images UINT8 [b, n, H, W, 3] → scores FP32 [b, n].

    A score is the largest of the concepts' cosines less their thresholds; above 0 (in three decimals) the picture is to
    be blanked.
    """

    name = SAFETY_CHECKER
    component = SAFETY_CHECKER
    varies = ("rows", "count", "height", "width")
    inputs: ClassVar[Axes] = {"images": {0: "batch", 1: "count", 2: "height", 3: "width"}}
    outputs: ClassVar[Axes] = {"scores": {0: "batch", 1: "count"}}

    def __init__(self, processor: CLIPImageProcessor, side: int) -> None:
        super().__init__()
        self.processor, self.side = processor, side

    @property
    @override
    def probes(self) -> tuple[Probe, ...]:
        return (*PROBES, Probe(1, 1, 33, 45), Probe(1, 1, 64, 48))  # larger than what CLIP sees, too

    @override
    def usual(self, height: int, width: int) -> Probe:
        return Probe(1, 1, height // UNIT, width // UNIT)

    @override
    def module(self, model: nn.Module) -> nn.Module:
        return _SafetyCheckerGraph(model, self.processor, self.side)

    @override
    def example(self, probe: Probe, generator: torch.Generator) -> dict[str, Tensor]:
        size = (probe.rows, probe.count, probe.height * UNIT, probe.width * UNIT, 3)
        return {"images": torch.randint(0, 256, size, generator=generator, dtype=torch.uint8)}


class _SafetyCheckerGraph(Graph):
    def __init__(self, checker: Any, processor: CLIPImageProcessor, side: int) -> None:
        super().__init__()
        self.checker, self.side, self.scale = checker, side, float(processor.rescale_factor)
        self.mean, self.std = (
            torch.tensor(values).reshape(1, 3, 1, 1) for values in (processor.image_mean, processor.image_std)
        )

    def forward(self, images: Tensor) -> Tensor:
        b, n, height, width, _ = images.shape
        pixels = images.reshape(b * n, height, width, 3).permute(0, 3, 1, 2).to(torch.float32)
        shortest = torch.minimum(torch.as_tensor(height), torch.as_tensor(width))
        across, down = (_resizing(size, shortest, self.side) for size in (width, height))
        resized = _to_8_bits(down @ _to_8_bits(pixels @ across.T))
        scores = self._scores((resized * self.scale - self.mean) / self.std)
        return scores.reshape(b, n)

    def _scores(self, clip_input: Tensor) -> Tensor:
        """[k, 3, side, side] → [k]: what ``StableDiffusionSafetyChecker.forward`` decides by."""
        checker = self.checker
        embedding = checker.visual_projection(checker.vision_model(clip_input)[1])
        care = _cosines(embedding, checker.special_care_embeds) - checker.special_care_embeds_weights
        concepts = _cosines(embedding, checker.concept_embeds) - checker.concept_embeds_weights
        careful = (care.amax(1) > 0.0005).to(torch.float32)  # forward rounds to three decimals before it compares
        return concepts.amax(1) + SPECIAL_CARE * careful


def _cosines(a: Tensor, b: Tensor) -> Tensor:
    return nn.functional.normalize(a) @ nn.functional.normalize(b).T


def _to_8_bits(pixels: Tensor) -> Tensor:
    return (pixels + 0.5).floor().clamp(0, 255)


def _resizing(size: int, shortest: Tensor, side: int) -> Tensor:
    """Weights [side, size] of Pillow's bicubic resizing along an axis of ``size``, of which the middle is kept.

    The picture's ``shortest`` axis becomes ``side`` long (Keys 1981, a = -0.5; stretched by the scale when shrinking).
    """
    length = size * side // shortest
    scale = size / length.to(torch.float64)
    first = (length - side) // 2
    centres = (torch.arange(side) + first + 0.5).to(torch.float64) * scale
    distance = (torch.arange(size) + 0.5).to(torch.float64)[None] - centres[:, None]
    x = (distance / scale.clamp(min=1.0)).abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    weights = torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
    return (weights / weights.sum(1, keepdim=True)).to(torch.float32)
