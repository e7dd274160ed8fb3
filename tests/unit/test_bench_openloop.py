"""The open loop's pure parts: schedule, accounting, finding."""

from __future__ import annotations

import argparse
import math
import statistics
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from dressform_bench import openloop
from dressform_bench.goodput import Outcome, bracket, interval, mean_batch, next_load, percentile, summary
from dressform_bench.openloop import Search, trace_times
from dressform_bench.schedule import MIX, Arrival, Kind, Schedule, burst, capacity, poisson, ramp, replay

SHORT, LONG = Kind(4, "lcm", 1.0, 3), Kind(50, "ddim", 7.5, 1)
SOLO = {SHORT: 0.1, LONG: 1.0}


def test_a_schedule_is_its_seeds_alone() -> None:
    assert poisson(5, 20, MIX, seed=3) == poisson(5, 20, MIX, seed=3)
    assert poisson(5, 20, MIX, seed=3) != poisson(5, 20, MIX, seed=4)


def test_another_rate_brings_the_same_requests_faster() -> None:
    slow, fast = poisson(2, 50, MIX, seed=1), poisson(4, 25, MIX, seed=1)
    assert [(one.kind, one.seed) for one in slow] == [(one.kind, one.seed) for one in fast]
    assert [one.at for one in slow] == pytest.approx([2 * one.at for one in fast])


def test_gaps_are_exponential() -> None:
    times = [0.0, *(one.at for one in poisson(10, 500, MIX, seed=0))]
    gaps = sorted(later - earlier for earlier, later in pairwise(times))
    n = len(gaps)
    assert times == sorted(times)
    assert times[-1] < 500
    assert statistics.mean(gaps) == pytest.approx(0.1, rel=0.05)
    assert statistics.stdev(gaps) == pytest.approx(0.1, rel=0.07)
    # Kolmogorov-Smirnov distance to 1 - exp(-10 t), below its 1 % bound
    assert max(abs((k + 0.5) / n - (1 - math.exp(-10 * gap))) for k, gap in enumerate(gaps)) < 1.63 / math.sqrt(n)


def test_kinds_come_by_their_weights() -> None:
    arrivals = poisson(90, 100, [SHORT, LONG], seed=0)
    assert sum(one.kind == SHORT for one in arrivals) / len(arrivals) == pytest.approx(0.75, abs=0.02)


def test_a_schedule_is_bounded() -> None:
    with pytest.raises(ValueError, match="more than the 100 requests"):
        poisson(50, 10, MIX, seed=0, limit=100)
    with pytest.raises(ValueError, match="above 0"):
        poisson(0, 10, MIX, seed=0)


PATTERNS = [poisson, ramp, burst, replay([0.0, 0.4, 0.5, 3.0])]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_pattern_keeps_its_mean_rate(pattern: Schedule) -> None:
    counts = [len(pattern(5, 40, MIX, seed)) for seed in range(30)]
    assert statistics.mean(counts) == pytest.approx(200, rel=0.05)
    for seed in range(3):
        times = [one.at for one in pattern(5, 40, MIX, seed)]
        assert times == sorted(times)
        assert 0 <= times[0] <= times[-1] < 40
    with pytest.raises(ValueError, match="above 0"):
        pattern(0, 40, MIX, 0)


def test_a_ramp_rises_evenly() -> None:
    times = [one.at for seed in range(20) for one in ramp(20, 10, MIX, seed)]
    shares = [sum(5 * k <= at < 5 * (k + 1) for at in times) / len(times) for k in range(2)]
    assert shares == pytest.approx([0.25, 0.75], abs=0.03)


def test_bursts_come_together() -> None:
    times = [one.at for one in burst(40, 20, MIX, 1, size=4)]
    assert all(len(set(times[i : i + 4])) == 1 for i in range(0, len(times), 4))
    assert len(set(times)) == len(times) / 4


