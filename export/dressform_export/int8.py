"""The int8 graph: post-training quantisation of the UNet by NNCF, as of a transformer.

Weights and activations of convolutions and matrix products become int8, with SmoothQuant (Xiao et al. 2022) before;
scaled dot-product attention, normalisation and softmax stay bfloat16, and so do the first and last convolution and the
time embedding: a thousandth of the operations, and 6 dB of the demonstration's pictures. NNCF's bias correction changed
nothing there (28.7 against 28.6 dB) and is left out. Text encoder and VAE are not quantised: they run once a picture.
"""

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
from dressform_export.openvino_graph import save

KEPT = (r".*/conv_in/.*", r".*/conv_out/.*", r".*/time_embedding/.*", r".*/time_emb_proj/.*")
"""Patterns of the names of layers that are not quantised."""


def write_int8(source: Path, target: Path, calls: Sequence[Call]) -> None:
    """Quantise the FP32 ONNX graph ``source``, calibrated on ``calls``, to IR at ``target``.

    Raises:
        ExportError: if OpenVINO cannot convert it, NNCF not quantise it, or it cannot be written.
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
                ignored_scope=nncf.IgnoredScope(patterns=list(KEPT)),
                advanced_parameters=nncf.AdvancedQuantizationParameters(disable_bias_correction=True),
            )
    except Exception as error:  # those of NNCF and OpenVINO share no base class
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ExportError(f"{source.name} of {source.parent.parent.name} cannot be quantised: {reason}") from error
    save(quantised, target)
