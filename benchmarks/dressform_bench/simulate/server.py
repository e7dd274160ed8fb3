"""One simulated server. Pure: time is a number that is passed in, and no Triton.

The scheduler is the real one, `denoise.engine.Engine` with `denoise.policy` and all its bookkeeping; only its batches
hold no tensors, and its UNet takes the time that `StepTimes` says. Around it is the least that a server has: admission
up to its limits, one worker for what comes before the denoising and one for what comes after.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from dressform_bench.schedule import Kind
from dressform_bench.simulate.step_times import StepTimes, plan
from dressform_export import stages
from dressform_export.repository import config_for, template_folder

stages.importable()
from denoise.batch import Batch, UNet  # noqa: E402
from denoise.engine import Engine  # noqa: E402
from denoise.job import NO_TEXT, Conditioning, Floats, Job, JobOptions  # noqa: E402
from dressform_contract import Fault  # noqa: E402

BATCHING = ("step", "request")

_LATENTS = np.zeros((1, 1, 1, 1), np.float32)
"""All jobs are of one size, and nobody looks at their latents."""

_CONDITIONING = Conditioning(NO_TEXT, _LATENTS[None])


@dataclass(frozen=True)
class Limits:
    """What a server's configuration allows: rows of a UNet call, requests in flight, seconds of work waiting."""

    max_rows: int
    max_jobs: int
    max_work_seconds: float

    def __post_init__(self) -> None:
        if self.max_rows < 1 or self.max_jobs < 1 or self.max_work_seconds <= 0:
            raise ValueError(f"the limits of a server must be above 0, not {self}")

    @classmethod
    def of(cls, repository: Path | None = None, engine: str | None = None) -> Limits:
        """Those of an export's configs for ``engine`` (None: its first), or of the ones that every export begins with.

        Raises:
            ValueError: if it is no export.
        """
        folder = repository or template_folder()
        try:
            denoise, preprocess = (config_for(folder, model, engine).parameters for model in ("denoise", "preprocess"))
        except OSError as error:
            raise ValueError(f"{folder} is no export: {error}") from error
        return cls(
            int(denoise["max_rows"].string_value),
            int(preprocess["max_jobs"].string_value),
            float(preprocess["max_work_seconds"].string_value),
        )


class Hollow(Batch):
    """A batch without tensors: its step calls the UNet with as many rows, and counts."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.jobs = list(jobs)
        self.rows_of = [job.rows for job in jobs]
        self.rows = sum(self.rows_of)

    def step(self, unet: UNet) -> None:
        """See `Batch`."""
        rows = _rows(self.rows)
        unet(rows, rows, rows)
        for job, own in zip(self.jobs, self.rows_of):
            job.rows_run += own
            job.step += 1
            job.batch_sizes.append(len(self.jobs))


class Scheduler(Engine):
    """The real engine, of hollow batches."""

    def _batched(self, chosen: list[Job]) -> Batch:
        return Hollow(chosen)


class Watcher:
    """The engine's window and meter: keeps the work that waits, in milliseconds, and forgets the rest."""

    def __init__(self) -> None:
        self.work_ms = 0.0

    def cancelled(self, job: Job) -> bool:  # noqa: ARG002
        """Nobody cancels."""
        return False

    def waiting(self, job: Job, position: int, eta_ms: int) -> None:
        """See `denoise.engine.Window`."""

    def stepped(self, job: Job, batch: Batch, eta_ms: int) -> None:
        """See `denoise.engine.Window`."""

    def ended(self, job: Job, fault: Fault | None) -> None:
        """See `denoise.engine.Window`."""

    def expecting(self, jobs: Collection[Job]) -> bool:  # noqa: ARG002
        """Rounds are made one by one here."""
        return True

    def beat(self, work_ms: float, step_ms: float, jobs: int, latent_us: float) -> None:  # noqa: ARG002
        """See `denoise.engine.Window`."""
        self.work_ms = work_ms

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """See `denoise.engine.Meter`."""

    def observe(self, name: str, value: float, **labels: str) -> None:
        """See `denoise.engine.Meter`."""

    def level(self, name: str, value: float, **labels: str) -> None:
        """See `denoise.engine.Meter`."""


