"""Waiting for jobs in flight (dressform_server.drain)."""

from __future__ import annotations

import time
from collections.abc import Iterator

from dressform_server.drain import jobs_in, wait_for_jobs

METRICS = """# HELP dressform_jobs Jobs
# TYPE dressform_jobs gauge
dressform_jobs{{model="denoise",version="1"}} {jobs}
nv_inference_count{{model="unet",version="1"}} 7
dressform_jobs_total{{model="denoise"}} 99
"""


def test_only_the_gauge_counts() -> None:
    assert jobs_in(METRICS.format(jobs=3)) == 3
    assert jobs_in("dressform_jobs 2\n") == 2
    assert jobs_in("nv_inference_count 5\n") == 0


def test_it_waits_until_there_are_none() -> None:
    left: Iterator[int] = iter([2, 1, 0, 1, 0, 0, 0])
    wait_for_jobs(lambda: METRICS.format(jobs=next(left)), lambda: True, timeout=30)
    assert next(left, None) is None


def test_it_gives_up_in_time_and_when_triton_is_gone() -> None:
    start = time.monotonic()
    wait_for_jobs(lambda: METRICS.format(jobs=1), lambda: True, timeout=0.5)
    assert 0.4 < time.monotonic() - start < 5
    wait_for_jobs(lambda: METRICS.format(jobs=1), lambda: False, timeout=1000)


def test_without_the_gauge_there_is_nothing_to_wait_for() -> None:
    looks: list[str] = ["nv_inference_count 5"]
    wait_for_jobs(looks.pop, lambda: True, timeout=1000)
    assert not looks
