# ruff: noqa: E501 - the tables below read best with one entry on a line
"""The contract between Dressform's server and its clients: tensors, parameters, limits and errors.

One file, standard library alone. The wheel installs it beside ``dressform``; the export copies it into the
root of the model repository, where the Triton stages import it. Server, clients, tests and docs therefore read the
same tables.

Options travel as KServe request *parameters* (typed: int, float, bool, string), data as BYTES tensors ``[1, 1]``.
Integers are accepted for floats; booleans never stand for numbers.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

Value: TypeAlias = bool | int | float | str
Kind = Literal["integer", "number", "boolean", "choice"]
Task = Literal["inpaint", "tryon", "mask"]

TASK_INPUTS: dict[str, tuple[str, ...]] = {
    "inpaint": ("image", "mask", "prompt", "negative_prompt"),
    "tryon": ("person", "garment", "mask", "prompt", "negative_prompt"),
    "mask": ("person",),
}
"""Input tensors of each task, all BYTES ``[1, 1]``. ``mask`` is served where the export has a garment parser."""

OPTIONAL_INPUTS: dict[str, tuple[str, ...]] = {
    "inpaint": ("negative_prompt",),
    "tryon": ("mask", "prompt", "negative_prompt"),
    "mask": (),
}

OUTPUTS: dict[str, str] = {
    "images": "BYTES",  # [1, num_images]: encoded pictures
    "seeds": "INT64",  # [1, num_images]
    "mask_used": "BYTES",  # [1, 1]: PNG, 8-bit grey, at the original's size
    "info": "BYTES",  # [1, 1]: JSON
}

TASK_OUTPUTS: dict[str, tuple[str, ...]] = {
    "inpaint": tuple(OUTPUTS),
    "tryon": tuple(OUTPUTS),
    "mask": ("mask_used", "info"),
}
"""Output tensors of each task."""

MAX_ENCODED_BYTES = 32 * 2**20
"""Largest encoded picture accepted, in bytes (for a data URL: of its base64 text)."""

MAX_PIXELS = 64_000_000
"""Largest decoded picture accepted, in pixels (height × width)."""

ROUTE_HEADER = "dressform-route"
"""HTTP header or gRPC metadata whose value is the id of the request that a call is about, percent-encoded where it is
not plain ASCII. Before several servers, a balancer sends what has the same value to the same server."""

ADMIN_HEADER = "dressform-admin"
"""HTTP header whose value is the key of the server's administration; in gRPC metadata after `TRITON_PREFIX`."""

TRITON_PREFIX = "triton-grpc-protocol-"

CLIENT_HEADER = "dressform-client"
"""HTTP header or gRPC metadata by which a service says its name, for usage by client: `CLIENT_NAME`."""

CLIENT_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")

TRACEPARENT_HEADER = "traceparent"
"""The caller's span (W3C Trace Context), of which the request's trace is a child."""

TRACE_HEADER = "dressform-trace"
"""``steps``: the request's trace has a span for each step."""

FORWARDED_HEADERS = (CLIENT_HEADER, TRACEPARENT_HEADER, TRACE_HEADER)
"""What Triton hands on to the stages, as parameters of these names."""

MAX_ID = 200
"""Longest request id, in characters."""

MIN_WATCHABLE_ID = 22
"""Shortest request id, in characters, by which a request may be watched or cancelled."""

MAX_SEED = 2**53 - 1
"""Seeds stay exact in JSON numbers (IEEE 754 doubles)."""

SOLVERS = ("ddim", "euler", "euler_ancestral", "dpmpp_2m", "dpmpp_2m_karras", "unipc", "lcm", "pndm")
LABELS = (
    "Background", "Hat", "Hair", "Sunglasses", "Upper-clothes", "Skirt", "Pants", "Dress", "Belt", "Left-shoe",
    "Right-shoe", "Face", "Left-leg", "Right-leg", "Left-arm", "Right-arm", "Bag", "Scarf",
)  # fmt: skip
"""What the garment parser tells apart: the ATR dataset (Liang et al. 2015), in mattmdjaga/segformer_b2_clothes' order.
Left and right are the wearer's."""

OUTPUT_FORMATS = ("png", "jpeg", "webp", "npy", "data_url")


class ContractError(ValueError):
    """A parameter that breaks the contract. The message names it, what came and what is allowed."""


