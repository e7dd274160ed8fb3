"""Bare UNet calls of an export's engines, in turn: ``python -m dressform_bench.unet_steps OUT``.

What a step costs by engine without server, solver and VAE. The engines take turns call by call, so that whatever else
the machine does falls on all of them alike: on a busy one read the ratios, not the seconds.

Each row: engine, precision, megabytes of the UNet's graph, seconds of a call (median), how often it goes into the first
engine's, GFLOP/s. The limit is printed first: GFLOP/s of an fp32 matrix product by numpy. The last line of stdout is
JSON. With random weights at the size of Stable Diffusion 1.5, not run so far::

    dressform-export random sd15 source
    dressform-export source out --calibration-samples 16 --engine onnxruntime openvino openvino-int8
    python -m dressform_bench.unet_steps out --rows 2 --rounds 3
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dressform_export import read_manifest
from dressform_export.engines import ENGINES, PRECISIONS
from dressform_export.manifest import Manifest
from dressform_export.runner import runner

SIDE = 2048
"""Of the square matrices whose product is the limit."""


def main(argv: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m dressform_bench.unet_steps", description=__doc__)
    parser.add_argument("out", type=Path, metavar="OUT", help="an export of several engines")
    parser.add_argument("--rows", type=int, default=2, help="rows of a call (default 2: one picture with guidance)")
    parser.add_argument("--rounds", type=int, default=5, help="timed calls of each engine, after one that is not")
    options = parser.parse_args(argv)
    manifest = read_manifest(options.out)
    print(f"limit: {product_rate():.0f} GFLOP/s (fp32 matrix product, numpy)")
    times = timed(options.out, manifest, options.rows, options.rounds)
    operations = manifest.flops["unet"] * options.rows
    first = statistics.median(next(iter(times.values())))
    report = {}
    for name, seconds in times.items():
        graph, median = manifest.engines[name].graphs["unet"], statistics.median(seconds)
        report[name] = {
            "precision": manifest.engines[name].precision,
            "megabytes": round(graph.bytes / 1e6, 2),
            "seconds": round(median, 4),
            "times_as_fast": round(first / median, 2),
            "gflops": round(operations / median / 1e9, 1),
        }
        print(f"{name:18}" + "".join(f"{value:>12}" for value in report[name].values()))
    print(json.dumps({"rows": options.rows, "rounds": options.rounds, "engines": report}))


def timed(repository: Path, manifest: Manifest, rows: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of each call by engine: of those that run on a CPU, in the order of the export."""
    inputs = made(manifest, rows)
    runners = {
        name: runner(repository / record.graphs["unet"].file, PRECISIONS[ENGINES[name].graph_of("unet")])
        for name, record in manifest.engines.items()
        if record.executed
    }
    times: dict[str, list[float]] = {name: [] for name in runners}
    for number in range(rounds + 1):
        for name, run in runners.items():
            began = time.perf_counter()
            run(inputs)
            if number:
                times[name].append(time.perf_counter() - began)
    return times


def made(manifest: Manifest, rows: int) -> dict[str, NDArray[Any]]:
    """Random inputs of a UNet call at the default size, of a try-on where the export serves it."""
    rng = np.random.default_rng(0)
    size, text = manifest.size, manifest.text
    height = size.height // manifest.vae.factor * (2 if manifest.tryon == "concat" else 1)
    shape = (rows, manifest.unet.in_channels, height, size.width // manifest.vae.factor)
    inputs = {
        "sample": rng.standard_normal(shape, np.float32),
        "timestep": np.linspace(1, 999, rows, dtype=np.float32),
    }
    if text is not None:
        states = rng.standard_normal((rows, text.max_length, text.hidden_size), np.float32)
        inputs["encoder_hidden_states"] = states
    return inputs


def product_rate() -> float:
    """GFLOP/s of a matrix product in fp32; the best of three."""
    a = np.ones((SIDE, SIDE), np.float32)
    best = float("inf")
    for _ in range(3):
        began = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - began)
    return 2 * SIDE**3 / best / 1e9


if __name__ == "__main__":
    main()
