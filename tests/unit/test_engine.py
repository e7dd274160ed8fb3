"""The engine with a fake UNet, clock, window and meter: every way a job can go, and what is left behind."""

from __future__ import annotations

import numpy as np
import pytest

from denoise.admission import admit
from denoise.engine import ABANDONED_NS, Engine
from denoise.job import Job
from dressform_contract import Fault
from unit.denoise_fakes import SCHEDULE, Clock, FakeMeter, FakeUNet, FakeWindow, job_options, make_job


class Bench:
    """An engine and everything around it."""

    def __init__(self, max_rows: int = 8, largest: int = 1000, one_batch_at_a_time: bool = False) -> None:
        self.clock, self.window, self.meter = Clock(), FakeWindow(), FakeMeter()
        self.unet = FakeUNet(self.clock, largest=largest)
        self.engine = Engine(
            self.unet, 8, max_rows, self.window, self.meter, one_batch_at_a_time=one_batch_at_a_time, clock=self.clock
        )
        self.ended: dict[int, Job | Fault] = {}

    def admit(self, *jobs: Job) -> None:
        for job in jobs:
            self.engine.admit(job.options.seed, job)

    def round(self, *keys: int) -> dict[int, Job | Fault]:
        """One round over ``keys`` (all jobs where none are named)."""
        ended = self.engine.round(list(keys) or list(self.engine.jobs))
        self.ended |= ended
        return ended

    def run(self, limit: int = 1000) -> None:
        for _ in range(limit):
            if not self.engine.jobs:
                return
            self.round()
        raise AssertionError(f"{len(self.engine.jobs)} jobs never ended")

    def outcomes(self) -> dict[int, str]:
        return {key: end.code if isinstance(end, Fault) else "finished" for key, end in self.ended.items()}


def test_jobs_join_at_the_next_step_and_leave_when_done() -> None:
    bench = Bench()
    bench.admit(make_job(seed=1, num_inference_steps=6))
    bench.round()
    bench.admit(make_job(seed=2, num_inference_steps=2))
    bench.run()
    first, second = bench.ended[1], bench.ended[2]
    assert isinstance(first, Job)
    assert isinstance(second, Job)
    assert first.batch_sizes == [1, 2, 2, 1, 1, 1]
    assert second.batch_sizes == [2, 2]
    assert second.finished_ns < first.finished_ns
    assert bench.unet.calls == [2, 4, 4, 2, 2, 2]


def test_a_batch_that_is_alone_goes_on_until_a_job_ends() -> None:
    bench = Bench()
    bench.admit(make_job(seed=1, num_inference_steps=6), make_job(seed=2, num_inference_steps=3))
    assert bench.engine.run([1, 2]).keys() == {2}
    assert bench.engine.run([1]).keys() == {1}
    assert bench.unet.calls == [4, 4, 4, 2, 2, 2]


def test_a_batch_waits_for_who_is_on_the_way() -> None:
    bench = Bench()
    bench.window.comes = 2
    bench.admit(make_job(seed=1, num_inference_steps=6))
    assert bench.engine.run([1]) == {}
    assert bench.unet.calls == [2, 2]


def test_a_batch_does_not_go_on_without_a_job_that_the_server_has() -> None:
    bench = Bench()
    bench.admit(make_job(seed=1), make_job(seed=2))
    for _ in range(4):  # gathered in vain three times
        assert bench.engine.run([1]) == {}
    assert bench.unet.calls == [2]


def test_a_long_batch_lets_the_server_look_in() -> None:
    bench = Bench()
    bench.unet.seconds = 0.3
    bench.admit(make_job(seed=1, num_inference_steps=20))
    assert bench.engine.run([1]) == {}
    assert bench.unet.calls == [2] * 4, "a second"


def test_who_is_cancelled_or_late_leaves_a_batch_that_is_alone() -> None:
    bench = Bench()
    bench.admit(make_job(seed=1, num_inference_steps=6), make_job(seed=2, num_inference_steps=6, deadline_ms=250))
    bench.unet.seconds = 0.1
    assert bench.engine.run([1, 2]).keys() == {2}
    bench.window.marked.add(1)
    assert bench.engine.run([1]).keys() == {1}
    assert bench.window.endings == ["DEADLINE", "CANCELLED"]


