"""The denoiser's window: each job's progress, previews and end, on the server's job table."""

from __future__ import annotations

from collections.abc import Collection

from denoise.batch import Batch
from denoise.job import Floats, Job
from denoise.preview import preview
from dressform_contract import Fault
from jobs.entry import Progress, Slot, State
from jobs.post import Post
from jobs.table import JobTable


class TableWindow:
    """The `Window` of `denoise.engine` on a `JobTable`; jobs that end are told by ``post``, too."""

    def __init__(self, table: JobTable, post: Post, latent_to_rgb: Floats, prediction_type: str) -> None:
        self._table = table
        self._post = post
        self._latent_to_rgb = latent_to_rgb
        self._prediction_type = prediction_type
        self._lease = table.lease()
        self._claims = 0
        self._coming: list[Slot] = []

    def cancelled(self, job: Job) -> bool:
        """Whether the job was marked on the table."""
        return self._table.cancelled(job.slot)

    def waiting(self, job: Job, position: int, eta_ms: int) -> None:
        """Write the job's place in the queue."""
        progress = Progress("waiting", job.step, len(job.plan), position, eta_ms)
        self._table.report(job.slot, progress, self._lease)

    def stepped(self, job: Job, batch: Batch, eta_ms: int) -> None:
        """Write the job's step, and its preview where one is due."""
        every = job.options.preview_every
        if every and not job.done and job.step % every == 0:
            clean = batch.predicted_clean(job, self._prediction_type)[0]
            shown = clean if job.crop_height is None else clean[:, : job.crop_height]
            self._table.preview(job.slot, preview(shown, self._latent_to_rgb))
        progress = Progress("decoding" if job.done else "running", job.step, len(job.plan), 0, eta_ms)
        self._table.report(job.slot, progress, self._lease)

    def ended(self, job: Job, fault: Fault | None) -> None:
        """Tell the job's steps. Free the slot of one that failed; a finished one is still to be decoded."""
        self._post.tell(
            job.slot,
            steps=job.step,
            unet_rows=job.rows_run,
            compute_seconds=job.compute_seconds,
            batch_sizes=job.batch_sizes,
            step_ends_ns=job.step_ends_ns,
            marks={"admitted": job.admitted_ns}
            | ({"first_step": job.first_step_ns} if job.first_step_ns else {})
            | ({"finished": job.finished_ns} if fault is None else {"ended": job.finished_ns}),
        )
        if fault is not None:
            outcome: State = "cancelled" if fault.code == "CANCELLED" else "failed"
            self._post.tell(job.slot, outcome=outcome, code=fault.code)
            self._table.free(job.slot, outcome)

    def expecting(self, jobs: Collection[Job]) -> bool:
        """Whether requests were claimed that are still before the denoiser."""
        claims = self._table.claims
        if claims != self._claims:
            self._claims, self._coming = claims, self._table.preparing()
        if self._coming:
            here = {job.slot for job in jobs}
            self._coming = [slot for slot in self._coming if slot not in here and self._table.is_preparing(slot)]
        return bool(self._coming)

    def beat(self, work_ms: float, step_ms: float, jobs: int, latent_us: float) -> None:
        """Write the server's health."""
        self._lease = self._table.beat(work_ms, step_ms, jobs, latent_us)