@dataclass(frozen=True)
class Parameter:
    """One request parameter.

    ``default`` None means: taken from the exported model, or off, as ``doc`` says.
    ``tryon_default`` is the default of the ``tryon`` ensemble where it differs.
    """

    name: str
    kind: Kind
    doc: str
    default: Value | None = None
    tryon_default: Value | None = None
    minimum: float = -math.inf
    maximum: float = math.inf
    minimum_excluded: bool = False
    choices: tuple[str, ...] = ()

    def default_for(self, task: Task) -> Value | None:
        """The default of this parameter in the ensemble ``task``."""
        return self.tryon_default if task == "tryon" and self.tryon_default is not None else self.default

    @property
    def allowed(self) -> str:
        """The allowed values, in words."""
        if self.kind == "choice":
            return "one of " + ", ".join(self.choices)
        if self.kind == "boolean":
            return "true or false"
        noun = "an integer" if self.kind == "integer" else "a finite number"
        span = f"{self.minimum:.16g} to {self.maximum:.16g}"
        return f"{noun} from {span}" + (f", {self.minimum:.16g} excluded" if self.minimum_excluded else "")

    def validated(self, value: object) -> Value:
        """``value`` in this parameter's Python type.

        Raises:
            ContractError: if the type or the range is wrong.
        """
        if self.kind == "boolean":
            if isinstance(value, bool):
                return value
        elif self.kind == "choice":
            if isinstance(value, str) and value in self.choices:
                return value
        elif self.kind == "integer":
            if isinstance(value, int) and not isinstance(value, bool) and self._in_range(value):
                return value
        elif isinstance(value, (int, float)) and not isinstance(value, bool) and self._in_range(value):
            return float(value)
        raise ContractError(f"{self.name} must be {self.allowed}, not {_shown(value)}")

    def _in_range(self, value: float) -> bool:
        # NaN fails every comparison, so it is refused here too.
        above = value > self.minimum if self.minimum_excluded else value >= self.minimum
        return above and value <= self.maximum and value not in (math.inf, -math.inf)


def _shown(value: object) -> str:
    text = repr(value)
    return f"{text[:60] + '…' if len(text) > 60 else text} ({type(value).__name__})"


_ALL = (
    Parameter("num_inference_steps", "integer", "Denoising steps; default from the exported model.", None, None, 1, 150),
    Parameter("guidance_scale", "number", "Classifier-free guidance weight w (Ho & Salimans 2022) in e_u + w (e_c - e_u); at or below 1 no unconditional row is run.", 7.5, 2.5, 0, 30),
    Parameter("guidance_start", "number", "Guidance acts from step int(guidance_start * steps) on.", 0.0, None, 0, 1),
    Parameter("guidance_end", "number", "Guidance acts before step int(guidance_end * steps).", 1.0, None, 0, 1),
    Parameter("guidance_rescale", "number", "Rescale factor phi of Lin et al. 2023, eq. 15 and 16.", 0.0, None, 0, 1),
    Parameter("strength", "number", "Share of the schedule that is run: 1 starts from pure noise.", 1.0, None, 0, 1, minimum_excluded=True),
    Parameter("solver", "choice", "Sampler; default from the exported model.", choices=SOLVERS),
    Parameter("eta", "number", "Stochasticity of ddim (Song et al. 2020, eq. 16); default 0, for tryon as the export says.", None, None, 0, 1),
    Parameter("seed", "integer", "Seed of the first picture; image i of several uses seed + i. Random when absent, always returned.", None, None, 0, MAX_SEED),
    Parameter("num_images", "integer", "Pictures to make.", 1, None, 1, 4),
    Parameter("height", "integer", "Processing height in pixels: a multiple of the VAE factor within the exported range.", None, None, 1, 16384),
    Parameter("width", "integer", "Processing width in pixels: a multiple of the VAE factor within the exported range.", None, None, 1, 16384),
    Parameter("resize_mode", "choice", "How a picture of another shape is brought to the processing size, and undone after.", "default", "fill", choices=("default", "fill", "crop")),
    Parameter("padding_mask_crop", "integer", "Work on the masked area alone, with this margin in pixels; absent: off.", None, None, 0, 512),
    Parameter("mask_blur", "number", "Gaussian radius in pixels that softens compositing.", 4.0, None, 0, 64),
    Parameter("mask_grow", "integer", "Pixels by which the mask grows (negative: shrinks).", 0, None, -64, 64),
    Parameter("mask_invert", "boolean", "Repaint the black part instead.", False),
    Parameter("category", "choice", "What the automatic mask covers.", "auto", choices=("auto", "upper", "lower", "overall")),
    Parameter("composite", "choice", "How the original is put back outside the mask; none returns the bare picture at the processing size.", "soft", choices=("none", "hard", "soft")),
    Parameter("output_format", "choice", "Encoding of images and mask_used; default png, data_url where the input came as one.", None, choices=OUTPUT_FORMATS),
    Parameter("quality", "integer", "JPEG and WebP quality.", 95, None, 1, 100),
    Parameter("deadline_ms", "integer", "Milliseconds within which the answer is worth anything; absent: the server's own limit, where it has one.", None, None, 1, 86_400_000),
    Parameter("service_class", "choice", "interactive jobs go before batch jobs.", "interactive", choices=("interactive", "batch")),
    Parameter("preview_every", "integer", "Steps between previews for those who watch; 0 is off.", 0, None, 0, 50),
)  # fmt: skip

PARAMETERS: dict[str, Parameter] = {parameter.name: parameter for parameter in _ALL}
"""Every request parameter, by name."""

TASK_PARAMETERS: dict[str, tuple[str, ...]] = {
    "inpaint": tuple(PARAMETERS),
    "tryon": tuple(PARAMETERS),
    "mask": ("mask_grow", "mask_invert", "category", "output_format", "deadline_ms"),
}
"""The parameters of each task."""

