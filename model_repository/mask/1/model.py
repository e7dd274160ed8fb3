"""Triton model ``mask``: the automatic mask of a person alone, as ``tryon`` would make it.

It waits for the parser in its own process, so that nothing else does.
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # the repository's root: stages import one another from there

import numpy as np

import wire
from jobs.deadline import spelled
from jobs.heart import Heart
from jobs.table import JobTable
from mask.automatic import AutomaticMasks
from metrics import REFUSED, Recorder
from postprocess.encoding import encoded
from preprocess.masks import adjusted
from preprocess.pictures import decode, decoded
from preprocess.preparation import validated


class TritonPythonModel:
    """See the module."""

    def initialize(self, args):
        """Read what the manifest says of the parser."""
        self.automatic = AutomaticMasks.from_manifest(wire.manifest()["parser"], wire.parse)
        self.meter = Recorder(REFUSED)
        self.table = JobTable.open()
        self.heart = Heart(self.table, "mask")
        self.post = wire.posted()

    def execute(self, requests):
        """Each request on its own."""
        with self.heart.at_call(), self.table.unlisted_request():
            return [self.answered(request) for request in requests]

    def answered(self, request):
        """The mask, or a coded error."""
        started = time.monotonic_ns()
        facts = {"task": "mask"}
        try:
            facts |= wire.caller(request)
            facts["id"] = wire.own_id(request)
            wire.check_not_stopping(self.table)
            options = validated(wire.own_parameters(request), "mask")
            facts["category"] = options["category"]
            picture = decoded("person", wire.blob(request, "person"), decode)
            made = self.automatic.made(picture.pixels, options["category"])
            mask = adjusted(made.pixels, invert=options["mask_invert"], grow=options["mask_grow"])
            form = options["output_format"] or ("data_url" if picture.from_data_url else "png")
            outputs = {"mask_used": np.array([encoded(mask, form, 100, None)], np.object_)}
            milliseconds = (time.monotonic_ns() - started) / 1e6
            check_deadline(milliseconds, options["deadline_ms"])
        except Exception as error:
            fault = wire.fault_of(error)
            wire.count_refusal(self.meter, fault)
            self.tell(facts, started, outcome=wire.refusal(fault), code=fault.code)
            return wire.refuse(fault)
        self.tell(facts, started, outcome="done", category=made.category)
        height, width = picture.size
        info = {"height": height, "width": width, "milliseconds": {"total": round(milliseconds, 3)}, **made.story}
        return wire.answer(outputs | {"info": wire.text(info)})

    def tell(self, facts, started, **news):
        """Tell all there is to know about a request."""
        self.post.tell(None, **(facts | news), marks={"started": started, "ended": time.monotonic_ns()})

    def finalize(self):
        """Record what was counted, leave the job table."""
        self.meter.close()
        self.post.close()
        self.heart.close()
        self.table.close()


def check_deadline(milliseconds, deadline):
    """Refuse an answer that comes too late to be of use."""
    if deadline is not None and milliseconds > deadline:
        text = f"the mask took {milliseconds:.0f} ms, and {spelled(deadline)} are allowed"
        raise wire.Refusal("DEADLINE", text, deadline_ms=deadline)
