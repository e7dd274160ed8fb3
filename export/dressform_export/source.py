"""The pipeline to export: found (on disk or at the hub), inspected before any weight is loaded, then loaded in parts.

Everything that cannot be exported is refused here by name, from the JSON configs alone.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL, UNet2DConditionModel
from huggingface_hub import snapshot_download
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizerFast

from dressform_export.errors import ExportError
from dressform_export.graphs import Dimensions
from dressform_export.scheduler import checked_scheduler
from dressform_export.settings import Settings, read_settings

MODELS: dict[str, Any] = {"text_encoder": CLIPTextModel, "vae": AutoencoderKL, "unet": UNet2DConditionModel}
"""Components with weights, and the only class each may have."""

MODEL_FILES = ("config.json", "*.safetensors", "*.safetensors.index.json")
"""Patterns of a component's files."""

TOKENIZERS = ("CLIPTokenizer", "CLIPTokenizerFast")
LEFT_OUT = ("safety_checker", "feature_extractor", "image_encoder")
"""Components that a pipeline may have and an export does not carry; a safety checker is warned about."""

UNET_EXTRAS = (
    "class_embed_type",
    "num_class_embeds",
    "time_cond_proj_dim",
    "addition_embed_type",
    "encoder_hid_dim_type",
)
"""UNet options that ask for inputs besides sample, timestep and text."""

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def open_source(source: str, revision: str | None = None) -> Source:
    """The pipeline at ``source``: a local ``save_pretrained`` folder or a hub id, which is downloaded at ``revision``.

    Raises:
        ExportError: if it is not there, or not a pipeline that can be exported.
    """
    patterns = ["model_index.json", "dressform.json", "scheduler/*.json", "tokenizer/*", "parser/*.json"]
    patterns += [f"{name}/{file}" for name in (*MODELS, "parser") for file in MODEL_FILES]
    return Source(str(source), *located(source, revision, patterns))


def located(source: str, revision: str | None, patterns: Sequence[str]) -> tuple[str | None, Path]:
    """The commit (None: a local folder) and the folder of ``source``, of which a hub's files are those of ``patterns``.

    Raises:
        ExportError: if it is not there.
    """
    folder = Path(source)
    if folder.is_dir():
        if revision is not None:
            raise ExportError(f"--revision is for hub ids, and {source} is a local folder")
        return None, folder
    if folder.exists() or not _HUB_ID.fullmatch(source):
        raise ExportError(f"{source} is neither a folder nor a hub id such as owner/name")
    try:
        snapshot = snapshot_download(
            source, revision=revision, allow_patterns=list(patterns), ignore_patterns=["*.fp16.*", "*.non_ema.*"]
        )
    except Exception as error:  # the hub's client has no common base: network, permission, absence
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ExportError(f"{source} is not a local folder and could not be had from the hub: {reason}") from error
    return Path(snapshot).name, Path(snapshot)


