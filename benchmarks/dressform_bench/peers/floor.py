"""The limit of an engine: the calls that its graphs get for a picture, with nothing around them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dressform_bench.peers.request import Task
from dressform_export.manifest import Manifest, read_manifest
from dressform_export.proof import GraphLeaves
from dressform_export.trajectory import Pixels, paint


class Floor:
    """The calls of one picture's trajectory, to be made again with the rows of many."""

    def __init__(self, repository: Path, engine: str, *, gpu: bool = False) -> None:
        self._repository = repository
        self._manifest = read_manifest(repository)
        self._leaves = GraphLeaves(repository, engine, self._manifest.engines[engine], keep=True, gpu=gpu)
        self._calls: list[tuple[str, Mapping[str, NDArray[Any]]]] = []

    def painted(self, task: Task) -> Pixels:
        """The picture of ``task``, whose calls are kept."""
        self._calls.clear()
        return paint(task.request(), self._repository, self._manifest, self._remembered)

    def seconds(self, jobs: int) -> dict[str, float]:
        """Seconds of each graph's calls for ``jobs`` pictures made together, by its name."""
        spent: dict[str, float] = {}
        for name, inputs in self._calls:
            given = {key: np.resize(value, (jobs * len(value), *value.shape[1:])) for key, value in inputs.items()}
            began = time.perf_counter()
            self._leaves(name, given)
            spent[name] = spent.get(name, 0.0) + time.perf_counter() - began
        return spent

    @property
    def flops(self) -> float:
        """Floating-point operations of the picture, if it has the export's default size, as counted at export.

        The UNet's were counted at the latents of a try-on, which may have the garment's beside the person's; those of
        another height are taken to cost in proportion (attention, which costs less then, is counted too high).
        """
        counts, counted_at = self._manifest.flops, usual_height(self._manifest)
        total = 0.0
        for name, inputs in self._calls:
            share = inputs["sample"].shape[2] / counted_at if name == "unet" else 1.0
            total += share * counts[name] * len(next(iter(inputs.values())))
        return total

    def _remembered(self, name: str, inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        self._calls.append((name, dict(inputs)))
        return self._leaves(name, inputs)


def usual_height(manifest: Manifest) -> int:
    """Of the UNet's latents, in the call whose operations the manifest tells."""
    return manifest.size.height // manifest.vae.factor * (2 if manifest.tryon == "concat" else 1)
