"""Locust users of a Dressform server; ``python -m dressform_bench.load --help`` says how to run it.

Every user sends a request of the mix, waits for the picture, thinks, and sends the next: a closed loop. So there are
never more requests at once than users, and what comes out is throughput and latency *at that concurrency*, not how
the server behaves when requests arrive faster than it works (that is ``dressform bench openloop``).

What the numbers mean:

- *Type, Name*: the protocol, and the kind of request in the mix.
- *Response time* (ms): from the call of the client until the picture is decoded: queueing, every stage, the transport
  and the client's own work. The pictures sent are encoded once, before the first request.
- *Content size* (bytes): the encoded pictures of the answer.
- *SERVER waiting (ms)* and *SERVER batch (jobs)*: what the answers' ``info`` says: milliseconds in front of the first
  denoising step, and the mean number of jobs in the request's UNet calls. They stand in the column of response times
  and do not count in the totals.
- *Failures*: errors, by class and sentence. After one its user waits: a second, or what ``Overloaded`` says.
"""

from __future__ import annotations

import argparse
import logging
import random
import statistics
import time
from typing import Any, ClassVar

import gevent
import grpc.experimental.gevent
from locust import User, events, task

from dressform import About, Client, DressformError, Overloaded, Result
from dressform_bench.load import series
from dressform_bench.load.mix import Kind, Mix, Wardrobe

# locust has patched the standard library by now; gRPC has to be told before its first channel.
grpc.experimental.gevent.init_gevent()
logging.getLogger("httpx").setLevel(logging.WARNING)  # it tells of each request

_EVENTS: Any = events  # its methods are untyped


def _add_arguments(parser: argparse.ArgumentParser, **_: Any) -> None:
    group = parser.add_argument_group("dressform")
    add: Any = group.add_argument  # locust's parser knows env_var too
    add("--grpc", env_var="DRESSFORM_GRPC", default="grpc://127.0.0.1:8001", help="address of the GrpcUsers")
    add("--http", env_var="DRESSFORM_HTTP", default="http://127.0.0.1:8000", help="address of the HttpUsers")
    add("--mix", env_var="DRESSFORM_MIX", default="shop", help="what users ask for: shop, inpaint, or a YAML file")
    add("--server-pid", env_var="DRESSFORM_SERVER_PID", type=int, default=0, help="whose memory is watched, if here")
    add("--sample-seconds", env_var="DRESSFORM_SAMPLE_SECONDS", type=float, default=5, help="between two samples")
    add("--series", env_var="DRESSFORM_SERIES", default="", help="file for what was measured, as JSON")


_EVENTS.init_command_line_parser.add_listener(_add_arguments)
_EVENTS.init.add_listener(series.watch)


class DressformUser(User):  # type: ignore[misc]
    """One visitor. All users of a protocol share the mix, the pictures and one client."""

    abstract = True
    protocol: ClassVar[str]
    _client: ClassVar[Client | None] = None
    _mix: ClassVar[Mix]
    _wardrobe: ClassVar[Wardrobe]
    _chance: ClassVar[random.Random]
    _about: ClassVar[About | None] = None

    def on_start(self) -> None:
        """The first user prepares the pictures and the client.

        There is one client, and it lives as long as the process: under gevent, gRPC deadlocks when the garbage
        collector happens to drop a channel while gRPC is at work in the same thread.
        """
        kind = type(self)
        if kind._client is None:
            options: Any = self.environment.parsed_options
            kind._mix, kind._wardrobe = Mix.read(options.mix), Wardrobe()
            # Each worker of Locust's, and each protocol, asks for other things, and for the same in each run.
            kind._chance = random.Random(f"{self.protocol} {self.environment.runner.worker_index}")
            kind._client = client = Client(getattr(options, self.protocol), retries=0)
            _EVENTS.quitting.add_listener(lambda **_: client.close())

    def wait_time(self) -> float:
        """Seconds that the user thinks."""
        return self._chance.uniform(*self._mix.think_seconds)

    @task  # type: ignore[untyped-decorator]
    def ask(self) -> None:
        """One request, reported to Locust; after a failure, a pause."""
        wanted = self._mix.drawn(self._chance)
        began = time.perf_counter()
        try:
            result = self._asked(wanted)
        except DressformError as error:
            # Without the request id, which would make every failure a kind of its own.
            self._report(wanted, None, 0, type(error)(error.sentence))
            gevent.sleep(error.retry_after if isinstance(error, Overloaded) else 1)
            return
        self._report(wanted, time.perf_counter() - began, sum(map(len, result.encoded)), None)
        own = self.environment.stats.get
        own(series.WAITING, series.SERVER).log(result.info["milliseconds"]["wait"], 0)
        own(series.BATCH, series.SERVER).log(statistics.mean(result.info["batch_sizes"]), 0)

    def _asked(self, wanted: Kind) -> Result:
        assert self._client is not None
        pictures, going_along = self._wardrobe.pictures(wanted)
        words: dict[str, Any] = {**going_along, **wanted.drawn(self._chance, self._own)}
        words.setdefault("seed", self._chance.randrange(2**31))
        if wanted.prompt is not None:
            words["prompt"] = wanted.prompt
        call: Any = self._client.tryon if wanted.task == "tryon" else self._client.inpaint
        result: Result = call(**pictures, **words)
        return result

    def _own(self) -> About:
        """What the server can do, asked once."""
        kind = type(self)
        if kind._about is None:
            assert self._client is not None
            kind._about = self._client.about(timeout=60)
        return kind._about

    def _report(self, wanted: Kind, seconds: float | None, length: int, error: DressformError | None) -> None:
        """``seconds`` are those of an answer: a failure has none, or it would count as a quick one."""
        self.environment.events.request.fire(
            request_type=self.protocol,
            name=wanted.name,
            response_time=None if seconds is None else seconds * 1000,
            response_length=length,
            exception=error,
            context={},
        )


class GrpcUser(DressformUser):
    """A visitor by gRPC."""

    protocol = "grpc"


class HttpUser(DressformUser):
    """A visitor by HTTP."""

    protocol = "http"
