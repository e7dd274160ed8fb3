"""TensorRT's plans: optimisation profiles, and the script that builds them inside the Triton container, on the GPU.

A plan is for one GPU model and one TensorRT version, so it is built where it will run: by the script, or without one by
ONNX Runtime's TensorRT provider at the first call, for the same profiles. Nothing here was run on a GPU; profiles,
configs and script are generated and tested as text.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig

from dressform_export.engines import FILES, PLAN
from dressform_export.manifest import Manifest, SizeRecord, Tryon
from dressform_export.repository import CONFIG, CONFIGS, read_configs
from dressform_export.triton_config import config_text, read_config

PLANS, PROVIDER = "tensorrt", "cuda-tensorrt"
"""Names among the engines: plans built before, and those that ONNX Runtime builds."""

SCRIPT = "build_tensorrt.sh"
TRTEXEC = "/usr/src/tensorrt/bin/trtexec"
"""Where NVIDIA's Triton container has it."""

COUNTS = (1, 2, 4)
"""Prompts, canvases or pictures of one request: fewest, usual, most (``num_images``)."""

GRAPH_ROWS = (1, 2, 4, 8)
"""Rows of the UNet calls that are captured as CUDA graphs, at the default size; other calls run without."""

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Profile:
    """The shapes of each input of a leaf that a plan is made for: smallest, those it is tuned for, largest."""

    smallest: Mapping[str, Shape]
    usual: Mapping[str, Shape]
    largest: Mapping[str, Shape]


def profile(config: ModelConfig, size: SizeRecord, vae_factor: int, tryon: Tryon) -> Profile:
    """The profile of the leaf that ``config`` (complete) is of.

    Variable axes are, in this order: the rows; the count axis, of every leaf but the UNet; height and width, in pixels
    of UINT8 inputs and in latents of others. Where garments enter by concatenation the UNet sees twice the height.
    """
    unet = config.name == "unet"
    rows = (1, 2, config.max_batch_size)
    shapes: list[dict[str, Shape]] = [{}, {}, {}]
    for tensor in config.input:
        unit = 1 if tensor.data_type == DataType.Value("TYPE_UINT8") else vae_factor
        stacked = 2 if unet and tryon == "concat" else 1
        heights = (size.minimum // unit, stacked * size.height // unit, stacked * size.maximum // unit)
        widths = (size.minimum // unit, size.width // unit, size.maximum // unit)
        dims = list(tensor.reshape.shape if tensor.HasField("reshape") else tensor.dims)
        for number, made in enumerate(shapes):
            variable = iter(([] if unet else [COUNTS[number]]) + [heights[number], widths[number]])
            made[tensor.name] = (rows[number], *(next(variable) if axis == -1 else axis for axis in dims))
    return Profile(*shapes)


def capture_graphs(config: ModelConfig, shapes: Profile) -> None:
    """Have Triton's TensorRT backend capture the UNet that ``config`` is of as CUDA graphs, one for each of the rows.

    A step's hundreds of kernels are then launched at once. ONNX Runtime's CUDA provider can capture too, but replays
    what it read at the capture's addresses, and Triton's backend gives it other ones at each call: `cuda` goes without.
    """
    config.optimization.cuda.graphs = True
    for rows in GRAPH_ROWS:
        spec = config.optimization.cuda.graph_spec.add(batch_size=rows)
        for name, shape in shapes.usual.items():
            spec.input[name].dim.extend(shape[1:])


def name_profile(config: ModelConfig, shapes: Profile) -> None:
    """Tell ONNX Runtime's TensorRT provider the ``shapes`` of the leaf that ``config`` is of.

    Without them it would build a new engine whenever a call leaves the shapes that it has seen.
    """
    (accelerator,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    accelerator.parameters["trt_engine_cache_prefix"] = config.name
    accelerator.parameters["trt_profile_min_shapes"] = _spec(shapes.smallest)
    accelerator.parameters["trt_profile_opt_shapes"] = _spec(shapes.usual)
    accelerator.parameters["trt_profile_max_shapes"] = _spec(shapes.largest)


def complete_tensorrt(repository: Path, manifest: Manifest) -> None:
    """Write what TensorRT needs to know of the leaves' shapes, for those of its engines that ``manifest`` has.

    Of plans ``build_tensorrt.sh`` and the UNet's CUDA graphs, of ONNX Runtime's provider its parameters.
    """
    configs = read_configs(repository)
    profiles = {
        leaf: profile(configs[leaf], manifest.size, manifest.vae.factor, manifest.tryon) for leaf in manifest.graphs
    }
    if PLANS in manifest.engines:
        (repository / SCRIPT).write_text(build_script(profiles), encoding="utf-8")
        _rewrite(repository, "unet", PLANS, manifest, partial(capture_graphs, shapes=profiles["unet"]))
    if PROVIDER in manifest.engines:
        for leaf, shapes in profiles.items():
            _rewrite(repository, leaf, PROVIDER, manifest, partial(name_profile, shapes=shapes))


def _rewrite(
    repository: Path, leaf: str, engine: str, manifest: Manifest, change: Callable[[ModelConfig], None]
) -> None:
    """Write the configs of ``leaf`` for ``engine`` anew, with the ``change``."""
    named = repository / leaf / CONFIGS / f"{engine}.pbtxt"
    config = read_config(named)
    change(config)
    for path in (named, *([repository / leaf / CONFIG] if manifest.engine == engine else [])):
        path.write_text(config_text(config, engine), encoding="utf-8")


def build_command(leaf: str, shapes: Profile) -> list[str]:
    """The words of the ``trtexec`` call that builds the plan of ``leaf`` from its plain fp16 graph, in the repository.

    The network is strongly typed: what the graph keeps in FP32 stays so.
    """
    folder = f"{leaf}/1"
    return [
        TRTEXEC,
        f"--onnx={folder}/{FILES['fp16_plain']}",
        "--stronglyTyped",
        f"--minShapes={_spec(shapes.smallest)}",
        f"--optShapes={_spec(shapes.usual)}",
        f"--maxShapes={_spec(shapes.largest)}",
        "--timingCacheFile=tensorrt.timing",
        f"--saveEngine={folder}/{PLAN}.partial",
        "--skipInference",
    ]


def build_script(profiles: Mapping[str, Profile]) -> str:
    """A bash script, run in the repository, that builds the plans of the leaves in ``profiles``; finished ones stay."""
    lines = [
        "#!/bin/bash",
        "# Builds the TensorRT plans of this repository, on the GPU that will serve them, in the Triton container:",
        '#   docker run --rm --gpus all -v "$PWD":/models -w /models nvcr.io/nvidia/tritonserver:26.07-py3 \\',
        f"#     ./{SCRIPT}",
        "# Written by dressform-export; not run by it.",
        "set -euo pipefail",
        'cd "$(dirname "$0")"',
    ]
    for number, (leaf, shapes) in enumerate(profiles.items(), 1):
        plan = f"{leaf}/1/{PLAN}"
        lines += [
            "",
            f"if [ {plan} -nt {leaf}/1/{FILES['fp16_plain']} ]; then",
            f'  echo "[{number}/{len(profiles)}] {leaf}: built already"',
            "else",
            f'  echo "[{number}/{len(profiles)}] {leaf}: building"',
            f"  {shlex.join(build_command(leaf, shapes))}",
            f"  mv {plan}.partial {plan}",
            "fi",
        ]
    return "\n".join(lines) + "\n"


def _spec(shapes: Mapping[str, Shape]) -> str:
    return ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in shapes.items())
