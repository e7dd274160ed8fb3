"""What the engine's tests put in place of Triton, the job table and the clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Any

import numpy as np

from denoise.admission import admit
from denoise.batch import Batch
from denoise.job import Job, JobOptions
from denoise.schedule import SchedulerConfig
from dressform_contract import Fault

SCHEDULE = SchedulerConfig.from_json({"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"})


def job_options(**changes: Any) -> JobOptions:
    """Options of a plain job, but for ``changes``."""
    values: dict[str, Any] = {
        "task": "inpaint",
        "canvases": ("masked",),
        "solver": "ddim",
        "num_inference_steps": 4,
        "strength": 1.0,
        "eta": 0.0,
        "guidance_scale": 7.5,
        "guidance_start": 0.0,
        "guidance_end": 1.0,
        "guidance_rescale": 0.0,
        "seed": 4,
        "num_images": 1,
        "deadline_ms": None,
        "service_class": "interactive",
        "preview_every": 0,
        "started_ns": 0,
        "prepared_ns": 0,
    }
    return JobOptions.from_json(values | changes)


def make_job(side: int = 2, **changes: Any) -> Job:
    """A job of tiny tensors: one channel, ``side`` × ``side`` latents."""
    options = job_options(**changes)
    rows = 2 if options.guidance_scale > 1 else 1
    return admit(
        options,
        SCHEDULE,
        1.0,
        hidden_states=np.zeros((rows, 3, 2), np.float32),
        moments=np.zeros((1, 2, side, side), np.float32),
        latent_mask=np.ones((1, side, side), np.float32),
    )


class Clock:
    """Nanoseconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 1

    def __call__(self) -> int:
        return self.now


class FakeUNet:
    """Answers zeros in ``seconds`` of the clock; ``fails`` maps a latent width to the error of its calls."""

    def __init__(self, clock: Clock, seconds: float = 0.1, largest: int = 1000) -> None:
        self.clock, self.seconds, self.largest = clock, seconds, largest
        self.fails: dict[int, Exception] = {}
        self.calls: list[int] = []

    def __call__(self, sample: np.ndarray, timestep: np.ndarray, text: np.ndarray) -> np.ndarray:
        assert len(sample) == len(timestep) == len(text)
        if sample.shape[3] in self.fails:
            raise self.fails[sample.shape[3]]
        if len(sample) > self.largest:
            raise RuntimeError("unet: Failed to allocate memory for requested buffer of size 1234")
        self.calls.append(len(sample))
        self.clock.now += int(self.seconds * 1e9)
        return np.zeros((len(sample), 1, *sample.shape[2:]), np.float32)


class FakeWindow:
    """Records what the engine says; ``marked`` jobs are cancelled; somebody comes when ``comes`` steps were made."""

    def __init__(self) -> None:
        self.marked: set[int] = set()
        self.comes = 1_000_000
        self.steps: list[tuple[int, int]] = []
        self.positions: list[int] = []
        self.endings: list[str] = []
        self.beats: list[tuple[float, float, int]] = []

    def cancelled(self, job: Job) -> bool:
        return job.options.seed in self.marked

    def waiting(self, job: Job, position: int, eta_ms: int) -> None:
        self.positions.append(position)

    def stepped(self, job: Job, batch: Batch, eta_ms: int) -> None:
        self.steps.append((job.options.seed, job.step))

    def ended(self, job: Job, fault: Fault | None) -> None:
        self.endings.append(fault.code if fault is not None else "finished")

    def expecting(self, jobs: Collection[Job]) -> bool:
        return len(self.steps) >= self.comes

    def beat(self, work_ms: float, step_ms: float, jobs: int, latent_us: float) -> None:
        self.beats.append((work_ms, step_ms, jobs))


class FakeMeter:
    """Counts."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.levels: dict[str, float] = {}

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        self.counts[name + "".join(f" {k}={v}" for k, v in labels.items())] += int(amount)

    def observe(self, name: str, value: float, **labels: str) -> None:
        self.counts[name + "".join(f" {k}={v}" for k, v in labels.items())] += 1

    def level(self, name: str, value: float, **labels: str) -> None:
        self.levels[name + "".join(f" {k}={v}" for k, v in labels.items())] = value
