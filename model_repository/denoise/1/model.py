"""Triton stage ``denoise``: step-level continuous batching.

The stage is an *iterative sequence* (config.pbtxt): Triton hands each ``execute`` the jobs in flight; those that share
the next UNet call advance by one step, the unfinished are rescheduled, the finished answered. A request therefore joins
at the next step and leaves when it is done. What happens in a round is `denoise.engine`.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # the repository's root: stages import one another from there

import json

import numpy as np
import triton_python_backend_utils as pb_utils

import wire
from denoise.admission import admit
from denoise.engine import Engine
from denoise.job import Job, JobOptions
from denoise.schedule import SchedulerConfig
from denoise.window import TableWindow
from handover import parcel
from jobs.entry import Slot
from jobs.heart import Heart
from jobs.table import JobTable
from metrics import DENOISE, Recorder


class TritonPythonModel:
    """See the module."""

    def initialize(self, args):
        """Read the manifest and the scheduler configuration; open the job table."""
        settings = {key: value["string_value"] for key, value in json.loads(args["model_config"])["parameters"].items()}
        manifest = wire.manifest()
        scheduler = json.loads((Path(__file__).parents[1] / "scheduler_config.json").read_text())
        self.schedule = SchedulerConfig.from_json(scheduler)
        self.scaling_factor = manifest["vae"]["scaling_factor"]
        self.folder = parcel.open_counter()
        self.table = JobTable.open()
        colours = np.array(manifest["latent_to_rgb"], np.float32)
        self.meter = Recorder(*DENOISE)
        self.post = wire.posted()
        self.engine = Engine(
            UNetLeaf(),
            manifest["vae"]["factor"],
            int(settings["max_rows"]),
            TableWindow(self.table, self.post, colours, self.schedule.prediction_type),
            self.meter,
            one_batch_at_a_time=settings["batching"] == "request",
        )
        self.table.beat(0, 0, 0)
        self.heart = Heart(self.table, "denoise")

    def execute(self, requests):
        """Admit → rounds (drop, gather, choose, step) → reply."""
        self.table.busy(True)
        arrived = {request.correlation_id(): request for request in requests}
        new = {key: request for key, request in arrived.items() if key not in self.engine.jobs}
        refused = {key: fault for key, request in new.items() if (fault := self.admitted(key, request)) is not None}
        go_on = self.engine.round if refused else self.engine.run  # who is refused hears it at once
        ended = refused | go_on([key for key in arrived if key not in refused])
        self.table.busy(bool(self.engine.jobs))
        return [reply(request, ended.get(key)) for key, request in arrived.items()]

    def admitted(self, key, request):
        """Make a new job of what was handed over; the fault if that fails."""
        slot = Slot.of(wire.array(request, "parcel"))
        try:
            options, arrays = parcel.take(self.folder, slot)
            job = admit(JobOptions.from_json(options), self.schedule, self.scaling_factor, **arrays)
        except Exception as error:
            return wire.ended(self.table, self.post, slot, wire.internal(error))
        job.slot = slot
        self.engine.admit(key, job)
        return None

    def finalize(self):
        """Leave the job table."""
        self.meter.close()
        self.post.close()
        self.heart.close()
        self.table.close()


class UNetLeaf:
    """The UNet model, one batched call. What is the same array as last time is not copied again."""

    def __init__(self):
        self.text = None
        self.text_tensor = None

    def __call__(self, sample, timestep, text):
        """sample [r, Cin, h, w], timestep [r], text [r, L, D] (L = 0: the UNet takes none) → output [r, C, h, w]."""
        inputs = [pb_utils.Tensor("sample", sample), pb_utils.Tensor("timestep", timestep[:, None])]
        if text.size and text is not self.text:
            self.text, self.text_tensor = text, pb_utils.Tensor("encoder_hidden_states", text)
        if text.size:
            inputs.append(self.text_tensor)
        return wire.call("unet", inputs, "out_sample").astype(np.float32, copy=False)


def reply(request, ending):
    """None (and a place in the next round) for a job that goes on; its result or fault otherwise."""
    if ending is None:
        request.set_release_flags(pb_utils.TRITONSERVER_REQUEST_RELEASE_RESCHEDULE)
        return None
    if not isinstance(ending, Job):
        return wire.refuse(ending)
    return wire.answer({"latents": ending.latents, "job": wire.text(story(ending))})


def story(job: Job) -> dict:
    """What ``info`` tells of the job."""
    return {
        "solver": job.options.solver,
        "steps": job.step,
        "num_inference_steps": job.options.num_inference_steps,
        "batch_sizes": job.batch_sizes,
        "step_ends_ns": job.step_ends_ns,
        "unet_rows": job.rows_run,
        "seeds": [job.options.seed + i for i in range(job.options.num_images)],
        "admitted_ns": job.admitted_ns,
        "first_step_ns": job.first_step_ns,
        "finished_ns": job.finished_ns,
    }
