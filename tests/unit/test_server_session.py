"""ONNX Runtime's options from a model's configuration (dressform_server.session)."""

from __future__ import annotations

from typing import Any

import onnxruntime as ort
import pytest

from dressform_server import session


def parameters(**values: str) -> dict[str, Any]:
    """The ``parameters`` of a model configuration."""
    return {"parameters": {name: {"string_value": value} for name, value in values.items()}}


def test_the_threads_given_are_the_default() -> None:
    options = session.options({}, threads=3)
    assert options.intra_op_num_threads == 3
    assert options.graph_optimization_level == ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    assert options.execution_mode == ort.ExecutionMode.ORT_SEQUENTIAL
    assert options.enable_cpu_mem_arena


def test_the_configuration_goes_first() -> None:
    config = parameters(intra_op_thread_count="5", inter_op_thread_count="2", execution_mode="1", enable_mem_arena="0")
    options = session.options(config | {"optimization": {"graph": {"level": -1}}}, threads=3)
    assert options.intra_op_num_threads == 5
    assert options.inter_op_num_threads == 2
    assert options.execution_mode == ort.ExecutionMode.ORT_PARALLEL
    assert options.graph_optimization_level == ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    assert not options.enable_cpu_mem_arena


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (parameters(execution_mode="2"), "execution_mode must be one of 0, 1, not 2"),
        (parameters(intra_op_thread_count="many"), "intra_op_thread_count must be an integer, not 'many'"),
        ({"optimization": {"graph": {"level": 7}}}, "optimization graph level must be one of -1, 0, 1, 2, not 7"),
    ],
)
def test_what_is_not_allowed_is_refused(config: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        session.options(config, threads=0)


CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"


def accelerated(**accelerators: dict[str, str]) -> dict[str, Any]:
    """A model configuration with these ``gpu_execution_accelerator`` entries."""
    entries = [{"name": name, "parameters": parameters} for name, parameters in accelerators.items()]
    return {"optimization": {"execution_accelerators": {"gpu_execution_accelerator": entries}}}


def test_an_instance_on_the_cpu_has_no_other_provider() -> None:
    assert session.providers(accelerated(cuda={}), "CPU", 0) == [CPU]


def test_a_gpu_instance_has_the_options_of_its_accelerators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: [TENSORRT, CUDA, CPU])
    assert session.providers({}, "GPU", 1) == [(CUDA, {"device_id": 1}), CPU]
    cuda = {"arena_extend_strategy": "kSameAsRequested"}
    tensorrt = {"precision_mode": "FP16", "trt_engine_cache_enable": "1"}
    assert session.providers(accelerated(cuda=cuda, tensorrt=tensorrt), "GPU", 0) == [
        (TENSORRT, {"device_id": 0, "trt_fp16_enable": "1", "trt_engine_cache_enable": "1"}),
        (CUDA, {"device_id": 0, "arena_extend_strategy": "kSameAsRequested"}),
        CPU,
    ]


def test_a_gpu_instance_without_its_provider_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CPU])
    with pytest.raises(ValueError, match=CUDA):
        session.providers({}, "GPU", 0)
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, CPU])
    with pytest.raises(ValueError, match=TENSORRT):
        session.providers(accelerated(tensorrt={}), "GPU", 0)


def test_an_unknown_precision_of_tensorrt_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: [TENSORRT, CUDA, CPU])
    with pytest.raises(ValueError, match="precision_mode must be one of FP32, FP16, not INT8"):
        session.providers(accelerated(tensorrt={"precision_mode": "INT8"}), "GPU", 0)
