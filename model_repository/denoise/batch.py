"""One UNet call for many jobs: assembling its rows, and handing each job its own back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from denoise.job import Floats, Job

UNet = Callable[[Floats, Floats, Floats], Floats]
"""sample [r, Cin, h, w], timestep [r], encoder_hidden_states [r, L, D] → output [r, C, h, w], all float32."""


@dataclass
class Batch:
    """The rows of a set of jobs. What a step does not change is assembled once."""

    jobs: list[Job]
    guided: list[bool]
    sample: Floats
    timestep: Floats
    text: Floats
    slices: list[slice]

    @classmethod
    def of(cls, jobs: Sequence[Job]) -> Batch:
        """Rows in order of jobs; of each job the unconditional images first, then the conditional ones."""
        guided = [job.guided for job in jobs]
        ends = np.cumsum([job.rows for job in jobs]).tolist()
        slices = [slice(start, end) for start, end in zip([0, *ends], ends)]
        channels, height, width = jobs[0].shape
        extra = jobs[0].conditioning.extra.shape[2]
        sample = np.empty((ends[-1], channels + extra, height, width), np.float32)
        text = np.empty((ends[-1], *jobs[0].conditioning.text.shape[1:]), np.float32)
        for job, rows, with_guidance in zip(jobs, slices, guided):
            fixed = job.conditioning
            kinds = (0, -1) if with_guidance else (-1,)
            sample[rows, channels:] = np.concatenate([fixed.extra[kind] for kind in kinds])
            text[rows] = np.repeat(np.stack([fixed.text[kind] for kind in kinds]), len(job.sample), axis=0)
        return cls(list(jobs), guided, sample, np.empty(ends[-1], np.float32), text, slices)

    def fits(self, jobs: Sequence[Job]) -> bool:
        """Whether these rows serve ``jobs`` at their current steps."""
        return len(jobs) == len(self.jobs) and all(
            a is b and a.guided == with_guidance for a, b, with_guidance in zip(jobs, self.jobs, self.guided)
        )

    def step(self, unet: UNet) -> None:
        """Advance every job by one step, in one call."""
        for job, rows in zip(self.jobs, self.slices):
            i, channels = job.step, len(job.sample[0])
            scaled = job.sample * job.plan.input_scales[i]
            for start in range(rows.start, rows.stop, len(scaled)):  # once, or twice with guidance
                self.sample[start : start + len(scaled), :channels] = scaled
            self.timestep[rows] = job.plan.timesteps[i]
        output = unet(self.sample, self.timestep, self.text)
        for job, rows in zip(self.jobs, self.slices):
            job.batch_sizes.append(len(self.jobs))
            job.rows_run += rows.stop - rows.start
            job.advance(output[rows])
