"""What this machine can do with an engine: memory and time of a UNet call by its rows, and how many rows fit.

Measured in a process of its own (``python -m dressform_export.capacity``), whose peak is that of the graphs: all of
them loaded and used once, as a server has them, then UNet calls of more and more rows. Each size is told as soon as it
is known: if the system ends the process for its memory, the ones before stand.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dressform_export.errors import ExportError
from dressform_export.manifest import CapacityRecord, read_manifest
from dressform_export.progress import Progress

ROWS = (1, 2, 4, 8)
"""Rows of the UNet calls that are tried, as far as they fit."""

REPEATS = 2
"""Timed calls of each size, after one that is not; the faster counts."""

STEPS = 2
"""Of the picture that is painted before, so that every graph has been used."""

MARGIN = 0.9
"""Share of the free memory that may be used."""


@dataclass(frozen=True)
class Sample:
    """One size: its rows, the seconds of a call, and the peak of the process's memory until then, in bytes."""

    rows: int
    seconds: float
    peak: int


def measured(
    repository: Path,
    engine: str,
    size: tuple[int, int],
    memory: int,
    rows: Sequence[int],
    most: int,
    progress: Progress,
) -> CapacityRecord:
    """Measure ``engine`` with calls of ``rows`` on this machine, of whose memory ``memory`` bytes are free.

    ``size`` is that of the references' picture; ``most`` are the rows that the UNet's config allows.

    Raises:
        ExportError: if not even one size could be run.
    """
    command = [sys.executable, "-m", "dressform_export.capacity", str(repository), engine, str(memory)]
    with progress.stage(f"measure {engine} with {', '.join(map(str, rows))} rows"):
        done = subprocess.run([*command, *map(str, rows)], capture_output=True, text=True, check=False)
    samples = [Sample(**json.loads(line)) for line in done.stdout.splitlines()]
    if not samples:
        reason = (done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"])[-1]
        raise ExportError(f"engine {engine!r} could not be measured on this machine: {reason}")
    fixed, per_row = fitted(samples)
    return CapacityRecord(
        machine=machine(),
        height=size[0],
        width=size[1],
        memory=memory,
        fixed=fixed,
        per_row=per_row,
        step_seconds={str(sample.rows): round(sample.seconds, 4) for sample in samples},
        max_rows=rows_that_fit(memory, fixed, per_row, most),
    )


def fitted(samples: Sequence[Sample]) -> tuple[int, int]:
    """The bytes that do not depend on the rows, and those of each row: a line through the peaks.

    Between the sizes whose peaks did not rise the memory of other graphs was used again, so the line begins at the last
    of them. Of one size alone everything counts as its rows'.
    """
    rising = [last for last, following in pairwise(samples) if following.peak > last.peak]
    used = samples[samples.index(rising[0]) :] if rising else samples[-1:]
    if len(used) == 1:
        return 0, -(-used[0].peak // used[0].rows)
    slope, _ = np.polyfit([sample.rows for sample in used], [sample.peak for sample in used], 1)
    per_row = max(1, round(float(slope)))
    return max(0, max(sample.peak - per_row * sample.rows for sample in used)), per_row


def rows_that_fit(memory: int, fixed: int, per_row: int, most: int) -> int:
    """The rows of one call for which ``memory`` bytes suffice with a margin; from 1 to ``most``."""
    return int(max(1, min(most, (MARGIN * memory - fixed) // per_row)))


def free_memory() -> int:
    """Bytes that this machine can give to new processes (Linux: ``MemAvailable``).

    Raises:
        ExportError: if the system does not say.
    """
    try:
        fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        return 1024 * int(fields["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError) as error:
        raise ExportError("this system does not say how much memory is free: name it with --memory") from error


def machine() -> str:
    """The processor's name and number of cores."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} × {names[0]}" if names else platform.processor() or platform.machine()


def _peak() -> int:
    """The largest memory that this process has held, in bytes."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(status["VmHWM"].split()[0])


def _run(repository: Path, engine: str, memory: int, rows: Sequence[int]) -> None:
    """The process: print a `Sample` for each size, until the next one would not fit."""
    from dressform_export.proof import GraphLeaves  # slow to import, and of the process alone
    from dressform_export.reference import read_references
    from dressform_export.trajectory import paint

    manifest = read_manifest(repository)
    leaves = GraphLeaves(repository, engine, manifest.engines[engine], keep=True)
    given: dict[str, NDArray[Any]] = {}

    def remembered(name: str, inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        if name == "unet":
            given.update(inputs)
        return leaves(name, inputs)

    request = read_references(repository).request
    paint(replace(request, options={**request.options, "num_inference_steps": STEPS}), repository, manifest, remembered)
    samples: list[Sample] = []
    for count in sorted(rows):
        if len(samples) > 1:
            fixed, per_row = fitted(samples)
            if fixed + per_row * count > MARGIN * memory:
                break
        inputs = {name: np.resize(array, (count, *array.shape[1:])) for name, array in given.items()}
        times = []
        for _ in range(REPEATS + 1):
            began = time.perf_counter()
            leaves("unet", inputs)
            times.append(time.perf_counter() - began)
        samples.append(Sample(count, min(times[1:]), _peak()))
        print(json.dumps(vars(samples[-1])), flush=True)


if __name__ == "__main__":
    _run(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), [int(count) for count in sys.argv[4:]])
