"""An export whose UNet is asleep for a time that is known, instead of computing.

It is to the server what a device of its own is: the cores are idle meanwhile. What neighbours do on them then matters
little, and the simulation can be held against a server of steps like a GPU's on any machine.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from dressform_export.errors import ExportError
from dressform_export.repository import CONFIG, CONFIGS, VERSION
from dressform_export.triton_config import config_text, read_config

_MODEL = """\
import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [self.answered(pb_utils.get_input_tensor_by_name(request, "sample")) for request in requests]

    def answered(self, sample):
        rows, _, height, width = sample.shape()
        time.sleep({fixed!r} + {per_row!r} * rows)
        output = np.zeros((rows, {channels}, height, width), np.float32)
        return pb_utils.InferenceResponse([pb_utils.Tensor("out_sample", output)])
"""


def asleep(repository: Path, copy: Path, fixed: float, per_row: float) -> None:
    """Make ``copy``, the export with UNet calls of r rows that take ``fixed`` + ``per_row`` × r seconds.

    Raises:
        ExportError: if it is no export.
    """
    unet = copy / "unet"
    try:
        shutil.copytree(repository, copy)
        config = read_config(unet / CONFIG)
    except (OSError, shutil.Error) as error:
        raise ExportError(f"{repository} is no export: {error}") from error
    config.backend = "python"
    config.default_model_filename = "model.py"
    config.parameters.clear()
    for group in config.instance_group:
        group.kind = group.KIND_CPU
    (unet / CONFIG).write_text(
        config_text(config, "a device that sleeps", "dressform bench simulate"), encoding="utf-8"
    )
    shutil.rmtree(unet / CONFIGS, ignore_errors=True)
    text = _MODEL.format(fixed=fixed, per_row=per_row, channels=config.output[0].dims[0])
    (unet / VERSION / "model.py").write_text(text, encoding="utf-8")
