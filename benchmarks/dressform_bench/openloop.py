"""What rate of requests keeps the SLO, in an open loop: ``python -m dressform_bench.openloop``.

Each request is sent when it is due, whatever became of those before, and its latency counts from then: an overloaded
server cannot hide behind a client that waits for it. Requests are due in a pattern: ``poisson`` (independent of one
another), ``burst`` (eight at the same instant), ``ramp`` (the rate rises evenly to twice its mean), or as in a trace
(``--replay FILE``: JSON lines with ``at`` in seconds, or with the ``info`` of answers). The schedule (kinds, seeds,
times) is the same for all that is compared.

One export is served twice: as it is (``batching: step``, jobs join and leave at every denoising step) and with
``batching: request`` (one fixed batch at a time; whoever comes later waits until all of it is done. A job of the batch
is answered when its own last step is done, which is kinder than padding all to the longest). Both are up all the time
and take turns; one alone is ever under load. After the rates that are asked for, the highest that keeps the SLO is
looked for by bisection, for each of them. A row's arrivals last ``--seconds``, and for as many ``--requests``; those
due while the server fills (twice the longest SLO, at the start) are made and not counted.

What the numbers mean, for each mode and offered rate:

- *offered* (requests/s): what the schedule really held. *load*: the rate asked of it, over the solo capacity: that of a
  server that does one request at a time with no gap, 1 / the mean of the mix's solo times (measured at the start, each
  after a pause). It is the limit without batching.
- *goodput* (requests/s): those answered within the SLO, ``--slo`` × the solo time of their own kind. Its limit is the
  offered rate. *share*: of all offered, refusals and errors included, with its 95 % interval by Wilson (1927). The SLO
  is kept where the share is ``--kept``.
- *p50, p95, p99* (s): latency of answered requests, from when each was *due*. *slowdown*: latency over solo time.
- *batch*: mean jobs in a UNet call. *refused*: the server was full. *failed*: any other error; their text is printed.
- *interrupted*: jobs that sat out a UNet call between two steps of their own. With request-level batching it must be 0,
  or batches are not run to their end and the comparison is unfair.

Client and server share the machine; with ``--device`` the UNet sleeps instead of computing, as if it had a device of
its own (simulate.device). ``--out`` appends the record (also the last line of stdout) to a file; with
``--infos`` the answers' infos are kept for ``dressform_bench.trace``.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from PIL import Image
from tritonclient.grpc.model_config_pb2 import ModelConfig

from dressform import Client, DressformError, Options
from dressform_bench import arguments, results, trace
from dressform_bench.goodput import Outcome, kept_rate, next_load, summary
from dressform_bench.models import built
from dressform_bench.schedule import MIX, Arrival, Kind, Schedule, burst, capacity, poisson, ramp, replay
from dressform_bench.simulate.device import asleep
from dressform_server import Server

MODES = ("step", "request")
PATTERNS: Mapping[str, Schedule] = {"poisson": poisson, "burst": burst, "ramp": ramp}
MODEL = "random tiny"
SETTINGS = (
    "pattern",
    "batching",
    "slo",
    "kept",
    "seconds",
    "requests",
    "repeats",
    "pixels",
    "seed",
    "onnx_threads",
    "engine",
    "device",
)
"""The options that make runs comparable."""

THREADS = 96
"""Requests at once, at most; the server refuses beyond 32, so that these never run out."""
TIMEOUT_SECONDS = 120

IDLE_SECONDS = 0.3
"""Before a request whose solo time is taken: who arrives at an idle server finds cold caches and cores that sleep."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write; 1 if any request failed (refusals of a full server are no failure)."""
    options = _options(argv)
    with ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        repository = options.repository or built("tiny", folder, ("onnxruntime",))[1]
        clients = {mode: stack.enter_context(served(repository, mode, options)) for mode in options.batching}
        found = measured({mode: Caller(client, options.pixels) for mode, client in clients.items()}, options)
    failed = sum(row["failed"] for row in found["rows"])
    if failed:
        print(f"openloop: {failed} requests failed", file=sys.stderr)
    settings = {name: getattr(options, name) for name in SETTINGS}
    results.write({**results.header("openloop", argv, settings), "model": options.model, **found}, options.out)
    return 1 if failed else 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m dressform_bench.openloop",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--pattern", choices=PATTERNS, default="poisson", help="of the arrivals")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="a trace whose times are the pattern")
    parser.add_argument("--batching", choices=MODES, nargs="+", default=MODES, help="how the server batches")
    parser.add_argument(
        "--loads", type=arguments.positive, nargs="+", default=[0.5, 1, 1.5, 2], help="rates / solo capacity"
    )
    parser.add_argument("--refine", type=int, default=3, help="more rates tried between kept and not kept, each mode")
    parser.add_argument(
        "--slo", type=arguments.positive, default=2.0, help="time limit of a request / its kind's solo time"
    )
    parser.add_argument(
        "--kept", type=arguments.share, default=0.95, help="share of the requests that makes the SLO kept"
    )
    parser.add_argument(
        "--seconds", type=arguments.positive, default=30, help="of arrivals, for each mode and load, at least"
    )
    parser.add_argument("--requests", type=arguments.count, default=200, help="in them, about, at least (default 200)")
    parser.add_argument("--repeats", type=arguments.count, default=2, help="parts, by turns, each with other arrivals")
    parser.add_argument("--pixels", type=arguments.count, default=64, help="side of the pictures")
    parser.add_argument("--seed", type=int, default=0, help="of the arrivals")
    parser.add_argument("--onnx-threads", type=int, default=1, help="threads of ONNX Runtime (1: a core for the rest)")
    parser.add_argument("--repository", type=Path, help="an export to serve, instead of a tiny random pipeline's")
    parser.add_argument("--engine", help="of the export; default its own default")
    parser.add_argument(
        "--device", type=float, nargs=2, metavar=("A", "B"), help="a UNet asleep for A + B × rows s, as on a GPU"
    )
    parser.add_argument("--folder", type=Path, help="keep the tiny export here for the next run")
    parser.add_argument("--model", default=MODEL, help="its name in the record")
    parser.add_argument("--infos", type=Path, metavar="FOLDER", help="folder for the answers' infos, a file a mode")
    parser.add_argument("--out", type=Path, metavar="FILE.jsonl", help="file that the record is appended to")
    options = parser.parse_args(argv)
    options.schedule = PATTERNS[options.pattern]
    if options.replay is not None:
        options.pattern, options.schedule = "replay", replay(trace_times(options.replay.read_text().splitlines()))
    return options


