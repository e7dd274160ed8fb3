"""The garment parser: any Segformer with the 18 ATR labels, found, inspected from its JSON files, and made a graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import SegformerForSemanticSegmentation, SegformerImageProcessor
from typing_extensions import override

from dressform_contract import LABELS
from dressform_export.errors import ExportError
from dressform_export.graphs import PROBES, Axes, Graph, Leaf, Probe
from dressform_export.manifest import ParserRecord
from dressform_export.source import MODEL_FILES, count_elements, load_model, located, read_json, sha256, weight_files

FOLDER = "parser"
"""Where a pipeline's folder may have one."""

NONE = "none"
"""In place of a parser's folder or hub id: none, though the pipeline has one."""

UNIT = 8
"""Pixels for one of a probe's latents."""


def open_parser(given: str | None, pipeline: Path) -> ParserSource | None:
    """The parser that ``given`` names (a folder, a hub id or ``none``); by default the ``parser`` folder of a pipeline.

    Raises:
        ExportError: if it is not there, or not a parser that can be exported.
    """
    if given == NONE or (given is None and not (pipeline / FOLDER).is_dir()):
        return None
    if given is None:
        return ParserSource(str(pipeline / FOLDER), None, pipeline / FOLDER)
    return ParserSource(given, *located(given, None, ("preprocessor_config.json", *MODEL_FILES)))


@dataclass(frozen=True)
class ParserSource:
    """An inspected Segformer. ``revision`` is the commit of a hub snapshot."""

    id: str
    revision: str | None
    folder: Path

    def __post_init__(self) -> None:
        if self.config.get("model_type") != "segformer":
            raise ExportError(f"the parser {self.id} is a {self.config.get('model_type')}: a segformer is needed")
        _ = self.order, self.processor, self.weights

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """Its ``config.json``."""
        return self._json("config.json")

    @cached_property
    def order(self) -> tuple[int, ...]:
        """Which of its outputs is each of ``LABELS``."""
        found = {_plain(str(name)): int(number) for number, name in dict(self.config.get("id2label") or {}).items()}
        if set(found) != {_plain(label) for label in LABELS}:
            lacking = ", ".join(label for label in LABELS if _plain(label) not in found)
            beyond = ", ".join(sorted(set(found) - {_plain(label) for label in LABELS}))
            raise ExportError(
                f"the parser {self.id} lacks the labels {lacking or '(none)'} and has others, {beyond or '(none)'}: "
                f"they must be those of ATR, {', '.join(LABELS)}"
            )
        return tuple(found[_plain(label)] for label in LABELS)

    @cached_property
    def processor(self) -> SegformerImageProcessor:
        """How pictures are brought to it."""
        processor = SegformerImageProcessor.from_dict(dict(self._json("preprocessor_config.json")))
        sizes = [processor.size.get(side) for side in ("height", "width")]
        if not processor.do_resize or not all(isinstance(size, int) and size > 0 for size in sizes):
            raise ExportError(
                f"the parser {self.id} must resize pictures to a height and a width, but its "
                f"preprocessor_config.json says do_resize {processor.do_resize}, size {dict(processor.size)}"
            )
        return processor

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of its pictures."""
        return self.processor.size["height"], self.processor.size["width"]

    @cached_property
    def weights(self) -> tuple[Path, ...]:
        """Its safetensors files."""
        return weight_files(self.folder)

    @property
    def parameters(self) -> int:
        """Number of weights, read from the headers of its files."""
        return sum(count_elements(path) for path in self.weights)

    @property
    def record(self) -> ParserRecord:
        """For the manifest."""
        return ParserRecord(
            id=self.id,
            revision=self.revision,
            sha256={path.name: sha256(path) for path in self.weights},
            height=self.size[0],
            width=self.size[1],
            resample=int(self.processor.resample),
        )

    def load(self) -> nn.Module:
        """The Segformer with its weights, FP32, in eval mode.

        Raises:
            ExportError: if its weights cannot be read.
        """
        return load_model(SegformerForSemanticSegmentation, self.folder)

    def _json(self, name: str) -> Mapping[str, Any]:
        if not (self.folder / name).is_file():
            raise ExportError(f"the parser {self.id} has no {name}")
        return read_json(self.folder / name)


def _plain(label: str) -> str:
    return label.lower().replace("_", "-").replace(" ", "-")


class _ParserGraph(Graph):
    def __init__(self, segformer: nn.Module, parser: ParserSource) -> None:
        super().__init__()
        self.segformer, self.order = segformer, list(parser.order)
        processor = parser.processor
        self.scale = float(processor.rescale_factor) if processor.do_rescale else 1.0
        normal = (processor.image_mean, processor.image_std) if processor.do_normalize else ([0.0] * 3, [1.0] * 3)
        self.mean, self.std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in normal)

    def forward(self, canvases: Tensor) -> Tensor:
        b, k, height, width, _ = canvases.shape
        pixels = canvases.reshape(b * k, height, width, 3).permute(0, 3, 1, 2).to(torch.float32) * self.scale
        logits = self.segformer((pixels - self.mean) / self.std, return_dict=False)[0][:, self.order]
        full = nn.functional.interpolate(logits, size=(height, width), mode="bilinear", align_corners=False)
        return full.argmax(1).to(torch.uint8).reshape(b, k, height, width)


class Parser(Leaf):
    """canvases UINT8 [b, k, H, W, 3] → labels UINT8 [b, k, H, W], numbered as ``LABELS`` of the contract.

    The logits, smaller than the picture, are interpolated before the argmax, as in transformers'
    ``post_process_semantic_segmentation``.
    """

    name = "parser"
    component = "parser"
    varies = ("rows", "count", "height", "width")
    labels = True
    inputs: ClassVar[Axes] = {"canvases": {0: "batch", 1: "count", 2: "height", 3: "width"}}
    outputs: ClassVar[Axes] = {"labels": {0: "batch", 1: "count", 2: "height", 3: "width"}}

    def __init__(self, parser: ParserSource) -> None:
        super().__init__()
        self.parser = parser

    @property
    @override
    def probes(self) -> tuple[Probe, ...]:
        height, width = self.parser.size
        return (*PROBES, Probe(1, 2, -(-height // UNIT), -(-width // UNIT)))  # the last: as it is used

    @override
    def module(self, model: nn.Module) -> nn.Module:
        return _ParserGraph(model, self.parser)

    @override
    def example(self, probe: Probe, generator: torch.Generator) -> dict[str, Tensor]:
        size = (probe.rows, probe.count, probe.height * UNIT, probe.width * UNIT, 3)
        return {"canvases": torch.randint(0, 256, size, generator=generator, dtype=torch.uint8)}
