"""Step times from the infos of answers: what a server took under a real load, every contention included. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from dressform_bench.goodput import SAME_CALL_MS
from dressform_bench.simulate.step_times import StepTimes

LEAST_CALLS = 20
"""UNet calls from which a line is fitted."""

ROWS = (1, 2, 4, 8, 16, 32)
"""Points of the fitted line."""

Info = Mapping[str, Any]


@dataclass(frozen=True)
class Call:
    """A UNet call that followed another at once: seconds between their ends, rows, jobs that joined it or had left."""

    seconds: float
    rows: float
    changes: int


def calls(infos: Sequence[Info]) -> list[Call]:
    """The UNet calls of one server that share a job with the call before, and all whose jobs were answered."""
    steps = sorted(
        (info["arrived_ns"] / 1e6 + end, number, step)
        for number, info in enumerate(infos)
        for step, end in enumerate(info["step_ends_ms"])
    )
    groups: list[tuple[float, dict[int, int]]] = []  # end, and the step of each job
    for end, number, step in steps:
        if not groups or end - groups[-1][0] > SAME_CALL_MS:
            groups.append((end, {}))
        groups[-1][1][number] = step
    lengths = [len(info["batch_sizes"]) for info in infos]
    found = []
    for (last, left), (end, jobs) in pairwise(groups):
        number, step = next(iter(jobs.items()))
        if infos[number]["batch_sizes"][step] != len(jobs) or not left.keys() & jobs.keys():
            continue
        joined = sum(step == 0 for step in jobs.values())
        gone = sum(step == lengths[number] - 1 for number, step in left.items())
        rows = sum(infos[number]["unet_rows"] / lengths[number] for number in jobs)
        found.append(Call((end - last) / 1000, rows, joined + gone))
    return found


Timed = Sequence[tuple[float, Info]]
"""Answers: the client's seconds, from when a request was due, and the info."""


def fitted(name: str, loaded: Timed, alone: Timed) -> StepTimes:
    """The times of a server: of its steps and the way to the client under a load, of the rest from requests alone.

    A call takes a + b × rows + c × changes; each request is two changes, and they are what the work
    around its denoising takes of the denoiser.

    Raises:
        ValueError: if there are too few calls.
    """
    found = calls([info for _, info in loaded])
    if len(found) < LEAST_CALLS:
        raise ValueError(f"{len(found)} UNet calls in a row are too few for a fit: {LEAST_CALLS} are needed")
    fixed, per_row, change = _line(found)
    before, after = _median(alone, "preprocess", "encode", "wait"), _median(alone, "decode", "postprocess")
    way = statistics.median(seconds - info["milliseconds"]["total"] / 1000 for seconds, info in loaded)
    return StepTimes(
        name=name,
        source=f"{len(found)} UNet calls under load, {len(alone)} requests alone",
        step_seconds={rows: fixed + per_row * rows for rows in ROWS},
        before_seconds=before,
        after_seconds=after,
        answer_seconds=max(0.0, way),
        between_steps_seconds=0.0,
        overlap=min(1.0, 2 * change / (before + after)),
    )


def _line(found: Sequence[Call]) -> list[float]:
    """a, b and c of `fitted` by least squares; where one comes out below 0, without it."""
    table = np.array([(1, call.rows, call.changes) for call in found])
    seconds = np.array([call.seconds for call in found])
    weights, kept = np.zeros(3), [0, 1, 2]
    while kept:
        weights[:] = 0
        weights[kept] = np.linalg.lstsq(table[:, kept], seconds, rcond=None)[0]
        if weights.min() >= 0:
            break
        kept.remove(int(weights.argmin()))
    return [float(weight) for weight in weights]


def _median(answers: Timed, *parts: str) -> float:
    """Seconds of the server's ``parts`` of a request."""
    return statistics.median(sum(info["milliseconds"][part] for part in parts) / 1000 for _, info in answers)
