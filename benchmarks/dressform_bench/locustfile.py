"""Load on ``inpaint``: a closed loop of users, each with one request in flight, through Dressform's own client.

    locust -f benchmarks/dressform_bench/locustfile.py --headless -u 4 -r 4 -t 30s --host grpc://127.0.0.1:8001

Every user sends a request, waits for the picture and sends the next, so there are never more than ``-u`` requests at
once and the server is never pushed beyond that: what comes out is throughput and latency *at that concurrency*, not
how the server behaves when requests arrive faster than it works (that takes an open loop).

What the numbers mean:

- *Type, Name*: the protocol, and ``inpaint N steps``: other step counts are other work, so each count is a row.
- *Response time* (ms): from the call of ``client.inpaint`` until the picture is decoded: queueing, every stage, the
  transport and the client's own work. The pictures sent are encoded once, before the first request.
- *Content size* (bytes): the encoded pictures of the answer.
- *Failures*: errors, by class and sentence. After one its user waits: a second, or what ``Overloaded`` says.
- The last line of stdout is JSON. ``pictures_per_second`` and ``steps_per_second`` are over the seconds from the first
  request's start to the last answer; ``batch_ceiling`` is the most requests that can share a denoising step (the
  users).

Nothing is warmed up: let a short run go before the one that counts.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import gevent
import grpc.experimental.gevent
from locust import User, events, task
from locust.env import Environment
from PIL import Image, ImageDraw

from dressform import Client, DressformError, Overloaded

# locust has patched the standard library by now; gRPC has to be told before its first channel.
grpc.experimental.gevent.init_gevent()

_EVENTS: Any = events  # its methods are untyped


def _add_arguments(parser: argparse.ArgumentParser, **_: Any) -> None:
    group = parser.add_argument_group("dressform")
    add: Any = group.add_argument  # locust's parser knows env_var too
    add("--picture", env_var="DRESSFORM_PICTURE", default="", help="picture to send; default one that is drawn")
    add("--mask", env_var="DRESSFORM_MASK", default="", help="its mask (white = repaint); default the middle")
    add("--prompt", env_var="DRESSFORM_PROMPT", default="a red woollen coat, studio photo", help="what to paint")
    add("--steps", env_var="DRESSFORM_STEPS", default="4-12", help="denoising steps: N, or LOW-HIGH to draw from")
    add("--num-images", env_var="DRESSFORM_NUM_IMAGES", type=int, default=1, help="pictures for each request")


_EVENTS.init_command_line_parser.add_listener(_add_arguments)


@dataclass(frozen=True)
class Workload:
    """What every user sends: encoded pictures, and the range of steps (both ends included)."""

    picture: bytes
    mask: bytes
    prompt: str
    steps: tuple[int, int]
    num_images: int

    def __post_init__(self) -> None:
        if not 1 <= self.steps[0] <= self.steps[1]:
            raise ValueError(
                f"--steps must be N or LOW-HIGH with 1 <= LOW <= HIGH, not {self.steps[0]}-{self.steps[1]}"
            )

    @classmethod
    def of(cls, options: Any) -> Workload:
        """The workload that the command line asks for."""
        low, _, high = str(options.steps).partition("-")
        picture = Path(options.picture).read_bytes() if options.picture else _png(drawn_person())
        size = Image.open(io.BytesIO(picture)).size
        mask = Path(options.mask).read_bytes() if options.mask else _png(middle_mask(size))
        return cls(picture, mask, options.prompt, (int(low), int(high or low)), options.num_images)


@dataclass
class Tally:
    """What the last line sums up."""

    began: float | None = None
    ended: float = 0.0
    pictures: int = 0
    steps: int = 0
    seconds: list[float] = field(default_factory=list)
    failures: int = 0

    def add(self, pictures: int, steps: int, seconds: float) -> None:
        """Counts a request that was answered just now."""
        self.ended = time.perf_counter()
        self.pictures += pictures
        self.steps += steps * pictures
        self.seconds.append(seconds)

    def summary(self, users: int) -> dict[str, float | int]:
        """The figures, rounded; rates per second over the whole run."""
        wall = max(self.ended - (self.began or self.ended), 1e-9)
        ordered = sorted(self.seconds)
        quantiles = {f"p{q}_seconds": round(ordered[len(ordered) * q // 100], 3) for q in (50, 95) if ordered}
        return {
            "requests": len(ordered),
            "failures": self.failures,
            "pictures_per_second": round(self.pictures / wall, 4),
            "steps_per_second": round(self.steps / wall, 3),
            **quantiles,
            "batch_ceiling": users,
        }


_TALLY = Tally()
_STEPS = random.Random(0)  # the same mix of steps in every run
_NUMBERS = itertools.count()


class InpaintUser(User):  # type: ignore[misc]
    """One caller of ``inpaint``, as often as the answers come. All users share the workload and one client."""

    _workload: ClassVar[Workload | None] = None
    _client: ClassVar[Client | None] = None

    def on_start(self) -> None:
        """The first user prepares the pictures and the client.

        There is one client, and it lives as long as the process: under gevent, gRPC deadlocks when the garbage
        collector happens to drop a channel while gRPC is at work in the same thread.
        """
        if InpaintUser._client is None:
            InpaintUser._workload = Workload.of(self.environment.parsed_options)
            InpaintUser._client = Client(str(self.host), retries=0)

    @task  # type: ignore[untyped-decorator]
    def inpaint(self) -> None:
        """One request, reported to Locust; after a failure, a pause."""
        assert self._workload is not None
        steps = _STEPS.randint(*self._workload.steps)
        began = time.perf_counter()
        _TALLY.began = _TALLY.began or began
        try:
            length = self._request(self._workload, steps)
        except DressformError as error:
            _TALLY.failures += 1
            # Without the request id, which would make every failure a kind of its own.
            self._report(steps, time.perf_counter() - began, 0, type(error)(error.sentence))
            gevent.sleep(error.retry_after if isinstance(error, Overloaded) else 1)
            return
        seconds = time.perf_counter() - began
        _TALLY.add(self._workload.num_images, steps, seconds)
        self._report(steps, seconds, length, None)

    def _request(self, work: Workload, steps: int) -> int:
        """Sends one request; the bytes of its pictures."""
        assert self._client is not None
        result = self._client.inpaint(
            work.picture,
            work.mask,
            work.prompt,
            num_inference_steps=steps,
            num_images=work.num_images,
            seed=next(_NUMBERS),
        )
        return sum(map(len, result.encoded))

    def _report(self, steps: int, seconds: float, length: int, error: DressformError | None) -> None:
        self.environment.events.request.fire(
            request_type=str(self.host).partition(":")[0],
            name=f"inpaint {steps} steps",
            response_time=seconds * 1000,
            response_length=length,
            exception=error,
            context={},
        )


def _finish(environment: Environment, **_: Any) -> None:
    options: Any = environment.parsed_options
    if InpaintUser._client is not None:
        InpaintUser._client.close()
    print(json.dumps({"benchmark": "locust inpaint", "steps": options.steps, **_TALLY.summary(options.num_users or 1)}))


_EVENTS.quitting.add_listener(_finish)


def drawn_person(width: int = 512, height: int = 512) -> Image.Image:
    """A figure before a gradient, so that nothing has to be fetched."""
    image = Image.linear_gradient("L").resize((width, height)).convert("RGB")
    draw = ImageDraw.Draw(image)
    w, h = width / 100, height / 100
    draw.rounded_rectangle((25 * w, 38 * h, 75 * w, 100 * h), radius=12 * w, fill=(60, 80, 140))
    draw.rectangle((45 * w, 30 * h, 55 * w, 42 * h), fill=(214, 170, 140))
    draw.ellipse((38 * w, 8 * h, 62 * w, 35 * h), fill=(224, 180, 150))
    return image


def middle_mask(size: tuple[int, int]) -> Image.Image:
    """White where ``drawn_person`` wears something; black elsewhere. ``size`` is (width, height) in pixels."""
    mask = Image.new("L", size)
    w, h = size[0] / 100, size[1] / 100
    ImageDraw.Draw(mask).rectangle((25 * w, 40 * h, 75 * w, 95 * h), fill=255)
    return mask


def _png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG", compress_level=1)
    return stream.getvalue()
