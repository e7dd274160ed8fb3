"""How fast this machine multiplies matrices: the limit that the peers are held against."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIDES = {"cpu": 2048, "cuda": 8192}


def matrix_rate(dtype: str, device: str = "cpu", seconds: float = 1.0) -> float:
    """Floating-point operations per second of a product of two square matrices.

    That of the fastest library here (torch, and on CPUs numpy, ONNX Runtime and OpenVINO), and its fastest try: they
    differ by up to three times on the same machine.
    """
    return max(_rate(multiply, SIDES[device], seconds) for multiply in _products(dtype, device))


def _rate(multiply: Callable[[], Any], side: int, seconds: float) -> float:
    multiply()
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = time.perf_counter()
        multiply()
        best = min(best, time.perf_counter() - began)
    return float(2 * side**3 / best)


def _products(dtype: str, device: str) -> Iterator[Callable[[], Any]]:
    """Each library's, one after the other."""
    import torch

    side = SIDES[device]
    matrix = torch.ones(side, side, dtype=getattr(torch, dtype), device=device)
    # On a GPU the call comes back before the product is there.
    yield lambda: (matrix @ matrix)[0, 0].item()
    if device != "cpu":
        return
    ones = np.ones((side, side), np.float32)
    if dtype == "float32":
        yield lambda: ones @ ones
        yield _onnxruntime(ones)
    try:
        yield _openvino(ones, {"float32": "f32", "bfloat16": "bf16"}[dtype])
    except ImportError:  # an extra
        return


def _onnxruntime(ones: NDArray[np.float32]) -> Callable[[], Any]:
    import onnx
    import onnxruntime

    shape = list(ones.shape)
    a, b, c = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in "abc")
    graph = onnx.helper.make_graph([onnx.helper.make_node("MatMul", ["a", "b"], ["c"])], "product", [a, b], [c])
    opset = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"a": ones, "b": ones})


def _openvino(ones: NDArray[np.float32], precision: str) -> Callable[[], Any]:
    import openvino
    from openvino import opset13 as ops

    a, b = (ops.parameter(list(ones.shape), np.float32) for _ in range(2))
    model = openvino.Model([ops.matmul(a, b, False, False)], [a, b])
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": precision})
    return lambda: compiled([ones, ones])
