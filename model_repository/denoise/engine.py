"""The denoiser: all jobs in flight, advanced one step at a time. No Triton here.

`Engine.run` is what happens each time the server hands over the jobs that are ready: rounds of drop → gather → choose →
step, one, or more as long as every job is at hand and nobody else is on the way.
Clock, UNet, the window for watchers and the metrics are passed in.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from denoise.batch import Batch, UNet
from denoise.job import Job
from denoise.memory import OutOfMemory, SplittingUNet
from denoise.policy import choose, choose_shape, slack_ns
from denoise.step_time import StepTime, rows_label
from dressform_contract import Fault
from jobs.deadline import spelled

MAX_GATHERS = 3
"""How often in a row jobs are sent round again without a step, to wait for the others."""

STAY_NS = 1_000_000_000
"""How long rounds go on before the server is asked for jobs again, whoever is on the way."""

ABANDONED_NS = 60_000_000_000
"""A job that the server has not handed over for so long is gone."""


class Window(Protocol):
    """What others see of the jobs, and how they end them."""

    def cancelled(self, job: Job) -> bool:
        """Whether somebody asked for the job's end."""

    def waiting(self, job: Job, position: int, eta_ms: int) -> None:
        """The job got no step in this round."""

    def stepped(self, job: Job, batch: Batch, eta_ms: int) -> None:
        """The job has advanced."""

    def ended(self, job: Job, fault: Fault | None) -> None:
        """The job has left the denoiser."""

    def expecting(self, jobs: Collection[Job]) -> bool:
        """Whether others than these are on their way to the denoiser."""

    def beat(self, work_ms: float, step_ms: float, jobs: int, latent_us: float) -> None:
        """The denoiser lives; estimated work before it, time of a step, jobs, least time of a row for each latent."""


