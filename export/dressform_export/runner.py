"""How a graph is run on this machine, by the engine that its file is for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from dressform_export.engines import Precision
from dressform_export.errors import ExportError

Runner = Callable[[Mapping[str, NDArray[Any]]], NDArray[Any]]
"""One call of a graph: inputs by name to its one output."""


def runner(graph: Path, precision: Precision = "fp32", *, gpu: bool = False) -> Runner:
    """The one-output graph in the file ``graph``: ONNX on ONNX Runtime, IR (``.xml``) on OpenVINO as it is served.

    With ``gpu`` ONNX is run by CUDA, on the first GPU.

    Raises:
        ExportError: if it cannot be loaded.
    """
    try:
        return _openvino(graph, precision) if graph.suffix == ".xml" else _onnxruntime(graph, gpu)
    except Exception as error:  # the engines' exceptions share no base class
        raise ExportError(f"{graph} cannot be loaded: {str(error).strip().splitlines()[0]}") from error


def _onnxruntime(graph: Path, gpu: bool) -> Runner:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    provider = "CUDAExecutionProvider" if gpu else "CPUExecutionProvider"
    if provider not in onnxruntime.get_available_providers():
        raise ExportError(f"this ONNX Runtime has no {provider}: install onnxruntime-gpu")
    session = onnxruntime.InferenceSession(str(graph), options, providers=[provider])
    return lambda inputs: np.asarray(session.run(None, dict(inputs))[0])


@cache
def _core() -> Any:
    """One for the process: with the last of them OpenVINO unloads its plugin, and with that the stack that signals are
    handled on, so that the next signal would end the process."""
    import openvino  # an extra: imported where it is asked for

    return openvino.Core()


def _openvino(graph: Path, precision: Precision) -> Runner:
    # What int8 leaves unquantised is computed in bfloat16 too.
    hints = {
        "INFERENCE_PRECISION_HINT": "f32" if precision == "fp32" else "bf16",
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
    }
    compiled = _core().compile_model(str(graph), "CPU", hints)
    return lambda inputs: np.asarray(compiled(dict(inputs))[0])
