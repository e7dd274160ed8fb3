"""Each request as an OpenTelemetry trace: a root span, one for each stage, and if asked for one for each step.

The spans are made when the request is over, by the stage ``jobs``, with the times that the stages noted: the work
itself is not slowed. A caller's ``traceparent`` (W3C Trace Context) is the root's parent, and its flag says whether the
trace is sampled; without one, a share of the requests is.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from itertools import pairwise

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from jobs.ledger import Account

EXPORT_SECONDS, CLOSE_SECONDS = 5, 3
QUIET_SECONDS = 60.0
"""A receiver that is down is spoken of so often."""


class Tracer:
    """Sends requests as traces to the OTLP receiver (HTTP) at ``endpoint``, such as http://127.0.0.1:4318.

    ``ratio`` of the traces that have no parent are sampled. ``warn`` hears of a receiver that is down.
    """

    def __init__(self, endpoint: str, ratio: float, warn: Callable[[str], None]) -> None:
        _speak_seldom(warn)
        resource = Resource.create({"service.name": "dressform"})
        self._provider = TracerProvider(resource=resource, sampler=ParentBased(TraceIdRatioBased(ratio)))
        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=EXPORT_SECONDS)
        self._provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=1000))
        self._tracer = self._provider.get_tracer("dressform")

    def tell(self, account: Account) -> None:
        """Make the spans of a request that is over."""
        day = time.time_ns() - time.monotonic_ns()  # from the monotonic clock to the time of day
        came = TraceContextTextMapPropagator().extract({"traceparent": account.traceparent})
        root = self._tracer.start_span(
            account.task, came, SpanKind.SERVER, _request(account), start_time=day + account.marks["started"]
        )
        inside = set_span_in_context(root)
        for stage, (begin, end) in account.spans().items():
            span = self._tracer.start_span(stage, inside, start_time=day + begin)
            if stage == "denoise":
                span.set_attributes(_steps(account))
                if account.trace_steps:
                    self._tell_steps(account, set_span_in_context(span), begin, day)
            span.end(day + end)
        if account.outcome == "failed":
            root.set_status(Status(StatusCode.ERROR, account.code))
        root.end(day + account.marks["ended"])

    def close(self) -> None:
        """Send what is left, for ``CLOSE_SECONDS`` at most."""
        last = threading.Thread(target=self._provider.shutdown, daemon=True)
        last.start()
        last.join(CLOSE_SECONDS)

    def _tell_steps(self, account: Account, denoise: Context, begin: int, day: int) -> None:
        for number, (end, jobs) in enumerate(zip(account.step_ends_ns, account.batch_sizes), 1):
            attributes = {"dressform.jobs": jobs}
            self._tracer.start_span(f"step {number}", denoise, attributes=attributes, start_time=day + begin).end(
                day + end
            )
            begin = end


def _request(account: Account) -> dict[str, str]:
    known = {
        "request_id": account.short_id,
        "category": account.category,
        "size": account.size,
        "client": account.client,
        "outcome": account.outcome,
        "code": account.code,
    }
    return {f"dressform.{name}": value for name, value in known.items() if value}


def _steps(account: Account) -> dict[str, float]:
    """The steps, summed up."""
    ends = [account.marks["first_step"], *account.step_ends_ns]
    times = [(after - before) / 1e6 for before, after in pairwise(ends)] or [0.0]
    return {
        "dressform.steps": account.steps,
        "dressform.step_ms.mean": sum(times) / len(times),
        "dressform.step_ms.max": max(times),
        "dressform.unet_rows": account.unet_rows,
        "dressform.jobs.mean": sum(account.batch_sizes) / max(len(account.batch_sizes), 1),
        "dressform.compute_seconds": account.compute_seconds,
    }


def _speak_seldom(warn: Callable[[str], None]) -> None:
    """OpenTelemetry's own messages go to ``warn``, one in ``QUIET_SECONDS``."""

    class Seldom(logging.Handler):
        spoken = -QUIET_SECONDS

        def emit(self, record: logging.LogRecord) -> None:
            if time.monotonic() - self.spoken >= QUIET_SECONDS:
                self.spoken = time.monotonic()
                warn(f"tracing: {record.getMessage()}")

    logger = logging.getLogger("opentelemetry")
    logger.handlers, logger.propagate = [Seldom(logging.WARNING)], False
