"""The options of a request: every parameter of the contract as a typed keyword."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from enum import Enum
from typing import Literal, TypedDict

from dressform.errors import InvalidRequest
from dressform.retries import Retry
from dressform_contract import PARAMETERS, Value

Solver = Literal["ddim", "euler", "euler_ancestral", "dpmpp_2m", "dpmpp_2m_karras", "unipc", "lcm", "pndm"]


class Options(TypedDict, total=False):
    """Keywords of ``inpaint`` and ``tryon``. None means: not sent, so the server's default holds.

    Meaning, default and range of each stand in ``dressform_contract.PARAMETERS``; the server is who checks ranges.
    """

    num_inference_steps: int | None
    guidance_scale: float | None
    guidance_start: float | None
    guidance_end: float | None
    guidance_rescale: float | None
    strength: float | None
    solver: Solver | None
    eta: float | None
    seed: int | None
    num_images: int | None
    height: int | None
    width: int | None
    resize_mode: Literal["default", "fill", "crop"] | None
    padding_mask_crop: int | None
    mask_blur: float | None
    mask_grow: int | None
    mask_invert: bool | None
    category: Literal["auto", "upper", "lower", "overall"] | None
    composite: Literal["none", "hard", "soft"] | None
    output_format: Literal["png", "jpeg", "webp", "npy", "data_url"] | None
    quality: int | None
    deadline_ms: int | None
    service_class: Literal["interactive", "batch"] | None
    preview_every: int | None


class Keywords(Options, total=False):
    """Keywords of ``inpaint`` and ``tryon`` besides the pictures and the prompt. None means: the default.

    Attributes:
        negative_prompt: what the picture should not show.
        request_id: a new UUID if None. An id in flight is refused; a retry has "-retry1", … at its end.
        timeout: seconds for the whole call, retries included, instead of the client's.
        retries: how many, or a ``Retry``, instead of the client's.
        headers: HTTP headers or gRPC metadata for this call, besides the client's. ``traceparent`` is that of
            OpenTelemetry's current span, where there is one and no other is given.
    """

    negative_prompt: str | None
    request_id: str | None
    timeout: float | None
    retries: int | Retry | None
    headers: Mapping[str, str] | None


def as_parameters(options: Mapping[str, object]) -> dict[str, Value]:
    """The request parameters that ``options`` stand for: those that are not None, as plain Python values.

    Raises:
        TypeError: at an unknown name (with the nearest known one), or a value that no parameter can carry.
        InvalidRequest: at an integer that does not fit in 64 bits.
    """
    parameters: dict[str, Value] = {}
    for name, value in options.items():
        if name not in PARAMETERS:
            raise TypeError(f"unknown option {name!r}: {nearest(name)}")
        if value is not None:
            parameters[name] = _sendable(name, value)
    return parameters


def checked_headers(headers: Mapping[str, str] | None) -> dict[str, str]:
    """``headers``, whose names and values can be sent.

    Raises:
        InvalidRequest: naming the one that cannot.
    """
    for name, value in (headers or {}).items():
        for text in (name, value):
            if not isinstance(text, str) or not text.isascii() or not text.isprintable():
                raise InvalidRequest(f"header {name!r} must be printable ASCII: an accent or a line break is not sent")
    return dict(headers or {})


def nearest(name: str) -> str:
    """A hint for somebody who wrote the unknown option ``name``."""
    near = difflib.get_close_matches(name, PARAMETERS, n=1)
    return f"did you mean {near[0]}?" if near else "known are " + ", ".join(PARAMETERS)


def _sendable(name: str, value: object) -> Value:
    if isinstance(value, Enum):
        value = value.value
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        value = value.item()  # a numpy or torch scalar
    if not isinstance(value, (bool, int, float, str)):
        raise TypeError(f"{name} must be {PARAMETERS[name].allowed}, not {type(value).__name__}")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise InvalidRequest(f"{name} must be {PARAMETERS[name].allowed}, not {value}")
    return next(kind(value) for kind in (bool, int, float, str) if isinstance(value, kind))