def trace_times(lines: Sequence[str]) -> list[float]:
    """The seconds at which the requests of a trace arrived, the first at 0.

    Raises:
        ValueError: at a line that has neither ``at`` nor an ``info`` with ``arrived_ns``.
    """
    times = []
    for number, line in enumerate(lines, 1):
        entry = json.loads(line)
        if "at" in entry:
            times.append(float(entry["at"]))
        elif "arrived_ns" in entry.get("info", entry):
            times.append(entry.get("info", entry)["arrived_ns"] / 1e9)
        else:
            raise ValueError(f"line {number} of the trace has neither at nor an info: {line[:80]}")
    return [at - min(times) for at in sorted(times)]


@contextmanager
def served(repository: Path, mode: str, options: argparse.Namespace) -> Iterator[Client]:
    """A client of a server of a copy of ``repository``, on ``options.device``, that batches as ``mode`` says."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "repository"
        if options.device is None:
            shutil.copytree(repository, copy)
        else:
            asleep(repository, copy, *options.device)
        _set_batching(copy / "denoise" / "config.pbtxt", mode)
        log = Path(folder) / "log"
        with Server(
            copy,
            engine=options.engine,
            onnx_threads=options.onnx_threads,
            http_port=0,
            grpc_port=0,
            metrics_port=0,
            log=log,
        ) as server:
            server.wait_ready(600)
            with Client(server.grpc_url, timeout=TIMEOUT_SECONDS, retries=0) as client:
                yield client


def _set_batching(path: Path, mode: str) -> None:
    config = text_format.Parse(path.read_text(), ModelConfig())
    config.parameters["batching"].string_value = mode
    path.write_text(text_format.MessageToString(config))


class Caller:
    """Sends requests of a kind to one server: one small picture and mask, encoded once."""

    def __init__(self, client: Client, pixels: int) -> None:
        """``pixels`` is the side of the pictures."""
        self._client, self._pixels = client, pixels
        self._picture = _png(Image.linear_gradient("L").resize((pixels, pixels)).convert("RGB"))
        self._mask = _png(Image.new("L", (pixels, pixels), 255))

    def __call__(self, kind: Kind, seed: int) -> dict[str, Any]:
        """The answer's info."""
        options: Options = {
            "num_inference_steps": kind.steps,
            "solver": kind.solver,
            "guidance_scale": kind.guidance_scale,
            "height": self._pixels,
            "width": self._pixels,
            "composite": "none",
            "seed": seed,
        }
        return self._client.inpaint(self._picture, self._mask, "a red woollen coat", **options).info

    def timed(self, kind: Kind) -> float:
        """Seconds of one request."""
        started = time.perf_counter()
        self(kind, 0)
        return time.perf_counter() - started

    def together(self, kind: Kind, count: int) -> None:
        """``count`` requests at once, all answered."""
        with ThreadPoolExecutor(count) as pool:
            list(pool.map(lambda seed: self(kind, seed), range(count)))


