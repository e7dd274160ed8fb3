"""The int8 graph: post-training quantisation of the UNet by NNCF.

Weights and activations of convolutions and matrix products become int8; scaled dot-product attention, normalisation and
softmax stay bfloat16, and so do the first and last convolution and the time embedding: a thousandth of the operations,
and 6 dB of the demonstration's pictures. Text encoder and VAE are not quantised: they run once a picture.

Ranges are the calibration's own minima and maxima, and SmoothQuant (Xiao et al. 2022) is left out: of 100 of the
demonstration's try-ons the garment's mean colour is then as far off as in fp32 (ΔE 3.73 and 3.74), and was 4.06 with
SmoothQuant, 4.25 with NNCF's defaults for transformers. NNCF's bias correction changed nothing and is left out.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Sequence
from pathlib import Path

import nncf
import openvino
from nncf.quantization.advanced_parameters import AdvancedSmoothQuantParameters
from nncf.quantization.range_estimator import RangeEstimatorParametersSet

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
                advanced_parameters=nncf.AdvancedQuantizationParameters(
                    disable_bias_correction=True,
                    activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,
                    smooth_quant_alphas=AdvancedSmoothQuantParameters(matmul=-1, convolution=-1),
                ),
            )
    except Exception as error:  # those of NNCF and OpenVINO share no base class
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ExportError(f"{source.name} of {source.parent.parent.name} cannot be quantised: {reason}") from error
    save(quantised, target)
