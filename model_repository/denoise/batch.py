"""One UNet call for many jobs.

While the membership lasts, the jobs' state lies stacked in arrays over all images, and a step is a handful of array
operations however many jobs there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from denoise.job import Floats, Job
from denoise.solvers import OUTPUTS_KEPT

UNet = Callable[[Floats, Floats, Floats], Floats]
"""sample [r, Cin, h, w], timestep float32 [r], encoder_hidden_states [r, L, D] → output float32 [r, C, h, w].

L is 0 for a UNet without text.
"""


class Batch:
    """Jobs of one latent shape and the rows of their next UNet call.

    The rows are the unconditional ones of all guided images, then the conditional ones of all images, in order of jobs.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.jobs = list(jobs)
        self._guided = [job.guided for job in jobs]
        ends = np.cumsum([len(job.sample) for job in jobs]).tolist()
        self._spans = [slice(start, end) for start, end in zip([0, *ends], ends)]
        self._images = ends[-1]
        self._sample = np.concatenate([job.sample for job in jobs])
        self._saved = np.concatenate([job.saved for job in jobs])
        self._outputs = [np.concatenate([job.outputs[k] for job in jobs]) for k in range(OUTPUTS_KEPT)]
        self._scale = self._column([job.options.guidance_scale for job in jobs])
        self._rescale = self._column([job.options.guidance_rescale for job in jobs])
        self._assemble()

    def _assemble(self) -> None:
        """Everything of the rows that a step does not change."""
        images = np.arange(self._images)
        guided = [images[span] for span, on in zip(self._spans, self._guided) if on]
        self._unconditional = np.concatenate(guided) if guided else images[:0]
        u, (channels, height, width) = len(self._unconditional), self.jobs[0].shape
        fixed = [job.conditioning for job in self.jobs]
        extra = [one.extra[0] for one, on in zip(fixed, self._guided) if on] + [one.extra[-1] for one in fixed]
        self.rows = u + self._images
        self.rows_of = [job.rows for job in self.jobs]
        self._input = np.empty((self.rows, channels + fixed[0].extra.shape[2], height, width), np.float32)
        self._input[:, channels:] = np.concatenate(extra)
        counts = [len(job.sample) for job in self.jobs]
        text = [np.repeat(one.text[:1], n, 0) for one, n, on in zip(fixed, counts, self._guided) if on]
        text += [np.repeat(one.text[-1:], n, 0) for one, n in zip(fixed, counts)]
        self._text = np.concatenate(text)

    def fits(self, jobs: Sequence[Job]) -> bool:
        """Whether these rows serve ``jobs`` at their current steps."""
        return len(jobs) == len(self.jobs) and all(
            a is b and a.guided == on for a, b, on in zip(jobs, self.jobs, self._guided)
        )

    def step(self, unet: UNet) -> None:
        """Advance every job by one step, in one call."""
        plans = [(job.plan, job.step) for job in self.jobs]
        self._fill(self._column([plan.input_scales[i] for plan, i in plans]), [plan.timesteps[i] for plan, i in plans])
        output = self._guide(unet(self._input, self._timestep, self._text))
        self._advance(output)
        for job, span, on, rows in zip(self.jobs, self._spans, self._guided, self.rows_of):
            n = span.stop - span.start
            job.step += 1
            job.rows_run += rows
            job.rows_saved += 0 if on or job.options.guidance_scale <= 1 else n
            job.batch_sizes.append(len(self.jobs))
            if job.known is not None:
                signal, level = (1.0, 0.0) if job.done else job.plan.levels[job.step]
                self._sample[span] = job.known.restored(self._sample[span], signal, level)
            job.sample = self._sample[span]

    def predicted_clean(self, job: Job, prediction_type: str) -> Floats:
        """The clean latents [n, C, h, w] that the last step's output predicts, for previews."""
        span = self._spans[self.jobs.index(job)]
        i, output, sample = job.step - 1, self._outputs[0][span], self._before[span]
        if tuple(job.plan.converts[i]) != (0, 1):  # the solver keeps clean predictions itself
            return output
        signal, noise = job.plan.levels[i]
        if prediction_type == "epsilon":
            return np.asarray((sample - noise * output) / signal)
        norm = np.hypot(signal, noise)  # v is defined where signal² + noise² = 1
        return np.asarray((signal * sample / norm - noise * output) / norm)

    def release(self) -> None:
        """Hand the jobs their own state back; the batch is not used any more."""
        for job, span in zip(self.jobs, self._spans):
            job.sample, job.saved = self._sample[span], self._saved[span]
            job.outputs = [output[span] for output in self._outputs]

    def _column(self, values: Sequence[float]) -> Floats:
        """One value for each job as [images, 1, 1, 1]."""
        per_image = [value for value, span in zip(values, self._spans) for _ in range(span.start, span.stop)]
        return np.array(per_image, np.float32).reshape(-1, 1, 1, 1)

    def _fill(self, scales: Floats, timesteps: Sequence[float]) -> None:
        """The rows' samples (scaled as the solver has it) and timesteps."""
        u, channels = len(self._unconditional), self._sample.shape[1]
        np.multiply(self._sample, scales, out=self._input[u:, :channels], casting="same_kind")
        if u:
            self._input[:u, :channels] = self._input[u:, :channels][self._unconditional]
        times = self._column(timesteps).reshape(-1)
        self._timestep = np.concatenate([times[self._unconditional], times])  # always float32: sigmas' own precision

    def _guide(self, output: Floats) -> Floats:
        """Classifier-free guidance (Ho & Salimans 2022) of the images whose step has it, [images, C, h, w]."""
        u = len(self._unconditional)
        if u == 0:
            return output
        if u == self._images:
            return guide(output[:u], output[u:], self._scale, self._rescale)
        guided, on = output[u:].copy(), self._unconditional
        guided[on] = guide(output[:u], guided[on], self._scale[on], self._rescale[on])
        return guided

    def _advance(self, output: Floats) -> None:
        """The solvers' linear step: sample and saved sample from the history."""
        plans = [(job.plan, job.step) for job in self.jobs]
        counts = [span.stop - span.start for span in self._spans]
        converts = np.repeat([plan.converts[i] for plan, i in plans], counts, 0)
        if (converts != (0, 1)).any():
            p, q = converts.T.reshape(2, -1, 1, 1, 1)
            output = p * self._sample + q * output
        self._outputs = [output, *self._outputs[:-1]]
        self._before = self._sample
        history = [self._sample, self._saved, *self._outputs, self._noise()]
        advance = np.repeat([plan.advances[i] for plan, i in plans], counts, 0)
        save = np.repeat([plan.saves[i] for plan, i in plans], counts, 0)
        self._sample, self._saved = weighted(advance, history), weighted(save, history)

    def _noise(self) -> Floats | None:
        """Fresh noise for the jobs whose step draws some, None if none does."""
        drawing = [(job, span) for job, span in zip(self.jobs, self._spans) if job.plan.draws_noise[job.step]]
        if not drawing:
            return None
        noise = np.zeros_like(self._sample)
        for job, span in drawing:
            noise[span] = np.concatenate([generator.normal((1, *job.shape)) for generator in job.generators])
        return noise


