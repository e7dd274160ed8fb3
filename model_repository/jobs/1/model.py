"""Triton stage ``jobs``: requests in flight, the server's health and abilities, and what people think of the pictures.

``cancel`` answers ``{"cancelled": true}``; ``list`` a list of jobs, oldest first, none with its whole id; ``health``
how long ago ``denoise`` was last heard of, and what it has before it; ``about`` what this export and server can do;
``feedback`` writes a rating to the audit log and answers ``{"recorded": true}``.

Beside that it hears from the other stages how each request went (`jobs.ledger`), and counts it, writes it to the logs
and sends its trace, as the environment says: DRESSFORM_AUDIT_LOG, DRESSFORM_AUDIT_LOG_MEGABYTES,
DRESSFORM_OTLP_ENDPOINT, DRESSFORM_TRACE_RATIO.
"""

import os
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # the repository's root: stages import one another from there

import triton_python_backend_utils as pb_utils

import wire
from jobs.audit import AuditLog
from jobs.feedback import Feedback
from jobs.heart import BEAT_SECONDS, Heart, last_heard
from jobs.ledger import Ledger
from jobs.post import Mailbox
from jobs.table import JobTable
from jobs.usage import Usage, facts, log_line
from metrics import HEARTS, USAGE, Recorder
from preprocess.errors import UnsupportedError

LISTEN_SECONDS, SWEEP_SECONDS = 0.25, 1.0


class TritonPythonModel:
    """See the module."""

    def initialize(self, args):
        """Open the server's job table and audit log."""
        self.manifest = wire.manifest()
        megabytes = int(os.environ.get("DRESSFORM_AUDIT_LOG_MEGABYTES", "0"))
        self.audit_log = AuditLog(os.environ.get("DRESSFORM_AUDIT_LOG"), megabytes * 10**6)
        self.tracer = tracer()
        self.table = JobTable.open()
        self.heart = Heart(self.table, "jobs")
        self.meter = Recorder(*HEARTS, *USAGE)
        self.meter.level("dressform_start_time_seconds", time.time())
        self.usage = Usage(self.meter, tasks(self.manifest))
        self.mailbox, self.ledger = Mailbox(pb_utils.Logger.log_warn), Ledger(self.table)
        self.closed = threading.Event()
        self.threads = [threading.Thread(target=run, daemon=True) for run in (self.tell, self.listen)]
        for thread in self.threads:
            thread.start()
        self.actions = {
            "cancel": self.cancel,
            "list": self.list,
            "health": self.health,
            "about": self.about,
            "feedback": self.feedback,
        }

    def tell(self):
        """Tell Prometheus of everybody's heartbeat."""
        while not self.closed.wait(BEAT_SECONDS):
            now_ns, now = time.monotonic_ns(), time.time()
            for member in self.table.roll():
                heard = last_heard(member, now_ns, now)
                self.meter.level("dressform_stage_beat_timestamp_seconds", heard, stage=member.name)

    def listen(self):
        """Keep the accounts of all requests."""
        swept = 0.0
        while not self.closed.is_set():
            try:
                self.hear(LISTEN_SECONDS)
                if time.monotonic() - swept >= SWEEP_SECONDS:
                    swept = time.monotonic()
                    self.ledger.sweep()
                self.account(self.ledger.closed())
            except Exception as error:  # the next request is to be counted all the same
                wire.internal(error)
        self.hear(LISTEN_SECONDS)  # what the others said last
        self.account(self.ledger.closed(everything=True))

    def hear(self, seconds):
        """What came by post."""
        for news in self.mailbox.messages(seconds):
            self.ledger.hear(news)

    def account(self, accounts):
        """Count, write down and trace the requests that are over."""
        for account in accounts:
            try:
                self.usage.count(account)
                pb_utils.Logger.log_info(log_line(account))
                if self.tracer is not None:
                    self.tracer.tell(account)
                self.audit_log.record("request", facts(account))
            except OSError as error:  # the disk is full, say: the next may be written again
                pb_utils.Logger.log_error(f"the audit log cannot be written: {error}")
            except Exception as error:  # the next is to be counted all the same
                wire.internal(error)

    def execute(self, requests):
        """Each request on its own."""
        with self.heart.at_call():
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
        given = Feedback(wire.watchable_id(request), rating, comment)
        if not self.audit_log.kept:
            raise UnsupportedError(
                "this server keeps no audit log, so feedback is not recorded: "
                "start it with dressform serve --audit-log FILE (or set DRESSFORM_AUDIT_LOG)"
            )
        self.audit_log.record("feedback", vars(given))
        return {"recorded": True}

    def finalize(self):
        """Leave the job table."""
        self.closed.set()
        for thread in self.threads:
            thread.join(5)
        self.mailbox.close()
        if self.tracer is not None:
            self.tracer.close()
        self.meter.close()
        self.heart.close()
        self.table.close()


def tasks(manifest):
    """What the export serves."""
    return ["inpaint", *["tryon"] * bool(manifest["tryon"]), *["mask"] * (manifest["parser"] is not None)]


def tracer():
    """What sends traces; None where no receiver is named."""
    endpoint = os.environ.get("DRESSFORM_OTLP_ENDPOINT")
    if not endpoint:
        return None
    from jobs.tracing import Tracer  # OpenTelemetry is there only where it is used

    return Tracer(endpoint, float(os.environ.get("DRESSFORM_TRACE_RATIO", "1")), pb_utils.Logger.log_warn)
