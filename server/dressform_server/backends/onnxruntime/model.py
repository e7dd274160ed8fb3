"""Triton backend ``onnxruntime`` in Python: serves ``<model>/<version>/model.onnx`` for ``backend: "onnxruntime"``.

It stands in for the native backend, which the pip Triton lacks: the same configurations load, the same are refused.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import onnxruntime as ort
import triton_python_backend_utils as pb_utils

from dressform_server import batch, graph, session


class TritonPythonModel:
    """One instance of one model."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the graph and hold the configuration against it.

        Raises:
            TritonModelException: if it does not fit, or ONNX Runtime cannot load it; Triton then refuses the model.
        """
        config = json.loads(args["model_config"])
        file = Path(args["model_repository"], args["model_version"], config["default_model_filename"] or "model.onnx")
        try:
            self._session = _loaded(file, config, args["model_instance_kind"], int(args["model_instance_device_id"]))
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise pb_utils.TritonModelException(f"{file}: {error}") from error
        self._batched = config["max_batch_size"] > 0

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
        del self._session

    def _answers(self, inputs: list[batch.Arrays], wanted: list[list[str]]) -> list[Any]:
        """The responses to requests that share one call; if it fails, they fail, and nobody else."""
        try:
            counts = batch.row_counts(inputs) if self._batched else []
            names = list(dict.fromkeys(name for outputs in wanted for name in outputs))
            arrays = dict(zip(names, self._session.run(names, batch.joined(inputs)), strict=True))
            parts = batch.split(arrays, counts) if self._batched else [arrays]
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            return [pb_utils.InferenceResponse(error=pb_utils.TritonError(f"ONNX Runtime: {error}"))] * len(inputs)
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor(name, part[name]) for name in outputs])
            for part, outputs in zip(parts, wanted, strict=True)
        ]


def _loaded(file: Path, config: dict[str, Any], kind: str, device: int) -> ort.InferenceSession:
    threads = int(os.environ.get("DRESSFORM_ONNX_THREADS", "0"))  # 0: ONNX Runtime's own choice
    loaded = ort.InferenceSession(file, session.options(config, threads), session.providers(kind, device))
    inputs, outputs = (
        [graph.Tensor.of_graph(argument) for argument in arguments]
        for arguments in (loaded.get_inputs(), loaded.get_outputs())
    )
    graph.check(config, inputs, outputs)
    return loaded
