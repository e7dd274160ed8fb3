"""A job: one request in flight, between its first and its last denoising step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from denoise.noise import TorchGenerator
from denoise.solvers import OUTPUTS_KEPT, Plan
from jobs.entry import Slot

Floats = NDArray[np.float32]

NO_TEXT: Floats = np.zeros((1, 0, 0), np.float32)
"""The hidden states where the UNet takes none."""

NOBODYS = Slot(-1, 0)
"""No place on the job table: what is written there is ignored."""


@dataclass(frozen=True)
class JobOptions:
    """A request's options as ``preprocess`` resolved them; unknown keys are refused."""

    task: str
    canvases: tuple[str, ...]
    solver: str
    num_inference_steps: int
    strength: float
    eta: float
    guidance_scale: float
    guidance_start: float
    guidance_end: float
    guidance_rescale: float
    seed: int
    num_images: int
    deadline_ms: int | None
    service_class: str
    preview_every: int
    started_ns: int
    prepared_ns: int

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> JobOptions:
        """Read the options' JSON object."""
        known = {item.name for item in fields(cls)}
        if set(values) != known:
            raise ValueError(f"job options differ: {sorted(set(values) ^ known)}")
        return cls(**{**values, "canvases": tuple(values["canvases"])})

    @property
    def deadline_ns(self) -> int | None:
        """The monotonic time by which the answer is due."""
        return None if self.deadline_ms is None else self.started_ns + self.deadline_ms * 1_000_000


@dataclass(frozen=True)
class Conditioning:
    """What the UNet is told beside sample and timestep; constant over a job's life.

    text float32 [1 or 2, L, D]: unconditional (with guidance), conditional; L = 0 for a UNet without text.
    extra float32 [1 or 2, num_images, E, h, w]: channels appended to the sample (mask and masked-image latents; E = 0
    for 4-channel UNets).
    """

    text: Floats
    extra: Floats


@dataclass(frozen=True)
class Known:
    """For 4-channel UNets: the image's latents and the first noise [n, C, h, w], and the latent mask [1, 1, h, w]."""

    latents: Floats
    noise: Floats
    mask: Floats

    def restored(self, sample: Floats, signal: float, level: float) -> Floats:
        """``sample`` with the image, noised to (signal, level), put back outside the mask (RePaint, eq. 8)."""
        image = np.float32(signal) * self.latents + np.float32(level) * self.noise
        return np.asarray((1 - self.mask) * image + self.mask * sample)


@dataclass(eq=False)
class Job:
    """State of one request: ``sample`` [n, C, h, w], the solver's history, and where it stands in its plan.

    ``saved`` and ``outputs`` are current while no `Batch` holds the job; ``rounds_missed`` counts the UNet calls since
    the job was ready that went without it; ``seen_ns`` is when the server last handed it over; ``slot`` is its place on
    the job table; ``compute_seconds`` is its share, by rows, of the time of the UNet calls that it was in.
    """

    options: JobOptions
    plan: Plan
    conditioning: Conditioning
    sample: Floats
    generators: list[TorchGenerator]
    slot: Slot = NOBODYS
    known: Known | None = None
    crop_height: int | None = None
    step: int = 0
    rounds_missed: int = 0
    seen_ns: int = 0
    saved: Floats = field(init=False)
    outputs: list[Floats] = field(init=False)
    batch_sizes: list[int] = field(default_factory=list)
    step_ends_ns: list[int] = field(default_factory=list)
    rows_run: int = 0
    rows_saved: int = 0
    compute_seconds: float = 0.0
    admitted_ns: int = 0
    first_step_ns: int = 0
    finished_ns: int = 0
    _guided: list[bool] = field(init=False)

    def __post_init__(self) -> None:
        n, o = len(self.plan), self.options
        start, end = int(o.guidance_start * n), int(o.guidance_end * n)
        self._guided = [o.guidance_scale > 1 and start <= step < end for step in range(n)] + [False]
        self.saved = self.sample
        self.outputs = [np.zeros_like(self.sample)] * OUTPUTS_KEPT

    @property
    def shape(self) -> tuple[int, ...]:
        """The latent shape (C, h, w): jobs of one shape share a UNet call."""
        return self.sample.shape[1:]

    @property
    def done(self) -> bool:
        """Whether the plan is finished."""
        return self.step >= len(self.plan)

    @property
    def remaining(self) -> int:
        """UNet calls still to come."""
        return len(self.plan) - self.step

    @property
    def guided(self) -> bool:
        """Whether guidance acts at the current step."""
        return self._guided[self.step]

    @property
    def rows(self) -> int:
        """UNet rows of the current step: images, twice with guidance."""
        return len(self.sample) * (2 if self.guided else 1)

    @property
    def latents(self) -> Floats:
        """The result [n, C, h, w], without the garment's half where there is one."""
        return self.sample if self.crop_height is None else self.sample[:, :, : self.crop_height]
