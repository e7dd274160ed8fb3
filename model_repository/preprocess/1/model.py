"""Triton stage ``preprocess``: encoded pictures, prompts and parameters in; tensors for the graphs out.

Each request gets a slot of the server's job table here, before the costly part; a full server refuses it.
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # the repository's root: stages import one another from there

import json

import numpy as np

import wire
from jobs.entry import IdInUse, TableFull
from jobs.table import JobTable
from metrics import Recorder
from preprocess.preparation import (
    Export,
    Prepared,
    RawRequest,
    RequestError,
    UnsupportedError,
    checked,
    prepare,
    timed,
    unet_calls,
    unet_rows,
)
from preprocess.prompts import PromptTokenizer


class TritonPythonModel:
    """See the module."""

    def initialize(self, args):
        """Read the manifest, the scheduler configuration and the tokenizer; open the job table."""
        manifest = wire.manifest()
        scheduler = json.loads((wire.ROOT / "denoise" / "scheduler_config.json").read_text())
        self.export = Export.from_manifest(manifest, scheduler)
        text = manifest["text"]
        tokenizer_file = wire.ROOT / "preprocess" / "tokenizer.json"
        self.tokenizer = PromptTokenizer(tokenizer_file, text["max_length"], text["pad_token_id"])
        limits = json.loads(args["model_config"])["parameters"]
        self.max_jobs = int(limits["max_jobs"]["string_value"])
        self.max_work_ms = 1000 * int(limits["max_work_seconds"]["string_value"])
        self.table = JobTable.open()
        self.meter = Recorder("dressform_requests_refused_total")

    def execute(self, requests):
        """Each request on its own: a bad one leaves its neighbours alone."""
        return [self.prepared(request) for request in requests]

    def prepared(self, request):
        """The stage's outputs for one request, or its coded error."""
        started = time.monotonic_ns()
        slot = None
        try:
            raw = read(request)
            options = checked(raw, self.export)
            self.check_deadline(raw.task, options)
            slot = self.claimed(request.request_id(), raw.task, options)
            prepared = prepare(raw, options, self.export, self.tokenizer)
            if self.table.cancelled(slot):
                raise wire.Refusal("CANCELLED", "the request was cancelled before its first step")
        except Exception as error:
            if slot is not None:
                self.table.free(slot, "cancelled" if self.table.cancelled(slot) else "failed")
            fault = fault_of(error)
            self.meter.count("dressform_requests_refused_total", reason=fault.code.lower())
            return wire.refuse(fault)
        outputs = tensors(timed(prepared, started, time.monotonic_ns()))
        return wire.answer(outputs | {"slot": np.array([slot.number, slot.generation], np.int64)})

    def check_deadline(self, task, options):
        """Refuse at once what could not be done in time even alone."""
        health, deadline = self.table.health(), options["deadline_ms"]
        if deadline is None or health is None:
            return
        latents = options["height"] * options["width"] // self.export.factor**2 * (2 if task == "tryon" else 1)
        least = unet_calls(options, self.export) * latents * health.latent_us / 1000
        if least > deadline:
            text = f"the denoising alone takes {least:.0f} ms or more, and {deadline} ms are allowed"
            raise wire.Refusal("DEADLINE", text, deadline_ms=deadline)

    def claimed(self, request_id, task, options):
        """A slot of the job table, unless the server is full."""
        health = self.table.health()
        lease = self.table.lease()
        alive = health is not None and time.monotonic_ns() - health.beat_ns < lease * 1_000_000
        if alive and health.work_ms > self.max_work_ms:
            work = f"{health.work_ms / 1000:.0f} s of work are waiting, and {self.max_work_ms / 1000:.0f} are allowed"
            raise wire.Refusal("OVERLOADED", work, retry_after_ms=health.work_ms - self.max_work_ms)
        rows, calls = unet_rows(options), unet_calls(options, self.export)
        try:
            return self.table.claim(request_id, lease, task=task, rows=rows, total=calls, limit=self.max_jobs)
        except IdInUse as error:
            raise wire.Refusal("ID_IN_USE", "a request with this id is in flight; a retry needs a new id") from error
        except TableFull as error:
            wait = health.work_ms // max(health.jobs, 1) if alive else 0  # until one of them is done, about
            full = f"{self.max_jobs} requests are in flight, as many as are allowed"
            raise wire.Refusal("OVERLOADED", full, retry_after_ms=max(wait, 100)) from error

    def finalize(self):
        """Leave the job table."""
        self.meter.close()
        self.table.close()


def fault_of(error: Exception) -> wire.Fault:
    """The coded error that ``error`` stands for."""
    if isinstance(error, wire.Refusal):
        return error.fault
    if isinstance(error, RequestError):
        return wire.Fault("INVALID_ARGUMENT", str(error))
    if isinstance(error, UnsupportedError):
        return wire.Fault("UNSUPPORTED", str(error))
    return wire.internal(error)


def read(request) -> RawRequest:
    """The request's inputs. The client's own sequences are refused: they would collide with the denoiser's."""
    if request.correlation_id() or request.flags():
        raise wire.Refusal("INVALID_ARGUMENT", "sequence_id, sequence_start and sequence_end are not allowed")
    names = ("image", "mask", "prompt", "negative_prompt", "garment")
    parameters = with_timeout(wire.parameters(request), request.timeout())
    return RawRequest(**{name: wire.blob(request, name) for name in names}, parameters=parameters)


def with_timeout(parameters: dict, timeout_us: int) -> dict:
    """Triton's own ``timeout`` (microseconds, 0: none) counts as a deadline too: the earlier one holds."""
    deadline = parameters.get("deadline_ms")
    if timeout_us and (deadline is None or (isinstance(deadline, int) and deadline * 1000 > timeout_us)):
        return parameters | {"deadline_ms": max(timeout_us // 1000, 1)}
    return parameters


def tensors(prepared: Prepared) -> dict:
    """The stage's outputs by name."""
    return {
        "input_ids": prepared.input_ids,
        "canvases": prepared.canvases,
        "keep": prepared.keep,
        "latent_mask": prepared.latent_mask,
        "options": wire.text(prepared.options),
        "original": prepared.original,
        "mask_used": prepared.mask,
        "frame": wire.text(prepared.frame),
    }
