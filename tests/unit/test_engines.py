"""The engines of one export: their graphs, configs and records, and how OpenVINO's parameters are read."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from google.protobuf import text_format
from onnx import TensorProto, helper
from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup

from dressform_export import ExportError, read_manifest
from dressform_export.engines import ENGINES, FILES, chosen
from dressform_export.half import before_angles, to_half
from dressform_export.triton_config import engine_config
from dressform_server import compilation
from dressform_server.installation import backends

COMPLETED = """
name: "unet" backend: "onnxruntime" max_batch_size: 64
instance_group [ { count: 1, kind: KIND_CPU } ]
input [ { name: "timestep" data_type: TYPE_FP32 dims: [ 1 ] reshape { shape: [ ] } } ]
"""


def config_of(engine: str) -> ModelConfig:
    return text_format.Parse(engine_config(COMPLETED, ENGINES[engine]), ModelConfig())


@pytest.mark.parametrize("name", ENGINES)
def test_a_config_differs_in_what_the_engine_changes_alone(name: str) -> None:
    config, plain = config_of(name), text_format.Parse(COMPLETED, ModelConfig())
    assert config.backend == ENGINES[name].backend
    assert config.default_model_filename == ENGINES[name].file_of("unet")
    kinds = {group.kind for group in config.instance_group}
    assert kinds == {ModelInstanceGroup.KIND_GPU if ENGINES[name].gpu else ModelInstanceGroup.KIND_CPU}
    assert list(config.input) == list(plain.input)
    assert config.max_batch_size == 64
    accelerators = config.optimization.execution_accelerators.gpu_execution_accelerator
    named = {"cuda": ["cuda"], "cuda-tensorrt": ["tensorrt"]}
    assert [entry.name for entry in accelerators] == named.get(name, [])


def test_engines_on_cpus_have_a_backend_of_ours() -> None:
    assert {engine.backend for engine in ENGINES.values() if not engine.gpu} == backends()


def test_openvinos_config_is_read_as_bfloat16() -> None:
    parameters = {key: {"string_value": value.string_value} for key, value in config_of("openvino").parameters.items()}
    assert compilation.properties({"parameters": parameters}, 3) == {
        "INFERENCE_NUM_THREADS": 3,
        "INFERENCE_PRECISION_HINT": "bf16",
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "CPU_RUNTIME_CACHE_CAPACITY": 500,
    }


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("HINT_BF16", "NO", "must be YES, not 'NO'"),
        ("NUM_STREAMS", "-1", "must be a number from 0, not '-1'"),
        ("CPU_RUNTIME_CACHE_CAPACITY", "all", "must be a number from 0, not 'all'"),
        ("INFERENCE_NUM_THREADS", "many", "must be a number from 0, not 'many'"),
        ("PERFORMANCE_HINT", "FAST", "LATENCY, THROUGHPUT.*not 'FAST'"),
    ],
)
def test_openvinos_parameters_out_of_range_are_refused(key: str, value: str, allowed: str) -> None:
    with pytest.raises(ValueError, match=f"parameter {key} {allowed}|parameter {key}.*{allowed}"):
        compilation.properties({"parameters": {key: {"string_value": value}}}, 0)


def test_a_threads_parameter_goes_before_the_servers() -> None:
    parameters = {"INFERENCE_NUM_THREADS": {"string_value": "2"}}
    assert compilation.properties({"parameters": parameters}, 8) == {"INFERENCE_NUM_THREADS": 2}
    assert compilation.properties({}, 0) == {}


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["onnxruntime", "tpu"], "one or more of onnxruntime, .*, not 'tpu'"),
        (["openvino", "openvino"], "each engine may be named once"),
    ],
)
def test_engines_that_cannot_be_are_refused(names: list[str], sentence: str) -> None:
    with pytest.raises(ExportError, match=sentence):
        chosen(names)


def test_an_engine_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ExportError, match=r"'openvino' needs openvino.*pip install 'dressform\[openvino\]'"):
        chosen(["onnxruntime", "openvino"])


def test_int8_names_its_own_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "nncf" else find_spec(name))
    assert chosen(["openvino"])
    assert chosen(["openvino-int8"], making=False), "what is made runs without"
    with pytest.raises(ExportError, match=r"'openvino-int8' needs nncf, .*pip install 'dressform\[int8\]'"):
        chosen(["onnxruntime", "openvino-int8"])


def test_int8_is_the_unets_alone() -> None:
    engine = ENGINES["openvino-int8"]
    assert engine.precision == "int8"
    assert {leaf: engine.file_of(leaf) for leaf in ("unet", "vae_decoder", "text_encoder")} == {
        "unet": "model.int8.xml",
        "vae_decoder": "model.xml",
        "text_encoder": "model.xml",
    }
    assert engine.parameters == ENGINES["openvino"].parameters


def test_what_leads_to_an_angle_is_found() -> None:
    nodes = [
        helper.make_node("Mul", ["timestep", "frequency"], ["angle"], name="angle"),
        helper.make_node("Sin", ["angle"], ["sine"], name="sine"),
        helper.make_node("Mul", ["sine", "sine"], ["out"], name="after"),
    ]
    value = helper.make_tensor_value_info("timestep", TensorProto.FLOAT, [1])
    graph = helper.make_graph(nodes, "g", [value], [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1])])
    assert before_angles(graph) == {"angle"}


def test_a_timestep_reaches_its_angle_in_full_precision(tmp_path: Path) -> None:
    """Half has 946.5 for 946.42, and the sine of that is another."""
    nodes = [
        helper.make_node("Mul", ["timestep", "frequency"], ["angle"], name="angle"),
        helper.make_node("Sin", ["angle"], ["sine"], name="sine"),
        helper.make_node("Mul", ["sine", "weight"], ["half"], name="half"),
        helper.make_node("Add", ["half", "timestep"], ["out"], name="after"),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch"]) for name in ("timestep", "out")]
    weights = [helper.make_tensor(name, TensorProto.FLOAT, [1], [1.0]) for name in ("frequency", "weight")]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], weights)
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), str(path))
    made = to_half(path)
    made.graph.output.append(helper.make_tensor_value_info("sine", TensorProto.FLOAT16, ["batch"]))
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    (sine,) = session.run(["sine"], {"timestep": np.array([946.42], np.float32)})
    assert sine == pytest.approx(np.sin(np.float32(946.42)), abs=1e-3)
    assert any(node.op_type == "Mul" and node.name == "half" for node in made.graph.node)


def test_one_export_has_the_graphs_of_all_its_engines(engines_repository: Path) -> None:
    manifest = read_manifest(engines_repository)
    assert list(manifest.engines) == ["openvino", "onnxruntime", "onnxruntime-fp16", "cuda"]
    assert (manifest.engine, manifest.precision) == ("openvino", "bf16")
    assert {name: record.executed for name, record in manifest.engines.items()} == {
        "openvino": True,
        "onnxruntime": True,
        "onnxruntime-fp16": True,
        "cuda": False,
    }
    for name, record in manifest.engines.items():
        for leaf, graph in record.graphs.items():
            path = engines_repository / graph.file
            assert path.name == ENGINES[name].file_of(leaf)
            assert all(v.difference <= v.tolerance for v in graph.verification)
            config = text_format.Parse(
                (engines_repository / leaf / "configs" / f"{name}.pbtxt").read_text(), ModelConfig()
            )
            assert (config.name, config.default_model_filename) == (leaf, path.name)
        config_text = (engines_repository / "unet" / "config.pbtxt").read_text()
        assert config_text == (engines_repository / "unet" / "configs" / "openvino.pbtxt").read_text()


def test_precisions_really_differ(engines_repository: Path) -> None:
    engines = read_manifest(engines_repository).engines
    worst = {
        name: max(v.difference / max(1.0, v.reference_max) for v in engines[name].graphs["unet"].verification)
        for name in ("onnxruntime", "onnxruntime-fp16", "openvino")
    }
    assert worst["onnxruntime"] < worst["onnxruntime-fp16"] < worst["openvino"]


def test_the_half_graph_has_half_weights_and_keeps_its_boundary(engines_repository: Path) -> None:
    folder = engines_repository / "unet" / "1"
    half, full = (onnx.load(str(folder / FILES[kind])).graph for kind in ("fp16", "fp32"))
    assert [v.type.tensor_type.elem_type for v in (*half.input, *half.output)] == [
        v.type.tensor_type.elem_type for v in (*full.input, *full.output)
    ]
    large = [tensor for tensor in half.initializer if np.prod(tensor.dims) > 64]
    assert {tensor.data_type for tensor in large} == {TensorProto.FLOAT16}
    weights = [sum(tensor.ByteSize() for tensor in graph.initializer) for graph in (half, full)]
    assert weights[0] < 0.6 * weights[1]