def test_a_trace_is_replayed_at_another_rate_and_again() -> None:
    assert [one.at for one in replay([0, 1, 3])(1 / 1.5, 6, MIX, 0)] == pytest.approx([0, 1, 3, 4.5, 5.5])
    assert [one.at for one in replay([0, 1, 3])(2 / 1.5, 4, MIX, 0)] == pytest.approx([0, 0.5, 1.5, 2.25, 2.75, 3.75])
    for wrong in ([0], [0, 2, 1], [-1, 1], [0, 0]):
        with pytest.raises(ValueError, match="in order"):
            replay(wrong)


def test_capacity_weighs_kinds() -> None:
    assert capacity(SOLO) == pytest.approx(1 / (0.75 * 0.1 + 0.25 * 1.0))


@pytest.mark.parametrize(("percent", "expected"), [(50, 2), (75, 3), (76, 4), (95, 4), (100, 4), (1, 1)])
def test_percentile_is_the_nearest_rank(percent: float, expected: int) -> None:
    assert percentile([4, 1, 3, 2], percent) == expected


def test_percentile_of_nothing() -> None:
    assert percentile([], 95) is None
    with pytest.raises(ValueError, match="not 0"):
        percentile([1], 0)


def test_a_call_of_three_counts_once() -> None:
    together = [{"batch_sizes": [3]}, {"batch_sizes": [3]}, {"batch_sizes": [3, 1]}]
    assert mean_batch(together) == pytest.approx(4 / 2)
    assert mean_batch([]) is None


def answer(kind: Kind, due: float, latency: float, sent_late: float = 0.0) -> Outcome:
    return Outcome(kind, due, due + sent_late, due + latency, info={"batch_sizes": [1]})


def test_goodput_counts_from_when_requests_were_due() -> None:
    outcomes = [
        answer(SHORT, 0, 0.19),  # within
        answer(SHORT, 1, 0.21),  # late
        answer(SHORT, 2, 0.3, sent_late=0.2),  # 0.1 s after it was sent, but due earlier: late
        answer(LONG, 3, 1.9),  # within: its own kind's SLO
        Outcome(LONG, 4, 4, 4.01, "Overloaded", "full"),
        Outcome(LONG, 5, 5, 5.01, "ServerError", "broken"),
    ]
    found = summary(outcomes, SOLO, 2.0, seconds=10)
    counted = {name: found[name] for name in ("offered", "answered", "within_slo", "refused", "failed")}
    assert counted == {"offered": 6, "answered": 4, "within_slo": 2, "refused": 1, "failed": 1}
    assert found["offered_per_s"] == pytest.approx(0.6)
    assert found["goodput_per_s"] == pytest.approx(0.2)
    assert found["share_within_slo"] == pytest.approx(2 / 6, abs=1e-4)
    assert found["errors"] == {"Overloaded": 1, "ServerError": 1}
    assert (found["p50_s"], found["p95_s"]) == (0.21, 1.9)
    assert found["p95_slowdown"] == pytest.approx(3.0)
    assert found["p95_send_delay_ms"] == pytest.approx(200)


def row(load: float, share: float | None) -> dict[str, Any]:
    return {"load": load, "offered_per_s": 10 * load, "share_within_slo": share}


def test_the_rate_that_is_kept_is_below_the_first_that_is_not() -> None:
    rows = [row(3, 0.99), row(1, 0.97), row(2, 0.5)]
    assert bracket(rows, 0.95) == (10, 20)
    assert next_load(rows, 0.95) == 1.5
    assert bracket([*rows, row(1.5, 0.96)], 0.95) == (15, 20)
    assert next_load([*rows, row(1.5, 0.96)], 0.95) == 1.75
    assert bracket([row(1, None)], 0.95) == (0, 10)
    assert next_load([row(1, 0.2)], 0.95) == 0.5
    assert bracket([row(1, 1.0)], 0.95) == (10, None)
    assert next_load([row(1, 1.0)], 0.95) is None


