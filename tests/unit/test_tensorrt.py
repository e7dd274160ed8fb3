"""Optimisation profiles and the build script of TensorRT, as text: no GPU is needed, and none was used."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from dressform_export.engines import ENGINES
from dressform_export.manifest import SizeRecord
from dressform_export.tensorrt import GRAPH_ROWS, build_command, build_script, capture_graphs, name_profile, profile
from dressform_export.triton_config import engine_config

SIZE = SizeRecord(height=512, width=384, minimum=64, maximum=1024)
UNET = """
name: "unet" max_batch_size: 64
input { name: "sample" data_type: TYPE_FP32 dims: [ 9, -1, -1 ] }
input { name: "timestep" data_type: TYPE_FP32 dims: [ 1 ] reshape { shape: [ ] } }
input { name: "encoder_hidden_states" data_type: TYPE_FP32 dims: [ 77, 768 ] }
"""
ENCODER = """
name: "vae_encoder" max_batch_size: 8
input { name: "canvases" data_type: TYPE_UINT8 dims: [ -1, -1, -1, 3 ] }
input { name: "keep" data_type: TYPE_UINT8 dims: [ -1, -1, -1 ] }
"""
DECODER = 'name: "vae_decoder" max_batch_size: 8 input { name: "latents" data_type: TYPE_FP32 dims: [ -1, 4, -1, -1 ] }'
TEXT = 'name: "text_encoder" max_batch_size: 8 input { name: "input_ids" data_type: TYPE_INT64 dims: [ -1, 77 ] }'


def config(text: str) -> ModelConfig:
    return text_format.Parse(text, ModelConfig())


def test_the_unets_rows_and_latents() -> None:
    made = profile(config(UNET), SIZE, 8, "none")
    assert made.smallest == {"sample": (1, 9, 8, 8), "timestep": (1,), "encoder_hidden_states": (1, 77, 768)}
    assert made.usual == {"sample": (2, 9, 64, 48), "timestep": (2,), "encoder_hidden_states": (2, 77, 768)}
    assert made.largest == {"sample": (64, 9, 128, 128), "timestep": (64,), "encoder_hidden_states": (64, 77, 768)}


def test_a_garment_below_the_person_doubles_the_unets_height_alone() -> None:
    made = profile(config(UNET), SIZE, 8, "concat")
    assert (made.smallest["sample"], made.usual["sample"]) == ((1, 9, 8, 8), (2, 9, 128, 48))
    assert made.largest["sample"] == (64, 9, 256, 128)
    assert profile(config(DECODER), SIZE, 8, "concat") == profile(config(DECODER), SIZE, 8, "none")


@pytest.mark.parametrize(
    ("text", "largest"),
    [
        (ENCODER, {"canvases": (8, 4, 1024, 1024, 3), "keep": (8, 4, 1024, 1024)}),
        (DECODER, {"latents": (8, 4, 4, 128, 128)}),
        (TEXT, {"input_ids": (8, 4, 77)}),
    ],
)
def test_leaves_with_a_count_axis(text: str, largest: dict[str, tuple[int, ...]]) -> None:
    assert profile(config(text), SIZE, 8, "none").largest == largest


def test_the_command_names_every_input_in_each_profile() -> None:
    words = build_command("unet", profile(config(UNET), SIZE, 8, "none"))
    assert "--onnx=unet/1/model.plain.onnx" in words
    assert "--stronglyTyped" in words
    assert "--optShapes=sample:2x9x64x48,timestep:2,encoder_hidden_states:2x77x768" in words


def test_the_script_is_bash_and_stops_at_the_first_failure() -> None:
    profiles = {
        "unet": profile(config(UNET), SIZE, 8, "none"),
        "vae_decoder": profile(config(DECODER), SIZE, 8, "none"),
    }
    script = build_script(profiles)
    bash = shutil.which("bash")
    assert bash is not None
    subprocess.run([bash, "-n"], input=script, text=True, check=True)
    assert "set -euo pipefail" in script
    assert script.index("unet/1/model.plan.partial unet/1/model.plan") < script.index("[2/2] vae_decoder")


def test_the_unets_calls_are_captured_at_the_default_size() -> None:
    made = config(UNET)
    capture_graphs(made, profile(made, SIZE, 8, "concat"))
    cuda = made.optimization.cuda
    assert cuda.graphs
    assert tuple(spec.batch_size for spec in cuda.graph_spec) == GRAPH_ROWS
    assert max(GRAPH_ROWS) <= made.max_batch_size
    for spec in cuda.graph_spec:
        shapes = {name: list(shape.dim) for name, shape in spec.input.items()}
        assert shapes == {"sample": [9, 128, 48], "timestep": [], "encoder_hidden_states": [77, 768]}


def test_onnx_runtimes_provider_is_told_the_shapes_and_caches_by_leaf() -> None:
    made = text_format.Parse(engine_config(UNET, ENGINES["cuda-tensorrt"]), ModelConfig())
    name_profile(made, profile(made, SIZE, 8, "none"))
    (accelerator,) = made.optimization.execution_accelerators.gpu_execution_accelerator
    parameters = dict(accelerator.parameters)
    assert parameters["trt_profile_min_shapes"] == "sample:1x9x8x8,timestep:1,encoder_hidden_states:1x77x768"
    assert parameters["trt_profile_opt_shapes"] == "sample:2x9x64x48,timestep:2,encoder_hidden_states:2x77x768"
    assert parameters["trt_profile_max_shapes"] == "sample:64x9x128x128,timestep:64,encoder_hidden_states:64x77x768"
    assert parameters["trt_engine_cache_prefix"] == "unet"
    assert (parameters["precision_mode"], parameters["trt_engine_cache_enable"]) == ("FP16", "1")
    assert "trt_profile_min_shapes" not in dict(ENGINES["cuda-tensorrt"].accelerator[1]), "the description is shared"
