"""A whole trajectory, from a request to its picture, without a server.

The code is that of the Triton stages; how a leaf is run is passed in, so that torch and every engine paint the same.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dressform_export import stages
from dressform_export.demo.wardrobe import HELD_OUT, caption, sample
from dressform_export.manifest import Manifest

stages.importable()
from denoise.admission import admit  # noqa: E402
from denoise.batch import Batch  # noqa: E402
from denoise.job import NO_TEXT, Floats, JobOptions  # noqa: E402
from preprocess.preparation import Export, Prepared, RawRequest, checked, prepare  # noqa: E402
from preprocess.prompts import PromptTokenizer  # noqa: E402

Pixels = NDArray[np.uint8]

Leaves = Callable[[str, Mapping[str, NDArray[Any]]], NDArray[Any]]
"""One call of the leaf of this name: inputs by name to its output."""

LARGEST_AREA = 512 * 512
"""Pixels of the picture that is painted as proof, at most."""


@dataclass(frozen=True)
class Request:
    """A request: image uint8 [H, W, 3], mask uint8 [H, W] (0, 255), a garment for try-on, options of the contract."""

    image: Pixels
    mask: Pixels
    garment: Pixels | None
    prompt: str
    options: Mapping[str, Any]

    @property
    def task(self) -> str:
        """``inpaint`` or ``tryon``."""
        return "inpaint" if self.garment is None else "tryon"


def proof_request(manifest: Manifest, steps: int) -> Request:
    """What an export is tried with: a drawn person whose upper garment is repainted, or changed for another.

    The picture has the pipeline's default size, or its shape within ``LARGEST_AREA``.
    """
    drawn = sample(HELD_OUT, "upper", 256, 192)
    unit, size = manifest.vae.factor, manifest.size
    scale = min(1.0, math.sqrt(LARGEST_AREA / (size.height * size.width)))
    height, width = (max(size.minimum, int(side * scale) // unit * unit) for side in (size.height, size.width))
    return Request(
        image=drawn.look.image,
        mask=drawn.mask(),
        garment=drawn.other_flat.image if manifest.tryon == "concat" else None,
        prompt=caption(drawn.other, np.random.default_rng(0)),
        options={"num_inference_steps": steps, "seed": 0, "height": height, "width": width},
    )


def paint(
    request: Request,
    repository: Path,
    manifest: Manifest,
    leaves: Leaves,
    stepped: Callable[[], None] = lambda: None,
) -> Pixels:
    """The picture of ``request`` at the processing size, uint8 [H, W, 3]; ``stepped`` is called after each step.

    Tokenizer and scheduler are those of the ``repository``.
    """
    scheduler = json.loads((repository / "denoise" / "scheduler_config.json").read_text(encoding="utf-8"))
    export = Export.from_manifest(asdict(manifest), scheduler)
    prepared = _prepared(request, repository, manifest, export)
    text = NO_TEXT if prepared.input_ids is None else leaves("text_encoder", {"input_ids": prepared.input_ids[None]})[0]
    moments = leaves("vae_encoder", {"canvases": prepared.canvases[None], "keep": prepared.keep[None]})[0]
    options = JobOptions.from_json({**prepared.options, "started_ns": 0, "prepared_ns": 0})
    job = admit(options, export.schedule, manifest.vae.scaling_factor, moments, prepared.latent_mask, text)

    def unet(sample: Floats, timestep: Floats, text: Floats) -> Floats:
        given = {"sample": sample, "timestep": timestep}
        return leaves("unet", given | ({"encoder_hidden_states": text} if text.size else {}))

    batch = Batch([job])
    while not job.done:
        batch.step(unet)
        stepped()
    pictures: Pixels = leaves("vae_decoder", {"latents": job.latents[None]})[0]
    return pictures[0]


def _prepared(request: Request, repository: Path, manifest: Manifest, export: Export) -> Prepared:
    raw = RawRequest(
        image=_png(request.image),
        mask=_png(request.mask),
        prompt=request.prompt.encode() if manifest.text else None,
        negative_prompt=None,
        garment=None if request.garment is None else _png(request.garment),
        parameters=request.options,
    )
    tokenizer = repository / "preprocess" / "tokenizer.json"
    text = manifest.text
    return prepare(
        raw,
        checked(raw, export),
        export,
        PromptTokenizer(tokenizer, text.max_length, text.pad_token_id) if text else None,
    )


def _png(pixels: Pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
