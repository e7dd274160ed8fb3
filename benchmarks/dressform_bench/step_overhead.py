"""What lies between two UNet calls: ``python -m dressform_bench.step_overhead``.

Serves a hollow repository (every tensor at true size, a UNet that only copies) and runs N equal jobs with guidance at
once. The time of a step is then all overhead: Triton rescheduling the jobs, our stage choosing and assembling rows, the
call of the UNet model and back, guidance and solver.

Each row: jobs, UNet rows of a step, milliseconds from step to step (median over all jobs and steps), milliseconds that
the copying graph itself takes in a bare ONNX Runtime session (the floor), and the difference. ``--out`` appends the
record (also the last line of stdout) to a file.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image

from dressform import Client
from dressform_bench import arguments, hollow, results
from dressform_bench.crowd import together
from dressform_server import Server

JOBS = (1, 4, 16)
SETTINGS = ("size", "steps", "repeats")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write."""
    options = _options(argv)
    size = hollow.SIZES[options.size]
    with tempfile.TemporaryDirectory() as folder:
        repository = hollow.build(Path(folder) / "repository", size)
        floors = {jobs: bare(repository, size, 2 * jobs) for jobs in JOBS}
        with Server(repository, http_port=0, grpc_port=0, metrics_port=0, log=Path(folder) / "log") as server:
            server.wait_ready(120)
            with Client(server.grpc_url, timeout=300, retries=0) as client:
                infos(client, size, 4, 20)  # warm-up
                rows = [row(client, size, jobs, floors[jobs], options) for jobs in JOBS]
    settings = {name: getattr(options, name) for name in SETTINGS}
    model = f"hollow, {options.size} tensors"
    results.write({**results.header("step-overhead", argv, settings), "model": model, "rows": rows}, options.out)
    return 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m dressform_bench.step_overhead",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--size", choices=hollow.SIZES, default="tiny", help="of the tensors (default tiny)")
    parser.add_argument("--steps", type=arguments.count, default=100, help="of a request (default 100)")
    parser.add_argument("--repeats", type=arguments.count, default=5, help="of everything (default 5)")
    parser.add_argument("--out", type=Path, metavar="FILE.jsonl", help="file that the record is appended to")
    return parser.parse_args(argv)


def row(client: Client, size: hollow.Size, jobs: int, floor: float, options: argparse.Namespace) -> dict[str, float]:
    """One line of the table."""
    times: list[float] = []
    batches: list[int] = []
    for _ in range(options.repeats):
        for info in infos(client, size, jobs, options.steps):
            times.extend(later - earlier for earlier, later in pairwise(info["step_ends_ms"]))
            batches.extend(info["batch_sizes"])
    step = statistics.median(times)
    found = {
        "jobs": jobs,
        "unet_rows": 2 * jobs,
        "mean_batch": round(statistics.mean(batches), 2),
        "step_ms": round(step, 3),
        "bare_ms": round(floor, 3),
        "overhead_ms": round(step - floor, 3),
    }
    print(" ".join(f"{name}={value}" for name, value in found.items()), flush=True)
    return found


def infos(client: Client, size: hollow.Size, jobs: int, steps: int) -> list[dict[str, Any]]:
    """The infos of ``jobs`` equal requests, sent at once."""
    picture, mask = Image.new("RGB", (size.side, size.side)), Image.new("L", (size.side, size.side), 255)

    def run(seed: int) -> dict[str, Any]:
        return client.inpaint(picture, mask, "a", num_inference_steps=steps, seed=seed, composite="none").info

    return together(jobs, run)


def bare(repository: Path, size: hollow.Size, rows: int, calls: int = 200) -> float:
    """Median milliseconds of the UNet graph alone."""
    session = onnxruntime.InferenceSession(str(repository / "unet" / "1" / "model.onnx"))
    side = size.side // size.factor
    feed = {
        "sample": np.zeros((rows, 2 * size.channels + 1, side, side), np.float32),
        "timestep": np.zeros(rows, np.float32),
        "encoder_hidden_states": np.zeros((rows, size.tokens, size.width), np.float32),
    }
    times = []
    for _ in range(calls):
        started = time.perf_counter()
        session.run(None, feed)
        times.append(time.perf_counter() - started)
    return 1000 * statistics.median(times)


if __name__ == "__main__":
    sys.exit(arguments.guarded(main))
