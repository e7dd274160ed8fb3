"""Is the graph the model? An engine's answers held against torch's, at sizes the trace did not see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dressform_export.errors import ExportError
from dressform_export.graphs import Leaf
from dressform_export.manifest import Verification
from dressform_export.runner import Runner


@dataclass(frozen=True)
class Tolerance:
    """What an output may differ from torch by, by what it holds."""

    relative: float
    """Of FP32 values: this × max(1, the reference's largest absolute value)."""
    pixels: float
    """Of UINT8 values: in steps of 255; even exact arithmetic needs 1, at a rounding boundary."""
    labels: float
    """Of class numbers: the share that may differ, those of pixels where two classes are as likely."""


TOLERANCES: Mapping[str, Tolerance] = {
    "fp32": Tolerance(relative=1e-3, pixels=1.0, labels=1e-3),
    "fp16": Tolerance(relative=1e-2, pixels=3.0, labels=1e-2),
    "bf16": Tolerance(relative=1e-1, pixels=24.0, labels=5e-2),
    "int8": Tolerance(relative=3e-1, pixels=24.0, labels=5e-2),
}
"""By precision. A half has 11 significant bits, a bfloat16 8: some errors of the last bit, added up over a graph."""


def verify_graph(leaf: Leaf, module: nn.Module, run: Runner, precision: str = "fp32") -> tuple[Verification, ...]:
    """Compare ``run`` with ``module`` at every probe, by the tolerance of ``precision``.

    Raises:
        ExportError: if an output's shape or dtype is another, or it differs by more than the tolerance.
    """
    results = []
    for number, probe in enumerate(leaf.probes):
        inputs = leaf.example(probe, torch.Generator().manual_seed(number))
        with torch.inference_mode():
            expected = module(**inputs).numpy()
        if not np.isfinite(expected).all():
            raise ExportError(f"the pipeline's {leaf.component} gives values that are not finite: it is damaged")
        actual = run({name: tensor.numpy() for name, tensor in inputs.items()})
        result = compare(expected, actual, leaf.sizes(probe), TOLERANCES[precision], labels=leaf.labels)
        if not result.difference <= result.tolerance:  # NaN must not pass
            raise ExportError(
                f"the {leaf.name} graph in {precision} differs from torch by {result.difference:.3g} at "
                f"{result.shapes}, and at most {result.tolerance:.3g} is allowed (largest value "
                f"{result.reference_max:.3g})"
            )
        results.append(result)
    return tuple(results)


def compare(
    expected: NDArray[Any],
    actual: NDArray[Any],
    sizes: dict[str, int],
    allowed: Tolerance = TOLERANCES["fp32"],
    *,
    labels: bool = False,
) -> Verification:
    """How far ``actual`` is from ``expected``: infinitely where shapes or dtypes differ, NaN where a value is.

    Of ``labels`` it is the share that differs.
    """
    uint8 = expected.dtype == np.uint8
    reference = expected.astype(np.float64)
    largest = float(np.abs(reference).max(initial=0.0))
    tolerance = allowed.labels if labels else allowed.pixels if uint8 else allowed.relative * max(1.0, largest)
    if expected.shape != actual.shape or expected.dtype != actual.dtype:
        return Verification(sizes, float("inf"), largest, tolerance)
    if labels:
        return Verification(sizes, float((expected != actual).mean()), largest, tolerance)
    difference = float(np.abs(reference - actual.astype(np.float64)).max(initial=0.0))
    return Verification(sizes, difference, largest, tolerance)
