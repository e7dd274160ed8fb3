"""The limit of an engine: the calls that its graphs get for a picture, with nothing around them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dressform_bench.peers.request import Task
from dressform_bench.simulate.server import Limits
from dressform_export.engines import ENGINES, PLAN, Engine
from dressform_export.errors import ExportError
from dressform_export.manifest import read_manifest
from dressform_export.proof import GraphLeaves
from dressform_export.repository import config_for
from dressform_export.trajectory import Pixels, paint


def has_bare(engine: Engine) -> bool:
    """Whether the graphs of ``engine`` can be called without Triton as in it: not what TensorRT builds."""
    return engine.file != PLAN and (engine.accelerator or ("",))[0] != "tensorrt"


class Floor:
    """The calls of one picture's trajectory, to be made again with the rows of many.

    Raises:
        ExportError: for an engine that cannot be called without Triton.
    """

    def __init__(self, repository: Path, engine: str) -> None:
        if not has_bare(ENGINES[engine]):
            raise ExportError(f"engine {engine!r} runs in Triton alone: there is nothing bare to hold it against")
        self._repository = repository
        self._manifest = read_manifest(repository)
        record, gpu = self._manifest.engines[engine], ENGINES[engine].gpu
        self._leaves = GraphLeaves(repository, engine, record, keep=True, gpu=gpu)
        self._most_rows = {leaf: int(config_for(repository, leaf, engine).max_batch_size) for leaf in record.graphs}
        self._most_rows["unet"] = Limits.of(repository, engine).max_rows
        self._calls: list[tuple[str, Mapping[str, NDArray[Any]]]] = []
        self._painted: tuple[Task, Pixels] | None = None

    def painted(self, task: Task) -> Pixels:
        """The picture of ``task``, whose calls are kept; that of the last one is not painted again."""
        if self._painted is None or self._painted[0] != task:
            self._calls.clear()
            self._painted = task, paint(task.request(), self._repository, self._manifest, self._remembered)
        return self._painted[1]

    def seconds(self, jobs: int) -> dict[str, float]:
        """Seconds of each graph's calls for ``jobs`` pictures made together, by its name.

        A call has the rows of as many of them as its server makes of it: ``max_rows`` of the UNet, ``max_batch_size``
        of the others.
        """
        spent: dict[str, float] = {}
        for name, inputs in self._calls:
            rows = len(next(iter(inputs.values())))
            together = max(1, self._most_rows[name] // rows)
            for begun in range(0, jobs, together):
                count = rows * min(together, jobs - begun)
                given = {key: np.resize(value, (count, *value.shape[1:])) for key, value in inputs.items()}
                began = time.perf_counter()
                self._leaves(name, given)
                spent[name] = spent.get(name, 0.0) + time.perf_counter() - began
        return spent

    def _remembered(self, name: str, inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        self._calls.append((name, dict(inputs)))
        return self._leaves(name, inputs)
