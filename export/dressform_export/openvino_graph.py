"""OpenVINO's graphs: the FP32 ONNX graph as IR with half weights."""

from __future__ import annotations

from pathlib import Path

import openvino

from dressform_export.errors import ExportError


def write_openvino(source: Path, target: Path) -> None:
    """Convert the ONNX graph ``source`` to IR at ``target`` (``.xml``; weights go to the ``.bin`` beside).

    Raises:
        ExportError: if OpenVINO cannot convert it, or it cannot be written.
    """
    try:
        model = openvino.convert_model(str(source))
    except RuntimeError as error:
        raise ExportError(f"OpenVINO cannot convert {source.name} of {source.parent.parent.name}: {error}") from error
    save(model, target)


def save(model: openvino.Model, target: Path) -> None:
    """Write ``model`` with half weights to ``target``.

    Raises:
        ExportError: if it cannot be written; OpenVINO does not tell why.
    """
    try:
        openvino.save_model(model, str(target), compress_to_fp16=True)
    except RuntimeError as error:
        raise ExportError(
            f"writing {target.name} of {target.parent.parent.name} failed (is the disk full?): {error}"
        ) from error
