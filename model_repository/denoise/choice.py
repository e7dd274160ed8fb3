"""Which jobs share the next UNet call. Pure: no clock, no Triton."""

from __future__ import annotations

from collections.abc import Sequence

from denoise.job import Job


class Choice:
    """Round robin among latent shapes; within a shape, those go first that have waited longest for a step."""

    def __init__(self, max_rows: int) -> None:
        if max_rows < 1:
            raise ValueError(f"max_rows must be at least 1, not {max_rows}")
        self._max_rows = max_rows
        self._turn = 0
        self._last_turn: dict[int, int] = {}
        self._shape_turn: dict[tuple[int, ...], int] = {}

    def next(self, jobs: Sequence[Job]) -> list[Job]:
        """The jobs of the next call: one latent shape, at most ``max_rows`` rows (a job of more goes alone)."""
        self._turn += 1
        shapes = {job.shape: None for job in jobs}
        shape = min(shapes, key=lambda s: self._shape_turn.get(s, 0))
        self._shape_turn[shape] = self._turn
        chosen: list[Job] = []
        rows = 0
        for job in sorted((j for j in jobs if j.shape == shape), key=lambda j: self._last_turn.get(id(j), 0)):
            if chosen and rows + job.rows > self._max_rows:
                break
            chosen.append(job)
            rows += job.rows
        for job in chosen:
            self._last_turn[id(job)] = self._turn
        order = {id(job): k for k, job in enumerate(jobs)}
        return sorted(chosen, key=lambda j: order[id(j)])

    def forget(self, job: Job) -> None:
        """The job has ended."""
        self._last_turn.pop(id(job), None)
