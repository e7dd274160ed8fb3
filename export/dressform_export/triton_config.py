"""Triton's ``config.pbtxt``: read, and for the leaves completed with the inputs and outputs of their graphs.

The checked-in config of a leaf holds everything but the tensors. Axis 0 of the graph is Triton's batch and is left
out; variable axes are -1, fixed ones are written as they are, because Triton refuses a model whose fixed sizes differ.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import onnx
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup

from dressform_export.engines import Engine
from dressform_export.errors import ExportError

DATA_TYPES: dict[int, str] = {
    onnx.TensorProto.FLOAT: "TYPE_FP32",
    onnx.TensorProto.FLOAT16: "TYPE_FP16",
    onnx.TensorProto.INT64: "TYPE_INT64",
    onnx.TensorProto.INT32: "TYPE_INT32",
    onnx.TensorProto.UINT8: "TYPE_UINT8",
}
"""ONNX element type → Triton's."""


def read_config(path: Path) -> ModelConfig:
    """The ``config.pbtxt`` at ``path``.

    Raises:
        OSError: if it cannot be read.
        ExportError: if it is not one.
    """
    return parse_config(path.read_text(encoding="utf-8"), str(path))


def parse_config(text: str, origin: str) -> ModelConfig:
    """A ``config.pbtxt`` as Triton reads it.

    Raises:
        ExportError: if it is not one; ``origin`` names it.
    """
    try:
        return text_format.Parse(text, ModelConfig())
    except text_format.ParseError as error:
        raise ExportError(f"{origin} is not a Triton model config: {error}") from error


def complete_config(config: Path, graph: Path) -> None:
    """Append the inputs and outputs of ``graph`` to the file ``config``."""
    proto = onnx.load(str(graph), load_external_data=False).graph
    text = config.read_text(encoding="utf-8").rstrip() + "\n"
    text += _tensors("input", proto.input) + _tensors("output", proto.output)
    parse_config(text, str(config))
    config.write_text(text, encoding="utf-8")


def engine_config(completed: str, engine: Engine) -> str:
    """The config of a leaf for ``engine``: ``completed`` (ONNX Runtime, FP32, CPU) with what the engine changes."""
    config = parse_config(completed, "the leaf's config")
    config.backend = engine.backend
    config.default_model_filename = engine.file_of(config.name)
    for key, value in engine.parameters.items():
        config.parameters[key].string_value = value
    if engine.gpu:
        for group in config.instance_group:
            group.kind = ModelInstanceGroup.KIND_GPU
    if engine.accelerator is not None:
        name, parameters = engine.accelerator
        config.optimization.execution_accelerators.gpu_execution_accelerator.add(name=name, parameters=parameters)
    return config_text(config, engine.name)


def config_text(config: ModelConfig, engine: str, command: str = "dressform-export") -> str:
    """``config`` as a file that says what it is for and which ``command`` wrote it."""
    return f"# {config.name} on {engine}: written by {command}.\n{text_format.MessageToString(config)}"


def _tensors(kind: str, values: Iterable[onnx.ValueInfoProto]) -> str:
    return f"{kind} [\n" + ",\n".join(_tensor(value) for value in values) + "\n]\n"


def _tensor(value: onnx.ValueInfoProto) -> str:
    tensor = value.type.tensor_type
    sizes = [axis.dim_value if axis.HasField("dim_value") else -1 for axis in tensor.shape.dim]
    if not sizes or sizes[0] != -1:
        raise ExportError(f"axis 0 of {value.name} must be variable (the batch), but its shape is {sizes}")
    if tensor.elem_type not in DATA_TYPES:
        raise ExportError(f"{value.name} has ONNX type {tensor.elem_type}, which no leaf may have")
    # A tensor of one value per row: Triton wants at least one axis in dims, and takes it away again.
    dims, reshape = (sizes[1:], "") if sizes[1:] else ([1], "\n    reshape { shape: [ ] }")
    shown = ", ".join(str(size) for size in dims)
    fields = f'name: "{value.name}"\n    data_type: {DATA_TYPES[tensor.elem_type]}\n    dims: [ {shown} ]{reshape}'
    return f"  {{\n    {fields}\n  }}"
