"""One request's trace, drawn from what an OpenTelemetry receiver got: ``dressform bench request-trace REPOSITORY OUT``.

A server of the repository sends its traces to a small receiver here (OTLP over HTTP, protobuf). One request is asked
for as a child of a caller's span and with a span for each step (header ``dressform-trace: steps``), beside others that
share its UNet calls. OUT is the picture of its spans (PNG); the same as a table goes to standard output.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import matplotlib
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

matplotlib.use("Agg")
from matplotlib import pyplot

from dressform import Client
from dressform_server import Server, ServerError

TRACE_ID, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
"""Those of W3C Trace Context's own example."""
STEPS, OTHERS = 20, 3
_COLOURS = {"step": "#4c78a8", "denoise": "#9ecae9"}
_STAGE, _ROOT = "#f58518", "#bab0ac"


@dataclass(frozen=True)
class Span:
    """A span as it was received: hexadecimal ids (``parent`` empty: none), times in ns since 1970."""

    trace: str
    id: str
    parent: str
    name: str
    start_ns: int
    end_ns: int
    attributes: dict[str, str | int | float | bool] = field(default_factory=dict)
    failed: bool = False

    @property
    def milliseconds(self) -> float:
        """How long it lasted."""
        return (self.end_ns - self.start_ns) / 1e6


class Receiver:
    """Spans that came to ``address`` so far."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._spans: list[Span] = []
        self._come = threading.Condition()

    def add(self, body: bytes) -> None:
        """Take in an ``ExportTraceServiceRequest``."""
        message = ExportTraceServiceRequest.FromString(body)
        found = [s for resource in message.resource_spans for scope in resource.scope_spans for s in scope.spans]
        with self._come:
            self._spans += [
                Span(
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    span.name,
                    span.start_time_unix_nano,
                    span.end_time_unix_nano,
                    {pair.key: _value(pair.value) for pair in span.attributes},
                    span.status.code == span.status.STATUS_CODE_ERROR,
                )
                for span in found
            ]
            self._come.notify_all()

    def wait(self, enough: Callable[[Sequence[Span]], object], seconds: float) -> list[Span]:
        """The spans, once they are ``enough``.

        Raises:
            TimeoutError: after ``seconds``.
        """
        with self._come:
            if not self._come.wait_for(lambda: enough(self._spans), seconds):
                raise TimeoutError(f"after {seconds} s there are {sorted(span.name for span in self._spans)}")
            return list(self._spans)


def _value(value: AnyValue) -> str | int | float | bool:
    kind = value.WhichOneof("value")
    return getattr(value, kind) if kind in ("string_value", "int_value", "double_value", "bool_value") else str(value)


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver on a free port of loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            receiver.add(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        receiver = Receiver(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join(5)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve, ask, draw."""
    parser = argparse.ArgumentParser(
        prog="dressform bench request-trace", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("repository", type=Path, help="an exported repository that knows tryon and has a parser")
    parser.add_argument("out", type=Path, metavar="OUT.png")
    options = parser.parse_args(argv)
    try:
        spans = traced(options.repository)
    except (ServerError, TimeoutError) as error:
        print(f"request-trace: {error}", file=sys.stderr)
        return 1
    print("\n".join(table(spans)))
    draw(spans, options.out)
    print(options.out)
    return 0


def traced(repository: Path) -> list[Span]:
    """The spans of one try-on among others, in their order."""
    from dressform.app.gallery import GARMENTS, PEOPLE

    person, garment = PEOPLE[0].path, GARMENTS[0].path
    headers = {"traceparent": f"00-{TRACE_ID}-{CALLER}-01", "dressform-trace": "steps", "dressform-client": "shop"}
    with receiving() as receiver, ThreadPoolExecutor(OTHERS) as pool:
        with Server(
            repository, http_port=0, grpc_port=0, metrics_port=0, otlp_endpoint=receiver.address, trace_ratio=0.0
        ) as server:
            server.wait_ready(240)
            with Client(server.grpc_url) as client:
                client.tryon(person, garment, num_inference_steps=2)  # the first is slow

                def other(number: int) -> None:
                    time.sleep(0.15 * number)
                    client.tryon(person, garment, num_inference_steps=STEPS, seed=number)

                others = [pool.submit(other, number) for number in range(OTHERS)]
                client.tryon(person, garment, num_inference_steps=STEPS, headers=headers)
                for one in others:
                    one.result()
        found = receiver.wait(lambda spans: [s for s in spans if s.parent == CALLER], 30)
    return sorted((span for span in found if span.trace == TRACE_ID), key=lambda span: (span.start_ns, -span.end_ns))


def table(spans: Sequence[Span]) -> list[str]:
    """Each span's start and length in milliseconds, and its attributes."""
    origin = spans[0].start_ns
    lines = [f"{'span':<14}{'from ms':>10}{'ms':>10}  attributes"]
    for span in spans:
        said = "  ".join(
            f"{name.removeprefix('dressform.')}={_shown(value)}" for name, value in span.attributes.items()
        )
        lines.append(f"{span.name:<14}{(span.start_ns - origin) / 1e6:>10.1f}{span.milliseconds:>10.1f}  {said}")
    return lines


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def draw(spans: Sequence[Span], out: Path) -> None:
    """A waterfall: a bar for each span, in their order."""
    origin, whole = spans[0].start_ns, spans[0].milliseconds
    figure, axes = pyplot.subplots(figsize=(11, 1.3 + 0.24 * len(spans)), dpi=130, layout="constrained")
    for row, span in enumerate(spans):
        start = (span.start_ns - origin) / 1e6
        colour = _ROOT if row == 0 else _COLOURS.get(span.name.split()[0], _STAGE)
        axes.barh(row, span.milliseconds, left=start, color=colour, height=0.72)
        jobs = span.attributes.get("dressform.jobs")
        text = f"{span.milliseconds:.1f} ms" + (f", {jobs} job{'s' if jobs != 1 else ''} in the call" if jobs else "")
        late = start + span.milliseconds > 0.75 * whole
        place = (0.99 * start, "right") if late and start > 0.3 * whole else (start + span.milliseconds, "left")
        if row == 0:
            place = (0.5 * whole, "center")
        axes.text(place[0], row, f" {text} ", va="center", ha=place[1], fontsize=8)
    axes.set_yticks(range(len(spans)), [("    " if s.name.startswith("step ") else "") + s.name for s in spans])
    axes.tick_params(axis="y", labelsize=8, length=0)
    axes.set(xlim=(0, 1.02 * whole), ylim=(len(spans) - 0.4, -0.6), xlabel="milliseconds since the request arrived")
    steps = [span for span in spans if span.name.startswith("step ")]
    share = sum(span.milliseconds for span in steps) / whole
    axes.set_title(
        f"One {spans[0].name}: {share:.0%} of its time is in its {len(steps)} denoising steps",
        loc="left",
        weight="bold",
    )
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    figure.savefig(out)
    pyplot.close(figure)


if __name__ == "__main__":
    sys.exit(main())