def _png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def measured(callers: Mapping[str, Caller], options: argparse.Namespace) -> dict[str, Any]:
    """The figures: warm up, solo times, then every load in both modes by turns, then those between."""
    for caller in callers.values():
        for count in (1, 2, 4, 8, 16):
            caller.together(MIX[1], count)
    solos = solo_times(callers)
    solo = {kind: statistics.median(seconds for mode in callers for seconds in solos[mode][kind]) for kind in MIX}
    limit = capacity(solo)
    settle = 2 * options.slo * max(solo.values())
    print(f"limit without batching: {limit:.2f} requests/s (solo capacity)", flush=True)

    def rows_of(loads: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
        outcomes = alternated(callers, loads, limit, settle, options)
        rows = []
        for (mode, load), found in outcomes.items():
            figures = summary(found, solo, options.slo, lasting(load * limit, options) * options.repeats)
            infos = [one.info for one in found if one.info is not None]
            figures["interrupted"] = trace.interrupted(trace.rows(infos))
            rows.append({"mode": mode, "load": load, **figures})
            print(_line(rows[-1]), flush=True)
        return rows

    rows = rows_of(dict.fromkeys(callers, options.loads))
    for _ in range(options.refine):
        between = {mode: next_load([row for row in rows if row["mode"] == mode], options.kept) for mode in callers}
        rows += rows_of({mode: [load] for mode, load in between.items() if load is not None})
    return {
        "pattern": options.pattern,
        "slo": f"{options.slo:g} x the solo time of the kind",
        "solo_capacity_per_s": round(limit, 3),
        "kinds": [_kind_row(kind, solos, options.slo * solo[kind]) for kind in MIX],
        "rows": rows,
        "kept_share": options.kept,
        "slo_rate_per_s": {
            mode: kept_rate([row for row in rows if row["mode"] == mode], options.kept) for mode in callers
        },
    }


def lasting(rate: float, options: argparse.Namespace) -> float:
    """Seconds of counted arrivals at ``rate`` (1/s), in each repeat."""
    return float(max(options.seconds, options.requests / rate) / options.repeats)


def solo_times(callers: Mapping[str, Caller], repeats: int = 7) -> dict[str, dict[Kind, list[float]]]:
    """Seconds of each kind of request alone on a server that was idle for `IDLE_SECONDS`, by turns on both."""
    times: dict[str, dict[Kind, list[float]]] = {mode: {kind: [] for kind in MIX} for mode in callers}
    for _ in range(repeats):
        for kind in MIX:
            for mode, caller in callers.items():
                time.sleep(IDLE_SECONDS)
                times[mode][kind].append(caller.timed(kind))
    return times


def _kind_row(kind: Kind, solos: Mapping[str, Mapping[Kind, Sequence[float]]], limit: float) -> dict[str, Any]:
    return {
        "kind": kind.name,
        "weight": kind.weight,
        "solo_ms": {mode: round(1000 * statistics.median(found[kind]), 1) for mode, found in solos.items()},
        "slo_ms": round(1000 * limit, 1),
    }


def alternated(
    callers: Mapping[str, Caller],
    loads: Mapping[str, Sequence[float]],
    limit: float,
    settle: float,
    options: argparse.Namespace,
) -> dict[tuple[str, float], list[Outcome]]:
    """The outcomes of every mode's loads, all repeats together; modes take turns, and turns in who begins.

    Those of the first ``settle`` seconds are left out.
    """
    places = max(map(len, loads.values()), default=0)
    pairs = [(mode, loads[mode][place]) for place in range(places) for mode in loads if place < len(loads[mode])]
    outcomes: dict[tuple[str, float], list[Outcome]] = {pair: [] for pair in pairs}
    with ExitStack() as stack:
        kept = {}
        if options.infos is not None:
            options.infos.mkdir(parents=True, exist_ok=True)
            kept = {mode: stack.enter_context((options.infos / f"{mode}.jsonl").open("a")) for mode in callers}
        for repeat in range(options.repeats):
            for mode, load in pairs if repeat % 2 == 0 else pairs[::-1]:
                seconds = settle + lasting(load * limit, options)
                schedule = options.schedule(load * limit, seconds, MIX, options.seed + repeat)
                found = [one for one in offered(callers[mode], schedule) if one.due >= settle]
                outcomes[mode, load] += found
                _show_errors(mode, load, found)
                for one in found if kept else ():
                    if one.info is not None:
                        kept[mode].write(json.dumps({"load": load, "repeat": repeat, "info": one.info}) + "\n")
    return outcomes


def offered(caller: Caller, schedule: Sequence[Arrival]) -> list[Outcome]:
    """Send each arrival when it is due, wait for all, and say what became of them."""
    start = time.monotonic() + 0.1

    def send(arrival: Arrival) -> Outcome:
        sent = time.monotonic() - start
        try:
            info, error, sentence = caller(arrival.kind, arrival.seed), "", ""
        except DressformError as problem:
            info, error, sentence = None, type(problem).__name__, problem.sentence
        return Outcome(arrival.kind, arrival.at, sent, time.monotonic() - start, error, sentence, info)

    with ThreadPoolExecutor(THREADS) as pool:
        futures = []
        for arrival in schedule:
            time.sleep(max(0.0, start + arrival.at - time.monotonic()))
            futures.append(pool.submit(send, arrival))
        return [future.result() for future in futures]


def _show_errors(mode: str, load: float, outcomes: Sequence[Outcome]) -> None:
    """One line for each class of failure, with the first one's words."""
    first = {one.error: one.sentence for one in reversed(outcomes) if one.error}
    for error, sentence in first.items():
        count = sum(one.error == error for one in outcomes)
        print(f"{mode} at load {load:g}: {count} of {len(outcomes)} {error}: {sentence}", file=sys.stderr, flush=True)


def _line(row: Mapping[str, Any]) -> str:
    return (
        f"load {row['load']:<4g} {row['mode']:7} offered {row['offered_per_s']:6.2f}/s  goodput "
        f"{row['goodput_per_s']:6.2f}/s  share {row['share_within_slo'] or 0:4.0%} of {row['offered']}  "
        f"p50 {row['p50_s']} s  p95 {row['p95_s']} s  p99 {row['p99_s']} s  slowdown p95 {row['p95_slowdown']}  "
        f"batch {row['mean_batch']}  refused {row['refused']}  failed {row['failed']}  "
        f"interrupted {row['interrupted']}"
    )


if __name__ == "__main__":
    sys.exit(arguments.guarded(main))
