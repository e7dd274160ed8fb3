"""Triton stage ``preprocess``: encoded pictures, prompts and parameters in; tensors for the graphs out.

Each request gets a slot of the server's job table here, before the costly part; a full server refuses it.
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # the repository's root: stages import one another from there

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import triton_python_backend_utils as pb_utils

import wire
from denoise.step_time import FRESH_SECONDS
from jobs.deadline import allowed_ms, spelled
from jobs.entry import IdInUse, TableFull
from jobs.heart import Heart
from jobs.table import JobTable
from metrics import DUE, REFUSED, Recorder
from preprocess.preparation import Export, Prepared, RawRequest, checked, prepare, timed, unet_calls, unet_rows
from preprocess.prompts import PromptTokenizer

PARSING_AT_ONCE = 8
"""Requests whose pictures are decoded and with the parser: as many as it takes in a batch. Others wait, encoded."""

PARSING_LEASE_MS = 120_000
"""How much longer a slot is leased while its request waits for the parser."""


class TritonPythonModel:
    """See the module."""

    def initialize(self, args):
        """Read the manifest, the scheduler configuration and the tokenizer; open the job table."""
        manifest = wire.manifest()
        scheduler = json.loads((wire.ROOT / "denoise" / "scheduler_config.json").read_text())
        self.export = Export.from_manifest(manifest, scheduler)
        self.automatic = automatic_masks(manifest)
        self.tokenizer = prompt_tokenizer(manifest)
        limits = json.loads(args["model_config"])["parameters"]
        self.max_jobs = int(limits["max_jobs"]["string_value"])
        # No more than any request may take: who came after that would wait for nothing.
        self.max_work_ms = allowed_ms(1000 * int(limits["max_work_seconds"]["string_value"]))
        self.table = JobTable.open()
        self.heart = Heart(self.table, "preprocess")
        self.meter = Recorder(REFUSED)
        for code in DUE:
            self.meter.declare(REFUSED, reason=code.lower())
        self.post = wire.posted()
        self.parsing = ThreadPoolExecutor(PARSING_AT_ONCE, thread_name_prefix="parsing")

    def execute(self, requests):
        """Each request on its own: a bad one leaves its neighbours alone."""
        with self.heart.at_call():
            return [self.answered(request) for request in requests]

    def answered(self, request):
        """The stage's outputs for one request, or its coded error.

        None where a thread answers later: the parser may take seconds, and nobody else should wait for it.
        """
        started = time.monotonic_ns()
        facts = {"task": task_of(request), "marks": {"started": started}}
        try:
            facts |= wire.caller(request)
            facts["id"] = wire.own_id(request)
            raw = read(request)
            options = checked(raw, self.export)
            category = options["category"] if raw.task == "tryon" else ""
            facts |= {"size": f"{options['height']}x{options['width']}", "category": category}
            self.check_deadline(raw.task, options)
            slot = self.claimed(facts["id"], raw, options)
        except Exception as error:
            return self.refused(error, None, **facts)
        self.post.tell(slot, **facts)
        if not raw.automatic:
            return self.prepared(raw, options, slot, started)
        send = wire.answer_later(request)
        self.parsing.submit(lambda: send(self.prepared(raw, options, slot, started)))
        return None

    def prepared(self, raw, options, slot, started):
        """The stage's outputs for an admitted request, or its coded error."""
        try:
            prepared = prepare(raw, options, self.export, self.tokenizer, self.automatic)
            if self.table.cancelled(slot):
                raise wire.Refusal("CANCELLED", "the request was cancelled before its first step")
            self.table.renew(slot, self.table.lease())
            now = time.monotonic_ns()
            outputs = tensors(timed(prepared, started, now))
            known = {"category": made} if (made := prepared.frame["automatic_mask"].get("category")) else {}
            self.post.tell(slot, marks={"prepared": now}, **known)
            return wire.answer(outputs | {"slot": np.array([slot.number, slot.generation], np.int64)})
        except Exception as error:
            self.table.free(slot, "cancelled" if self.table.cancelled(slot) else "failed")
            return self.refused(error, slot)

    def refused(self, error, slot, marks=None, **facts):
        """The coded error that ``error`` stands for: the end of the request in ``slot``, or before it had one."""
        fault = wire.fault_of(error)
        wire.count_refusal(self.meter, fault)
        marks = {**(marks or {}), "ended": time.monotonic_ns()}
        self.post.tell(slot, outcome=wire.refusal(fault), code=fault.code, marks=marks, **facts)
        return wire.refuse(fault)

    def check_deadline(self, task, options):
        """Refuse at once what could not be done in time even alone, by what was measured just now (``step_time``)."""
        health, deadline = self.table.health(), options["deadline_ms"]
        if deadline is None or health is None:
            return
        if time.monotonic_ns() - health.beat_ns > max(1e9 * FRESH_SECONDS, 2e6 * health.step_ms):
            return
        latents = options["height"] * options["width"] // self.export.factor**2 * (2 if task == "tryon" else 1)
        least = unet_calls(options, self.export) * latents * health.latent_us / 1000
        if least > deadline:
            text = f"the denoising alone takes {least:.0f} ms or more, and {spelled(deadline)} are allowed"
            raise wire.Refusal("DEADLINE", text, deadline_ms=deadline)

    def claimed(self, request_id, raw, options):
        """A slot of the job table, unless the server is full or about to stop."""
        wire.check_not_stopping(self.table)
        health = self.table.health()
        lease = self.table.lease()
        alive = health is not None and time.monotonic_ns() - health.beat_ns < lease * 1_000_000
        lease += PARSING_LEASE_MS * raw.automatic
        if alive and health.work_ms > self.max_work_ms:
            work = f"{health.work_ms / 1000:.0f} s of work are waiting, and {self.max_work_ms / 1000:.0f} are allowed"
            raise wire.Refusal("OVERLOADED", work, retry_after_ms=health.work_ms - self.max_work_ms)
        rows, calls = unet_rows(options), unet_calls(options, self.export)
        try:
            return self.table.claim(request_id, lease, task=raw.task, rows=rows, total=calls, limit=self.max_jobs)
        except IdInUse as error:
            raise wire.Refusal("ID_IN_USE", "a request with this id is in flight; a retry needs a new id") from error
        except TableFull as error:
            wait = health.work_ms // max(health.jobs, 1) if alive else 0  # until one of them is done, about
            full = f"{self.max_jobs} requests are in flight, as many as are allowed"
            raise wire.Refusal("OVERLOADED", full, retry_after_ms=max(wait, 100)) from error

    def finalize(self):
        """Leave the job table."""
        self.parsing.shutdown()
        self.meter.close()
        self.post.close()
        self.heart.close()
        self.table.close()


