"""Triton stage ``jobs``: cancels a request by its id, lists what is in flight, and tells the server's health.

``cancel`` answers ``{"cancelled": true}``; ``list`` a list of jobs, oldest first, none with its whole id; ``health``
how long ago ``denoise`` was last heard of, and what it has before it.
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # the repository's root: stages import one another from there

import triton_python_backend_utils as pb_utils

import wire
from jobs.table import JobTable


class TritonPythonModel:
    """See the module."""

    def initialize(self, args):
        """Open the server's job table."""
        self.table = JobTable.open()
        self.actions = {"cancel": self.cancel, "list": self.list, "health": self.health}

    def execute(self, requests):
        """Each request on its own."""
        return [self.answered(request) for request in requests]

    def answered(self, request):
        """The action's answer, or its coded error."""
        try:
            name = wire.word(request, "action")
            if name not in self.actions:
                allowed = ", ".join(self.actions)
                raise wire.Refusal("INVALID_ARGUMENT", f"action must be one of {allowed}, not {name!r:.60}")
            return pb_utils.InferenceResponse([pb_utils.Tensor("jobs", wire.text(self.actions[name](request)))])
        except wire.Refusal as refusal:
            return wire.refuse(refusal.fault)
        except Exception as error:
            return wire.refuse(wire.internal(error))

    def cancel(self, request):
        """Mark a request: it ends before its next step."""
        request_id = wire.watchable_id(request)
        if not self.table.cancel(request_id):
            raise wire.Refusal("NOT_FOUND", "no request with this id is in flight")
        return {"cancelled": True}

    def list(self, request):
        """The jobs in flight."""
        now = time.monotonic_ns()
        return [
            {
                "id": entry.name and f"{entry.name}…",
                "task": entry.task,
                "rows": entry.rows,
                "state": entry.progress.state,
                "step": entry.progress.step,
                "total": entry.progress.total,
                "position": entry.progress.position,
                "eta_ms": entry.progress.eta_ms,
                "age_ms": (now - entry.claimed_ns) // 1_000_000,
                "cancelled": entry.cancelled,
            }
            for entry in self.table.list()
        ]

    def health(self, request):
        """When ``denoise`` was last heard of (``beat_age_ms``, null before the first time), and its work."""
        health = self.table.health()
        jobs = {"in_flight": len(self.table.list())}
        if health is None:
            return {"beat_age_ms": None, "work_ms": 0, "step_ms": 0.0, "denoising": 0} | jobs
        age = (time.monotonic_ns() - health.beat_ns) // 1_000_000
        known = {"work_ms": health.work_ms, "step_ms": health.step_ms, "denoising": health.jobs}
        return {"beat_age_ms": age} | known | jobs

    def finalize(self):
        """Leave the job table."""
        self.table.close()
