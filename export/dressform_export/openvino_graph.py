"""OpenVINO's graphs: the FP32 ONNX graph as IR with half weights, and how such a graph is run for verification."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from dressform_export.errors import ExportError


def write_openvino(source: Path, target: Path) -> None:
    """Convert the ONNX graph ``source`` to IR at ``target`` (``.xml``; weights go to the ``.bin`` beside).

    Raises:
        ExportError: if OpenVINO cannot convert it.
    """
    try:
        model = openvino.convert_model(str(source))
        openvino.save_model(model, str(target), compress_to_fp16=True)
    except RuntimeError as error:
        raise ExportError(f"OpenVINO cannot convert {source.name} of {source.parent.parent.name}: {error}") from error


def runner(graph: Path) -> Callable[[Mapping[str, NDArray[Any]]], NDArray[Any]]:
    """A call of the one-output ``graph`` on the CPU in bfloat16, as it is served."""
    hints = {"INFERENCE_PRECISION_HINT": "bf16", "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1"}
    compiled = openvino.Core().compile_model(str(graph), "CPU", hints)
    return lambda inputs: np.asarray(compiled(dict(inputs))[0])
