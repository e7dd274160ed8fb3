"""One request, from encoded pictures and raw parameters to what the graphs and later stages take. No Triton here."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from denoise.schedule import ScheduleError, SchedulerConfig
from denoise.solvers import make_plan
from dressform_contract import MAX_SEED, ContractError, Task, validated_parameters
from jobs.deadline import allowed_ms
from preprocess import masks
from preprocess.errors import RequestError, UnsupportedError
from preprocess.pictures import Picture, decode, decode_mask, decoded
from preprocess.placement import Placement, masked_region, placed
from preprocess.prompts import PromptTokenizer

if TYPE_CHECKING:
    from mask.automatic import AutomaticMasks  # not there in an export without a garment parser


@dataclass(frozen=True)
class Export:
    """What the manifest says of the exported pipeline, as far as requests depend on it."""

    factor: int
    in_channels: int
    tryon: str
    text: bool
    parser: bool
    height: int
    width: int
    minimum: int
    maximum: int
    steps: int
    solver: str
    tryon_eta: float
    schedule: SchedulerConfig

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any], scheduler_config: Mapping[str, object]) -> Export:
        """Read the fields of a manifest of format 1."""
        size, defaults = manifest["size"], manifest["defaults"]
        return cls(
            factor=manifest["vae"]["factor"],
            in_channels=manifest["unet"]["in_channels"],
            tryon=manifest["tryon"],
            text=manifest["text"] is not None,
            parser=manifest["parser"] is not None,
            height=size["height"],
            width=size["width"],
            minimum=size["minimum"],
            maximum=size["maximum"],
            steps=defaults["num_inference_steps"],
            solver=defaults["solver"],
            tryon_eta=defaults["tryon_eta"],
            schedule=SchedulerConfig.from_json(scheduler_config),
        )


@dataclass(frozen=True)
class RawRequest:
    """The inputs as they came: encoded pictures, prompts in UTF-8, KServe parameters."""

    image: bytes
    mask: bytes | None
    prompt: bytes | None
    negative_prompt: bytes | None
    garment: bytes | None
    parameters: Mapping[str, object]

    @property
    def task(self) -> Task:
        """The ensemble it came through."""
        return "inpaint" if self.garment is None else "tryon"

    @property
    def automatic(self) -> bool:
        """Whether its mask is to be made from the parser's labels."""
        return self.task == "tryon" and self.mask is None


@dataclass(frozen=True)
class Prepared:
    """The tensors and settings of one request.

    input_ids int64 [n, L]: negative prompt (with guidance), prompt; None where the export has no text encoder.
    canvases uint8 [k, H, W, 3], keep uint8 [k, H, W]: as ``options["canvases"]`` names them.
    latent_mask float32 [1, h, w]. original uint8 [H0, W0, 3]. mask uint8 [H0, W0], 0 and 255.
    """

    input_ids: NDArray[np.int64] | None
    canvases: NDArray[np.uint8]
    keep: NDArray[np.uint8]
    latent_mask: NDArray[np.float32]
    options: dict[str, Any]
    original: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    frame: dict[str, Any]


def checked(raw: RawRequest, export: Export) -> dict[str, Any]:
    """What is quickly known of a request: its resolved options.

    Raises:
        RequestError: the request breaks the contract.
        UnsupportedError: this export cannot serve it.
    """
    options = resolved(raw.parameters, raw.task, export)
    _check_task(raw, export)
    return options


