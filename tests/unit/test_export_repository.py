"""What an export writes: configs that fit the graphs, the stages, and a manifest that can be checked."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import onnxruntime
import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInput

from dressform_export import read_manifest
from dressform_export.manifest import Manifest
from dressform_export.repository import (
    CONFIG,
    models_to_export,
    read_configs,
    template_folder,
    without_missing_steps,
)
from dressform_export.source import sha256

LEAVES = ("text_encoder", "unet", "vae_decoder", "vae_encoder")
TYPES = {"tensor(float)": "TYPE_FP32", "tensor(int64)": "TYPE_INT64", "tensor(uint8)": "TYPE_UINT8"}

TENSORS = {
    "text_encoder": {"input_ids": ("TYPE_INT64", [-1, 77]), "hidden_states": ("TYPE_FP32", [-1, 77, 32])},
    "vae_encoder": {
        "canvases": ("TYPE_UINT8", [-1, -1, -1, 3]),
        "keep": ("TYPE_UINT8", [-1, -1, -1]),
        "moments": ("TYPE_FP32", [-1, 8, -1, -1]),
    },
    "unet": {
        "sample": ("TYPE_FP32", [9, -1, -1]),
        "timestep": ("TYPE_FP32", [1]),
        "encoder_hidden_states": ("TYPE_FP32", [77, 32]),
        "out_sample": ("TYPE_FP32", [4, -1, -1]),
    },
    "vae_decoder": {"latents": ("TYPE_FP32", [-1, 4, -1, -1]), "images": ("TYPE_UINT8", [-1, -1, -1, 3])},
}
"""The contract between the leaves and the stages, at the tiny pipeline's sizes."""


@pytest.mark.parametrize("leaf", LEAVES)
def test_config_says_what_the_graph_has(tiny_repository: Path, leaf: str) -> None:
    config = text_format.Parse((tiny_repository / leaf / CONFIG).read_text(), ModelConfig())
    session = onnxruntime.InferenceSession(str(tiny_repository / leaf / "1" / "model.onnx"))
    in_graph = {}
    for tensor in (*session.get_inputs(), *session.get_outputs()):
        sizes = [size if isinstance(size, int) else -1 for size in tensor.shape]
        assert sizes[0] == -1
        in_graph[tensor.name] = (TYPES[tensor.type], sizes[1:] or [1])
    tensors = [*config.input, *config.output]
    assert {
        t.name: (ModelInput(data_type=t.data_type).data_type, list(t.dims)) for t in tensors
    }.keys() == in_graph.keys()
    in_config = {t.name: (_type_name(t.data_type), list(t.dims)) for t in tensors}
    assert in_config == in_graph == TENSORS[leaf]
    assert config.name == leaf
    assert config.backend == "onnxruntime"
    assert config.default_model_filename == "model.onnx"
    assert config.max_batch_size == (64 if leaf == "unet" else 8)
    assert config.HasField("dynamic_batching") == (leaf != "unet")


def _type_name(number: int) -> str:
    return str(ModelInput.DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number[number].name)


def test_timestep_is_one_value_per_row(tiny_repository: Path) -> None:
    config = text_format.Parse((tiny_repository / "unet" / CONFIG).read_text(), ModelConfig())
    (timestep,) = [tensor for tensor in config.input if tensor.name == "timestep"]
    assert timestep.HasField("reshape")
    assert list(timestep.reshape.shape) == []


def test_files_of_a_repository(tiny_repository: Path) -> None:
    assert (tiny_repository / "dressform_contract.py").is_file()
    assert (tiny_repository / "preprocess" / "tokenizer.json").is_file()
    scheduler = json.loads((tiny_repository / "denoise" / "scheduler_config.json").read_text())
    assert (scheduler["_class_name"], scheduler["clip_sample"]) == ("DDIMScheduler", False)
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in tiny_repository.rglob("*")), "others may read it"
    for name in read_configs(tiny_repository):
        assert (tiny_repository / name / "1").is_dir(), name
    names = {path.name for path in tiny_repository.rglob("*")}
    assert not {name for name in names if name == "__pycache__" or name.endswith(".pyc") or name.startswith(".")}
    for module in template_folder().glob("*.py"):
        assert (tiny_repository / module.name).read_bytes() == module.read_bytes()


def test_models_without_a_use_are_left_out() -> None:
    def leaf(backend: str = "onnxruntime") -> ModelConfig:
        return ModelConfig(backend=backend)

    def ensemble(*steps: str) -> ModelConfig:
        config = ModelConfig(platform="ensemble")
        for step in steps:
            config.ensemble_scheduling.step.add(model_name=step)
        return config

    configs = {
        "unet": leaf(),
        "parser": leaf(),
        "denoise": leaf("python"),
        "inpaint": ensemble("denoise"),
        "mask": ensemble("denoise", "parser"),
        "outer": ensemble("mask"),
    }
    assert models_to_export(configs, ["unet"]) == ("denoise", "inpaint", "unet")
    assert models_to_export(configs, ["unet", "parser"]) == ("denoise", "inpaint", "mask", "outer", "parser", "unet")


