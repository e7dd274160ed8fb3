"""Triton backend ``onnxruntime`` in Python: serves ``<model>/<version>/model.onnx`` for ``backend: "onnxruntime"``.

It stands in for the native backend, which the pip Triton lacks: the same configurations load, the same are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnxruntime as ort

from dressform_server import graph, session
from dressform_server.leaf import Call, LeafModel
from dressform_server.settings import leaf_threads


class TritonPythonModel(LeafModel):
    """One instance of one model."""

    engine = "ONNX Runtime"
    default_file = "model.onnx"

    def load(self, file: Path, config: Mapping[str, Any], kind: str, device: int) -> Call:
        """See `LeafModel`."""
        providers = session.providers(config, kind, device)
        loaded = ort.InferenceSession(file, session.options(config, leaf_threads()), providers)
        inputs, outputs = (
            [graph.Tensor.of_graph(argument) for argument in arguments]
            for arguments in (loaded.get_inputs(), loaded.get_outputs())
        )
        graph.check(config, inputs, outputs)
        return lambda names, arrays: dict(zip(names, loaded.run(names, arrays), strict=True))