def prepare(
    raw: RawRequest,
    options: Mapping[str, Any],
    export: Export,
    tokenizer: PromptTokenizer | None,
    automatic: AutomaticMasks | None = None,
) -> Prepared:
    """Decode, place and tokenise one request with the options that `checked` gave.

    ``tokenizer`` is None where the export has no text encoder. ``automatic`` makes the mask of a request that brings
    none.

    Raises:
        RequestError: the request breaks the contract.
    """
    person = "image" if raw.task == "inpaint" else "person"
    picture = decoded(person, raw.image, decode)
    garment = None if raw.garment is None else decoded("garment", raw.garment, decode)
    if raw.automatic and automatic is not None:
        made = automatic.made(picture.pixels, options["category"], None if garment is None else garment.pixels)
        mask, story = made.pixels, made.story
    else:
        mask, story = _given_mask(raw, picture, person), {}
    mask = masks.adjusted(mask, invert=options["mask_invert"], grow=options["mask_grow"])
    canvas = (int(options["height"]), int(options["width"]))
    placement = _placement(picture, mask, canvas, options)
    canvas_mask = masks.binary(placement.onto_canvas(mask))
    if not canvas_mask.any():
        raise RequestError("the mask is empty where the picture lies on the canvas; try resize_mode fill")
    names, canvases, keep = _canvases(picture, garment, placement, canvas_mask, float(options["strength"]), export)
    input_ids, warnings = _tokens(raw, tokenizer, guided=float(options["guidance_scale"]) > 1)
    if options["eta"] and options["solver"] != "ddim":
        warnings.append(f"eta acts with solver ddim alone, not with {options['solver']}; it was ignored")
    output_format = options["output_format"] or ("data_url" if picture.from_data_url else "png")
    return Prepared(
        input_ids=input_ids,
        canvases=canvases,
        keep=keep,
        latent_mask=masks.latent(canvas_mask, export.factor),
        options=_job_options(options, raw.task, names),
        original=picture.pixels,
        mask=masks.binary(mask),
        frame={
            "source": placement.source,
            "target": placement.target,
            "height": canvas[0],
            "width": canvas[1],
            "composite": options["composite"],
            "mask_blur": options["mask_blur"],
            "output_format": output_format,
            "quality": options["quality"],
            "icc_profile": base64.b64encode(picture.icc_profile or b"").decode(),
            "warnings": warnings,
            "automatic_mask": story,
        },
    )


def resolved(parameters: Mapping[str, object], task: Task, export: Export) -> dict[str, Any]:
    """All options of a request: given ones validated, the rest from the contract and the export.

    Raises:
        RequestError: for an unknown name, a wrong type or a value that is not allowed.
    """
    options: dict[str, Any] = validated(parameters, task)
    model = {
        "num_inference_steps": export.steps,
        "solver": export.solver,
        "height": export.height,
        "width": export.width,
    }
    model["eta"] = export.tryon_eta if task == "tryon" and options["solver"] in (None, "ddim") else 0.0
    model["seed"] = secrets.randbelow(2**32)
    options |= {name: value for name, value in model.items() if options[name] is None}
    for side in ("height", "width"):
        value = options[side]
        if value % export.factor or not export.minimum <= value <= export.maximum:
            allowed = f"a multiple of {export.factor} from {export.minimum} to {export.maximum}"
            raise RequestError(f"{side} must be {allowed}, not {value}")
    if options["seed"] + options["num_images"] - 1 > MAX_SEED:
        raise RequestError(f"seed + num_images - 1 must be at most {MAX_SEED}")
    try:
        unet_calls(options, export)
    except ScheduleError as error:  # the denoiser could not plan it: known before any graph has run
        raise RequestError(str(error)) from error
    return options


def validated(parameters: Mapping[str, object], task: Task) -> dict[str, Any]:
    """All options of a request by the contract alone; its deadline is the server's where that is earlier.

    Raises:
        RequestError: for an unknown name, a wrong type or a value that is not allowed.
    """
    try:
        options: dict[str, Any] = dict(validated_parameters(parameters, task))
    except ContractError as error:
        raise RequestError(str(error)) from error
    return options | {"deadline_ms": allowed_ms(options["deadline_ms"])}


def unet_calls(options: Mapping[str, Any], export: Export) -> int:
    """Steps that the denoiser will run: each is one UNet call."""
    plan = (options["solver"], options["num_inference_steps"], options["strength"], options["eta"])
    return _plan_length(export.schedule, *plan)


def unet_rows(options: Mapping[str, Any]) -> int:
    """Rows of this job in a UNet call: pictures, twice with guidance."""
    return int(options["num_images"]) * (2 if options["guidance_scale"] > 1 else 1)


@lru_cache(maxsize=1024)
def _plan_length(schedule: SchedulerConfig, solver: str, steps: int, strength: float, eta: float) -> int:
    return len(make_plan(schedule, solver, steps, strength, eta))


