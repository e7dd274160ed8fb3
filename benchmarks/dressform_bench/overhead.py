"""Where each millisecond of a request goes: ``python -m dressform_bench.overhead REPOSITORY``.

Serves an export and sends N equal requests at once. Beside it, in this process and by turns with the server, the same
graphs are called as one engine would with nothing around them: every call of one picture's trajectory, with N times its
rows. That is the floor of what is served.

What the numbers mean, for each N (*jobs*):

- *served* (s): from the call of ``client.inpaint`` to its picture, median of all requests. *makespan*: from the first
  call to the last picture.
- *bare* (s): the sum of the graphs' own calls; *served / bare*: the makespan over it.
- the parts of *served*, means in ms: *client* (the client's own work and the network), *preprocess*, *encode* (text and
  picture encoders), *wait* (until its first step), *unet* (the UNet model's own time, from Triton's statistics),
  *between_steps* (the rest of ``denoise``: rescheduling, assembling rows, guidance, solver), *decode*, *postprocess*,
  and *other* (handing over between the stages).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from dressform import Client
from dressform_bench import arguments, results
from dressform_bench.peers.floor import Floor
from dressform_bench.peers.request import Task, drawn_task
from dressform_bench.simulate.server import Limits
from dressform_export.errors import ExportError
from dressform_export.manifest import open_manifest
from dressform_server import Server

SETTINGS = ("engine", "steps", "repeats", "onnx_threads")
_STAGES = ("preprocess", "encode", "wait", "decode", "postprocess")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write."""
    options = _options(argv)
    manifest = open_manifest(options.repository)
    options.engine = options.engine or manifest.engine
    if options.engine not in manifest.engines:
        raise ExportError(f"{options.repository} has the engines {', '.join(manifest.engines)}, not {options.engine}")
    most = Limits.of(options.repository, options.engine).max_jobs
    if max(options.jobs) > most:
        raise ExportError(f"its server takes {most} requests at once, not {max(options.jobs)}")
    task = drawn_task(manifest.size.width, manifest.size.height, options.steps)
    floor = Floor(options.repository, options.engine)
    floor.painted(task)
    with (
        tempfile.TemporaryDirectory() as folder,
        Server(
            options.repository,
            engine=options.engine,
            onnx_threads=options.onnx_threads,
            http_port=0,
            grpc_port=0,
            metrics_port=0,
            log=Path(folder) / "log",
        ) as server,
    ):
        server.wait_ready(600)
        with Client(server.grpc_url, timeout=3600, retries=0) as client:
            together(client, task, max(options.jobs))  # warm-up
            rows = [row(client, task, jobs, floor, options.repeats) for jobs in options.jobs]
    settings = {name: getattr(options, name) for name in SETTINGS}
    size = {"height": manifest.size.height, "width": manifest.size.width}
    found = {"model": options.model or manifest.source.id, **size, "rows": rows}
    results.write({**results.header("overhead", argv, settings), **found}, options.out)
    return 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m dressform_bench.overhead",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("repository", type=Path, help="the export")
    parser.add_argument("--engine", help="of the export; default its own default")
    parser.add_argument(
        "--jobs", type=arguments.count, nargs="+", default=[1, 4, 16], help="requests at once (default 1 4 16)"
    )
    parser.add_argument("--steps", type=arguments.count, default=20, help="of each (default 20)")
    parser.add_argument("--repeats", type=arguments.count, default=5, help="of everything (default 5)")
    parser.add_argument("--onnx-threads", type=int, help="threads of ONNX Runtime in the server; default its own")
    parser.add_argument("--model", help="its name in the record; default the manifest's")
    parser.add_argument("--out", type=Path, metavar="FILE.jsonl", help="file that the record is appended to")
    return parser.parse_args(argv)


def row(client: Client, task: Task, jobs: int, floor: Floor, repeats: int) -> dict[str, Any]:
    """The figures of ``jobs`` requests at once."""
    seconds: list[float] = []
    spans: list[float] = []
    bare: list[float] = []
    parts: list[dict[str, float]] = []
    floor.seconds(jobs)  # warm-up
    for _ in range(repeats):
        bare.append(sum(floor.seconds(jobs).values()))
        before = client.stats()["unet"]
        began = time.perf_counter()
        answers = together(client, task, jobs)
        spans.append(time.perf_counter() - began)
        after = client.stats()["unet"]
        call_ms = 1000 * (after.compute_seconds - before.compute_seconds) / (after.executions - before.executions)
        seconds += [spent for spent, _ in answers]
        parts += [of_request(spent, info, call_ms) for spent, info in answers]
    usual = sorted(range(len(seconds)), key=seconds.__getitem__)[len(seconds) // 2]
    found = {
        "jobs": jobs,
        "served_seconds": round(seconds[usual], 4),
        "makespan_seconds": round(statistics.median(spans), 4),
        "bare_seconds": round(statistics.median(bare), 4),
        # Of each repeat's own pair: the machine's speed drifts between repeats.
        "served_over_bare": round(statistics.median(span / alone for span, alone in zip(spans, bare)), 3),
        "parts_ms": {name: round(value, 2) for name, value in parts[usual].items()},
    }
    print(" ".join(f"{name}={value}" for name, value in found.items()), flush=True)
    return found


def of_request(seconds: float, info: Mapping[str, Any], call_ms: float) -> dict[str, float]:
    """The parts (ms) of a request that took ``seconds``; its UNet calls took ``call_ms`` each, on average."""
    spent: Mapping[str, float] = info["milliseconds"]
    unet = min(info["steps"] * call_ms, spent["denoise"])
    parts = {"client": 1000 * seconds - spent["total"], **{name: spent[name] for name in _STAGES[:3]}}
    parts |= {"unet": unet, "between_steps": spent["denoise"] - unet, **{name: spent[name] for name in _STAGES[3:]}}
    return {**parts, "other": 1000 * seconds - sum(parts.values())}


def together(client: Client, task: Task, jobs: int) -> list[tuple[float, dict[str, Any]]]:
    """Seconds and info of ``jobs`` equal requests, sent at once."""

    def ask(seed: int) -> tuple[float, dict[str, Any]]:
        began = time.perf_counter()
        info = task.seeded(seed).asked(client).info
        return time.perf_counter() - began, info

    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(ask, range(jobs)))


if __name__ == "__main__":
    sys.exit(arguments.guarded(main))
