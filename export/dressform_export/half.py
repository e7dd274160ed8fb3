"""The fp16 graph: half weights and arithmetic where that is safe, FP32 where it is known not to be.

Inputs and outputs keep their types. In FP32 stay:

- normalisation, softmax, exponentials and powers, whose sums or results leave half's range (65,504) or its 11 bits;
- whatever leads to a sine or cosine: a timestep such as 946.42 times a frequency is an angle, and half rounds numbers
  above 512 to 0.5, a quarter of a radian off.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import onnx
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

UNSAFE = (
    "Cos",
    "Exp",
    "InstanceNormalization",
    "LayerNormalization",
    "Pow",
    "ReduceMean",
    "ReduceSum",
    "Reciprocal",
    "Sin",
    "Softmax",
    "Sqrt",
)
"""ONNX operators kept in FP32, beside those that have no half kernels (``DEFAULT_OP_BLOCK_LIST``)."""


def to_half(path: Path) -> onnx.ModelProto:
    """The FP32 graph at ``path`` with half weights, ``UNSAFE`` operators and angles in FP32."""
    graph = onnx.load(str(path), load_external_data=False).graph
    half = convert_float_to_float16(
        str(path),  # not the model: the converter needs shape inference, which takes files alone above 2 GiB
        keep_io_types=True,
        op_block_list=[*DEFAULT_OP_BLOCK_LIST, *UNSAFE],
        node_block_list=sorted(before_angles(graph)),
    )
    _undo_round_trips(half.graph, {node.name for node in graph.node})
    return half


def _undo_round_trips(graph: onnx.GraphProto, own: Collection[str]) -> None:
    """Join FP32 nodes directly: the converter rounds what passes between them, and graph inputs, to half and back.

    ``own`` are the names of the nodes that are not the converter's.
    """
    casts = {node.output[0]: node for node in graph.node if node.op_type == "Cast" and node.name not in own}
    direct = {
        output: casts[node.input[0]].input[0]
        for output, node in casts.items()
        if node.input[0] in casts
        and node.attribute[0].i == onnx.TensorProto.FLOAT
        and casts[node.input[0]].attribute[0].i == onnx.TensorProto.FLOAT16
    }
    for node in graph.node:
        for number, name in enumerate(node.input):
            node.input[number] = direct.get(name, name)
    for output in direct:
        graph.node.remove(casts[output])


def before_angles(graph: onnx.GraphProto) -> set[str]:
    """Names of the nodes whose results reach a sine or cosine."""
    maker = {output: node for node in graph.node for output in node.output}
    found: dict[str, onnx.NodeProto] = {}
    waiting = [node for node in graph.node if node.op_type in ("Sin", "Cos")]
    while waiting:
        for name in waiting.pop().input:
            node = maker.get(name)
            if node is not None and node.name not in found:
                found[node.name] = node
                waiting.append(node)
    return set(found)
