"""Triton stage ``handover``: lays a job's conditioning ready for ``denoise``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # the repository's root: stages import one another from there

import json
import shutil

import wire
from handover import parcel
from jobs.entry import Slot
from jobs.heart import Heart
from jobs.table import JobTable


class TritonPythonModel:
    """See the module."""

    def initialize(self, args):
        """Open the job table and the folder."""
        self.table = JobTable.open()
        self.heart = Heart(self.table, "handover")
        self.post = wire.posted()
        self.folder = parcel.open_counter()

    def execute(self, requests):
        """Each request on its own."""
        with self.heart.at_call():
            return [self.laid_ready(request) for request in requests]

    def laid_ready(self, request):
        """The slot, once its conditioning lies ready; an early end for a job that was cancelled meanwhile."""
        slot = Slot.of(wire.array(request, "slot"))
        try:
            if self.table.cancelled(slot):
                fault = wire.Fault("CANCELLED", "the request was cancelled before its first step")
                return wire.refuse(wire.ended(self.table, self.post, slot, fault))
            arrays = {name: wire.optional_array(request, name) for name in ("hidden_states", "moments", "latent_mask")}
            present = {name: array for name, array in arrays.items() if array is not None}
            parcel.put(self.folder, slot, json.loads(wire.array(request, "options")[0]), present)
            self.table.renew(slot, self.table.lease())
            return wire.answer({"parcel": wire.array(request, "slot")})
        except Exception as error:
            return wire.refuse(wire.ended(self.table, self.post, slot, wire.internal(error)))

    def finalize(self):
        """Leave; nothing stays behind."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.post.close()
        self.heart.close()
        self.table.close()