@dataclass(frozen=True)
class Source:
    """An inspected pipeline. ``revision`` is the commit of a hub snapshot."""

    id: str
    revision: str | None
    folder: Path

    def __post_init__(self) -> None:
        self._check_components()
        self._check_unet()
        checked_scheduler(self.scheduler)

    @cached_property
    def settings(self) -> Settings:
        """Its ``dressform.json``."""
        return read_settings(self.folder)

    @cached_property
    def index(self) -> Mapping[str, Any]:
        """Its ``model_index.json``."""
        path = self.folder / "model_index.json"
        if not path.is_file():
            raise ExportError(f"{self.folder} is not a diffusers pipeline: it has no model_index.json")
        return read_json(path)

    @cached_property
    def scheduler(self) -> Mapping[str, Any]:
        """The scheduler's config."""
        return self._config("scheduler", "scheduler_config.json")

    @cached_property
    def configs(self) -> Mapping[str, Mapping[str, Any]]:
        """The configs of the components with weights."""
        return {name: self._config(name, "config.json") for name in MODELS}

    @cached_property
    def tokenizer(self) -> CLIPTokenizerFast:
        """The CLIP tokenizer (the fast one, whatever class the pipeline names)."""
        try:
            tokenizer: CLIPTokenizerFast = CLIPTokenizerFast.from_pretrained(self.folder / "tokenizer")
        except Exception as error:  # transformers raises OSError, TypeError, ValueError and Rust exceptions here
            raise ExportError(f"the tokenizer in {self.folder / 'tokenizer'} cannot be read: {error}") from error
        return tokenizer

    @cached_property
    def weights(self) -> Mapping[str, tuple[Path, ...]]:
        """Component → its safetensors files, without fp16 variants."""
        return {name: weight_files(self.folder / name) for name in MODELS}

    @cached_property
    def dimensions(self) -> Dimensions:
        """The fixed sizes of its graphs."""
        vae, unet, text = (self.configs[name] for name in ("vae", "unet", "text_encoder"))
        return Dimensions(
            in_channels=unet.get("in_channels", 4),
            latent_channels=vae.get("latent_channels", 4),
            vae_factor=2 ** (len(vae.get("block_out_channels", (64,))) - 1),
            text_length=min(self.tokenizer.model_max_length, text.get("max_position_embeddings", 77)),
            text_width=text.get("hidden_size", 512),
            vocabulary=text.get("vocab_size", 49408),
        )

    @property
    def size(self) -> tuple[int, int]:
        """Default height and width in pixels: those of ``dressform.json``, else what the UNet was made for."""
        sample: Any = self.configs["unet"].get("sample_size") or 64
        height, width = sample if isinstance(sample, (list, tuple)) else (sample, sample)
        factor = self.dimensions.vae_factor
        return self.settings.height or height * factor, self.settings.width or width * factor

    @property
    def scaling_factor(self) -> float:
        """Latents are multiplied by it after encoding."""
        return float(self.configs["vae"].get("scaling_factor", 0.18215))

    @property
    def has_safety_checker(self) -> bool:
        """Whether the pipeline checks its pictures."""
        entry = self.index.get("safety_checker")
        return isinstance(entry, list) and entry[-1] is not None

    def load(self, component: str) -> nn.Module:
        """A component with its weights, FP32, in eval mode.

        Raises:
            ExportError: if its weights cannot be read.
        """
        return load_model(MODELS[component], self.folder / component)

    def parameters(self, component: str) -> int:
        """Number of weights of a component, read from the headers of its files."""
        return sum(count_elements(path) for path in self.weights[component])

    def hashes(self) -> dict[str, str]:
        """SHA-256 of every weight file, by its path in the folder."""
        paths = [path for files in self.weights.values() for path in files]
        return {path.relative_to(self.folder).as_posix(): sha256(path) for path in paths}

    def _config(self, component: str, file: str) -> Mapping[str, Any]:
        path = self.folder / component / file
        if not path.is_file():
            raise ExportError(f"{self.folder} has no {component}: {component}/{file} is missing")
        return read_json(path)

    def _check_components(self) -> None:
        known = (*MODELS, "tokenizer", "scheduler", *LEFT_OUT)
        for name, entry in self.index.items():
            present = isinstance(entry, list) and entry[-1] is not None
            if present and name not in known:
                raise ExportError(f"the pipeline has a {name}, and only these are supported: {', '.join(known)}")
        for name in (*MODELS, "tokenizer", "scheduler"):
            if not (self.folder / name).is_dir():
                raise ExportError(f"{self.folder} has no {name}: the folder {name} is missing")
            wanted = TOKENIZERS if name == "tokenizer" else (MODELS[name].__name__,) if name in MODELS else ()
            entry = self.index.get(name)
            found = entry[-1] if isinstance(entry, list) and entry else None
            if wanted and found not in wanted:
                raise ExportError(f"the pipeline's {name} is {found}, and only {wanted[0]} is supported")
        _ = self.settings, self.configs, self.weights

    def _check_unet(self) -> None:
        unet, d = self.configs["unet"], self.dimensions
        allowed = (2 * d.latent_channels + 1, d.latent_channels)
        if d.in_channels not in allowed:
            raise ExportError(
                f"the UNet has {d.in_channels} input channels, and only {allowed[0]} (inpainting: latents, mask, "
                f"masked image) and {allowed[1]} (latents alone) are supported"
            )
        for option in UNET_EXTRAS:
            if unet.get(option) is not None:
                raise ExportError(f"the UNet has {option} {unet[option]!r}: extra conditioning is not supported")
        for name, value, other, expected in (
            ("out_channels", unet.get("out_channels", 4), "the VAE's latent_channels", d.latent_channels),
            ("cross_attention_dim", unet.get("cross_attention_dim"), "the text encoder's hidden_size", d.text_width),
        ):
            if value != expected:
                raise ExportError(f"the UNet's {name} is {value}, but {other} is {expected}: they must be equal")
        for name, side in zip(("height", "width"), self.size, strict=True):
            if side % d.vae_factor:
                raise ExportError(f"{name} must be a multiple of the VAE factor {d.vae_factor}, not {side}")


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The safetensors files in ``folder``, without fp16 variants.

    Raises:
        ExportError: if there are none.
    """
    files = sorted(folder.glob("*.safetensors"))
    found = tuple(f for f in files if ".fp16." not in f.name and ".non_ema." not in f.name)
    if not found:
        raise ExportError(f"{folder} has no safetensors weights (pickled ones are not loaded)")
    return found


def load_model(kind: Any, folder: Path) -> nn.Module:
    """The model of the class ``kind`` in ``folder`` with its weights, FP32, in eval mode.

    Raises:
        ExportError: if its weights cannot be read.
    """
    try:
        model, report = kind.from_pretrained(folder, use_safetensors=True, output_loading_info=True)
    except Exception as error:  # safetensors, OSError, ValueError and RuntimeError by what is wrong
        reason = str(error).strip().splitlines()[0]
        raise ExportError(f"the weights in {folder} cannot be loaded: {reason}") from error
    if report["missing_keys"]:  # the library would leave them at random values
        lacking = sorted(report["missing_keys"])
        raise ExportError(f"the weights in {folder} lack {lacking[0]} ({len(lacking)} in all)")
    loaded: nn.Module = model.float().eval().requires_grad_(False)
    return loaded


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_json(path: Path) -> Mapping[str, Any]:
    """The JSON object in a file.

    Raises:
        ExportError: if it holds none.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ExportError(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ExportError(f"{path} must hold a JSON object, not a {type(value).__name__}")
    return value


def count_elements(path: Path) -> int:
    """Elements of all tensors in a safetensors file, from its header (8 bytes of length, then JSON)."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
        entries = [entry for name, entry in header.items() if name != "__metadata__"]
        expected = 8 + length + max(entry["data_offsets"][1] for entry in entries)
        count = sum(math.prod(entry["shape"]) for entry in entries)
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, MemoryError, OverflowError) as error:
        raise ExportError(f"{path} is not a safetensors file: its header cannot be read") from error
    if size != expected:
        raise ExportError(f"{path} has {size} bytes where its header says {expected}: it was cut short or damaged")
    return count
