"""Triton stage ``postprocess``: decoded canvases in; composited, encoded pictures and the request's story out.

Here a request leaves the server's job table.
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # the repository's root: stages import one another from there

import base64
import json

import numpy as np

import wire
from jobs.entry import Slot
from jobs.heart import Heart
from jobs.table import JobTable
from postprocess.compositing import composite, opacity
from postprocess.encoding import encoded, encoded_mask
from postprocess.safety import blanked, flagged, warnings
from preprocess.placement import Placement


class TritonPythonModel:
    """See the module."""

    def initialize(self, args):
        """Open the job table."""
        self.table = JobTable.open()
        self.heart = Heart(self.table, "postprocess")
        self.post = wire.posted()

    def execute(self, requests):
        """Each request on its own."""
        with self.heart.at_call():
            return [self.answered(request) for request in requests]

    def answered(self, request):
        """The outputs that were asked for, or the coded error; the request's slot is free afterwards."""
        started = time.monotonic_ns()
        slot = Slot.of(wire.array(request, "slot"))
        if self.table.cancelled(slot):
            fault = wire.Fault("CANCELLED", "the request was cancelled after its last step")
            return wire.refuse(wire.ended(self.table, self.post, slot, fault, decoded=started))
        self.table.renew(slot, self.table.lease())
        try:
            response = wire.answer(outputs(request, started))
        except Exception as error:
            return wire.refuse(wire.ended(self.table, self.post, slot, wire.internal(error), decoded=started))
        self.post.tell(slot, outcome="done", marks={"decoded": started, "ended": time.monotonic_ns()})
        self.table.free(slot, "done")
        return response

    def finalize(self):
        """Leave the job table."""
        self.post.close()
        self.heart.close()
        self.table.close()


def outputs(request, started) -> dict:
    """The outputs that were asked for."""
    frame = json.loads(wire.array(request, "frame")[0])
    job = json.loads(wire.array(request, "job")[0])
    scores = wire.optional_array(request, "scores")
    flags = None if scores is None else flagged(scores)
    wanted = set(request.requested_output_names())
    made = {"seeds": np.array(job["seeds"], np.int64)}
    if "images" in wanted:
        made["images"] = np.array(pictures(request, frame, flags), np.object_)
    if "mask_used" in wanted:
        mask = encoded_mask(wire.array(request, "mask_used"), frame["output_format"])
        made["mask_used"] = np.array([mask], np.object_)
    made["info"] = wire.text(info(frame, job, flags, started))
    return {name: value for name, value in made.items() if name in wanted}


def pictures(request, frame, flags) -> list[bytes]:
    """The encoded pictures of one request, the flagged ones black."""
    canvases = wire.array(request, "images")
    if frame["composite"] != "none":
        original, mask = wire.array(request, "original"), wire.array(request, "mask_used")
        alpha = opacity(mask, soft=frame["composite"] == "soft", blur=frame["mask_blur"])
        placement = Placement(tuple(frame["source"]), tuple(frame["target"]), frame["height"], frame["width"])
        canvases = [composite(original, canvas, alpha, placement) for canvas in canvases]
    canvases = canvases if flags is None else blanked(canvases, flags)
    profile = base64.b64decode(frame["icc_profile"]) or None
    return [encoded(canvas, frame["output_format"], frame["quality"], profile) for canvas in canvases]


def info(frame, job, flags, started) -> dict:
    """The request's story: size, steps, batches, milliseconds by stage, what was blanked, warnings."""
    now = time.monotonic_ns()
    marks = {
        "preprocess": (frame["started_ns"], frame["prepared_ns"]),
        "encode": (frame["prepared_ns"], job["admitted_ns"]),
        "wait": (job["admitted_ns"], job["first_step_ns"]),
        "denoise": (job["first_step_ns"], job["finished_ns"]),
        "decode": (job["finished_ns"], started),
        "postprocess": (started, now),
        "total": (frame["started_ns"], now),
    }
    return {
        "height": frame["height"],
        "width": frame["width"],
        "solver": job["solver"],
        "num_inference_steps": job["num_inference_steps"],
        "steps": job["steps"],
        "batch_sizes": job["batch_sizes"],
        "arrived_ns": frame["started_ns"],
        "step_ends_ms": [round((end - frame["started_ns"]) / 1e6, 3) for end in job["step_ends_ns"]],
        "unet_rows": job["unet_rows"],
        "milliseconds": {stage: round((end - begin) / 1e6, 3) for stage, (begin, end) in marks.items()},
        "warnings": frame["warnings"] + ([] if flags is None else warnings(flags)),
        "flagged": flags,
        **frame["automatic_mask"],
    }