def _check_task(raw: RawRequest, export: Export) -> None:
    if raw.task == "tryon" and export.tryon == "none":
        raise UnsupportedError(
            "tryon needs weights that learned to read a garment; this export says tryon: none. "
            "Export a source whose dressform.json says tryon: concat, or any inpainting one with --tryon catvton=PATH"
        )
    if raw.automatic and not export.parser:
        raise UnsupportedError(
            "tryon needs a mask here: this export has no garment parser to make one. Send a mask, or export with "
            "--parser and a Segformer of the ATR labels (a folder or a hub id)"
        )
    if raw.task == "inpaint" and raw.mask is None:
        raise RequestError("inpaint needs a mask: white where the picture is to be repainted")


def _given_mask(raw: RawRequest, picture: Picture, person: str) -> NDArray[np.uint8]:
    """The request's own mask, of the original's size."""
    mask = decoded("mask", raw.mask or b"", decode_mask)
    if mask.size != picture.size:
        expected, came = (f"{width} × {height}" for height, width in (picture.size, mask.size))
        raise RequestError(f"mask must have the size of {person}, {expected} pixels, not {came}")
    return mask.pixels


def _placement(
    picture: Picture, mask: NDArray[np.uint8], canvas: tuple[int, int], options: Mapping[str, Any]
) -> Placement:
    margin = options["padding_mask_crop"]
    if margin is None:
        return placed(picture.size, canvas, options["resize_mode"])
    return placed(picture.size, canvas, "fill", masked_region(mask, canvas, margin))


def _canvases(
    picture: Picture,
    garment: Picture | None,
    placement: Placement,
    canvas_mask: NDArray[np.uint8],
    strength: float,
    export: Export,
) -> tuple[list[str], NDArray[np.uint8], NDArray[np.uint8]]:
    """The pictures for the VAE encoder, their names, and what is kept of each."""
    image = placement.onto_canvas(picture.pixels)
    whole, outside = np.ones_like(canvas_mask), (canvas_mask < 128).astype(np.uint8)
    rows = {}
    if export.in_channels == 9:
        rows["masked"] = (image, outside)
    if strength < 1 or export.in_channels == 4:
        rows["image"] = (image, whole)
    if garment is not None:
        fitted = placed(garment.size, (placement.height, placement.width), "fill")
        rows["garment"] = (fitted.onto_canvas(garment.pixels, ground=(255, 255, 255)), whole)
    return list(rows), np.stack([row[0] for row in rows.values()]), np.stack([row[1] for row in rows.values()])


def _tokens(
    raw: RawRequest, tokenizer: PromptTokenizer | None, *, guided: bool
) -> tuple[NDArray[np.int64] | None, list[str]]:
    """Token ids of the prompts, and warnings."""
    if tokenizer is None:
        given = [name for name in ("prompt", "negative_prompt") if getattr(raw, name)]
        return None, [f"the {name} was ignored: this export has no text encoder" for name in given]
    prompts = {"prompt": raw.prompt or b""}
    if guided:
        prompts = {"negative_prompt": raw.negative_prompt or b"", **prompts}
    texts = []
    for name, data in prompts.items():
        try:
            texts.append(data.decode())
        except UnicodeDecodeError as error:
            raise RequestError(f"{name} must be UTF-8 text: {error}") from error
    return tokenizer.encode(texts)


_JOB_OPTIONS = (
    "solver",
    "num_inference_steps",
    "strength",
    "eta",
    "guidance_scale",
    "guidance_start",
    "guidance_end",
    "guidance_rescale",
    "seed",
    "num_images",
    "deadline_ms",
    "service_class",
    "preview_every",
)


def _job_options(options: Mapping[str, Any], task: Task, canvases: list[str]) -> dict[str, Any]:
    return {name: options[name] for name in _JOB_OPTIONS} | {"task": task, "canvases": canvases}


def timed(prepared: Prepared, started_ns: int, prepared_ns: int) -> Prepared:
    """``prepared`` with the monotonic clock's readings before and after, for ``info`` and the deadline."""
    stamps = {"started_ns": started_ns, "prepared_ns": prepared_ns}
    return replace(prepared, frame=prepared.frame | stamps, options=prepared.options | stamps)