IGNORED_PARAMETERS = frozenset({"id"})
"""Not options: Triton's flat /generate passes the request id as a parameter."""


def validated_parameters(given: Mapping[str, object], task: Task) -> dict[str, Value | None]:
    """All parameters of a request to ``task``: what was given, validated, and the defaults of the rest.

    Raises:
        ContractError: at the first unknown name (with the nearest known one), wrong type or value out of range.
    """
    known = TASK_PARAMETERS[task]
    options: dict[str, Value | None] = {name: PARAMETERS[name].default_for(task) for name in known}
    for name, value in given.items():
        if name in IGNORED_PARAMETERS:
            continue
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else "known are " + ", ".join(known)
            kind = f"{task} takes no parameter" if name in PARAMETERS else "unknown parameter"
            raise ContractError(f"{kind} {name!r}: {hint}")
        options[name] = PARAMETERS[name].validated(value)
    return options


@dataclass(frozen=True)
class ErrorCode:
    """A stable error code. ``status`` is the gRPC status name; ``http`` what /infer answers."""

    code: str
    status: str
    http: int
    retryable: bool
    meaning: str
    fields: tuple[str, ...] = ()


_ERRORS = (
    ErrorCode("INVALID_ARGUMENT", "INVALID_ARGUMENT", 400, False, "The request breaks the contract; the sentence names the culprit, what came and what is allowed."),
    ErrorCode("UNSUPPORTED", "INVALID_ARGUMENT", 400, False, "This export cannot do that (for instance tryon on plain inpainting weights)."),
    ErrorCode("PERSON_NOT_FOUND", "INVALID_ARGUMENT", 400, False, "The garment parser sees no person, or nothing on the person that the category covers; send a mask, or another picture."),
    ErrorCode("GARMENT_NOT_FOUND", "INVALID_ARGUMENT", 400, False, "The garment parser sees no garment in the garment's picture; send a category, a mask, or another picture."),
    ErrorCode("ID_IN_USE", "INVALID_ARGUMENT", 400, False, "A request with this id is in flight; a retry needs a new id."),
    ErrorCode("OVERLOADED", "UNAVAILABLE", 503, True, "The server is full; try again after retry_after_ms.", ("retry_after_ms",)),
    ErrorCode("STOPPING", "UNAVAILABLE", 503, True, "The server finishes what it has and takes nothing new; another one, or the same in a while, will."),
    ErrorCode("DEADLINE", "CANCELLED", 400, False, "The job could not finish within its deadline, or the server's own limit, and was refused or dropped.", ("deadline_ms",)),
    ErrorCode("CANCELLED", "CANCELLED", 400, False, "The job was cancelled."),
    ErrorCode("NOT_FOUND", "NOT_FOUND", 404, False, "No request with this id is in flight."),
    ErrorCode("ENGINE", "INTERNAL", 500, True, "A graph failed on this job; the reason follows."),
    ErrorCode("INTERNAL", "INTERNAL", 500, False, "A fault of the server's own; please report it."),
)  # fmt: skip

ERRORS: dict[str, ErrorCode] = {error.code: error for error in _ERRORS}
"""Every error code the server answers with, by code."""

_ERROR_TEXT = re.compile(r"DRESSFORM_(?P<code>[A-Z_]+)(?P<fields>(?: [a-z_]+=[^\s:]+)*): (?P<sentence>.*)", re.DOTALL)


@dataclass(frozen=True)
class Fault:
    """An error as it travels: ``DRESSFORM_<code> field=value …: sentence``."""

    code: str
    sentence: str
    fields: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if self.code not in ERRORS:
            raise ValueError(f"unknown error code {self.code!r}; known are {', '.join(ERRORS)}")

    def __str__(self) -> str:
        return f"DRESSFORM_{self.code}" + "".join(f" {k}={v}" for k, v in self.fields) + f": {self.sentence}"

    @classmethod
    def parse(cls, text: str) -> Fault | None:
        """The fault within a server's message (Triton puts "in ensemble …" before it), or None."""
        match = _ERROR_TEXT.search(text)
        if match is None or match["code"] not in ERRORS:
            return None
        fields = tuple((k, v) for k, _, v in (item.partition("=") for item in match["fields"].split()))
        return cls(match["code"], match["sentence"].strip(), fields)


def parameters_table() -> str:
    """The parameters as Markdown; the README's table is made of it (``python -m dressform_contract``)."""
    rows = ["| parameter | default | allowed | meaning |", "| --- | --- | --- | --- |"]
    for p in PARAMETERS.values():
        default = "–" if p.default is None else _plain(p.default)
        if p.tryon_default is not None:
            default += f", tryon {_plain(p.tryon_default)}"
        rows.append(f"| `{p.name}` | {default} | {p.allowed} | {p.doc} |")
    of_mask = ", ".join(f"`{name}`" for name in TASK_PARAMETERS["mask"])
    return "\n".join([*rows, "", f"`inpaint` and `tryon` take all of them, `mask` takes {of_mask}."])


def _plain(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    print(parameters_table())