def prompt_tokenizer(manifest):
    """The pipeline's tokenizer; None where the export has no text encoder."""
    text = manifest["text"]
    if text is None:
        return None
    return PromptTokenizer(wire.ROOT / "preprocess" / "tokenizer.json", text["max_length"], text["pad_token_id"])


def automatic_masks(manifest):
    """The maker of masks; None where the export has no parser."""
    if manifest["parser"] is None:
        return None
    from mask.automatic import AutomaticMasks  # comes with the parser

    return AutomaticMasks.from_manifest(manifest["parser"], wire.parse)


def task_of(request) -> str:
    """The task, by the inputs that came: of a request that may be refused, too."""
    return "inpaint" if pb_utils.get_input_tensor_by_name(request, "garment") is None else "tryon"


def read(request) -> RawRequest:
    """The request's inputs."""
    names = ("image", "mask", "prompt", "negative_prompt", "garment")
    return RawRequest(**{name: wire.blob(request, name) for name in names}, parameters=wire.own_parameters(request))


def tensors(prepared: Prepared) -> dict:
    """The stage's outputs by name."""
    tokens = {} if prepared.input_ids is None else {"input_ids": prepared.input_ids}
    return tokens | {
        "canvases": prepared.canvases,
        "keep": prepared.keep,
        "latent_mask": prepared.latent_mask,
        "options": wire.text(prepared.options),
        "original": prepared.original,
        "mask_used": prepared.mask,
        "frame": wire.text(prepared.frame),
    }
