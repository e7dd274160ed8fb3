"""ONNX Runtime's options, from the same keys of ``config.pbtxt`` that Triton's native backend reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnxruntime as ort

_CPU, _CUDA, _TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"

_GRAPH_LEVELS = {
    -1: ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    0: ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    1: ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    2: ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}
"""``optimization { graph { level } }`` as the native backend reads it."""


def options(config: Mapping[str, Any], threads: int) -> ort.SessionOptions:
    """Session options of a model ``config``; ``threads`` for one operator where it does not say.

    Read are ``optimization.graph.level`` and the parameters ``intra_op_thread_count``, ``inter_op_thread_count``,
    ``execution_mode`` (0 sequential, 1 parallel), ``enable_mem_arena``, ``enable_mem_pattern``.

    Raises:
        ValueError: naming the key and what is allowed.
    """
    chosen = ort.SessionOptions()
    level = int(config.get("optimization", {}).get("graph", {}).get("level", 0))
    chosen.graph_optimization_level = _one_of("optimization graph level", level, _GRAPH_LEVELS)
    parameters = config.get("parameters", {})
    modes = {0: ort.ExecutionMode.ORT_SEQUENTIAL, 1: ort.ExecutionMode.ORT_PARALLEL}
    switches = {0: False, 1: True}
    chosen.execution_mode = _one_of("execution_mode", _integer(parameters, "execution_mode", 0), modes)
    chosen.intra_op_num_threads = _integer(parameters, "intra_op_thread_count", 0) or threads
    chosen.inter_op_num_threads = _integer(parameters, "inter_op_thread_count", 0)
    for key, name in (("enable_mem_arena", "enable_cpu_mem_arena"), ("enable_mem_pattern", "enable_mem_pattern")):
        setattr(chosen, name, _one_of(key, _integer(parameters, key, 1), switches))
    # Idle threads sleep: on few cores, spinning ones keep the other graphs and the stages waiting (20 % on two cores).
    chosen.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return chosen


def providers(config: Mapping[str, Any], kind: str, device: int) -> list[Any]:
    """Execution providers of an instance of ``kind`` (CPU or GPU) on GPU number ``device``, best first.

    Of the model ``config`` a ``gpu_execution_accelerator`` named ``cuda`` holds CUDA's options; one named ``tensorrt``
    puts TensorRT's provider before it, with options as the native backend names them.

    Raises:
        ValueError: if a GPU or TensorRT is asked for and this ONNX Runtime has none, or the precision is unknown.
    """
    if kind != "GPU":
        return [_CPU]
    entries = config.get("optimization", {}).get("execution_accelerators", {}).get("gpu_execution_accelerator", [])
    options = {entry["name"]: dict(entry["parameters"]) for entry in entries}
    chosen = {_CUDA: options.get("cuda", {})}
    if "tensorrt" in options:
        chosen = {_TENSORRT: _tensorrt_options(options["tensorrt"])} | chosen
    missing = [name for name in chosen if name not in ort.get_available_providers()]
    if missing:
        raise ValueError(f"an instance on a GPU needs {missing[0]}, which the package onnxruntime-gpu has")
    return [*((name, {"device_id": device} | values) for name, values in chosen.items()), _CPU]


def _tensorrt_options(parameters: Mapping[str, str]) -> dict[str, str]:
    """TensorRT's options by the provider's own names."""
    precision = parameters.get("precision_mode", "FP32")
    precisions: dict[str, dict[str, str]] = {"FP32": {}, "FP16": {"trt_fp16_enable": "1"}}
    options = _one_of("precision_mode", precision, precisions)
    return options | {key: value for key, value in parameters.items() if key.startswith("trt_")}


def _integer(parameters: Mapping[str, Any], key: str, default: int) -> int:
    text = parameters.get(key, {}).get("string_value", str(default))
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"parameter {key} must be an integer, not {text!r}") from None


def _one_of(key: str, value: Any, allowed: Mapping[Any, Any]) -> Any:
    if value not in allowed:
        raise ValueError(f"{key} must be one of {', '.join(map(str, allowed))}, not {value}")
    return allowed[value]
