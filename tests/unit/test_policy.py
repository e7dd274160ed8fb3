"""The choice of jobs: cap kept, nobody starves, work conserving, deadlines met where that is feasible."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from denoise.job import Job
from denoise.policy import PATIENCE, choose, choose_shape, slack_ns
from denoise.step_time import StepTime
from unit.denoise_fakes import make_job

STEP_NS = 100_000_000

job_settings = st.fixed_dictionaries(
    {
        "num_inference_steps": st.integers(1, 30),
        "num_images": st.integers(1, 4),
        "guidance_scale": st.sampled_from([1.0, 5.0]),
        "service_class": st.sampled_from(["interactive", "batch"]),
        "deadline_ms": st.one_of(st.none(), st.integers(100, 10_000)),
        "missed": st.integers(0, 2 * PATIENCE),
    }
)


def made(options: dict[str, Any]) -> Job:
    job = make_job(**{k: v for k, v in options.items() if k != "missed"})
    job.rounds_missed = options["missed"]
    return job


@settings(max_examples=200, deadline=None)
@given(st.lists(job_settings, min_size=1, max_size=12), st.integers(1, 40))
def test_the_cap_is_kept_and_no_room_is_wasted(options: list[dict[str, Any]], max_rows: int) -> None:
    jobs = [made(one) for one in options]
    chosen = choose(jobs, 0, STEP_NS, max_rows)
    rows = sum(job.rows for job in chosen)
    assert chosen, "somebody must run"
    assert rows <= max_rows or len(chosen) == 1
    assert chosen == [job for job in jobs if job in chosen], "the given order is kept"
    for job in jobs:
        if job not in chosen:
            assert rows + job.rows > max_rows, "a job that fitted was left out"


@settings(max_examples=60, deadline=None)
@given(st.lists(job_settings, min_size=1, max_size=10), st.integers(1, 12), st.integers(0, 3))
def test_nobody_starves(options: list[dict[str, Any]], max_rows: int, arrivals: int) -> None:
    """A job runs again within PATIENCE rounds plus one for each rival, though short urgent jobs keep arriving."""
    jobs = [made({**one, "missed": 0, "deadline_ms": None}) for one in options]
    bound = PATIENCE + len(jobs) + (PATIENCE + 1) * arrivals * 2
    for _ in range(4 * PATIENCE):
        rivals = [
            made({**options[0], "num_inference_steps": 1, "missed": 0, "deadline_ms": 150}) for _ in range(arrivals)
        ]
        ready = jobs + rivals
        chosen = choose(ready, 0, STEP_NS, max_rows)
        for job in jobs:
            job.rounds_missed = 0 if job in chosen else job.rounds_missed + 1
            assert job.rounds_missed <= bound, f"a job has missed {job.rounds_missed} rounds"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=6), st.integers(1, 4), st.integers(0, 3))
def test_feasible_deadlines_are_met(steps: list[int], max_rows: int, others: int) -> None:
    """Jobs of one row with deadlines that least-slack-first can meet are done in time, whatever else waits."""
    total = sum(steps)
    urgent = [
        make_job(num_inference_steps=n, guidance_scale=1.0, deadline_ms=(total + PATIENCE) * STEP_NS // 10**6)
        for n in steps
    ]
    rest = [make_job(num_inference_steps=20, guidance_scale=1.0) for _ in range(others)]
    now = 0
    while any(not job.done for job in urgent):
        ready = [job for job in urgent + rest if not job.done]
        for job in ready:
            job.rounds_missed = 0  # patience is tested elsewhere
        for job in choose(ready, now, STEP_NS, max_rows):
            job.step += 1
        now += STEP_NS
        late = [job for job in urgent if not job.done and (slack_ns(job, now, STEP_NS) or 0) < -STEP_NS * max_rows]
        assert not late, "a feasible deadline was missed"


def test_interactive_goes_before_batch_and_short_before_long() -> None:
    batch = make_job(service_class="batch", num_inference_steps=1, guidance_scale=1.0)
    long = make_job(num_inference_steps=9, guidance_scale=1.0)
    short = make_job(num_inference_steps=2, guidance_scale=1.0)
    assert choose([batch, long, short], 0, STEP_NS, 1) == [short]
    assert choose([batch, long, short], 0, STEP_NS, 2) == [long, short]


def test_shapes_take_turns() -> None:
    jobs = [make_job(side=2), make_job(side=3), make_job(side=2), make_job(side=4)]
    turns: dict[tuple[int, ...], int] = {}
    order = []
    for turn in range(6):
        shape = choose_shape(jobs, turns)
        turns[shape] = turn
        order.append(shape[1])
    assert order == [2, 3, 4, 2, 3, 4]


@settings(max_examples=100, deadline=None)
@given(a=st.floats(0, 1), b=st.floats(1e-4, 1), rows=st.lists(st.integers(1, 32), min_size=2, max_size=30))
def test_step_time_learns_a_line(a: float, b: float, rows: list[int]) -> None:
    times = StepTime()
    for n in rows:
        times.observe((4, 8, 8), n, a + b * n, 0.0)
    for n in set(rows):
        assert times.seconds((4, 8, 8), n) == pytest.approx(a + b * n, rel=1e-3)
    assert times.seconds((4, 8, 16), rows[0]) == pytest.approx(2 * (a + b * rows[0]), rel=1e-3)


def test_step_time_is_unknown_before_the_first_call_and_follows_a_slower_machine() -> None:
    times = StepTime()
    assert times.line((4, 8, 8)) is None
    assert times.seconds((4, 8, 8), 2) == 0
    for seconds in [1.0] * 100 + [3.0] * 400:
        times.observe((4, 8, 8), 2, seconds, 0.0)
    assert times.seconds((4, 8, 8), 2) == pytest.approx(3, rel=0.01)


def test_step_time_forgets_while_nothing_runs() -> None:
    times = StepTime()
    for call in range(1, 101):
        times.observe((4, 8, 8), 2, 3.0, 3.0 * call)
    times.observe((4, 8, 8), 2, 1.0, 301.0)
    assert times.seconds((4, 8, 8), 2) > 2.9, "one quick call among many"
    times.observe((4, 8, 8), 2, 1.0, 332.0)
    assert times.seconds((4, 8, 8), 2) == pytest.approx(1, rel=0.01)
    assert times.fresh((4, 8, 8), 2, 333.9)
    assert not times.fresh((4, 8, 8), 2, 335.0)
