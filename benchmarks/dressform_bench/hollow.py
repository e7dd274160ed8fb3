"""A hollow repository: every stage, every tensor at true size, and graphs that compute next to nothing.

What a request costs on it is what Triton and our stages cost, without the model.
"""

from __future__ import annotations

import datetime
import tempfile
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from dressform_export import build_random_pipeline, repository
from dressform_export.engines import DEFAULT, chosen
from dressform_export.manifest import (
    DefaultsRecord,
    EngineRecord,
    GraphRecord,
    Manifest,
    SizeRecord,
    SourceRecord,
    TextRecord,
    UNetRecord,
    VaeRecord,
)
from dressform_export.scheduler import checked_scheduler
from dressform_export.source import open_source

OPSET = 18
FLOAT, INT64, UINT8 = TensorProto.FLOAT, TensorProto.INT64, TensorProto.UINT8


@dataclass(frozen=True)
class Size:
    """Tensor sizes: text tokens and width, latent channels, VAE factor, and the picture's side in pixels."""

    tokens: int = 77
    width: int = 768
    channels: int = 4
    factor: int = 8
    side: int = 512


SIZES = {"tiny": Size(width=32, side=64), "sd15": Size()}


def build(out: Path, size: Size) -> Path:
    """Write a hollow repository of ``size`` to ``out``."""
    graphs = {
        "text_encoder": _text(size),
        "vae_encoder": _encoder(size),
        "unet": _unet(size),
        "vae_decoder": _decoder(size),
    }
    out.mkdir(parents=True)
    repository.copy_models(repository.template_folder(), out, list(graphs))
    for name, graph in graphs.items():
        path = out / name / repository.VERSION / "model.onnx"
        onnx.save(graph, str(path))
        repository.complete_leaf(out, name, path, chosen([]))
    with tempfile.TemporaryDirectory() as folder:
        source = open_source(str(build_random_pipeline("tiny", Path(folder) / "source", tryon="concat")), None)
        repository.write_tokenizer(out, source.tokenizer)
        scheduler = checked_scheduler(source.scheduler)[0]
    repository.write_scheduler(out, scheduler)
    _manifest(size, list(graphs)).write(out)
    return out


def _manifest(size: Size, graphs: list[str]) -> Manifest:
    return Manifest(
        source=SourceRecord("hollow", None, {}),
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        versions={},
        tryon="concat",
        unet=UNetRecord(2 * size.channels + 1, size.channels, "epsilon"),
        vae=VaeRecord(size.factor, size.channels, 0.18215),
        text=TextRecord(size.tokens, size.width, 49407, 49406, 49407),
        size=SizeRecord(size.side, size.side, 64, 1024),
        defaults=DefaultsRecord(20, "ddim", 0.0),
        engines={
            DEFAULT: EngineRecord(
                "onnxruntime",
                "fp32",
                executed=False,
                graphs={name: GraphRecord(f"{name}/1/model.onnx", "", None, 0, OPSET, ()) for name in graphs},
            )
        },
        latent_to_rgb=((0.0, 0.0, 0.0),) * (size.channels + 1),
        warnings=("hollow: these graphs compute nothing",),
    )


def _model(
    nodes: list[onnx.NodeProto], inputs: list[onnx.ValueInfoProto], output: onnx.ValueInfoProto
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "hollow", inputs, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    onnx.checker.check_model(model)
    return model


def _constant(name: str, values: list[int]) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=helper.make_tensor(name, INT64, [len(values)], values))


def _filled(value: float, kind: int, source: str, axes: tuple[int, int], tail: list[str]) -> list[onnx.NodeProto]:
    """Nodes that fill "output" with ``value``; its shape is axes [start, end) of ``source``, then ``tail``."""
    fill = helper.make_tensor("fill", kind, [1], [value])
    return [
        helper.make_node("Shape", [source], ["head"], start=axes[0], end=axes[1]),
        helper.make_node("Concat", ["head", *tail], ["shape"], axis=0),
        helper.make_node("ConstantOfShape", ["shape"], ["output"], value=fill),
    ]


def _text(size: Size) -> onnx.ModelProto:
    nodes = [_constant("width", [size.width]), *_filled(0.1, FLOAT, "input_ids", (0, 3), ["width"])]
    return _model(
        [*nodes[:-1], _renamed(nodes[-1], "hidden_states")],
        [helper.make_tensor_value_info("input_ids", INT64, ["b", "n", size.tokens])],
        helper.make_tensor_value_info("hidden_states", FLOAT, ["b", "n", size.tokens, size.width]),
    )


def _renamed(node: onnx.NodeProto, output: str) -> onnx.NodeProto:
    node.output[0] = output
    return node


def _encoder(size: Size) -> onnx.ModelProto:
    nodes = [
        _constant("moments_channels", [2 * size.channels]),
        _constant("factor", [size.factor]),
        helper.make_node("Shape", ["keep"], ["pixels"], start=2, end=4),
        helper.make_node("Div", ["pixels", "factor"], ["latents"]),
        *_filled(0.0, FLOAT, "keep", (0, 2), ["moments_channels", "latents"]),
    ]
    return _model(
        [*nodes[:-1], _renamed(nodes[-1], "moments")],
        [
            helper.make_tensor_value_info("canvases", UINT8, ["b", "k", "H", "W", 3]),
            helper.make_tensor_value_info("keep", UINT8, ["b", "k", "H", "W"]),
        ],
        helper.make_tensor_value_info("moments", FLOAT, ["b", "k", 2 * size.channels, "h", "w"]),
    )


def _unet(size: Size) -> onnx.ModelProto:
    nodes = [
        _constant("zero", [0]),
        _constant("channels", [size.channels]),
        _constant("axis", [1]),
        helper.make_node("Slice", ["sample", "zero", "channels", "axis"], ["out_sample"]),
    ]
    return _model(
        nodes,
        [
            helper.make_tensor_value_info("sample", FLOAT, ["r", 2 * size.channels + 1, "h", "w"]),
            helper.make_tensor_value_info("timestep", FLOAT, ["r"]),
            helper.make_tensor_value_info("encoder_hidden_states", FLOAT, ["r", size.tokens, size.width]),
        ],
        helper.make_tensor_value_info("out_sample", FLOAT, ["r", size.channels, "h", "w"]),
    )


def _decoder(size: Size) -> onnx.ModelProto:
    nodes = [
        _constant("rgb", [3]),
        _constant("factor", [size.factor]),
        helper.make_node("Shape", ["latents"], ["latent_size"], start=3, end=5),
        helper.make_node("Mul", ["latent_size", "factor"], ["pixels"]),
        *_filled(127, UINT8, "latents", (0, 2), ["pixels", "rgb"]),
    ]
    return _model(
        [*nodes[:-1], _renamed(nodes[-1], "images")],
        [helper.make_tensor_value_info("latents", FLOAT, ["b", "n", size.channels, "h", "w"])],
        helper.make_tensor_value_info("images", UINT8, ["b", "n", "H", "W", 3]),
    )
