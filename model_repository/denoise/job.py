"""A job: one request in flight, between its first and its last denoising step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from denoise.noise import TorchGenerator
from denoise.solvers import OUTPUTS_KEPT, Plan

Floats = NDArray[np.float32]


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
        """Read the ``options`` tensor's JSON object."""
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

    text float32 [1 or 2, L, D]: unconditional (with guidance), conditional.
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


@dataclass
class Job:
    """State of one request: ``sample`` [n, C, h, w], the solver's history, and where it stands in its plan."""

    options: JobOptions
    plan: Plan
    conditioning: Conditioning
    sample: Floats
    generators: list[TorchGenerator]
    known: Known | None = None
    crop_height: int | None = None
    step: int = 0
    saved: Floats = field(init=False)
    outputs: list[Floats] = field(init=False)
    batch_sizes: list[int] = field(default_factory=list)
    rows_run: int = 0
    admitted_ns: int = 0
    first_step_ns: int = 0
    finished_ns: int = 0

    def __post_init__(self) -> None:
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
    def guided(self) -> bool:
        """Whether guidance acts at the current step."""
        n, o = len(self.plan), self.options
        return o.guidance_scale > 1 and int(o.guidance_start * n) <= self.step < int(o.guidance_end * n)

    @property
    def rows(self) -> int:
        """UNet rows of the current step: images, twice with guidance."""
        return len(self.sample) * (2 if self.guided else 1)

    @property
    def latents(self) -> Floats:
        """The result [n, C, h, w], without the garment's half where there is one."""
        return self.sample if self.crop_height is None else self.sample[:, :, : self.crop_height]

    def advance(self, output: Floats) -> None:
        """One step with the UNet's ``output`` [rows, C, h, w]: unconditional rows first where guided."""
        if self.guided:
            unconditional, conditional = np.split(output, 2)
            output = guide(unconditional, conditional, self.options.guidance_scale, self.options.guidance_rescale)
        plan, i = self.plan, self.step
        p, q = plan.converts[i]
        newest = output if (p, q) == (0, 1) else p * self.sample + q * output
        self.outputs = [newest, *self.outputs[:-1]]
        history = [self.sample, self.saved, *self.outputs]
        if plan.draws_noise[i]:
            history.append(np.concatenate([g.normal((1, *self.shape)) for g in self.generators]))
        self.sample, self.saved = _weighted(plan.advances[i], history), _weighted(plan.saves[i], history)
        self.step += 1
        if self.known is not None:
            self._restore_known(self.known)

    def _restore_known(self, known: Known) -> None:
        """Outside the mask, put back the image re-noised to the level of the next step (Lugmayr et al. 2022, eq. 8)."""
        signal, noise = (1.0, 0.0) if self.done else self.plan.levels[self.step]
        restored = np.float32(signal) * known.latents + np.float32(noise) * known.noise
        self.sample = (1 - known.mask) * restored + known.mask * self.sample


def guide(unconditional: Floats, conditional: Floats, scale: float, rescale: float) -> Floats:
    """Classifier-free guidance (Ho & Salimans 2022), rescaled as Lin et al. 2023, eq. 15 and 16.

    Both outputs and the result are [n, C, h, w].
    """
    guided = unconditional + np.float32(scale) * (conditional - unconditional)
    if rescale > 0:
        axes = tuple(range(1, guided.ndim))
        std = [np.std(x, axis=axes, keepdims=True, ddof=1) for x in (conditional, guided)]
        guided = np.float32(rescale) * guided * (std[0] / std[1]) + np.float32(1 - rescale) * guided
    return guided


def _weighted(weights: Floats, history: list[Floats]) -> Floats:
    """The weighted sum of the history, [n, C, h, w]; a quantity that is merely kept is not copied."""
    used = np.flatnonzero(weights[: len(history)])
    if len(used) == 1 and weights[used[0]] == 1:
        return history[used[0]]
    total = weights[used[0]] * history[used[0]]
    for k in used[1:]:
        total += weights[k] * history[k]
    return np.asarray(total)
