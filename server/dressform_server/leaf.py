"""What every backend of ours does around its engine: group requests, call once, give each its own rows back.

A backend's ``model.py`` derives from `LeafModel` and says how a graph is loaded; the requests are the same to all.
"""

from __future__ import annotations

import json
import sys
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils

from dressform_server import batch

Call = Callable[[Sequence[str], batch.Arrays], Mapping[str, batch.Array]]
"""One call of a graph: the names of the wanted outputs and the inputs by name to the outputs by name."""


class LeafModel:
    """One instance of one model, as Triton's Python backend wants it."""

    engine: str
    """Its name in messages."""
    default_file: str
    """The graph in the version folder where ``default_model_filename`` names no other."""

    @abstractmethod
    def load(self, file: Path, config: Mapping[str, Any], kind: str, device: int) -> Call:
        """Load the graph ``file`` for an instance of ``kind`` (CPU or GPU) on ``device``; hold ``config`` against it.

        Any exception refuses the model.
        """

    def initialize(self, args: dict[str, str]) -> None:
        """Load the graph.

        Raises:
            TritonModelException: if it does not fit, or the engine cannot load it; Triton then refuses the model.
        """
        config = json.loads(args["model_config"])
        name = config["default_model_filename"] or self.default_file
        file = Path(args["model_repository"], args["model_version"], name)
        try:
            self._call = self.load(file, config, args["model_instance_kind"], int(args["model_instance_device_id"]))
        except Exception as error:  # the engines' exceptions share no base class
            raise pb_utils.TritonModelException(f"{file}: {error}") from error
        self._batched = config["max_batch_size"] > 0
        self._sign_of_life = _enrolled(Path(args["model_repository"]))

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer ``requests``: one call of the graph for all that fit together."""
        inputs = [{tensor.name(): tensor.as_numpy() for tensor in request.inputs()} for request in requests]
        responses: list[Any] = [None] * len(requests)
        for group in batch.groups(inputs, self._batched):
            wanted = [requests[index].requested_output_names() for index in group]
            for index, response in zip(group, self._answers([inputs[i] for i in group], wanted), strict=True):
                responses[index] = response
        return responses

    def finalize(self) -> None:
        """Free the graph."""
        self._sign_of_life.close()
        del self._call

    def _answers(self, inputs: list[batch.Arrays], wanted: list[list[str]]) -> list[Any]:
        """The responses to requests that share one call; if it fails, they fail, and nobody else."""
        try:
            counts = batch.row_counts(inputs) if self._batched else []
            arrays = self._call(list(dict.fromkeys(name for names in wanted for name in names)), batch.joined(inputs))
            parts = batch.split(arrays, counts) if self._batched else [arrays]
        except Exception as error:  # the engines' exceptions share no base class
            return [pb_utils.InferenceResponse(error=pb_utils.TritonError(f"{self.engine}: {error}"))] * len(inputs)
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor(name, part[name]) for name in names])
            for part, names in zip(parts, wanted, strict=True)
        ]


def _enrolled(model: Path) -> ExitStack:
    """The heartbeat of this process on the server's job table, until closed; none in a repository without one."""
    stack = ExitStack()
    if (model.parent / "jobs" / "heart.py").is_file():
        sys.path.insert(0, str(model.parent))
        from jobs.heart import Heart
        from jobs.table import JobTable

        table = JobTable.open()
        stack.callback(table.close)
        stack.callback(Heart(table, model.name).close)
    return stack
