"""The int8 graph: post-training quantisation of the UNet by NNCF."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Sequence
from pathlib import Path

import nncf
import openvino

from dressform_export.calibration import Call
from dressform_export.errors import ExportError


def write_int8(source: Path, target: Path, calls: Sequence[Call]) -> None:
    """Quantise the FP32 ONNX graph ``source``, calibrated on ``calls``, to IR at ``target``.

    Raises:
        ExportError: if OpenVINO cannot convert it, or NNCF not quantise it.
    """
    nncf.set_log_level(logging.ERROR)
    try:
        model = openvino.convert_model(str(source))
        with contextlib.redirect_stdout(io.StringIO()):  # its bars; standard output is for OUT
            quantised = nncf.quantize(
                model,
                nncf.Dataset(list(calls)),
                subset_size=len(calls),
                model_type=nncf.ModelType.TRANSFORMER,
                target_device=nncf.TargetDevice.CPU,
            )
        openvino.save_model(quantised, str(target), compress_to_fp16=True)
    except RuntimeError as error:
        raise ExportError(f"{source.name} of {source.parent.parent.name} cannot be quantised: {error}") from error
