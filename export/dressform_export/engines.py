"""The engines an export can be made for: the one description that graphs, configs, build commands and tests come from.

Every engine of an export reads the same inputs and gives the same outputs (names, shapes, and FP32 / UINT8 / INT64 at
the boundary, whatever it computes in), so one repository serves all. A leaf's version folder holds the graphs side by
side; ``configs/<engine>.pbtxt`` (for ``--model-config-name``, ``dressform serve --engine``) names the engine's own, and
``config.pbtxt`` is that of the first engine asked for::

    graph            file                   made from                                            engines
    fp32             model.onnx             torch, traced; its attention fused (`attention`)     onnxruntime
    fp16             model.fp16.onnx        fp32: half weights, unsafe operators kept in FP32    onnxruntime-fp16, cuda
    fp16_plain       model.plain.onnx       the same, of the graph as traced                     tensorrt, cuda-tensorrt
    openvino         model.xml, .bin        fp32: OpenVINO IR, half weights, run in bfloat16     openvino
    openvino_int8    model.int8.xml, .bin   fp32: the UNet quantised by NNCF, the rest bfloat16  openvino-int8
    plan             model.plan             fp16_plain, by trtexec on the target GPU             tensorrt

ONNX Runtime and OpenVINO read the fused attention (an operator of ONNX Runtime's own), TensorRT does not. ``tensorrt``
runs plans that were built before; ``cuda-tensorrt`` has ONNX Runtime's TensorRT provider build them at the first call,
and keep them.
What needs a GPU (``gpu``) is described here and verified as a graph, and was never run: its records say so.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from dressform_export.errors import ExportError

GraphKind = Literal["fp32", "fp16", "fp16_plain", "openvino", "openvino_int8"]
Precision = Literal["fp32", "fp16", "bf16", "int8"]

FILES: Mapping[GraphKind, str] = MappingProxyType(
    {
        "fp32": "model.onnx",
        "fp16": "model.fp16.onnx",
        "fp16_plain": "model.plain.onnx",
        "openvino": "model.xml",
        "openvino_int8": "model.int8.xml",
    }
)
"""Graph → its file in a leaf's version folder."""

PRECISIONS: Mapping[GraphKind, Precision] = MappingProxyType(
    {"fp32": "fp32", "fp16": "fp16", "fp16_plain": "fp16", "openvino": "bf16", "openvino_int8": "int8"}
)
"""Graph → what it is computed in."""

PLAN = "model.plan"


@dataclass(frozen=True)
class Engine:
    """One way to run the leaves.

    ``backend`` is Triton's. ``graph`` is what every leaf is exported as, but those in ``special``. ``parameters`` are
    those of ``config.pbtxt``, as the native backend reads them. ``file`` is what Triton loads where it is not the graph
    itself but is built from it. ``modules`` are what must be importable to run it here, ``makers`` what its graphs are
    made with besides.
    """

    name: str
    backend: str
    precision: Precision
    graph: GraphKind
    special: Mapping[str, GraphKind] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    accelerator: tuple[str, Mapping[str, str]] | None = None
    """Triton's ``gpu_execution_accelerator``: its name and its parameters."""
    file: str | None = None
    gpu: bool = False
    modules: tuple[str, ...] = ()
    makers: tuple[str, ...] = ()
    extra: str = "export"
    """Of this distribution, with which ``modules`` and ``makers`` are installed."""

    def graph_of(self, leaf: str) -> GraphKind:
        """The graph that ``leaf`` is run from."""
        return self.special.get(leaf, self.graph)

    def file_of(self, leaf: str) -> str:
        """The file that Triton loads for ``leaf``."""
        return self.file or FILES[self.graph_of(leaf)]


# As the native OpenVINO backend reads them, but for the last, which it ignores; one stream, because one request's
# latency is what counts. OpenVINO keeps what it prepared for each shape, and batches have many: 5,000 entries of each
# kind of node where nobody says, so that memory grows for as long as new shapes come.
_OPENVINO = {
    "HINT_BF16": "YES",
    "NUM_STREAMS": "1",
    "PERFORMANCE_HINT": "LATENCY",
    "CPU_RUNTIME_CACHE_CAPACITY": "500",
}

_CUDA = {
    "cudnn_conv_algo_search": "HEURISTIC",  # an exhaustive search for each new shape would stall requests
    "arena_extend_strategy": "kSameAsRequested",  # a doubling arena leaves no room for the other graphs
    "cudnn_conv_use_max_workspace": "1",
    "do_copy_in_default_stream": "1",
}

TENSORRT_CACHE = "/tmp/dressform-tensorrt"
"""Where ONNX Runtime's TensorRT provider keeps what it built; in a container, mount a volume there."""

_TENSORRT = {
    "precision_mode": "FP16",
    "trt_layer_norm_fp32_fallback": "1",  # their sums leave half's range
    "trt_engine_cache_enable": "1",
    "trt_engine_cache_path": TENSORRT_CACHE,
    "trt_timing_cache_enable": "1",
    "trt_timing_cache_path": TENSORRT_CACHE,
}
"""And, of each leaf, the shapes and the prefix of its files in the cache (`dressform_export.tensorrt`)."""

ENGINES: Mapping[str, Engine] = MappingProxyType(
    {
        engine.name: engine
        for engine in (
            Engine("onnxruntime", "onnxruntime", "fp32", "fp32"),
            Engine("onnxruntime-fp16", "onnxruntime", "fp16", "fp16"),
            Engine(
                "openvino",
                "openvino",
                "bf16",
                "openvino",
                parameters=_OPENVINO,
                modules=("openvino",),
                extra="openvino",
            ),
            Engine(
                "openvino-int8",
                "openvino",
                "int8",
                "openvino",
                special={"unet": "openvino_int8"},
                parameters=_OPENVINO,
                modules=("openvino",),
                makers=("nncf",),
                extra="int8",
            ),
            Engine("cuda", "onnxruntime", "fp16", "fp16", accelerator=("cuda", _CUDA), gpu=True),
            Engine("tensorrt", "tensorrt", "fp16", "fp16_plain", file=PLAN, gpu=True),
            Engine("cuda-tensorrt", "onnxruntime", "fp16", "fp16_plain", accelerator=("tensorrt", _TENSORRT), gpu=True),
        )
    }
)
"""Every engine by its name, which is also that of its configs."""

DEFAULT = "onnxruntime"


def chosen(names: Sequence[str], *, making: bool = True) -> tuple[Engine, ...]:
    """The engines ``names``, in that order, the default one where there are none; to be made, or only to be run.

    Raises:
        ExportError: if one is unknown, named twice, or needs a package that is not installed.
    """
    names = names or [DEFAULT]
    unknown = sorted(set(names) - set(ENGINES))
    if unknown:
        raise ExportError(f"engine must be one or more of {', '.join(ENGINES)}, not {', '.join(map(repr, unknown))}")
    if len(set(names)) < len(names):
        raise ExportError(f"each engine may be named once, but they are {', '.join(names)}")
    engines = tuple(ENGINES[name] for name in names)
    for engine in engines:
        needed = (*engine.modules, *(engine.makers if making else ()))
        missing = [module for module in needed if importlib.util.find_spec(module) is None]
        if missing:
            raise ExportError(
                f"engine {engine.name!r} needs {', '.join(missing)}, which is not installed: "
                f"pip install 'dressform[{engine.extra}]'"
            )
    return engines


def graphs_needed(engines: Collection[Engine], leaf: str) -> frozenset[GraphKind]:
    """The graphs of ``leaf`` that ``engines`` run from."""
    return frozenset(engine.graph_of(leaf) for engine in engines)
