"""Dressform's own metrics on Triton's /metrics endpoint.

Triton counts a step of an iterative sequence as a request, so service levels are told by these. A call into Triton
costs tens of microseconds; it is made by a thread of its own, ten times a second, and the stage only notes what it
counts.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import Any, Literal

import triton_python_backend_utils as pb_utils

from denoise.step_time import ROWS

Kind = Literal["counter", "gauge", "histogram"]

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640)
STEP_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, *SECONDS[: SECONDS.index(20) + 1])
STAGE_SECONDS = (*STEP_SECONDS, *SECONDS[SECONDS.index(40) :])
PERIOD_SECONDS = 0.1
"""How often what was noted is told to Triton. Waking a thread at each note would take time from the UNet."""


@dataclass(frozen=True)
class Family:
    """A metric's kind, help text, labels and, for a histogram, upper bounds of its buckets."""

    kind: Kind
    text: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


FAMILIES: dict[str, Family] = {
    "dressform_start_time_seconds": Family("gauge", "When the server started, seconds since 1970"),
    "dressform_stage_beat_timestamp_seconds": Family(
        "gauge", "When a Python process of the server was last heard of, seconds since 1970", ("stage",)
    ),
    "dressform_jobs": Family("gauge", "Jobs in the denoiser", ("state",)),
    "dressform_work_seconds": Family("gauge", "Estimated work before the denoiser"),
    "dressform_jobs_admitted_total": Family("counter", "Jobs that reached the denoiser"),
    "dressform_jobs_ended_total": Family("counter", "Jobs that left the denoiser", ("outcome", "reason")),
    "dressform_requests_refused_total": Family("counter", "Requests refused before any graph ran", ("reason",)),
    "dressform_steps_total": Family("counter", "Denoising steps, each job's counted"),
    "dressform_guidance_rows_saved_total": Family("counter", "Unconditional UNet rows saved by guidance intervals"),
    "dressform_unet_rows": Family("histogram", "Rows of a UNet call", (), ROWS),
    "dressform_step_seconds": Family("histogram", "Time of a denoising step", ("rows",), STEP_SECONDS),
    "dressform_time_to_first_step_seconds": Family("histogram", "From arrival to the first step", (), SECONDS),
    "dressform_job_seconds": Family("histogram", "From arrival to the last step", (), SECONDS),
    "dressform_requests_total": Family(
        "counter", "Requests that are over", ("task", "category", "size", "outcome", "client")
    ),
    "dressform_requests_ended_total": Family("counter", "Requests that are over, without detail", ("task", "outcome")),
    "dressform_request_seconds": Family(
        "histogram", "From arrival to the answer, of requests done", ("task",), SECONDS
    ),
    "dressform_stage_seconds": Family(
        "histogram", "Time of a request in a stage, of requests done", ("stage",), STAGE_SECONDS
    ),
    "dressform_compute_seconds_total": Family(
        "counter", "Requests' shares (by rows) of the time of UNet calls", ("task", "client")
    ),
}

HEARTS = ("dressform_start_time_seconds", "dressform_stage_beat_timestamp_seconds")
"""What ``jobs`` tells of processes."""

USAGE = (
    "dressform_requests_total",
    "dressform_requests_ended_total",
    "dressform_request_seconds",
    "dressform_stage_seconds",
    "dressform_compute_seconds_total",
)
"""What ``jobs`` tells of requests."""

REFUSED = "dressform_requests_refused_total"
DUE = ("OVERLOADED", "DEADLINE")
"""Why requests are refused that were due an answer."""

DENOISE = tuple(name for name in FAMILIES if name not in (REFUSED, *HEARTS, *USAGE))
"""What ``denoise`` counts."""


class Recorder:
    """The `Meter` of `denoise.engine` on Triton's metrics."""

    def __init__(self, *names: str) -> None:
        """A recorder of the families ``names``: a stage takes those that it counts."""
        kinds = pb_utils.MetricFamily
        by_kind = {"counter": kinds.COUNTER, "gauge": kinds.GAUGE, "histogram": kinds.HISTOGRAM}
        # Triton forgets a metric whose family is not kept alive.
        self._families = {
            name: kinds(name=name, description=family.text, kind=by_kind[family.kind])
            for name, family in ((name, FAMILIES[name]) for name in names)
        }
        self._metrics: dict[tuple[str, tuple[tuple[str, str], ...]], Any] = {}
        self._noted: deque[tuple[str, tuple[tuple[str, str], ...], float | None]] = deque()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._record, name="metrics", daemon=True)
        self._thread.start()

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to a counter."""
        self._noted.append((name, tuple(labels.items()), amount))

    def declare(self, name: str, **labels: str) -> None:
        """Show a counter or histogram as long as it is nothing: Prometheus sees no increase in what is new."""
        self._noted.append((name, tuple(labels.items()), None))

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Add to a histogram."""
        self._noted.append((name, tuple(labels.items()), value))

    def level(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        self._noted.append((name, tuple(labels.items()), value))

    def close(self) -> None:
        """Record what is noted, and end."""
        self._closed.set()
        self._thread.join(5)

    def _record(self) -> None:
        while not self._closed.wait(PERIOD_SECONDS):
            self._tell()
        self._tell()

    def _tell(self) -> None:
        while self._noted:
            name, labels, value = self._noted.popleft()
            metric = self._metric(name, labels)
            kind = FAMILIES[name].kind
            if value is None:
                continue
            if kind == "counter":
                metric.increment(value)
            elif kind == "gauge":
                metric.set(value)
            else:
                metric.observe(value)

    def _metric(self, name: str, labels: tuple[tuple[str, str], ...]) -> Any:
        key = (name, labels)
        if key not in self._metrics:
            family = FAMILIES[name]
            if tuple(label for label, _ in labels) != family.labels:
                raise ValueError(f"{name} has the labels {family.labels}, not {labels}")
            buckets = {"buckets": list(family.buckets)} if family.kind == "histogram" else {}
            self._metrics[key] = self._families[name].Metric(labels=dict(labels), **buckets)
        return self._metrics[key]
