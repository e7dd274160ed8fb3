"""Is the picture the pipeline's? A whole trajectory by each engine, held against torch in FP32.

The loop around the graphs is the stages' own for all of them; that it is diffusers' is tested apart. A graph that
passes at every probe may still drift over a trajectory: what counts is the picture at its end.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn

from dressform_export.engines import ENGINES, PRECISIONS, Precision
from dressform_export.errors import ExportError
from dressform_export.fidelity import psnr
from dressform_export.graphs import Leaf
from dressform_export.manifest import EngineRecord, Manifest, PictureRecord, ProofRecord
from dressform_export.progress import Progress
from dressform_export.reference import References
from dressform_export.runner import Runner, runner
from dressform_export.trajectory import Leaves, Pixels, Request, paint
from dressform_export.verification import Reference

GATES: Mapping[Precision, float] = {"fp32": 50.0, "fp16": 35.0, "bf16": 25.0, "int8": 18.0}
"""PSNR of the final picture against torch's in FP32, in dB: the least that is allowed, by the engine's precision."""

STEPS = 20
"""Steps of the trajectory."""


class TorchLeaves:
    """The pipeline's own components, as `Leaves`; one of them in memory at a time."""

    def __init__(self, leaves: Sequence[Leaf], load: Callable[[str], nn.Module]) -> None:
        self._leaves = {leaf.name: leaf for leaf in leaves}
        self._load = load
        self._component = ""
        self._model: nn.Module | None = None

    def __call__(self, name: str, inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """One call of the component's part."""
        leaf = self._leaves[name]
        if self._model is None or leaf.component != self._component:
            self._model = None
            gc.collect()
            self._model, self._component = self._load(leaf.component), leaf.component
        with torch.inference_mode():
            out: torch.Tensor = leaf.module(self._model)(**{key: torch.from_numpy(v) for key, v in inputs.items()})
        return out.numpy()


class GraphLeaves:
    """The graphs of one engine, as `Leaves`; one of them in memory at a time, unless ``keep``; on a GPU if asked."""

    def __init__(
        self, repository: Path, name: str, engine: EngineRecord, *, keep: bool = False, gpu: bool = False
    ) -> None:
        self._files = {
            leaf: (repository / graph.file, PRECISIONS[ENGINES[name].graph_of(leaf)])
            for leaf, graph in engine.graphs.items()
        }
        self._keep, self._gpu = keep, gpu
        self._open: dict[str, Runner] = {}

    def __call__(self, name: str, inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """One call of the graph."""
        if name not in self._open:
            if not self._keep:
                self._open.clear()
            self._open[name] = runner(*self._files[name], gpu=self._gpu)
        return self._open[name](inputs)


def referenced(
    answers: Mapping[str, tuple[Reference, ...]],
    request: Request,
    repository: Path,
    manifest: Manifest,
    leaves: Leaves,
    progress: Progress,
) -> tuple[Manifest, References]:
    """The ``manifest`` with its proof's request, and the references: ``answers``, and the picture by ``leaves``."""
    began = time.monotonic()
    picture = _painted("torch in fp32", request, repository, manifest, leaves, progress)
    height, width, _ = picture.shape
    steps = int(request.options["num_inference_steps"])
    record = ProofRecord(request.task, height, width, steps, round(time.monotonic() - began, 3))
    return replace(manifest, proof=record), References(answers, request, picture)


def proven(
    manifest: Manifest, repository: Path, references: References, progress: Progress
) -> tuple[Manifest, dict[str, Pixels]]:
    """The ``manifest`` with a picture's record for each engine, and those pictures by engine.

    Engines that run the same graphs here share the picture.
    """
    by_files: dict[frozenset[str], tuple[Pixels, float]] = {}
    engines, pictures = {}, {}
    for name, engine in manifest.engines.items():
        files = frozenset(graph.file for graph in engine.graphs.values())
        if files not in by_files:
            began = time.monotonic()
            leaves = GraphLeaves(repository, name, engine)
            picture = _painted(name, references.request, repository, manifest, leaves, progress)
            by_files[files] = picture, round(time.monotonic() - began, 3)
        picture, seconds = by_files[files]
        record = PictureRecord(psnr(references.picture, picture), GATES[ENGINES[name].precision], seconds)
        progress.note(f"           {name}: {record.psnr:.1f} dB from torch's picture (at least {record.gate:g})")
        engines[name], pictures[name] = replace(engine, picture=record), picture
    return replace(manifest, engines=engines), pictures


def gated(manifest: Manifest, *, accept: bool) -> Manifest:
    """The ``manifest``, if every picture reaches its gate; with the failures written down, where they are accepted.

    Raises:
        ExportError: if one does not and ``accept`` is false.
    """
    failures = tuple(
        f"engine {name!r} paints a picture {engine.picture.psnr:.1f} dB from torch's in fp32, and {engine.precision} "
        f"must reach {engine.picture.gate:g} dB"
        for name, engine in manifest.engines.items()
        if engine.picture is not None and not engine.picture.psnr >= engine.picture.gate
    )
    if failures and not accept:
        raise ExportError(f"{'; '.join(failures)} (--accept-failed-gates exports it all the same, and says so)")
    return replace(manifest, accepted=failures)


def _painted(
    title: str, request: Request, repository: Path, manifest: Manifest, leaves: Leaves, progress: Progress
) -> Pixels:
    steps = int(request.options["num_inference_steps"])
    with progress.bar(f"paint with {title}, steps", steps) as stepped:
        return paint(request, repository, manifest, leaves, stepped)
