"""The model repository that comes out: which models it gets, and the files that go beside the graphs."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from dressform_export.engines import Engine
from dressform_export.errors import ExportError
from dressform_export.triton_config import complete_config, engine_config, read_config

if TYPE_CHECKING:
    from transformers import CLIPTokenizerFast

CONFIG = "config.pbtxt"
CONFIGS = "configs"
"""A model's folder of configs by engine."""
VERSION = "1"
CONTRACT = "dressform_contract"
NEEDS = "needs"
"""Parameter of a Python model's config: the leaf that it cannot do without."""
_NOT_COPIED = shutil.ignore_patterns("__pycache__", "*.py[co]", ".*")


def template_folder() -> Path:
    """The checked-in models: package data of an installed wheel, or the checkout's ``model_repository``."""
    here = Path(__file__).resolve().parent
    for folder in (here / "model_repository", here.parents[1] / "model_repository"):
        if folder.is_dir():
            return folder
    raise ExportError(f"the model_repository template is missing beside {here}: reinstall dressform")


def read_configs(template: Path) -> dict[str, ModelConfig]:
    """Model name → config of every model in ``template``."""
    paths = sorted(template.glob(f"*/{CONFIG}"))
    return {path.parent.name: read_config(path) for path in paths}


def config_for(repository: Path, model: str, engine: str | None) -> ModelConfig:
    """The config that Triton takes for ``model`` when it serves ``engine``: one of its own, or the one of all.

    Raises:
        OSError: if it cannot be read.
    """
    named = repository / model / CONFIGS / f"{engine}.pbtxt"
    path = named if named.is_file() else repository / model / CONFIG
    return read_config(path)


def models_to_export(configs: Mapping[str, ModelConfig], graphs: Collection[str]) -> tuple[str, ...]:
    """The models that a pipeline with these ``graphs`` has a use for.

    A leaf without a graph is left out, and so is every model with a step in, or a need (a parameter) for, one that is;
    but an ensemble does without a step whose outputs are optional inputs wherever they go.

    Raises:
        ExportError: if a graph has no model.
    """
    missing = sorted(set(graphs) - set(configs))
    if missing:
        raise ExportError(f"the model_repository template has no {', '.join(missing)}")
    kept = {name for name, config in configs.items() if config.backend != "onnxruntime" or name in graphs}
    while dropped := {name for name in kept if not _needs(configs[name], configs) <= kept}:
        kept -= dropped
    return tuple(sorted(kept))


def _needs(config: ModelConfig, configs: Mapping[str, ModelConfig]) -> set[str]:
    """The models that a model calls and cannot do without."""
    steps = {step.model_name for step in config.ensemble_scheduling.step if not _dispensable(step, config, configs)}
    return steps | {config.parameters[key].string_value for key in config.parameters if key == NEEDS}


def _dispensable(step: Any, ensemble: ModelConfig, configs: Mapping[str, ModelConfig]) -> bool:
    """Whether every model that takes an output of ``step`` can do without it."""
    made = set(step.output_map.values())
    if not made or made & {tensor.name for tensor in ensemble.output}:
        return False
    taken = [
        (other.model_name, name)
        for other in ensemble.ensemble_scheduling.step
        for name, tensor in other.input_map.items()
        if tensor in made
    ]
    optional = {(model, tensor.name) for model, config in configs.items() for tensor in config.input if tensor.optional}
    return set(taken) <= optional


def without_missing_steps(ensemble: ModelConfig, models: Collection[str]) -> ModelConfig:
    """``ensemble`` without the steps whose model is not among ``models``.

    Gone too is what they would have made, and what nobody takes any more: Triton refuses an unused tensor.
    """
    result = ModelConfig()
    result.CopyFrom(ensemble)
    result.ensemble_scheduling.ClearField("step")
    kept = [step for step in ensemble.ensemble_scheduling.step if step.model_name in models]
    made = {tensor.name for tensor in ensemble.input} | {name for step in kept for name in step.output_map.values()}
    taken = {tensor.name for tensor in ensemble.output} | {name for step in kept for name in step.input_map.values()}
    for step in kept:
        copy = result.ensemble_scheduling.step.add(model_name=step.model_name, model_version=step.model_version)
        copy.input_map.update({name: tensor for name, tensor in step.input_map.items() if tensor in made})
        copy.output_map.update({name: tensor for name, tensor in step.output_map.items() if tensor in taken})
    return result


def copy_models(template: Path, repository: Path, graphs: Collection[str]) -> None:
    """Copy configs and code of the models that are wanted, each with its version folder, and the modules they share."""
    configs = read_configs(template)
    models = models_to_export(configs, graphs)
    for name in models:
        shutil.copytree(template / name, repository / name, ignore=_NOT_COPIED)
        (repository / name / VERSION).mkdir(exist_ok=True)
        if any(step.model_name not in models for step in configs[name].ensemble_scheduling.step):
            pruned = without_missing_steps(configs[name], models)
            (repository / name / CONFIG).write_text(text_format.MessageToString(pruned), encoding="utf-8")
    for module in template.glob("*.py"):  # what the stages share
        shutil.copyfile(module, repository / module.name)
    contract = importlib.util.find_spec(CONTRACT)
    origin = contract.origin if contract else template.parent / "client" / f"{CONTRACT}.py"
    shutil.copyfile(str(origin), repository / f"{CONTRACT}.py")


def complete_leaf(repository: Path, name: str, graph: Path, engines: Sequence[Engine]) -> None:
    """Complete the config of the leaf ``name`` from its FP32 ``graph``, and write one for each engine.

    The first engine's is ``config.pbtxt``, which Triton takes when no other is asked for.
    """
    config = repository / name / CONFIG
    complete_config(config, graph)
    completed = config.read_text(encoding="utf-8")
    folder = repository / name / CONFIGS
    folder.mkdir()
    for engine in engines:
        (folder / f"{engine.name}.pbtxt").write_text(engine_config(completed, engine), encoding="utf-8")
    shutil.copyfile(folder / f"{engines[0].name}.pbtxt", config)


def write_tokenizer(repository: Path, tokenizer: CLIPTokenizerFast) -> None:
    """``preprocess/tokenizer.json``, without truncation and padding, which ``preprocess`` does itself."""
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    (repository / "preprocess").mkdir(exist_ok=True)
    backend.save(str(repository / "preprocess" / "tokenizer.json"))


def write_scheduler(repository: Path, config: Mapping[str, Any]) -> None:
    """``denoise/scheduler_config.json``."""
    (repository / "denoise").mkdir(exist_ok=True)
    text = json.dumps(dict(config), indent=2, sort_keys=True)
    (repository / "denoise" / "scheduler_config.json").write_text(text + "\n", encoding="utf-8")