def test_a_trace_has_times() -> None:
    lines = ['{"at": 7}', '{"at": 5.5}', '{"info": {"arrived_ns": 6000000000}}', '{"arrived_ns": 9000000000}']
    assert trace_times(lines) == [0, 0.5, 1.5, 3.5]
    for wrong in ('{"time": 7}', '{"info": 3}', "[1]", "5", "{", '{"at": "soon"}', '{"at": NaN}', ""):
        with pytest.raises(ValueError, match="line 2 of the trace has neither"):
            trace_times(['{"at": 7}', wrong])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--replay", "{folder}/trace.jsonl"], 'line 1 of the trace has neither at nor an info: {"x":1}'),
        (["--replay", "{folder}/nothing.jsonl"], "No such file"),
        (["--repository", "{folder}", "--device", "0.01", "0.002"], "{folder} is no export"),
        (["--repository", "{folder}"], "{folder} is no export"),
        (["--device", "-1", "0.002"], "--device: must be at least 0, not -1"),
        (["--pixels", "0x64"], "--pixels: must be WIDTHxHEIGHT or the side of a square, not '0x64'"),
        (["--steps", "0"], "--steps: must be a number from 1, not '0'"),
    ],
)
def test_what_cannot_be_measured_is_told_in_a_sentence(tmp_path: Path, words: list[str], sentence: str) -> None:
    (tmp_path / "trace.jsonl").write_text('{"x":1}\n')
    folder = str(tmp_path)
    command = [sys.executable, "-m", "dressform_bench.openloop", *(word.replace("{folder}", folder) for word in words)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert sentence.replace("{folder}", folder) in ended.stderr
    assert "Traceback" not in ended.stderr


class Answering:
    """A caller whose requests keep the SLO up to a load."""

    def __init__(self, rate: float) -> None:
        self.rate = rate


def searched(monkeypatch: pytest.MonkeyPatch, rates: dict[str, float], loads: list[float], refine: int) -> Search:
    """A search on servers that answer at once up to so many requests per second, and late beyond."""

    def answered(caller: Answering, schedule: Sequence[Arrival]) -> list[Outcome]:
        rate = len(schedule) / schedule[-1].at
        return [answer(one.kind, one.at, 0.01 if rate <= caller.rate else 9.0) for one in schedule]

    monkeypatch.setattr(openloop, "offered", answered)
    monkeypatch.setattr(openloop.trace, "rows", lambda _: [])
    words = {"slo": 2.0, "kept": 0.95, "seconds": 5.0, "requests": 500, "repeats": 1, "seed": 0, "schedule": poisson}
    options = argparse.Namespace(loads=loads, refine=refine, **words)
    callers: Any = {mode: Answering(rate) for mode, rate in rates.items()}
    search = Search(callers, options, {SHORT: 0.1}, {})
    search.run()
    return search


def test_the_search_goes_below_the_lowest_load_and_then_between(monkeypatch: pytest.MonkeyPatch) -> None:
    search = searched(monkeypatch, {"step": 14, "request": 3.4}, [1, 2], refine=3)  # 10 requests/s is load 1
    tried = {mode: [row["load"] for row in search.rows(mode)] for mode in ("step", "request")}
    assert tried == {"step": [1, 2, 1.5, 1.25, 1.375], "request": [1, 2, 0.5, 0.25, 0.375, 0.3125, 0.3438]}
    kept, missed = bracket(search.rows("request"), 0.95)
    assert missed is not None
    assert kept <= 3.4 * 1.1
    assert missed * 1.1 > 3.4


def test_the_search_below_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    search = searched(monkeypatch, {"step": 0.01}, [1], refine=1)
    assert [row["load"] for row in search.rows("step")] == [1, 0.5, 0.25]


def test_few_requests_tell_little() -> None:
    """Wilson's interval of 45 of 47, of 8 of 8 (whose lower end is n / (n + z²)), and of 950 of 1,000."""
    assert interval(45, 47) == pytest.approx((0.8575, 0.9883), abs=1e-3)
    assert interval(8, 8) == pytest.approx((8 / (8 + 1.96**2), 1), abs=1e-9)
    assert interval(950, 1000) == pytest.approx((0.9347, 0.9618), abs=1e-3)
    assert interval(0, 5)[0] == 0
