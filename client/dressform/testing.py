"""A server in memory, for tests of code that uses a client.

>>> from dressform import Client
>>> from dressform.testing import FakeTransport
>>> fake = FakeTransport()
>>> client = Client(transport=fake)
>>> fake.fail("OVERLOADED")                  # the next request only: the client tries again
>>> client.inpaint(photo, mask, "a coat").image.size == photo.size
True
>>> [request.parameters["seed"] for request in fake.requests]

It checks options as the server does, and answers pictures of the right number, size and format, whose one colour
depends on the seed. For an `AsyncClient` there is ``AsyncFakeTransport``.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dressform.errors import BY_CODE, DeadlineExceeded, DressformError, InvalidRequest, NotFound, ServerUnavailable
from dressform.pictures import decoded
from dressform.progress import Event
from dressform.requests import Request
from dressform.results import Outputs
from dressform.transports import Tell
from dressform_contract import (
    ERRORS,
    MIN_WATCHABLE_ID,
    OPTIONAL_INPUTS,
    TASK_INPUTS,
    ContractError,
    Task,
    Value,
    validated_parameters,
)

_FORMATS = {"png": "PNG", "jpeg": "JPEG", "webp": "WEBP", "data_url": "PNG"}


@dataclass
class _Job:
    """A request in flight, or one that was."""

    total: int
    step: int = 0
    state: str = "running"
    preview_every: int = 0
    cancelled: threading.Event = field(default_factory=threading.Event)
    watchers: list[Tell] = field(default_factory=list)

    def event(self) -> Event:
        event = {"state": self.state, "step": self.step, "total": self.total, "position": 0, "eta_ms": -1}
        if self.preview_every and self.step and self.step % self.preview_every == 0 and self.state == "running":
            preview = _encoded(Image.new("RGB", (16, 16), (0, 255 * self.step // self.total, 0)), "data_url", 0)
            event["preview"] = preview.decode()
        return event


class FakeTransport:
    """A `Transport` without a server. It is safe to use from many threads.

    Args:
        tasks: what it serves.
        ready: whether it says that it is ready.
        step_seconds: how long a step takes; then ``deadline_ms``, cancelling and progress can be tested, too.
        default_steps, default_size: ``num_inference_steps`` and (width, height) of a request that has none.
        feedback: whether it records feedback.

    Attributes:
        requests: those that arrived, in order, but for those to ``jobs``.
        feedback: what was recorded (id, rating, comment), or None.
        cancellations: the ids that were cancelled.
        closed: whether the client was closed.
    """

    def __init__(
        self,
        tasks: Sequence[Task] = ("inpaint", "tryon", "mask"),
        *,
        ready: bool = True,
        step_seconds: float = 0.0,
        default_steps: int = 4,
        default_size: tuple[int, int] = (512, 512),
        feedback: bool = True,
    ) -> None:
        self.tasks = tuple(tasks)
        self.ready = ready
        self.step_seconds = step_seconds
        self.default_steps = default_steps
        self.default_size = default_size
        self.feedback: list[dict[str, str]] | None = [] if feedback else None
        self.requests: list[Request] = []
        self.cancellations: list[str] = []
        self.closed = False
        self._failures: list[DressformError] = []
        self._jobs: dict[str, _Job] = {}
        self._early: dict[str, list[Tell]] = {}
        self._lock = threading.Condition()

    def fail(self, failure: str | DressformError, times: int = 1, **fields: object) -> None:
        """Let the next ``times`` requests fail.

        Args:
            failure: a code of ``dressform_contract.ERRORS`` ("OVERLOADED", "DEADLINE", …), "UNAVAILABLE" for a server
                that nobody reaches, or an error of your own.
            fields: of the code, such as ``retry_after_ms``.
        """
        if isinstance(failure, str):
            if failure == "UNAVAILABLE":
                failure = ServerUnavailable("fake://: connection refused")
            elif failure in ERRORS:
                text = {name: str(value) for name, value in fields.items()}
                failure = BY_CODE[failure](f"told to fail: {ERRORS[failure].meaning}", code=failure, fields=text)
            else:
                raise InvalidRequest(f"failure must be UNAVAILABLE or one of {', '.join(ERRORS)}, not {failure!r}")
        self._failures += [failure] * times

    def infer(self, request: Request) -> Outputs:
        """See `Transport`."""
        if request.model == "jobs":
            inputs = {name: data.decode() for name, data in request.inputs.items()}
            answer = {"cancel": self._cancel, "about": self._about, "feedback": self._record}[inputs.pop("action")](
                inputs
            )
            return {"jobs": _bytes([json.dumps(answer).encode()])}
        with self._lock:
            self.requests.append(request)
            failure = self._failures.pop(0) if self._failures else None
        if failure is not None:
            # A copy, so that a second one has its own traceback and id.
            raise type(failure)(str(failure.args[0]), code=failure.code, fields=failure.fields, request_id=request.id)
        options = self._admitted(request)
        steps = int(options.get("num_inference_steps") or self.default_steps)
        job = self._claimed(request, steps)
        job.preview_every = int(options.get("preview_every") or 0)
        state = "failed"
        try:
            if request.model != "mask":
                self._step(request, job, options.get("deadline_ms"))
            answer = self._answer(request, options, steps)
            state = "done"
            return answer
        except BY_CODE["CANCELLED"]:
            state = "cancelled"
            raise
        finally:
            self._tell(job, state)

    def watch(self, request_id: str, tell: Tell) -> None:
        """See `Transport`; events come in the thread of the request."""
        with self._lock:
            job = self._jobs.get(request_id)
            if job is None:  # who watches may come before the request
                self._early.setdefault(request_id, []).append(tell)
                return
            tell(job.event())
            if job.state == "running":
                job.watchers.append(tell)
            else:
                tell(None)

    def server_ready(self, timeout: float) -> bool:  # noqa: ARG002
        """See `Transport`."""
        return self.ready

    def model_ready(self, model: str, timeout: float) -> bool:  # noqa: ARG002
        """See `Transport`."""
        return model in self.tasks

    def metadata(self, timeout: float) -> Mapping[str, Any]:  # noqa: ARG002
        """See `Transport`."""
        return {"name": "fake", "version": "1"}

    def models(self, timeout: float) -> Sequence[Mapping[str, Any]]:  # noqa: ARG002
        """See `Transport`."""
        return [{"name": task, "version": "1", "state": "READY"} for task in self.tasks]

    def statistics(self, timeout: float) -> Sequence[Mapping[str, Any]]:  # noqa: ARG002
        """See `Transport`: requests are counted, times are 0."""
        counts = {task: sum(request.model == task for request in self.requests) for task in self.tasks}
        return [
            {"name": task, "version": "1", "execution_count": n, "inference_stats": {"success": {"count": n, "ns": 0}}}
            for task, n in counts.items()
        ]

    def close(self) -> None:
        """See `Transport`."""
        self.closed = True

    def _admitted(self, request: Request) -> dict[str, Value | None]:
        """The options of a request that is right."""
        if request.model not in self.tasks:
            raise NotFound(f"there is no model {request.model!r}", request_id=request.id)
        task = request.model
        missing = [n for n in TASK_INPUTS[task] if n not in OPTIONAL_INPUTS[task] and n not in request.inputs]
        try:
            if missing:
                raise ContractError(f"{task} needs {', '.join(missing)}")
            return validated_parameters(request.parameters, task)
        except ContractError as error:
            raise InvalidRequest(str(error), code="INVALID_ARGUMENT", request_id=request.id) from error

    def _claimed(self, request: Request, steps: int) -> _Job:
        with self._lock:
            known = self._jobs.get(request.id)
            if known is not None and known.state == "running":
                raise InvalidRequest("a request with this id is in flight", code="ID_IN_USE", request_id=request.id)
            self._jobs[request.id] = job = _Job(steps, watchers=self._early.pop(request.id, []))
            return job

    def _step(self, request: Request, job: _Job, deadline_ms: Value | None) -> None:
        began = time.monotonic()
        while job.step < job.total:
            if job.cancelled.wait(self.step_seconds):
                raise BY_CODE["CANCELLED"]("cancelled", code="CANCELLED", request_id=request.id)
            if deadline_ms is not None and (time.monotonic() - began) * 1000 > float(deadline_ms):
                fields = {"deadline_ms": str(deadline_ms)}
                raise DeadlineExceeded("not finished in time", code="DEADLINE", fields=fields, request_id=request.id)
            job.step += 1
            self._tell(job, "running")

    def _tell(self, job: _Job, state: str) -> None:
        with self._lock:
            job.state = state
            for tell in job.watchers:
                tell(job.event())
                if state != "running":
                    tell(None)

    def _about(self, inputs: Mapping[str, str]) -> dict[str, object]:  # noqa: ARG002
        width, height = self.default_size
        return {
            "tryon": "concat" if "tryon" in self.tasks else "none",
            "parser": "mask" in self.tasks,
            "size": {"height": height, "width": width, "minimum": 64, "maximum": 1024, "multiple_of": 8},
            "defaults": {"num_inference_steps": self.default_steps, "solver": "ddim"},
            "feedback": self.feedback is not None,
        }

    def _record(self, inputs: Mapping[str, str]) -> dict[str, bool]:
        if self.feedback is None:
            raise InvalidRequest("this server keeps no audit log", code="UNSUPPORTED")
        self.feedback.append(dict(inputs))
        return {"recorded": True}

    def _cancel(self, inputs: Mapping[str, str]) -> dict[str, bool]:
        request_id = inputs["id"]
        if len(request_id) < MIN_WATCHABLE_ID:
            raise InvalidRequest(f"id must have {MIN_WATCHABLE_ID} characters or more", code="INVALID_ARGUMENT")
        with self._lock:
            job = self._jobs.get(request_id)
            if job is None or job.state != "running":
                raise NotFound("no request with this id is in flight", code="NOT_FOUND")
            self.cancellations.append(request_id)
        job.cancelled.set()
        return {"cancelled": True}

    def _answer(self, request: Request, options: Mapping[str, Any], steps: int) -> Outputs:
        form, quality = options.get("output_format") or "png", options.get("quality") or 95
        original = self._decoded(request, TASK_INPUTS[cast(Task, request.model)][0])
        info: dict[str, Any] = {
            "num_inference_steps": steps,
            "steps": steps,
            "warnings": [],
            "category": options.get("category"),
            "flagged": None,
        }
        mask = Image.new("L", original.size, 255)
        if "mask" in request.inputs:
            mask = self._decoded(request, "mask").convert("L")
        lossless = form if form in ("npy", "data_url") else "png"
        answer = {"mask_used": _bytes([_encoded(mask, lossless, quality)])}
        if request.model != "mask":
            width, height = (options["width"] or self.default_size[0], options["height"] or self.default_size[1])
            size = (width, height) if options["composite"] == "none" else original.size
            seeds = [int(options["seed"] or 0) + i for i in range(options["num_images"])]
            colours = [tuple(np.random.default_rng(seed).integers(0, 256, 3).tolist()) for seed in seeds]
            answer["images"] = _bytes([_encoded(Image.new("RGB", size, colour), form, quality) for colour in colours])
            answer["seeds"] = np.array([seeds], np.int64)
            info |= {"height": height, "width": width, "batch_sizes": [1] * steps}
        return {**answer, "info": _bytes([json.dumps(info).encode()])}

    def _decoded(self, request: Request, name: str) -> Image.Image:
        try:
            return decoded(request.inputs[name])
        except (ValueError, OSError) as error:
            raise InvalidRequest(
                f"{name} is no picture: {error}", code="INVALID_ARGUMENT", request_id=request.id
            ) from error


class AsyncFakeTransport:
    """An `AsyncTransport` around a ``FakeTransport``, for an `AsyncClient`: tell the fake what to do, look at it."""

    def __init__(self, fake: FakeTransport) -> None:
        self.fake = fake
        self._pool = ThreadPoolExecutor(64, "dressform fake")

    async def infer(self, request: Request) -> Outputs:
        """See `Transport`."""
        if request.model == "jobs":
            return self.fake.infer(request)
        return await asyncio.get_running_loop().run_in_executor(self._pool, self.fake.infer, request)

    async def watch(self, request_id: str, tell: Tell) -> None:
        """See `Transport`."""
        loop = asyncio.get_running_loop()

        def tell_loop(event: Event | DressformError | None) -> None:
            loop.call_soon_threadsafe(tell, event)

        self.fake.watch(request_id, tell_loop)

    async def server_ready(self, timeout: float) -> bool:
        """See `Transport`."""
        return self.fake.server_ready(timeout)

    async def model_ready(self, model: str, timeout: float) -> bool:
        """See `Transport`."""
        return self.fake.model_ready(model, timeout)

    async def metadata(self, timeout: float) -> Mapping[str, Any]:
        """See `Transport`."""
        return self.fake.metadata(timeout)

    async def models(self, timeout: float) -> Sequence[Mapping[str, Any]]:
        """See `Transport`."""
        return self.fake.models(timeout)

    async def statistics(self, timeout: float) -> Sequence[Mapping[str, Any]]:
        """See `Transport`."""
        return self.fake.statistics(timeout)

    async def close(self) -> None:
        """See `Transport`."""
        self._pool.shutdown(wait=False)
        self.fake.close()


def _bytes(elements: list[bytes]) -> NDArray[np.object_]:
    """A BYTES tensor ``[1, n]``."""
    return np.array([elements], np.object_)


def _encoded(image: Image.Image, form: str, quality: int) -> bytes:
    stream = io.BytesIO()
    if form == "npy":
        np.save(stream, np.asarray(image))
    else:
        image.save(stream, _FORMATS[form], quality=quality)
    data = stream.getvalue()
    return b"data:image/png;base64," + base64.b64encode(data) if form == "data_url" else data
