"""Which jobs share the next UNet call. Pure: time comes in as an argument, and no Triton.

Among latent shapes (which cannot share a call) it is round robin. Within a shape all jobs run while their rows fit
under the cap. Where they do not:

1. a job that has missed ``PATIENCE`` rounds goes first, so that nobody starves;
2. then those whose deadline leaves no slack, least slack first;
3. then interactive before batch jobs;
4. then the shortest (fewest steps left), which keeps the mean time low;

and the remaining rows are filled with whoever fits, in that order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from denoise.job import Job

PATIENCE = 8
"""Rounds of its shape that a job may miss before it goes ahead of all others."""

Shape = tuple[int, ...]


def choose_shape(jobs: Sequence[Job], last_turn: Mapping[Shape, int]) -> Shape:
    """The latent shape that has waited longest; ``last_turn`` is when each was last served, absent: never."""
    shapes = dict.fromkeys(job.shape for job in jobs)  # in order of arrival
    return min(shapes, key=lambda shape: last_turn.get(shape, -1))


def choose(jobs: Sequence[Job], now_ns: int, step_ns: float, max_rows: int) -> list[Job]:
    """The jobs of the next call, of ``jobs`` of one shape, in their given order; at least one.

    ``step_ns`` estimates the time of a step (0: unknown), by which slack is judged; a job that alone has more than
    ``max_rows`` rows goes alone.
    """
    if sum(job.rows for job in jobs) <= max_rows:
        return list(jobs)
    ranked = sorted(range(len(jobs)), key=lambda k: (_rank(jobs[k], now_ns, step_ns), k))
    chosen: set[int] = set()
    rows = 0
    for k in ranked:
        if not chosen or rows + jobs[k].rows <= max_rows:
            chosen.add(k)
            rows += jobs[k].rows
    return [job for k, job in enumerate(jobs) if k in chosen]


def _rank(job: Job, now_ns: int, step_ns: float) -> tuple[int, float, int]:
    if job.rounds_missed >= PATIENCE:
        return 0, -job.rounds_missed, 0
    slack = slack_ns(job, now_ns, step_ns)
    if slack is not None and slack < PATIENCE * step_ns:
        return 1, slack, 0
    return 2, job.options.service_class == "batch", job.remaining


def slack_ns(job: Job, now_ns: int, step_ns: float) -> float | None:
    """Time to spare before the job's deadline if it got every step from now on; None without a deadline."""
    due = job.options.deadline_ns
    return None if due is None else due - now_ns - job.remaining * step_ns