def test_jobs_without_text_share_a_batch() -> None:
    bench = Bench()
    shapes: list[tuple[int, ...]] = []

    def unet(sample: np.ndarray, timestep: np.ndarray, text: np.ndarray) -> np.ndarray:
        shapes.append(text.shape)
        return bench.unet(sample, timestep, text)

    engine = Engine(unet, 8, 32, bench.window, bench.meter, clock=bench.clock)
    for seed, scale in ((1, 7.5), (2, 1.0), (3, 2.5)):
        moments, latent_mask = np.zeros((1, 2, 2, 2), np.float32), np.ones((1, 2, 2), np.float32)
        options = job_options(seed=seed, guidance_scale=scale, num_images=2)
        engine.admit(seed, admit(options, SCHEDULE, 1.0, moments, latent_mask))
    for _ in range(4):
        engine.round(list(engine.jobs))
    assert not engine.jobs
    assert shapes == [(10, 0, 0)] * 4
    assert bench.window.endings == ["finished"] * 3


def test_metrics_add_up() -> None:
    bench = Bench()
    bench.admit(make_job(seed=1), make_job(seed=2, guidance_end=0.5), make_job(seed=3))
    bench.window.marked.add(3)
    bench.run()
    counts = bench.meter.counts
    assert counts["dressform_jobs_admitted_total"] == 3
    assert counts["dressform_jobs_ended_total outcome=finished reason="] == 2
    assert counts["dressform_jobs_ended_total outcome=cancelled reason=cancelled"] == 1
    assert counts["dressform_steps_total"] == 8
    assert counts["dressform_unet_rows"] == 4
    assert counts["dressform_step_seconds rows=6"] + counts["dressform_step_seconds rows=4"] == 4
    assert counts["dressform_time_to_first_step_seconds"] == counts["dressform_job_seconds"] == 2
    assert counts["dressform_guidance_rows_saved_total"] == 2
    assert bench.meter.levels["dressform_jobs state=active"] == 0
    assert bench.meter.levels["dressform_jobs state=waiting"] == 0
    assert bench.window.beats[-1] == (0, 0, 0)


def test_a_started_job_is_active() -> None:
    bench = Bench()
    bench.admit(make_job(seed=1))
    assert bench.meter.levels["dressform_jobs state=waiting"] == 1
    bench.round()
    assert bench.meter.levels["dressform_jobs state=waiting"] == 0
    assert bench.meter.levels["dressform_jobs state=active"] == 1


def test_a_cancelled_jobs_rows_are_free_at_the_next_step() -> None:
    bench = Bench()
    bench.admit(make_job(seed=1), make_job(seed=2, num_inference_steps=50))
    bench.round()
    bench.window.marked.add(2)
    ended = bench.round()
    fault = ended[2]
    assert isinstance(fault, Fault)
    assert "after 1 of 50 steps" in fault.sentence
    assert bench.unet.calls == [4, 2]


def test_an_old_estimate_ends_no_job() -> None:
    """One slow call must not refuse all that come after it, for it would never be made good."""
    bench = Bench()
    bench.unet.seconds = 5.0
    bench.admit(make_job(seed=1, num_inference_steps=1))
    bench.run()
    bench.unet.seconds = 0.01
    endings = []
    for number in range(2, 8):
        bench.clock.now += 3_000_000_000
        bench.admit(make_job(seed=number, num_inference_steps=20, deadline_ms=10_000, started_ns=bench.clock.now))
        bench.run()
        endings.append(bench.window.endings[-1])
    assert endings[-3:] == ["finished"] * 3
    assert len(bench.unet.calls) > 6, "each was at least tried"


def test_the_first_call_of_a_shape_ends_no_job() -> None:
    """It is slow where caches are cold or an engine compiles: 20 steps like it would pass the deadline."""
    bench = Bench()
    bench.unet.seconds = 2.0
    bench.admit(make_job(seed=1, num_inference_steps=20, deadline_ms=30_000))
    bench.round()
    bench.unet.seconds = 0.01
    bench.run()
    assert bench.outcomes() == {1: "finished"}


def test_a_job_dropped_for_the_servers_own_limit_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRESSFORM_LONGEST_REQUEST", "1")
    bench = Bench()
    bench.admit(make_job(seed=1, num_inference_steps=40, deadline_ms=1000))
    bench.run()
    assert "1000 ms (the server's own limit for any request) cannot be met" in str(bench.ended[1])