def test_an_ensemble_does_without_what_is_optional_wherever_it_goes() -> None:
    configs = read_configs(template_folder())
    leaves = {"vae_encoder", "unet", "vae_decoder"}
    everything = models_to_export(configs, [*leaves, "text_encoder", "safety_checker", "parser"])
    assert set(configs) == set(everything)
    with_text = set(models_to_export(configs, [*leaves, "text_encoder"]))
    assert with_text == set(configs) - {"safety_checker", "parser", "mask"}
    without = set(models_to_export(configs, leaves))
    assert without == with_text - {"text_encoder", "inpaint"}
    assert "tryon" not in models_to_export(configs, ["unet", "vae_decoder"]), "nobody does without an encoder"
    assert without_missing_steps(configs["tryon"], everything) == configs["tryon"]
    pruned = without_missing_steps(configs["tryon"], without).ensemble_scheduling.step
    steps = {step.model_name: step for step in configs["tryon"].ensemble_scheduling.step}
    assert [step.model_name for step in pruned] == [name for name in steps if name in without]
    for step in pruned:
        gone = set(steps[step.model_name].input_map) - set(step.input_map)
        gone |= set(steps[step.model_name].output_map) - set(step.output_map)
        expected = {"preprocess": {"input_ids"}, "handover": {"hidden_states"}, "postprocess": {"scores"}}
        assert gone == expected.get(step.model_name, set())


def test_manifest(tiny_repository: Path, tiny_tryon_repository: Path, tiny_source: Path) -> None:
    manifest = read_manifest(tiny_repository)
    assert (manifest.format, manifest.engine, manifest.precision) == (1, "onnxruntime", "fp32")
    assert manifest.source.sha256["unet/diffusion_pytorch_model.safetensors"] == sha256(
        tiny_source / "unet" / "diffusion_pytorch_model.safetensors"
    )
    assert (manifest.size.height, manifest.size.width, manifest.size.minimum, manifest.size.maximum) == (
        64,
        64,
        64,
        1024,
    )
    assert dataclasses.astuple(manifest.unet) == (9, 4, "epsilon")
    assert dataclasses.astuple(manifest.vae) == (8, 4, 0.18215)
    assert dataclasses.astuple(manifest.text) == (77, 32, 49407, 49406, 49407)
    assert dataclasses.astuple(manifest.defaults) == (30, "ddim", 0.0)
    assert (manifest.tryon, read_manifest(tiny_tryon_repository).tryon) == ("none", "concat")
    assert sorted(manifest.graphs) == sorted(LEAVES)
    for graph in manifest.graphs.values():
        path = tiny_repository / graph.file
        assert (graph.sha256, graph.bytes) == (sha256(path), path.stat().st_size)
        assert graph.opset >= 18
        assert len(graph.verification) >= 4
        assert all(v.difference <= v.tolerance for v in graph.verification)
    assert all(v.difference > 0 for v in manifest.graphs["unet"].verification), "two engines never agree to the bit"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"format": 2}, "format must be 1"),
        ({"tryon": "magic"}, "tryon must be one of none, concat"),
        ({"colour": "red"}, "colour"),
        ({"size": {"height": 100, "width": 64, "minimum": 64, "maximum": 1024}}, "multiple of the VAE factor"),
        ({"size": {"height": 32, "width": 64, "minimum": 64, "maximum": 1024}}, "height must be from 64 to 1024"),
        ({"defaults": {"num_inference_steps": 0, "solver": "ddim", "tryon_eta": 0.0}}, "num_inference_steps"),
        ({"latent_to_rgb": [[1.0, 2.0, 3.0]] * 4}, "latent_to_rgb must have 5 rows of 3, not 4"),
        ({"unet": {"in_channels": 5, "out_channels": 4, "prediction_type": "epsilon"}}, "in_channels must be 9 or 4"),
    ],
)
def test_bad_manifest_is_refused(
    tiny_repository: Path, tmp_path: Path, change: dict[str, object], sentence: str
) -> None:
    record = json.loads((tiny_repository / "manifest.json").read_text()) | change
    (tmp_path / "manifest.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=sentence):
        read_manifest(tmp_path)


def test_manifest_survives_a_round_trip(tiny_repository: Path, tmp_path: Path) -> None:
    manifest = read_manifest(tiny_repository)
    assert isinstance(manifest, Manifest)
    manifest.write(tmp_path)
    assert (tmp_path / "manifest.json").read_bytes() == (tiny_repository / "manifest.json").read_bytes()
