"""Which schedulers an export can carry, and the config that ``denoise`` gets.

All of ``denoise``'s solvers are linear in the sample, the UNet's outputs and the noise. Clipping and thresholding are
not, and a zero terminal signal-to-noise ratio divides by zero when noise is predicted, so they are refused here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dressform_export.errors import ExportError

SOLVER_OF_SCHEDULER: dict[str, str] = {
    "DDIMScheduler": "ddim",
    "EulerDiscreteScheduler": "euler",
    "EulerAncestralDiscreteScheduler": "euler_ancestral",
    "DPMSolverMultistepScheduler": "dpmpp_2m",
    "UniPCMultistepScheduler": "unipc",
    "LCMScheduler": "lcm",
    "PNDMScheduler": "pndm",
}
"""Scheduler class → our solver; with Karras sigmas ``dpmpp_2m`` becomes ``dpmpp_2m_karras``."""

PREDICTION_TYPES = ("epsilon", "v_prediction")


def solver_of(config: Mapping[str, Any]) -> str:
    """The solver that does what the pipeline's scheduler does.

    Raises:
        ExportError: if there is none for its class.
    """
    name = config.get("_class_name")
    if name not in SOLVER_OF_SCHEDULER:
        known = ", ".join(SOLVER_OF_SCHEDULER)
        raise ExportError(f"the pipeline's scheduler is {name}, and only these are supported: {known}")
    solver = SOLVER_OF_SCHEDULER[name]
    return "dpmpp_2m_karras" if solver == "dpmpp_2m" and config.get("use_karras_sigmas") else solver


def checked_scheduler(config: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The scheduler config to serve with, and warnings about what was changed in it.

    Raises:
        ExportError: if the scheduler's class is unknown or its update is not linear.
    """
    solver_of(config)
    prediction = config.get("prediction_type", "epsilon")
    if prediction not in PREDICTION_TYPES:
        raise ExportError(
            f"the scheduler's prediction_type is {prediction!r}, and only {' and '.join(PREDICTION_TYPES)} are "
            "supported"
        )
    for option in ("clip_sample", "thresholding"):
        if config.get(option):
            raise ExportError(f"the scheduler has {option} on, which is not linear: set it to false in its config")
    if config.get("rescale_betas_zero_snr") and prediction == "epsilon":
        raise ExportError(
            "the scheduler has rescale_betas_zero_snr on with prediction_type epsilon, which divides by zero at the "
            "first step: set it to false, or use a pipeline of prediction_type v_prediction"
        )
    warnings: tuple[str, ...] = ()
    if "clip_sample" not in config:
        warnings = ("the scheduler's config has no clip_sample (DDIM's default is true): it was written as false",)
    return {**config, "prediction_type": prediction, "clip_sample": False}, warnings
