"""A model's configuration held against its graph, by the rules of Triton's native ONNX Runtime backend.

What passes here must load there. The rules are those of ``ValidateInputs``, ``ValidateOutputs`` and
``CompareDimsSupported`` in triton-inference-server/onnxruntime_backend: with batching the graph's first axis is
variable; an input's fixed axes must be fixed to the same number in the configuration; an output's axes must be the
same, and variable where they are variable in the graph. The native OpenVINO backend compares by the same rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

VARIABLE = -1

_ONNX_TYPES = {
    "TYPE_BOOL": "bool",
    "TYPE_UINT8": "uint8",
    "TYPE_UINT16": "uint16",
    "TYPE_UINT32": "uint32",
    "TYPE_UINT64": "uint64",
    "TYPE_INT8": "int8",
    "TYPE_INT16": "int16",
    "TYPE_INT32": "int32",
    "TYPE_INT64": "int64",
    "TYPE_FP16": "float16",
    "TYPE_FP32": "float",
    "TYPE_FP64": "double",
    "TYPE_BF16": "bfloat16",
    "TYPE_STRING": "string",
}
"""Triton's data types and ONNX Runtime's names of them, as in ``tensor(float)``."""

_OPENVINO_TYPES = {
    "boolean": "bool",
    "u8": "uint8",
    "u16": "uint16",
    "u32": "uint32",
    "u64": "uint64",
    "i8": "int8",
    "i16": "int16",
    "i32": "int32",
    "i64": "int64",
    "f16": "float16",
    "f32": "float",
    "f64": "double",
    "bf16": "bfloat16",
    "string": "string",
}
"""OpenVINO's names of element types and ONNX Runtime's."""


class GraphMismatch(ValueError):
    """The configuration does not fit the graph. The message names the tensor and both sides."""


@dataclass(frozen=True)
class Tensor:
    """Name, type and shape of a graph's input or output; `VARIABLE` stands for every symbolic axis."""

    name: str
    kind: str
    shape: tuple[int, ...]

    @classmethod
    def of_graph(cls, argument: Any) -> Tensor:
        """From an ``onnxruntime.NodeArg`` (``type`` such as ``tensor(float)``)."""
        kind = argument.type.removeprefix("tensor(").removesuffix(")")
        shape = tuple(size if isinstance(size, int) and size >= 0 else VARIABLE for size in argument.shape)
        return cls(argument.name, kind, shape)

    @classmethod
    def of_port(cls, port: Any) -> Tensor:
        """From an ``openvino.Output`` (element type such as ``f32``)."""
        kind = port.get_element_type().to_string()
        shape = tuple(VARIABLE if axis.is_dynamic else axis.get_length() for axis in port.get_partial_shape())
        return cls(port.get_any_name(), _OPENVINO_TYPES.get(kind, kind), shape)

    @classmethod
    def of_config(cls, entry: Mapping[str, Any], batched: bool) -> Tensor:
        """From an ``input`` or ``output`` of Triton's model configuration, with the batch axis and ``reshape``.

        Raises:
            GraphMismatch: if ONNX Runtime has no such type.
        """
        kind = _ONNX_TYPES.get(entry["data_type"])
        if kind is None:
            raise GraphMismatch(f"tensor {entry['name']!r}: ONNX Runtime has no {entry['data_type']}")
        dims = entry["reshape"].get("shape", []) if entry.get("reshape") is not None else entry["dims"]
        batch = (VARIABLE,) if batched else ()
        return cls(entry["name"], kind, (*batch, *(int(size) for size in dims)))


def check(config: Mapping[str, Any], inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
    """Refuse a model ``config`` (Triton's, as a dictionary) that does not fit a graph's ``inputs`` and ``outputs``.

    Raises:
        GraphMismatch: naming the first tensor that does not fit, what the configuration says and what the graph says.
    """
    batched = int(config.get("max_batch_size", 0)) > 0
    wanted = [Tensor.of_config(entry, batched) for entry in config.get("input", [])]
    missing = {tensor.name for tensor in inputs} - {tensor.name for tensor in wanted}
    if missing:
        raise GraphMismatch(f"the configuration lacks the graph's input {_listed(missing)}")
    for entry in config.get("input", []):
        if batched and entry.get("optional", False):
            raise GraphMismatch(f"input {entry['name']!r}: a model that batches cannot have optional inputs")
    _check_each("input", wanted, inputs, batched, exact=False)
    returned = [Tensor.of_config(entry, batched) for entry in config.get("output", [])]
    _check_each("output", returned, outputs, batched, exact=True)


def _check_each(role: str, configured: Sequence[Tensor], graph: Sequence[Tensor], batched: bool, exact: bool) -> None:
    known = {tensor.name: tensor for tensor in graph}
    for tensor in configured:
        if tensor.name not in known:
            raise GraphMismatch(f"the graph has no {role} {tensor.name!r}; it has {_listed(known)}")
        _check_tensor(f"{role} {tensor.name!r}", tensor, known[tensor.name], batched, exact)


def _check_tensor(label: str, config: Tensor, graph: Tensor, batched: bool, exact: bool) -> None:
    if config.kind != graph.kind:
        raise GraphMismatch(f"{label}: the configuration says {config.kind}, the graph {graph.kind}")
    if not batched and not graph.shape:  # a scalar is configured as dims [ 1 ]
        if any(size != 1 for size in config.shape):
            raise GraphMismatch(f"{label}: the graph has a scalar, so the configuration's {_dims(config)} must be [1]")
        return
    if batched and (not graph.shape or graph.shape[0] != VARIABLE):
        raise GraphMismatch(f"{label}: max_batch_size is above 0, so the graph's {_dims(graph)} must begin with -1")
    same_rank = len(config.shape) == len(graph.shape)
    pairs = zip(config.shape, graph.shape, strict=False)
    if not same_rank or any(c != g and (exact or g != VARIABLE) for c, g in pairs):
        batch = " (batch axis first)" if batched else ""
        raise GraphMismatch(f"{label}: the configuration says {_dims(config)}{batch}, the graph {_dims(graph)}")


def _dims(tensor: Tensor) -> str:
    return "[" + ", ".join(map(str, tensor.shape)) + "]"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in sorted(names))