class Server:
    """One server. Requests, known by a number, go in by `accepts` and come out of `round`.

    ``now`` is where its denoiser stands, in seconds; ``planned`` is whether a round of it is to come.
    """

    def __init__(self, times: StepTimes, limits: Limits, batching: str = "step") -> None:
        if batching not in BATCHING:
            raise ValueError(f"batching must be one of {', '.join(BATCHING)}, not {batching!r}")
        self.now = 0.0
        self.planned = False
        self._times, self._limits = times, limits
        self._watcher = Watcher()
        self._work_ms = 0.0
        self._encoded: deque[tuple[float, int, Kind]] = deque()
        self._free = {"before": 0.0, "after": 0.0}
        self._delay = 0.0
        self._scheduler = Scheduler(
            self._unet,
            1,
            limits.max_rows,
            self._watcher,
            self._watcher,
            one_batch_at_a_time=batching == "request",
            clock=lambda: int(1e9 * self.now),
        )

    def accepts(self, number: int, kind: Kind, now: float, in_flight: int) -> bool:
        """Take a request in, unless the server is full: the rule of the stage ``preprocess``."""
        work_ms = self._watcher.work_ms if now >= self.now else self._work_ms  # a step's figures are told at its end
        if in_flight >= self._limits.max_jobs or work_ms > 1000 * self._limits.max_work_seconds:
            return False
        self._encoded.append((self._worked("before", now, self._times.before_seconds), number, kind))
        return True

    def next_round(self) -> float | None:
        """When the denoiser can go on: at once, or when the next request is encoded; None without any."""
        if self._scheduler.jobs:
            return self.now
        return max(self.now, self._encoded[0][0]) if self._encoded else None

    def round(self, now: float) -> list[tuple[float, int, Job]]:
        """One round of the engine at ``now``, and of the jobs that it ends: when the picture is there, number, job.

        Afterwards the server's ``now`` is the end of the UNet call.
        """
        self.now = now
        self._work_ms = self._watcher.work_ms
        while self._encoded and self._encoded[0][0] <= now:
            _, number, kind = self._encoded.popleft()
            self._scheduler.admit(number, job(kind))
        ended = self._scheduler.round(dict(self._scheduler.jobs))
        done = [(number, one) for number, one in ended.items() if isinstance(one, Job)]
        return [(self._worked("after", self.now, self._times.after_seconds), number, one) for number, one in done]

    def _worked(self, place: str, now: float, seconds: float) -> float:
        """When the one worker of ``place`` has done ``seconds`` of work that came at ``now``.

        While jobs are denoised, it and the denoiser take time from one another.
        """
        shared = self._times.overlap * seconds if self._scheduler.jobs else 0.0
        self._delay += shared
        self._free[place] = max(now, self._free[place]) + seconds + shared
        return self._free[place]

    def _unet(self, sample: Floats, timestep: Floats, text: Floats) -> Floats:  # noqa: ARG002
        """Takes its time, and what others took of it."""
        self.now += self._times.step(len(sample)) + self._delay
        self._delay = 0.0
        return sample


@lru_cache(maxsize=256)
def _rows(count: int) -> Floats:
    return np.repeat(_LATENTS, count, 0)


@lru_cache(maxsize=256)
def _options(kind: Kind) -> JobOptions:
    return JobOptions(
        task="inpaint",
        canvases=(),
        solver=kind.solver,
        num_inference_steps=kind.steps,
        strength=1.0,
        eta=0.0,
        guidance_scale=kind.guidance_scale,
        guidance_start=0.0,
        guidance_end=1.0,
        guidance_rescale=0.0,
        seed=0,
        num_images=1,
        deadline_ms=None,
        service_class="interactive",
        preview_every=0,
        started_ns=0,
        prepared_ns=0,
    )


def job(kind: Kind) -> Job:
    """A job of ``kind`` as the engine has it, with nothing to draw and nothing to show."""
    return Job(_options(kind), plan(kind), _CONDITIONING, _LATENTS, [])
