"""Is the graph the model? An engine's answers held against torch's, at sizes the trace did not see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


@dataclass(frozen=True)
class Reference:
    """What torch answers in FP32: ``expected`` for ``inputs`` of these ``sizes``; class numbers where ``labels``."""

    sizes: Mapping[str, int]
    inputs: Mapping[str, NDArray[Any]]
    expected: NDArray[Any]
    labels: bool


def references(leaf: Leaf, module: nn.Module) -> tuple[Reference, ...]:
    """The answers of ``module`` at every probe of ``leaf``.

    Raises:
        ExportError: if one is not finite.
    """
    made = []
    for number, probe in enumerate(leaf.probes):
        inputs = leaf.example(probe, torch.Generator().manual_seed(number))
        with torch.inference_mode():
            expected = module(**inputs).numpy()
        if not np.isfinite(expected).all():
            raise ExportError(f"the pipeline's {leaf.component} gives values that are not finite: it is damaged")
        arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
        made.append(Reference(leaf.sizes(probe), arrays, expected, leaf.labels))
    return tuple(made)


def verify_graph(
    name: str, references: Sequence[Reference], run: Runner, precision: str = "fp32"
) -> tuple[Verification, ...]:
    """Compare ``run``, the leaf ``name``, with the ``references``, by the tolerance of ``precision``.

    Raises:
        ExportError: if an output's shape or dtype is another, or it differs by more than the tolerance.
    """
    results = []
    for reference in references:
        result = compare(reference, run(reference.inputs), TOLERANCES[precision])
        if not result.difference <= result.tolerance:  # NaN must not pass
            raise ExportError(
                f"the {name} graph in {precision} differs from torch by {result.difference:.3g} at "
                f"{result.shapes}, and at most {result.tolerance:.3g} is allowed (largest value "
                f"{result.reference_max:.3g})"
            )
        results.append(result)
    return tuple(results)


def compare(reference: Reference, actual: NDArray[Any], allowed: Tolerance = TOLERANCES["fp32"]) -> Verification:
    """How far ``actual`` is from the ``reference``: infinitely where shapes or dtypes differ, NaN where a value is.

    Of labels it is the share that differs.
    """
    expected = reference.expected.astype(np.float64)
    largest = float(np.abs(expected).max(initial=0.0))
    uint8 = reference.expected.dtype == np.uint8
    scaled = allowed.pixels if uint8 else allowed.relative * max(1.0, largest)
    tolerance = allowed.labels if reference.labels else scaled
    if (reference.expected.shape, reference.expected.dtype) != (actual.shape, actual.dtype):
        difference = relative = float("inf")
    elif reference.labels:
        difference = relative = float((reference.expected != actual).mean())
    else:
        error = actual.astype(np.float64) - expected
        difference = float(np.abs(error).max(initial=0.0))
        relative = float(np.linalg.norm(error) / max(np.linalg.norm(expected), np.finfo(np.float32).tiny))
    return Verification(reference.sizes, difference, relative, largest, tolerance)
