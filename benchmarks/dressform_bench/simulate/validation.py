"""The simulation held against a real server: the same arrivals to both."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dressform_bench.goodput import Outcome, summary
from dressform_bench.openloop import SOLO_SECONDS, Caller, asleep_words, left_to_the_export, offered, served
from dressform_bench.schedule import Kind, capacity, mix_of, poisson
from dressform_bench.simulate.events import simulated
from dressform_bench.simulate.measurement import Info, fitted
from dressform_bench.simulate.server import Limits
from dressform_bench.simulate.step_times import StepTimes

FIGURES = ("p50_s", "p95_s", "goodput_per_s")

REPEATS = 2
"""Of all, by turns: how far they differ is what the machine itself does to the figures."""

Alone = list[tuple[Kind, float, Info]]


def validated(repository: Path, options: argparse.Namespace) -> tuple[StepTimes, list[dict[str, Any]]]:
    """The times of a server of ``repository`` on this machine, and a row for each load.

    The times come from arrivals of their own, at solo capacity, which are none of those that are compared; they take
    turns with those, so that a machine whose speed drifts drifts for both.
    """
    mix = mix_of(options.steps)
    left_to_the_export(options, repository)
    with served(repository, options.batching, options) as client:
        caller = Caller(client, options.pixels)
        caller.warm_up(mix)
        solo = solo_seconds(alone(caller, mix, 3))
        caller.patient(max(solo.values()))
        rate = capacity(solo)
        seconds, seed = options.validate_seconds, options.seed
        schedules = {load: poisson(load * rate, seconds, mix, seed) for load in options.validate_loads}
        single: Alone = []
        loaded: list[Outcome] = []
        runs: dict[float, list[list[Outcome]]] = {load: [] for load in schedules}
        for load, schedule in list(schedules.items()) * REPEATS:
            seed += 1
            single += alone(caller, mix, 1)
            loaded += offered(caller, poisson(rate, seconds / 2, mix, seed))
            runs[load].append(offered(caller, schedule))
    idle = [(taken, info) for _, taken, info in single]
    times = fitted(f"{repository} on this machine{asleep_words(options.device)}", answers(loaded), idle)
    solo, limits = solo_seconds(single), Limits.of(repository, options.engine)
    rows = []
    for load, schedule in schedules.items():
        own_times = [fitted("own", answers(run), idle) for run in runs[load]]
        expected, *own = (simulated(schedule, used, limits, batching=options.batching) for used in (times, *own_times))
        row = compared(runs[load], expected, own, solo, options.slo, seconds)
        rows.append({"load": load, "rate_per_s": round(load * rate, 4)} | row)
    return times, rows


def answers(outcomes: Sequence[Outcome]) -> list[tuple[float, Info]]:
    """The latency and the info of each that was answered."""
    return [(one.latency, one.info) for one in outcomes if one.info is not None]


def alone(caller: Caller, mix: Sequence[Kind], repeats: int) -> Alone:
    """Requests of each kind, one at a time: the client's seconds and the info; no repeat after `SOLO_SECONDS`."""
    found: Alone = []
    end = time.monotonic() + SOLO_SECONDS
    for repeat in range(repeats):
        if repeat and time.monotonic() > end:
            break
        for kind in mix:
            started = time.perf_counter()
            info = caller(kind, 0)
            found.append((kind, time.perf_counter() - started, info))
    return found


def solo_seconds(single: Alone) -> dict[Kind, float]:
    """The median by kind."""
    taken: dict[Kind, list[float]] = {}
    for kind, seconds, _ in single:
        taken.setdefault(kind, []).append(seconds)
    return {kind: statistics.median(seconds) for kind, seconds in taken.items()}


def compared(
    runs: Sequence[Sequence[Outcome]],
    expected: Sequence[Outcome],
    own: Sequence[Sequence[Outcome]],
    solo: Mapping[Kind, float],
    slo: float,
    seconds: float,
) -> dict[str, dict[str, float | None]]:
    """The figures of all ``runs`` together, those of the simulation, and what they differ by.

    ``error`` is simulated / measured - 1; ``own_error`` that of ``own``, each simulated with the step times of its run,
    together; ``spread`` is the highest of the runs / the lowest - 1.
    """
    together, own_times = (
        summary([one for part in parts for one in part], solo, slo, seconds * len(parts)) for parts in (runs, own)
    )
    simulation, *each = (summary(one, solo, slo, seconds) for one in (expected, *runs))
    names = (*FIGURES, "offered", "offered_per_s", "share_within_slo", "mean_batch", "refused", "failed")
    return {
        "measured": {name: together[name] for name in names},
        "simulated": {name: simulation[name] for name in names},
        "error": {name: _beyond(simulation[name], together[name]) for name in FIGURES},
        "own_error": {name: _beyond(own_times[name], together[name]) for name in FIGURES},
        "spread": {name: _spread([one[name] for one in each]) for name in FIGURES},
    }


def _spread(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return _beyond(max(known), min(known)) if known else None


def _beyond(value: float | None, reference: float | None) -> float | None:
    return None if value is None or not reference else round(value / reference - 1, 4)
