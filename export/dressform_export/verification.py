"""Is the graph the model? ONNX Runtime's answers held against torch's, at sizes the trace did not see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import nn

from dressform_export.errors import ExportError
from dressform_export.graphs import Leaf
from dressform_export.manifest import Verification

RELATIVE_TOLERANCE = 1e-3
"""FP32 outputs may differ by this × max(1, the reference's largest absolute value)."""

PIXEL_TOLERANCE = 1.0
"""UINT8 outputs may differ by this: values at a rounding boundary fall on either side."""

LABEL_TOLERANCE = 1e-3
"""Share of labels that may differ: those of pixels where two classes are as likely."""


def verify_graph(leaf: Leaf, module: nn.Module, path: Path) -> tuple[Verification, ...]:
    """Compare the graph at ``path`` with ``module`` at every probe.

    Raises:
        ExportError: if an output's shape or dtype is another, or it differs by more than the tolerance.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    results = []
    for number, probe in enumerate(leaf.probes):
        inputs = leaf.example(probe, torch.Generator().manual_seed(number))
        with torch.inference_mode():
            expected = module(**inputs).numpy()
        if not np.isfinite(expected).all():
            raise ExportError(f"the pipeline's {leaf.component} gives values that are not finite: it is damaged")
        (actual,) = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
        result = compare(expected, np.asarray(actual), leaf.sizes(probe), labels=leaf.labels)
        if not result.difference <= result.tolerance:  # NaN must not pass
            raise ExportError(
                f"the {leaf.name} graph differs from torch by {result.difference:.3g} at {result.shapes}, and at "
                f"most {result.tolerance:.3g} is allowed (largest value {result.reference_max:.3g})"
            )
        results.append(result)
    return tuple(results)


def compare(
    expected: NDArray[Any], actual: NDArray[Any], sizes: dict[str, int], *, labels: bool = False
) -> Verification:
    """How far ``actual`` is from ``expected``: infinitely where shapes or dtypes differ, NaN where a value is.

    Of ``labels`` it is the share that differs.
    """
    uint8 = expected.dtype == np.uint8
    reference = expected.astype(np.float64)
    largest = float(np.abs(reference).max(initial=0.0))
    tolerance = LABEL_TOLERANCE if labels else PIXEL_TOLERANCE if uint8 else RELATIVE_TOLERANCE * max(1.0, largest)
    if expected.shape != actual.shape or expected.dtype != actual.dtype:
        return Verification(sizes, float("inf"), largest, tolerance)
    if labels:
        return Verification(sizes, float((expected != actual).mean()), largest, tolerance)
    difference = float(np.abs(reference - actual.astype(np.float64)).max(initial=0.0))
    return Verification(sizes, difference, largest, tolerance)
