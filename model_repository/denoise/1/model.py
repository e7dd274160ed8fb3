"""Triton stage ``denoise``: step-level continuous batching.

The stage is an *iterative sequence* (config.pbtxt): Triton hands each ``execute`` the jobs in flight; those that share
the next UNet call advance by one step, the unfinished are rescheduled, the finished answered. A request therefore joins
at the next step and leaves when it is done.
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # the repository's root: stages import one another from there

import json

import triton_python_backend_utils as pb_utils

import wire
from denoise.admission import admit
from denoise.batch import Batch
from denoise.choice import Choice
from denoise.job import Job, JobOptions
from denoise.schedule import SchedulerConfig

MAX_GATHERS = 3
"""How often in a row jobs are sent round again without a step, to wait for the others."""


class TritonPythonModel:
    """See the module. The jobs in flight, by correlation id, are the only state of requests."""

    def initialize(self, args):
        """Read the manifest and the scheduler configuration."""
        config = json.loads(args["model_config"])
        manifest = wire.manifest()
        self.scaling_factor = manifest["vae"]["scaling_factor"]
        self.schedule = SchedulerConfig.from_json(
            json.loads((Path(__file__).parents[1] / "scheduler_config.json").read_text())
        )
        self.choice = Choice(int(config["parameters"]["max_rows"]["string_value"]))
        self.jobs: dict[int, Job] = {}
        # The launcher drains by this gauge; Triton forgets a metric whose family is not kept alive.
        self.jobs_family = pb_utils.MetricFamily(
            name="dressform_jobs", description="Jobs in the denoiser", kind=pb_utils.MetricFamily.GAUGE
        )
        self.jobs_gauge = self.jobs_family.Metric(labels={"model": args["model_name"]})
        self.batch: Batch | None = None
        self.gathered = 0

    def execute(self, requests):
        """Admit → choose → step → reply."""
        faults = {}
        arrived = {}
        for request in requests:
            key = request.correlation_id()
            try:
                arrived[key] = self.jobs[key] if key in self.jobs else self.admitted(key, request)
                check_deadline(arrived[key])
            except wire.Refusal as refusal:
                faults[key] = refusal.fault
            except Exception as error:
                faults[key] = wire.Fault("INTERNAL", f"{type(error).__name__}: {error}")
        ready = [job for key, job in arrived.items() if key not in faults]
        if ready and not self.gathering(arrived):
            faults |= self.stepped(self.choice.next(ready), arrived)
        return [self.reply(request, faults.get(request.correlation_id())) for request in requests]

    def admitted(self, key, request) -> Job:
        """A new job from the encoders' outputs."""
        options = JobOptions.from_json(json.loads(wire.array(request, "options")[0]))
        tensors = [wire.array(request, name) for name in ("hidden_states", "moments", "latent_mask")]
        job = admit(options, self.schedule, self.scaling_factor, *tensors)
        job.admitted_ns = time.monotonic_ns()
        self.jobs[key] = job
        self.jobs_gauge.set(len(self.jobs))
        return job

    def gathering(self, arrived) -> bool:
        """Whether to wait for jobs that this execute did not bring.

        Triton hands over whatever is queued at the moment; jobs once out of phase would stay so, each
        alone in its call. Rescheduling the early ones without a step brings the rest in a fraction of a millisecond.
        """
        complete = all(key in arrived for key in self.jobs)
        self.gathered = 0 if complete else (self.gathered + 1) % (MAX_GATHERS + 1)
        return self.gathered > 0

    def stepped(self, chosen, arrived) -> dict:
        """One UNet call for the chosen jobs; faults by correlation id if it failed."""
        if self.batch is None or not self.batch.fits(chosen):
            self.batch = Batch.of(chosen)
        now = time.monotonic_ns()
        for job in chosen:
            job.first_step_ns = job.first_step_ns or now
        try:
            self.batch.step(unet)
        except Exception as error:
            code = "ENGINE" if isinstance(error, wire.EngineError) else "INTERNAL"
            fault = wire.Fault(code, f"step failed for {len(chosen)} jobs: {error}")
            return {key: fault for key, job in arrived.items() if job in chosen}
        return {}

    def reply(self, request, fault):
        """None (and a place in the next round) for a job that goes on; its end otherwise."""
        key = request.correlation_id()
        job = self.jobs.get(key)
        if fault is None and job is not None and not job.done:
            request.set_release_flags(pb_utils.TRITONSERVER_REQUEST_RELEASE_RESCHEDULE)
            return None
        self.forget(key)
        if fault is not None or job is None:
            return wire.refuse(fault or wire.Fault("INTERNAL", "the job was lost"))
        job.finished_ns = time.monotonic_ns()
        return wire.answer({"latents": job.latents, "job": wire.text(story(job))})

    def forget(self, key):
        """Drop a job's state."""
        job = self.jobs.pop(key, None)
        if job is not None:
            self.choice.forget(job)
        self.jobs_gauge.set(len(self.jobs))
        self.batch = None


def check_deadline(job: Job) -> None:
    """Drop a job whose answer would come too late."""
    due = job.options.deadline_ns
    if due is not None and time.monotonic_ns() > due:
        allowed = job.options.deadline_ms
        raise wire.Refusal(
            "DEADLINE", f"{allowed} ms had passed after {job.step} of {len(job.plan)} steps", deadline_ms=allowed
        )


def unet(sample, timestep, text):
    """The UNet leaf, one batched call."""
    inputs = {"sample": sample, "timestep": timestep[:, None], "encoder_hidden_states": text}
    return wire.call("unet", inputs, "out_sample")


def story(job: Job) -> dict:
    """What ``info`` tells of the job."""
    return {
        "solver": job.options.solver,
        "steps": job.step,
        "num_inference_steps": job.options.num_inference_steps,
        "batch_sizes": job.batch_sizes,
        "unet_rows": job.rows_run,
        "seeds": [job.options.seed + i for i in range(job.options.num_images)],
        "admitted_ns": job.admitted_ns,
        "first_step_ns": job.first_step_ns,
        "finished_ns": job.finished_ns,
    }
