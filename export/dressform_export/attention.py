"""Attention that does not materialise its matrix.

The exporter writes scaled dot-product attention as MatMul → Softmax → MatMul, and ONNX Runtime computes that as it
stands: a matrix of rows × heads × tokens² values. A try-on at 1024 × 768 has 24,576 tokens in the UNet's outer blocks:
39 GB for two rows. As one ``com.microsoft.MultiHeadAttention`` the same is computed block by block (Dao et al. 2022),
on the CPU as on CUDA, and nothing of that size is ever kept.

The operator is ONNX Runtime's own; OpenVINO reads it too (as its scaled dot-product attention), TensorRT does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import onnx
from onnx import NodeProto, helper, numpy_helper

DOMAIN = "com.microsoft"
OPERATOR = "MultiHeadAttention"

_SPLIT, _SPLIT_KEY = [0, 2, 1, 3], [0, 2, 3, 1]
"""Axes of the transpositions after which queries and values, and keys, are split into heads."""


def fuse_attention(model: onnx.ModelProto) -> int:
    """Replace each unmasked attention of diffusers in ``model`` by one operator of ONNX Runtime; returns how many.

    Weights may be outside (``load_external_data=False``): only nodes are changed.
    """
    graph = _Nodes(model.graph)
    found = [match for node in model.graph.node if node.op_type == "Softmax" and (match := graph.attention(node))]
    if not found:
        return 0
    by_output = {match.output: match for match in found}
    nodes = [by_output[node.output[0]].fused() if node.output[0] in by_output else node for node in model.graph.node]
    kept = _used(nodes, [output.name for output in model.graph.output])
    del model.graph.node[:]
    model.graph.node.extend(kept)
    model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return len(found)


@dataclass(frozen=True)
class _Attention:
    """Tensors of one attention, [batch, tokens, heads × width] each."""

    query: str
    key: str
    value: str
    output: str
    heads: int

    def fused(self) -> NodeProto:
        """The operator in its place; its scale is 1 / √width, as the exporter's."""
        inputs = [self.query, self.key, self.value]
        name = f"{self.output}/{OPERATOR}"
        return helper.make_node(OPERATOR, inputs, [self.output], name, domain=DOMAIN, num_heads=self.heads)


class _Nodes:
    """The nodes of a graph by what they make and take."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.makers = {name: node for node in graph.node for name in node.output}
        self.takers: dict[str, list[NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self.takers.setdefault(name, []).append(node)

    @cached_property
    def constants(self) -> dict[str, onnx.TensorProto]:
        """Constant tensors by name."""
        nodes = [node for node in self.graph.node if node.op_type == "Constant"]
        values = {node.output[0]: a.t for node in nodes for a in node.attribute if a.name == "value"}
        return values | {tensor.name: tensor for tensor in self.graph.initializer}

    def attention(self, softmax: NodeProto) -> _Attention | None:
        """The attention around ``softmax``; None where it is masked, or another use of a softmax."""
        scores = self._before(softmax, 0, "MatMul")
        weighted = self._after(softmax, "MatMul")
        queries, keys = (self._before(scores, side, "Mul") for side in (0, 1))
        split = [
            self._split(self._before(queries, 0, "Transpose"), _SPLIT),
            self._split(self._before(keys, 0, "Transpose"), _SPLIT_KEY),
            self._split(self._before(weighted, 1, "Transpose"), _SPLIT),
        ]
        joined = self._after(self._after(weighted, "Transpose"), "Reshape")
        if joined is None or not all(split) or len({heads for _, heads in filter(None, split)}) != 1:
            return None
        (query, heads), (key, _), (value, _) = (pair for pair in split if pair)
        return _Attention(query, key, value, joined.output[0], heads)

    def _before(self, node: NodeProto | None, number: int, kind: str) -> NodeProto | None:
        """What makes an input of ``node``, if it is of this kind."""
        maker = self.makers.get(node.input[number]) if node is not None else None
        return maker if maker is not None and maker.op_type == kind else None

    def _after(self, node: NodeProto | None, kind: str) -> NodeProto | None:
        """The only node that takes what ``node`` makes, if it is of this kind."""
        takers = self.takers.get(node.output[0], []) if node is not None else []
        return takers[0] if len(takers) == 1 and takers[0].op_type == kind else None

    def _split(self, transpose: NodeProto | None, axes: Sequence[int]) -> tuple[str, int] | None:
        """The tensor that was reshaped to [batch, tokens, heads, width] and transposed by ``axes``, and the heads."""
        reshape = self._before(transpose, 0, "Reshape")
        if transpose is None or reshape is None or _attribute(transpose, "perm") != list(axes):
            return None
        shape = self._before(reshape, 1, "Concat")
        constant = self.constants.get(shape.input[2]) if shape is not None and len(shape.input) == 4 else None
        heads = -1 if constant is None else int(numpy_helper.to_array(constant).item())
        return (reshape.input[0], heads) if heads > 0 else None  # -1: left to the other axes, as in transformers' CLIP


def _attribute(node: NodeProto, name: str) -> Any:
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), None)


def _used(nodes: Sequence[NodeProto], outputs: Sequence[str]) -> list[NodeProto]:
    """The ``nodes`` that ``outputs`` need, in order."""
    needed, kept = set(outputs), []
    for node in reversed(nodes):
        if needed & set(node.output):
            kept.append(node)
            needed |= set(node.input)
    return kept[::-1]