def guide(
    unconditional: Floats, conditional: Floats, scale: NDArray[np.float32], rescale: NDArray[np.float32]
) -> Floats:
    """Guided outputs [n, C, h, w]; ``scale`` and ``rescale`` are [n, 1, 1, 1].

    Rescaled as Lin et al. 2023, eq. 15 and 16, where ``rescale`` is above 0.
    """
    guided = conditional - unconditional
    guided *= scale
    guided += unconditional
    if rescale.any():
        axes = tuple(range(1, guided.ndim))
        deviations = [np.std(x, axis=axes, keepdims=True, ddof=1) for x in (conditional, guided)]
        factor = np.where(rescale > 0, rescale * (deviations[0] / deviations[1]) + (1 - rescale), 1)
        guided *= factor.astype(np.float32)
    return np.asarray(guided)


def weighted(weights: NDArray[np.float32], history: Sequence[Floats | None]) -> Floats:
    """Sum over k of ``weights[:, k] * history[k]``: weights [n, FORM_SIZE], each of the history [n, C, h, w] or
    None, whose weight is 0.

    A quantity that all rows merely keep is returned as it is, not copied.
    """
    columns = weights.reshape(*weights.shape, 1, 1, 1)
    counts = weights.any(axis=0).tolist()
    used = [(columns[:, k], past) for k, past in enumerate(history) if counts[k] and past is not None]
    weight, past = used[0]
    if len(used) == 1 and (weight == 1).all():
        return past
    total = weight * past
    for weight, past in used[1:]:
        total += weight * past
    return np.asarray(total)