class Meter(Protocol):
    """Counters and histograms, by name."""

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to a counter."""

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Add to a histogram."""

    def level(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""


class Engine:
    """Jobs in flight by key, and the policy that advances them. Jobs are the only state of requests."""

    def __init__(
        self,
        unet: UNet,
        vae_factor: int,
        max_rows: int,
        window: Window,
        meter: Meter,
        *,
        one_batch_at_a_time: bool = False,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        if max_rows < 1:
            raise ValueError(f"max_rows must be at least 1, not {max_rows}")
        self.jobs: dict[int, Job] = {}
        self._unet = SplittingUNet(unet, vae_factor)
        self._max_rows = max_rows
        self._window, self._meter, self._clock = window, meter, clock
        self._fixed: list[Job] | None = [] if one_batch_at_a_time else None
        self._times = StepTime()
        self._batch: Batch | None = None
        self._turns: dict[tuple[int, ...], int] = {}
        self._turn = 0
        self._gathered = 0
        self._gauges()

    def admit(self, key: int, job: Job) -> None:
        """Take a job in; it has its first step in the next round that serves its shape."""
        job.admitted_ns = job.seen_ns = self._clock()
        self.jobs[key] = job
        self._meter.count("dressform_jobs_admitted_total")
        self._gauges()

    def run(self, keys: Collection[int]) -> dict[int, Job | Fault]:
        """Rounds over the jobs handed over, ``keys``, until one ends or another may join: those that ended.

        Handing them back to the server and getting them again costs up to a millisecond for each job.
        """
        began = self._clock()
        ended = self.round(keys)
        while not ended and self._alone(keys) and self._clock() - began < STAY_NS:
            ended = self.round(keys)
        return ended

    def _alone(self, keys: Collection[int]) -> bool:
        """Whether the next round would find the same jobs: all are here, and nobody is on the way."""
        every = bool(self.jobs) and all(key in keys for key in self.jobs)
        return every and not self._window.expecting(self.jobs.values())

    def round(self, keys: Collection[int]) -> dict[int, Job | Fault]:
        """One round over the jobs handed over, ``keys``: those that ended, as finished jobs or faults."""
        now = self._clock()
        self._sweep(keys, now)
        faults = {key: fault for key in keys if (fault := self._fault(self.jobs[key], now)) is not None}
        ready = {key: self.jobs[key] for key in keys if key not in faults}
        if ready and not self._gathering(keys):
            faults |= self._step(ready)
        ended: dict[int, Job | Fault] = {**{key: job for key, job in ready.items() if job.done}, **faults}
        for key, ending in ended.items():
            self._leave(key, None if isinstance(ending, Job) else ending)
        return ended

    def _fault(self, job: Job, now: int) -> Fault | None:
        """Why the job must end now, if it must."""
        if self._window.cancelled(job):
            return Fault("CANCELLED", f"cancelled after {job.step} of {len(job.plan)} steps")
        known = self._times.sure(job.shape) and (job.step or self._times.fresh(job.shape, job.rows, now / 1e9))
        slack = slack_ns(job, now, 1e9 * self._times.seconds(job.shape, job.rows) if known else 0.0)
        allowed = job.options.deadline_ms
        if slack is None or slack >= 0 or allowed is None:
            return None
        late = "passed" if (job.options.deadline_ns or 0) < now else "cannot be met any more"
        text = f"the deadline of {spelled(allowed)} {late} after {job.step} of {len(job.plan)} steps"
        return Fault("DEADLINE", text, (("deadline_ms", str(allowed)),))

    def _gathering(self, keys: Collection[int]) -> bool:
        """Whether to wait for jobs that this round did not bring.

        Triton hands over whatever is queued at the moment; jobs once out of phase would stay so, each alone in its
        call. Sending the early ones round again without a step brings the rest in a fraction of a millisecond.
        """
        complete = all(key in keys for key in self.jobs)
        self._gathered = 0 if complete else (self._gathered + 1) % (MAX_GATHERS + 1)
        return self._gathered > 0

    def _step(self, ready: Mapping[int, Job]) -> dict[int, Fault]:
        """One UNet call for the jobs whose turn it is; faults of those that it failed."""
        chosen = self._chosen(list(ready.values()))
        if not chosen:
            return {}
        batch = self._batched(chosen)
        started = self._clock()
        self._start([job for job in chosen if not job.first_step_ns], started)
        try:
            batch.step(self._unet)
        except Exception as error:
            return self._failed(error, {key: job for key, job in ready.items() if job in chosen})
        ended = self._clock()
        second_per_row = (ended - started) / 1e9 / batch.rows
        for job, rows in zip(batch.jobs, batch.rows_of):
            job.step_ends_ns.append(ended)
            job.compute_seconds += rows * second_per_row
        self._account(batch, (ended - started) / 1e9, ended / 1e9)
        self._tell(ready, batch)
        return {}

    def _chosen(self, ready: list[Job]) -> list[Job]:
        """The jobs of this round's call; none where a fixed batch is not complete."""
        now = self._clock()
        if self._fixed is not None:  # request-level batching, for comparison: a batch runs to its end before the next
            self._fixed = [job for job in self._fixed if job in self.jobs.values()] or ready
            if any(job not in ready for job in self._fixed):
                return []  # the rest of the batch comes with the next round
            ready = self._fixed
        shape = choose_shape(ready, self._turns)
        self._turn += 1
        self._turns[shape] = self._turn
        cap = min(self._max_rows, self._unet.caps.get(shape[1:], self._max_rows))
        step_ns = 1e9 * self._times.seconds(shape, cap)
        chosen = choose([job for job in ready if job.shape == shape], now, step_ns, cap)
        for job in ready:
            job.rounds_missed = 0 if job in chosen else job.rounds_missed + (job.shape == shape)
        return chosen

    def _batched(self, chosen: list[Job]) -> Batch:
        """The chosen jobs' rows; the last round's, where nothing has changed."""
        if self._batch is None or not self._batch.fits(chosen):
            self._release()
            self._batch = Batch(chosen)
        return self._batch

    def _release(self) -> None:
        if self._batch is not None:
            self._batch.release()
            self._batch = None

    def _start(self, fresh: list[Job], now: int) -> None:
        """Jobs before their first step: from waiting to active."""
        for job in fresh:
            job.first_step_ns = now
            self._meter.observe("dressform_time_to_first_step_seconds", (now - job.options.started_ns) / 1e9)
        if fresh:
            self._gauges()

    def _failed(self, error: Exception, jobs: Mapping[int, Job]) -> dict[int, Fault]:
        """The jobs of a failed call, each with the reason; the others go on."""
        self._batch = None
        alone = isinstance(error, OutOfMemory)
        reason = str(error) if alone else f"the UNet call of {len(jobs)} jobs failed: {error}"
        return dict.fromkeys(jobs, Fault("ENGINE", reason))

    def _account(self, batch: Batch, seconds: float, ended: float) -> None:
        self._times.observe(batch.jobs[0].shape, batch.rows, seconds, ended)
        self._meter.count("dressform_steps_total", len(batch.jobs))
        self._meter.observe("dressform_unet_rows", batch.rows)
        self._meter.observe("dressform_step_seconds", seconds, rows=rows_label(batch.rows))

    def _tell(self, ready: Mapping[int, Job], batch: Batch) -> None:
        """Progress to the window, a heartbeat to the server."""
        step_ms = 1e3 * self._times.seconds(batch.jobs[0].shape, batch.rows)
        for job in batch.jobs:
            self._window.stepped(job, batch, int(job.remaining * step_ms))
        position = 0
        for job in ready.values():
            if job.rounds_missed:
                position += 1
                self._window.waiting(job, position, int((job.remaining + job.rounds_missed) * step_ms))
        work_ms = self.work_ms()
        self._window.beat(work_ms, step_ms, len(self.jobs), 1e6 * self._times.least())
        self._meter.level("dressform_work_seconds", work_ms / 1e3)

    def work_ms(self) -> float:
        """Estimated time to finish every job, in milliseconds: each shape's rows, and its longest job's calls."""
        total = 0.0
        for shape in {job.shape for job in self.jobs.values()}:
            line = self._times.line(shape)
            if line is not None:
                jobs = [job for job in self.jobs.values() if job.shape == shape]
                rows = sum(job.remaining * job.rows for job in jobs)
                total += line[0] * max(job.remaining for job in jobs) + line[1] * rows
        return 1e3 * total

    def _sweep(self, keys: Collection[int], now: int) -> None:
        """Forget jobs that the server does not hand over any more."""
        for key in keys:
            self.jobs[key].seen_ns = now
        for key in [key for key, job in self.jobs.items() if now - job.seen_ns > ABANDONED_NS]:
            self._leave(key, Fault("CANCELLED", "abandoned by the server"))

    def _leave(self, key: int, fault: Fault | None) -> None:
        """A job's end: its rows are free."""
        self._release()
        job = self.jobs.pop(key)
        job.finished_ns = self._clock()
        code = fault.code if fault is not None else ""
        outcome = {"": "finished", "CANCELLED": "cancelled"}.get(code, "failed")
        self._meter.count("dressform_jobs_ended_total", outcome=outcome, reason=code.lower())
        self._meter.count("dressform_guidance_rows_saved_total", job.rows_saved)
        if fault is None:
            self._meter.observe("dressform_job_seconds", (job.finished_ns - job.options.started_ns) / 1e9)
        self._window.ended(job, fault)
        if not self.jobs:
            self._window.beat(0, 0, 0, 0)
        self._gauges()

    def _gauges(self) -> None:
        waiting = sum(not job.first_step_ns for job in self.jobs.values())
        self._meter.level("dressform_jobs", len(self.jobs) - waiting, state="active")
        self._meter.level("dressform_jobs", waiting, state="waiting")
        self._meter.level("dressform_work_seconds", self.work_ms() / 1e3)
