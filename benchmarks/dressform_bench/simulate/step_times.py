"""What takes time on a server, as numbers: the UNet by rows, and everything around it. Pure but for the readers.

The numbers come from an export's manifest (as ``dressform-export verify`` measured the engine on a machine), from a
JSON file (a table for a GPU, say), or from a server measured here (``simulate.validation``).
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from dressform_bench.schedule import Kind
from dressform_export import stages
from dressform_export.manifest import open_manifest

stages.importable()
from denoise.schedule import SchedulerConfig  # noqa: E402
from denoise.solvers import Plan, make_plan  # noqa: E402

BETWEEN_STEPS_SECONDS = 0.002
"""What lies between two UNet calls where a source does not say (measured: ``dressform_bench.step_overhead``)."""

_SCHEDULE = SchedulerConfig.from_json({"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"})
_KEYS = "name, source, step_seconds, before_seconds, after_seconds, answer_seconds, between_steps_seconds, overlap"


@dataclass(frozen=True)
class StepTimes:
    """The times of one server, in seconds.

    ``step_seconds``: UNet call by its rows, between which it is linear; ``between_steps_seconds`` is added to each.
    ``before_seconds`` and ``after_seconds``: work on a request before (preprocess, encoders) and after (decoder,
    postprocess) its denoising, of which a server does one request at a time. ``answer_seconds``: the way to the client
    and back, any number at once. ``overlap``: the share of the work before and after that delays the denoiser, from 0
    (hardware of its own) to 1 (all on one device).
    """

    name: str
    source: str
    step_seconds: Mapping[int, float]
    before_seconds: float = 0.0
    after_seconds: float = 0.0
    answer_seconds: float = 0.0
    between_steps_seconds: float = BETWEEN_STEPS_SECONDS
    overlap: float = 1.0

    def __post_init__(self) -> None:
        if not self.step_seconds:
            raise ValueError("step_seconds must name at least one number of rows")
        for rows, seconds in self.step_seconds.items():
            if rows < 1 or seconds <= 0:
                raise ValueError(f"step_seconds must be seconds above 0 by rows from 1, not {seconds} for {rows} rows")
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name.endswith("_seconds") and item.name != "step_seconds" and not value >= 0:
                raise ValueError(f"{item.name} must be at least 0, not {value}")
        if not 0 <= self.overlap <= 1:
            raise ValueError(f"overlap must be from 0 to 1, not {self.overlap}")

    @cached_property
    def _points(self) -> tuple[list[int], list[float]]:
        rows = sorted(self.step_seconds)
        return rows, [self.step_seconds[count] for count in rows]

    def step(self, rows: int) -> float:
        """Seconds from one step's end to the next's, in a call of ``rows`` rows.

        Beyond the rows known, the line goes on; of one known number the time is proportional to rows, and it never
        falls below that towards fewer.
        """
        known, seconds = self._points
        if len(known) == 1:
            return self.between_steps_seconds + seconds[0] * rows / known[0]
        k = min(max(bisect_left(known, rows), 1), len(known) - 1)
        slope = (seconds[k] - seconds[k - 1]) / (known[k] - known[k - 1])
        value = seconds[k - 1] + slope * (rows - known[k - 1])
        if rows < known[0]:
            value = max(value, seconds[0] * rows / known[0])
        elif rows > known[-1]:
            value = max(value, seconds[-1])
        return self.between_steps_seconds + value

    def solo(self, kind: Kind) -> float:
        """Seconds of a request of ``kind`` alone on a server."""
        rows = 2 if kind.guidance_scale > 1 else 1
        around = self.before_seconds + self.after_seconds + self.answer_seconds
        return around + len(plan(kind)) * self.step(rows)

    def record(self) -> dict[str, Any]:
        """As JSON; `read_table` reads it again."""
        record = {name: round(value, 6) if isinstance(value, float) else value for name, value in asdict(self).items()}
        return record | {"step_seconds": {str(rows): round(s, 6) for rows, s in self.step_seconds.items()}}


@lru_cache(maxsize=256)
def plan(kind: Kind) -> Plan:
    """The solver's plan of ``kind``: its UNet calls are one more than steps for some."""
    return make_plan(_SCHEDULE, kind.solver, kind.steps)


def affine(fixed: float, per_row: float) -> StepTimes:
    """A call of r rows takes ``fixed`` + ``per_row`` × r seconds, and there is nothing else."""
    points = {rows: fixed + per_row * rows for rows in (1, 2)}
    return StepTimes(f"{fixed:g} + {per_row:g} × rows s", "given", points, between_steps_seconds=0.0)


def read_table(path: Path) -> StepTimes:
    """The times in a JSON file: an object of the fields of `StepTimes`, of which name and step_seconds are needed.

    Raises:
        ValueError: if it cannot be read, a key is unknown or missing, or a value is not allowed.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        values = {"source": str(path), **record}
        values["step_seconds"] = {int(rows): float(seconds) for rows, seconds in record["step_seconds"].items()}
        return StepTimes(**values)
    except (OSError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} is no table of step times (an object of {_KEYS}): {error}") from error


def read_manifest(repository: Path, engine: str | None = None) -> StepTimes:
    """The times of an export's ``engine`` (None: its first) on the machine where it was measured.

    The encoders and the decoder are taken to run as fast as the UNet's row: their FLOPs over its FLOPs a second.

    Raises:
        ExportError: if it is no export, or has no such engine.
        ValueError: if the engine was not measured.
    """
    manifest = open_manifest(repository)
    name = engine or manifest.engine
    manifest.require_engines(repository, [name])
    capacity = manifest.engines[name].capacity
    if capacity is None:
        raise ValueError(f"{repository} has no step times of {name}: dressform-export verify {repository} measures it")
    points = {int(rows): seconds for rows, seconds in capacity.step_seconds.items()}
    flops = manifest.flops
    second = points[min(points)] / min(points) / flops["unet"]
    return StepTimes(
        name=f"{manifest.source.id}, {name}, {capacity.machine}, {capacity.width} × {capacity.height}",
        source=f"{repository}/manifest.json",
        step_seconds=points,
        before_seconds=second * (flops.get("text_encoder", 0) + flops["vae_encoder"]),
        after_seconds=second * flops["vae_decoder"],
    )
