"""Triton backend ``openvino`` in Python: serves ``<model>/<version>/model.xml`` (IR) for ``backend: "openvino"``.

It stands in for the native backend, which the pip Triton lacks: the same configurations load, the same parameters are
read (`dressform_server.compilation`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import openvino

from dressform_server import batch, compilation, graph
from dressform_server.leaf import Call, LeafModel
from dressform_server.settings import leaf_threads


class TritonPythonModel(LeafModel):
    """One instance of one model."""

    engine = "OpenVINO"
    default_file = "model.xml"

    def load(self, file: Path, config: Mapping[str, Any], kind: str, device: int) -> Call:
        """See `LeafModel`."""
        if kind != "CPU":
            raise ValueError(f"instance_group kind must be KIND_CPU, not KIND_{kind}")
        model = openvino.Core().read_model(file)
        inputs, outputs = ([graph.Tensor.of_port(port) for port in ports] for ports in (model.inputs, model.outputs))
        graph.check(config, inputs, outputs)
        compiled = openvino.compile_model(model, "CPU", compilation.properties(config, leaf_threads()))
        request = compiled.create_infer_request()

        def call(names: Sequence[str], arrays: batch.Arrays) -> dict[str, batch.Array]:
            # share_inputs: Triton keeps the arrays until the answer; outputs are copied, for the next call reuses them.
            results = request.infer(dict(arrays), share_inputs=True)
            return {name: results[name] for name in names}

        return call
