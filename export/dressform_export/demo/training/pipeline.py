"""The trained networks as a pipeline's folder, as ``dressform-export`` takes it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusers import StableDiffusionInpaintPipeline

from dressform_export.demo.training.errors import TrainingError
from dressform_export.settings import FILE


def check_target(folder: Path) -> None:
    """Refuse a folder that holds something else than a pipeline, before any time is spent.

    Raises:
        TrainingError: in that case.
    """
    if folder.exists() and not (folder / "model_index.json").is_file() and any(folder.iterdir()):
        raise TrainingError(f"{folder} exists and is not a pipeline's folder: name another for the result")


def save_pipeline(
    pipeline: StableDiffusionInpaintPipeline, settings: Mapping[str, Any], folder: Path, parser: Path | None = None
) -> None:
    """Write ``pipeline`` (FP16 safetensors), ``dressform.json`` and the parser's folder, if there is one."""
    for component in (pipeline.vae, pipeline.text_encoder, pipeline.unet):
        component.half()
    pipeline.save_pretrained(folder)
    (folder / FILE).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    if parser is None:
        shutil.rmtree(folder / "parser", ignore_errors=True)  # an earlier pipeline's
    else:
        shutil.copytree(parser, folder / "parser", dirs_exist_ok=True)