def test_deadlines_end_jobs_as_soon_as_they_are_hopeless() -> None:
    bench = Bench()  # a step takes 100 ms
    bench.admit(make_job(seed=1, num_inference_steps=4, deadline_ms=450))
    bench.admit(make_job(seed=2, num_inference_steps=40, deadline_ms=1000))
    bench.run()
    assert bench.outcomes() == {1: "finished", 2: "DEADLINE"}
    fault = bench.ended[2]
    assert isinstance(fault, Fault)
    assert dict(fault.fields) == {"deadline_ms": "1000"}
    assert "cannot be met" in fault.sentence
    assert "server's own" not in fault.sentence
    assert bench.unet.calls == [4, 4, 4, 2], "the hopeless job must not go on once its time is known"


def test_a_failing_call_fails_its_own_jobs_only() -> None:
    bench = Bench()
    bench.unet.fails[3] = RuntimeError("unet: poisoned")
    bench.admit(make_job(seed=1), make_job(seed=2, side=3), make_job(seed=3))
    bench.run()
    assert bench.outcomes() == {1: "finished", 2: "ENGINE", 3: "finished"}
    fault = bench.ended[2]
    assert isinstance(fault, Fault)
    assert "poisoned" in fault.sentence
    del bench.unet.fails[3]
    bench.admit(make_job(seed=4, side=3))
    bench.run()
    assert bench.outcomes()[4] == "finished"


def test_out_of_memory_splits_the_call_and_lowers_the_cap() -> None:
    bench = Bench(max_rows=16, largest=3)
    bench.admit(*(make_job(seed=seed) for seed in range(1, 5)))
    bench.run()
    assert set(bench.outcomes().values()) == {"finished"}
    assert max(bench.unet.calls) == 2
    assert bench.engine._unet.caps == {(2, 2): 2}


def test_a_row_that_does_not_fit_alone_fails_and_says_what_fits() -> None:
    bench = Bench(max_rows=16)
    bench.admit(make_job(seed=1))
    bench.run()
    bench.unet.fails[8] = RuntimeError("unet: CUDA out of memory")
    bench.admit(make_job(seed=2, side=8), make_job(seed=3))
    bench.run()
    assert bench.outcomes() == {1: "finished", 2: "ENGINE", 3: "finished"}
    fault = bench.ended[2]
    assert isinstance(fault, Fault)
    assert "64 × 64" in fault.sentence
    assert "16 × 16 has fitted" in fault.sentence


def test_jobs_out_of_phase_are_gathered() -> None:
    """Where each round brings half of the jobs, they still share calls."""
    bench = Bench()
    bench.admit(make_job(seed=1), make_job(seed=2))
    assert bench.round(1) == {}
    assert bench.unet.calls == []
    bench.round(1, 2)
    assert bench.unet.calls == [4]


def test_gathering_ends_after_three_rounds() -> None:
    bench = Bench()
    bench.admit(make_job(seed=1), make_job(seed=2))
    for _ in range(4):
        bench.round(1)
    assert bench.unet.calls == [2]


def test_jobs_that_the_server_lost_are_swept() -> None:
    bench = Bench()
    bench.admit(make_job(seed=1, num_inference_steps=150), make_job(seed=2))
    bench.round()
    bench.clock.now += ABANDONED_NS + 1
    bench.round(1)
    bench.round(1)
    assert list(bench.engine.jobs) == [1]
    assert bench.window.endings == ["CANCELLED"]


def test_waiting_jobs_learn_their_place() -> None:
    bench = Bench(max_rows=2)
    bench.admit(*(make_job(seed=seed) for seed in range(1, 4)))
    bench.round()
    assert bench.window.positions == [1, 2]


def test_work_is_estimated() -> None:
    bench = Bench()
    assert bench.engine.work_ms() == 0
    bench.admit(make_job(seed=1, num_inference_steps=10))
    bench.round()
    assert bench.engine.work_ms() == pytest.approx(900)


def test_request_level_batching_runs_a_batch_to_its_end() -> None:
    bench = Bench(one_batch_at_a_time=True)
    bench.admit(make_job(seed=1, num_inference_steps=5))
    bench.round()
    bench.admit(make_job(seed=2, num_inference_steps=1), make_job(seed=3, num_inference_steps=1))
    bench.run()
    assert bench.unet.calls == [2, 2, 2, 2, 2, 4]


def test_request_level_batching_waits_for_the_whole_batch() -> None:
    bench = Bench(one_batch_at_a_time=True)
    bench.admit(make_job(seed=1), make_job(seed=2))
    bench.round()
    for _ in range(5):
        bench.round(1)
    bench.run()
    assert bench.unet.calls == [4, 4, 4, 4]


def test_max_rows_must_be_positive() -> None:
    with pytest.raises(ValueError, match="max_rows must be at least 1"):
        Bench(max_rows=0)
