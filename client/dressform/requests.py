"""Requests: what a call becomes before any transport sees it."""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast
from urllib.parse import quote

from dressform.errors import InvalidRequest
from dressform.options import as_parameters
from dressform.pictures import Picture, encoded
from dressform_contract import PARAMETERS, ROUTE_HEADER, TASK_OUTPUTS, Task, Value


@dataclass(frozen=True)
class Request:
    """One request: BYTES tensors of ``shape`` by name, typed request parameters, and its id.

    ``timeout`` is how long the client waits, in seconds (None: as long as it takes); ``outputs`` are the tensors that
    the answer must have; ``headers`` go along as HTTP headers or gRPC metadata.
    """

    model: str
    inputs: Mapping[str, bytes]
    parameters: Mapping[str, Value]
    id: str
    timeout: float | None = None
    outputs: tuple[str, ...] = ()
    shape: tuple[int, ...] = (1, 1)
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def routed_headers(self) -> Mapping[str, str]:
        """``headers``, and what brings this request to the server that knows the id it is about (see `routed`)."""
        about = self.inputs["id"].decode() if "id" in self.inputs else self.id
        return {**self.headers, **routed(about)}

    @property
    def limit(self) -> float | None:
        """Seconds within which an answer is of use: the shorter of ``timeout`` and ``deadline_ms``."""
        deadline = self.parameters.get("deadline_ms")
        limits = [self.timeout] if isinstance(deadline, str) or deadline is None else [self.timeout, deadline / 1000]
        return min((limit for limit in limits if limit is not None), default=None)

    def again(self, number: int, elapsed: float) -> Request:
        """This request for retry ``number`` (1, 2, …), ``elapsed`` seconds after the first try.

        It has the time that is left, and an id of its own: one that is in flight is refused.
        """
        parameters = dict(self.parameters)
        deadline = parameters.get("deadline_ms")
        if isinstance(deadline, int):
            parameters["deadline_ms"] = max(1, math.ceil(deadline - elapsed * 1000))
        left = None if self.timeout is None else max(0.001, self.timeout - elapsed)
        return replace(self, id=f"{self.id}-retry{number}", parameters=parameters, timeout=left)


def built(
    task: Task,
    pictures: Mapping[str, Picture | None],
    texts: Mapping[str, str | None],
    options: Mapping[str, object],
    *,
    request_id: str | None = None,
    timeout: float | None = None,
    headers: Mapping[str, str] | None = None,
) -> Request:
    """A request of ``task``. What is None is not sent.

    A ``timeout`` is told to the server too, as ``deadline_ms``, unless ``options`` have one: a job that nobody
    waits for should not go on.

    Raises:
        InvalidRequest, TypeError: as ``pictures.encoded`` and ``options.as_parameters`` do.
    """
    parameters = as_parameters(options)
    if timeout is not None:
        if not timeout > 0:
            raise InvalidRequest(f"timeout must be a number of seconds above 0, not {timeout}")
        parameters.setdefault("deadline_ms", math.ceil(min(timeout * 1000, PARAMETERS["deadline_ms"].maximum)))
    inputs = {name: encoded(picture, name) for name, picture in pictures.items() if picture is not None}
    inputs |= {name: _utf8(text, name) for name, text in texts.items() if text is not None}
    identity = request_id or str(uuid.uuid4())
    return Request(task, inputs, parameters, identity, timeout, TASK_OUTPUTS[task], headers=headers or {})


def routed(request_id: str) -> Mapping[str, str]:
    """The header by which a balancer sends all that concerns a request to one server; none without an id."""
    return {ROUTE_HEADER: quote(request_id, safe="")} if request_id else {}


def asked(action: str, inputs: Mapping[str, str], timeout: float, headers: Mapping[str, str] | None = None) -> Request:
    """The request for an action of ``jobs``: cancel, about or feedback, with its ``inputs``."""
    tensors = {name: _utf8(text, name) for name, text in {"action": action, **inputs}.items()}
    return Request("jobs", tensors, {}, "", timeout, ("jobs",), (1,), headers or {})


@dataclass(frozen=True)
class Fitting:
    """One pass of an outfit: a garment, its mask, and what differs from the caller's options."""

    garment: Picture
    mask: Picture | None
    request_id: str | None
    options: Mapping[str, object]


def fittings(
    garment: Picture | Sequence[Picture],
    mask: Picture | Sequence[Picture | None] | None,
    request_id: str | None,
    options: Mapping[str, object],
) -> list[Fitting]:
    """The passes that dress a person in ``garment``, one or a list; every pass but the last makes one lossless picture.

    What all passes share is read and encoded once.

    Raises:
        InvalidRequest: if the list of garments is empty, or has another length than the list of masks.
    """
    # The casts: a str is a picture here, though it is a sequence of str too.
    garments = list(garment) if isinstance(garment, (list, tuple)) else [cast(Picture, garment)]
    if isinstance(mask, (list, tuple)):
        masks: list[Picture | None] = list(mask)
    else:
        shared = cast("Picture | None", mask)
        masks = [shared if shared is None or len(garments) < 2 else encoded(shared, "mask")] * len(garments)
    if not garments:
        raise InvalidRequest("garment is an empty list: give at least one picture")
    if len(masks) != len(garments):
        raise InvalidRequest(f"{len(garments)} garments need as many masks, or one for all, not {len(masks)}")
    passes = []
    for i, (each, its_mask) in enumerate(zip(garments, masks, strict=True)):
        identity = f"{request_id}-{i + 1}" if request_id and i else request_id
        last = i == len(garments) - 1
        own = options if last else {**options, "num_images": 1, "output_format": "png"}
        passes.append(Fitting(each, its_mask, identity, own))
    return passes


def _utf8(text: str, name: str) -> bytes:
    if not isinstance(text, str):
        raise TypeError(f"{name} must be a str, not {type(text).__name__}")
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"{name} is not valid Unicode: {error.reason} at character {error.start}") from error
