"""Triton stage ``jobs``: requests in flight, the server's health and abilities, and what people think of the pictures.

``cancel`` answers ``{"cancelled": true}``; ``list`` a list of jobs, oldest first, none with its whole id; ``health``
how long ago ``denoise`` was last heard of, and what it has before it; ``about`` what this export and server can do;
``feedback`` writes a rating to the audit log (environment variable DRESSFORM_AUDIT_LOG) and answers
``{"recorded": true}``.
"""

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # the repository's root: stages import one another from there

import triton_python_backend_utils as pb_utils

import wire
from jobs.feedback import AuditLog, Feedback
from jobs.table import JobTable


class TritonPythonModel:
    """See the module."""

    def initialize(self, args):
        """Open the server's job table and audit log."""
        self.manifest = wire.manifest()
        self.audit_log = AuditLog(os.environ.get("DRESSFORM_AUDIT_LOG"))
        self.table = JobTable.open()
        self.actions = {
            "cancel": self.cancel,
            "list": self.list,
            "health": self.health,
            "about": self.about,
            "feedback": self.feedback,
        }

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
        except Exception as error:
            return wire.refuse(wire.fault_of(error))

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
        jobs = {"in_flight": len(self.table.list()), "stopping": self.table.stopping}
        if health is None:
            return {"beat_age_ms": None, "work_ms": 0, "step_ms": 0.0, "denoising": 0} | jobs
        age = (time.monotonic_ns() - health.beat_ns) // 1_000_000
        known = {"work_ms": health.work_ms, "step_ms": health.step_ms, "denoising": health.jobs}
        return {"beat_age_ms": age} | known | jobs

    def about(self, request):
        """What a page needs to know before it asks: tasks, limits and defaults of the export, and of the server."""
        manifest = self.manifest
        return {
            "tryon": manifest["tryon"],
            "parser": manifest["parser"] is not None,
            "size": {**manifest["size"], "multiple_of": manifest["vae"]["factor"]},
            "defaults": {name: manifest["defaults"][name] for name in ("num_inference_steps", "solver")},
            "feedback": self.audit_log.kept,
        }

    def feedback(self, request):
        """Record a rating."""
        rating, comment = wire.word(request, "rating") or "", wire.word(request, "comment") or ""
        self.audit_log.record(Feedback(wire.watchable_id(request), rating, comment))
        return {"recorded": True}

    def finalize(self):
        """Leave the job table."""
        self.table.close()
