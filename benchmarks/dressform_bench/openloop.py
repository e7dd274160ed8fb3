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
looked for, for each of them: below the lowest where even that does not keep it, then ``--refine`` times between what
is kept and what is not. A row's arrivals last ``--seconds``, and for as many ``--requests``; those due while the server
fills (twice the longest SLO, at the start) are made and not counted. Requests are a mix of six kinds from 4 to 50
steps, or, with ``--steps``, guided ones of these numbers of steps.

What the numbers mean, for each mode and offered rate:

- *offered* (requests/s): what the schedule really held. *load*: the rate asked of it, over the solo capacity: that of a
  server that does one request at a time with no gap, 1 / the mean of the mix's solo times (measured at the start, each
  after a pause). It is the limit without batching.
- *goodput* (requests/s): those answered within the SLO, ``--slo`` × the solo time of their own kind. Its limit is the
  offered rate. *share*: of all offered, refusals and errors included, with its 95 % interval by Wilson (1927). The SLO
  is kept where the share is ``--kept``.
- *p50, p95, p99* (s): latency of answered requests, from when each was *due*. *slowdown*: latency over solo time.
- *batch*: mean jobs in a UNet call. *refused*: the server was full. *failed*: any other error; their text is printed.
- *sat out*: jobs that sat out a UNet call between two steps of their own. With request-level batching it must be 0,
  or batches are not run to their end and the comparison is unfair.

Client and server share the machine; with ``--device`` the UNet sleeps instead of computing, as if it had a device of
its own (simulate.device). ``--out`` appends the record (also the last line of stdout) to a file; with ``--infos`` the
answers' infos are kept for ``dressform_bench.trace``. After Ctrl-C the record holds what was measured until then,
marked ``"interrupted": true``, and the exit code is 130.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from PIL import Image

from dressform import Client, DressformError
from dressform.options import Keywords
from dressform_bench import arguments, results, trace
from dressform_bench.crowd import together
from dressform_bench.goodput import Outcome, bracket, next_load, summary
from dressform_bench.models import built
from dressform_bench.schedule import Arrival, Kind, Schedule, burst, capacity, mix_of, poisson, ramp, replay
from dressform_bench.simulate.device import asleep
from dressform_bench.simulate.server import BATCHING
from dressform_export.manifest import Manifest, open_manifest
from dressform_export.repository import CONFIG
from dressform_export.triton_config import config_text, read_config
from dressform_server import Server

PATTERNS: Mapping[str, Schedule] = {"poisson": poisson, "burst": burst, "ramp": ramp}
MODEL = "random tiny"
SETTINGS = (
    "pattern",
    "replay",
    "batching",
    "steps",
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
"""Requests at once, at most; the server refuses beyond `FULL`, so that these never run out."""

FULL = 32
"""Requests that a server takes at once."""

ALONE_SECONDS = 3600
"""Time-out of a request alone, whose solo time is not known yet."""
LEAST_TIMEOUT_SECONDS = 120

IDLE_SECONDS = 0.3
"""Before a request whose solo time is taken: who arrives at an idle server finds cold caches and cores that sleep."""

SOLO_REPEATS, SOLO_SECONDS = 7, 120
"""How often solo times are taken, unless one round of them takes longer than so many seconds."""

WARM_UP_SECONDS = 30
"""Of requests together, at most, before anything is measured."""

LEAST_LOAD = 1 / 4
"""Of the lowest load asked for: below it no rate that keeps the SLO is looked for (each takes twice as long)."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write; 1 if any request failed (refusals of a full server are no failure)."""
    options = _options(argv)
    with ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        repository = options.repository or built("tiny", folder, ("onnxruntime",))[1]
        manifest = left_to_the_export(options, repository)
        clients = {mode: stack.enter_context(served(repository, mode, options)) for mode in options.batching}
        found = measured({mode: Caller(client, options.pixels) for mode, client in clients.items()}, options)
    failed = sum(row["failed"] for row in found["rows"])
    if failed:
        print(f"openloop: {failed} requests failed", file=sys.stderr)
    settings = {name: getattr(options, name) for name in SETTINGS}
    source = MODEL if options.repository is None else manifest.source.id
    model = options.model or source + asleep_words(options.device)
    results.write({**results.header("openloop", argv, settings), "model": model, **found}, options.out)
    return arguments.INTERRUPTED if found.get("interrupted") else 1 if failed else 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m dressform_bench.openloop",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--pattern", choices=PATTERNS, default="poisson", help="of the arrivals")
    parser.add_argument("--replay", metavar="FILE", help="a trace whose times are the pattern")
    parser.add_argument("--batching", choices=BATCHING, nargs="+", default=BATCHING, help="how the server batches")
    parser.add_argument(
        "--steps", type=arguments.count, nargs="+", help="of the requests, equally many of each; default the mix"
    )
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
    parser.add_argument(
        "--pixels", type=arguments.pixels, metavar="WIDTHxHEIGHT", help="of the pictures; default the export's own size"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the arrivals")
    parser.add_argument("--onnx-threads", type=int, default=1, help="threads of ONNX Runtime (1: a core for the rest)")
    parser.add_argument("--repository", type=Path, help="an export to serve, instead of a tiny random pipeline's")
    parser.add_argument("--engine", help="of the export; default its own default")
    parser.add_argument(
        "--device",
        type=arguments.seconds,
        nargs=2,
        metavar=("A", "B"),
        help="a UNet asleep for A + B × rows s, as on a GPU",
    )
    parser.add_argument("--folder", type=Path, help="keep the tiny export here for the next run")
    parser.add_argument("--model", help="its name in the record; default what the manifest says")
    parser.add_argument("--infos", type=Path, metavar="FOLDER", help="folder for the answers' infos, a file a mode")
    parser.add_argument("--out", type=Path, metavar="FILE.jsonl", help="file that the record is appended to")
    options = parser.parse_args(argv)
    options.schedule = PATTERNS[options.pattern]
    if options.replay is not None:
        try:
            lines = Path(options.replay).read_text(encoding="utf-8").splitlines()
            options.pattern, options.schedule = "replay", replay(trace_times(lines))
        except (ValueError, OSError) as error:
            parser.error(f"argument --replay: {error}")
    return options


def left_to_the_export(options: argparse.Namespace, repository: Path) -> Manifest:
    """The manifest of ``repository``, with what ``options`` leave to it: the engine, and the size of the pictures.

    Raises:
        ExportError: if it is no export, or has no such engine.
    """
    manifest = open_manifest(repository)
    options.engine = options.engine or manifest.engine
    manifest.require_engines(repository, [options.engine])
    options.pixels = options.pixels or (manifest.size.width, manifest.size.height)
    return manifest


def asleep_words(device: Sequence[float] | None) -> str:
    """What a model's name says of a UNet that sleeps."""
    return "" if device is None else ", its UNet asleep for {:g} + {:g} × rows ms".format(*(1000 * s for s in device))


def trace_times(lines: Sequence[str]) -> list[float]:
    """The seconds at which the requests of a trace arrived, the first at 0.

    Raises:
        ValueError: at a line that has neither ``at`` nor an ``info`` with ``arrived_ns``.
    """
    times = []
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            at = float(entry["at"] if "at" in entry else entry.get("info", entry)["arrived_ns"] / 1e9)
        except (ValueError, KeyError, TypeError, AttributeError):
            at = math.nan
        if not math.isfinite(at):
            raise ValueError(f"line {number} of the trace has neither at nor an info: {line[:80]}")
        times.append(at)
    first = min(times, default=0.0)
    return [at - first for at in sorted(times)]


@contextmanager
def served(repository: Path, mode: str, options: argparse.Namespace) -> Iterator[Client]:
    """A client of a server of a copy of ``repository``, on ``options.device``, that batches as ``mode`` says."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "repository"
        if options.device is None:
            shutil.copytree(repository, copy)
        else:
            asleep(repository, copy, *options.device)
        _set_batching(copy / "denoise", mode)
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
            with Client(server.grpc_url, retries=0) as client:
                yield client


def _set_batching(denoise: Path, mode: str) -> None:
    """In all of its configs: an engine may have one of its own."""
    for path in (denoise / CONFIG, *denoise.glob("configs/*.pbtxt")):
        config = read_config(path)
        config.parameters["batching"].string_value = mode
        path.write_text(config_text(config, f"{mode} batching", "dressform bench openloop"), encoding="utf-8")


class Caller:
    """Sends requests of a kind to one server: one picture and mask, encoded once.

    ``timeout`` is for each, in seconds; who knows how long a request takes may set it.
    """

    def __init__(self, client: Client, pixels: tuple[int, int]) -> None:
        """``pixels`` are the pictures' width and height."""
        self.timeout: float = ALONE_SECONDS
        self._client, self._pixels = client, pixels
        self._picture = _png(Image.linear_gradient("L").resize(pixels).convert("RGB"))
        self._mask = _png(Image.new("L", pixels, 255))

    def __call__(self, kind: Kind, seed: int) -> dict[str, Any]:
        """The answer's info."""
        width, height = self._pixels
        keywords: Keywords = {
            "num_inference_steps": kind.steps,
            "solver": kind.solver,
            "guidance_scale": kind.guidance_scale,
            "height": height,
            "width": width,
            "composite": "none",
            "seed": seed,
            "timeout": self.timeout,
        }
        return self._client.inpaint(self._picture, self._mask, "a red woollen coat", **keywords).info

    def timed(self, kind: Kind) -> float:
        """Seconds of one request."""
        started = time.perf_counter()
        self(kind, 0)
        return time.perf_counter() - started

    def warm_up(self, mix: Sequence[Kind]) -> None:
        """Batches of the shortest kind, up to 16 jobs, as far as they are expected to end in `WARM_UP_SECONDS`."""
        kind = min(mix, key=lambda kind: kind.steps)
        self(kind, 0)
        alone = self.timed(kind)
        for count in (2, 4, 8, 16):
            if count * alone < WARM_UP_SECONDS:
                together(count, lambda seed: self(kind, seed))

    def patient(self, longest: float) -> None:
        """Wait for the last of a full server's requests that take ``longest`` seconds alone, twice over."""
        self.timeout = max(LEAST_TIMEOUT_SECONDS, 2 * FULL * longest)


def _png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def measured(callers: Mapping[str, Caller], options: argparse.Namespace) -> dict[str, Any]:
    """The figures: warm up, solo times, then every load in both modes by turns, then those between."""
    mix = mix_of(options.steps)
    for caller in callers.values():
        caller.warm_up(mix)
    solos = solo_times(callers, mix)
    solo = {kind: statistics.median(seconds for mode in callers for seconds in solos[mode][kind]) for kind in mix}
    for caller in callers.values():
        caller.patient(max(solo.values()))
    interrupted = {}
    with ExitStack() as stack:
        infos = {}
        if options.infos is not None:
            options.infos.mkdir(parents=True, exist_ok=True)
            infos = {mode: stack.enter_context((options.infos / f"{mode}.jsonl").open("w")) for mode in callers}
        search = Search(callers, options, solo, infos)
        print(f"limit without batching: {search.limit:.2f} requests/s (solo capacity)", flush=True)
        try:
            search.run()
        except KeyboardInterrupt:
            arguments.tell_interrupted()
            interrupted = {"interrupted": True}
    return {
        "pattern": options.pattern,
        "slo": f"{options.slo:g} x the solo time of the kind",
        "solo_capacity_per_s": round(search.limit, 4),
        "kinds": [_kind_row(kind, solos, options.slo * solo[kind]) for kind in mix],
        "rows": [row for mode in callers for row in search.rows(mode)],
        "kept_share": options.kept,
        "slo_rate_per_s": {mode: bracket(search.rows(mode), options.kept)[0] for mode in callers},
        **interrupted,
    }


@dataclass
class Search:
    """The loads that were tried, in each mode, and the outcomes of each: a list for every repeat that was made."""

    callers: Mapping[str, Caller]
    options: argparse.Namespace
    solo: Mapping[Kind, float]
    infos: Mapping[str, TextIO]
    outcomes: dict[tuple[str, float], list[list[Outcome]]] = field(default_factory=dict)

    @property
    def limit(self) -> float:
        """The solo capacity (1/s)."""
        return capacity(self.solo)

    def run(self) -> None:
        """The loads that are asked for, then those below them or between, until it is known what keeps the SLO."""
        self._offer(dict.fromkeys(self.callers, self.options.loads))
        left = dict.fromkeys(self.callers, max(0, self.options.refine))
        while any(left.values()):
            tried: dict[str, list[float]] = {}
            for mode in self.callers:
                rows = self.rows(mode)
                load = next_load(rows, self.options.kept)
                if load is None or load < LEAST_LOAD * min(self.options.loads):
                    left[mode] = 0
                if load is not None and left[mode]:
                    tried[mode] = [load]
                    left[mode] -= bracket(rows, self.options.kept)[0] > 0  # who keeps none goes on down
            self._offer(tried)

    def rows(self, mode: str) -> list[dict[str, Any]]:
        """The figures of each load of ``mode`` that was tried."""
        return [self._row(mode, load) for one, load in self.outcomes if one == mode]

    def _row(self, mode: str, load: float) -> dict[str, Any]:
        parts = self.outcomes[mode, load]
        found = [one for part in parts for one in part]
        figures = summary(found, self.solo, self.options.slo, self._seconds(load) * len(parts))
        infos = [one.info for one in found if one.info is not None]
        return {"mode": mode, "load": load, **figures, "sat_out": trace.interrupted(trace.rows(infos))}

    def _seconds(self, load: float) -> float:
        """Of counted arrivals, in each repeat."""
        return float(max(self.options.seconds, self.options.requests / (load * self.limit)) / self.options.repeats)

    def _offer(self, loads: Mapping[str, Sequence[float]]) -> None:
        """Every mode's loads, all repeats; modes take turns, and turns in who begins."""
        places = max(map(len, loads.values()), default=0)
        pairs = [(mode, loads[mode][place]) for place in range(places) for mode in loads if place < len(loads[mode])]
        settle = 2 * self.options.slo * max(self.solo.values())
        schedules = {
            (load, repeat): self._schedule(load, settle + self._seconds(load), repeat)
            for _, load in pairs
            for repeat in range(self.options.repeats)
        }
        for repeat in range(self.options.repeats):
            for mode, load in pairs if repeat % 2 == 0 else pairs[::-1]:
                made = offered(self.callers[mode], schedules[load, repeat])
                found = [one for one in made if one.due >= settle]
                self.outcomes.setdefault((mode, load), []).append(found)
                _show_errors(mode, load, found)
                for one in found if self.infos else ():
                    if one.info is not None:
                        self.infos[mode].write(json.dumps({"load": load, "repeat": repeat, "info": one.info}) + "\n")
        for pair in pairs:
            print(_line(self._row(*pair)), flush=True)

    def _schedule(self, load: float, seconds: float, repeat: int) -> tuple[Arrival, ...]:
        options = self.options
        try:
            made: tuple[Arrival, ...] = options.schedule(
                load * self.limit, seconds, list(self.solo), options.seed + repeat
            )
        except ValueError as error:
            raise arguments.Unusable(f"load {load:g}: {error}") from error
        return made


def solo_times(callers: Mapping[str, Caller], mix: Sequence[Kind]) -> dict[str, dict[Kind, list[float]]]:
    """Seconds of each kind of request alone on a server that was idle for `IDLE_SECONDS`, by turns on all."""
    times: dict[str, dict[Kind, list[float]]] = {mode: {kind: [] for kind in mix} for mode in callers}
    end = time.monotonic() + SOLO_SECONDS
    for repeat in range(SOLO_REPEATS):
        if repeat and time.monotonic() > end:
            break
        for kind in mix:
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

    pool = ThreadPoolExecutor(THREADS)
    try:
        futures = []
        for arrival in schedule:
            time.sleep(max(0.0, start + arrival.at - time.monotonic()))
            futures.append(pool.submit(send, arrival))
        return [future.result() for future in futures]
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # after Ctrl-C those in flight end with the server


def _show_errors(mode: str, load: float, outcomes: Sequence[Outcome]) -> None:
    """One line for each class of failure, with the first one's words."""
    first = {one.error: one.sentence for one in reversed(outcomes) if one.error}
    for error, sentence in first.items():
        count = sum(one.error == error for one in outcomes)
        print(f"{mode} at load {load:g}: {count} of {len(outcomes)} {error}: {sentence}", file=sys.stderr, flush=True)


def _line(row: Mapping[str, Any]) -> str:
    return (
        f"load {row['load']:<6.3g} {row['mode']:7} offered {row['offered_per_s']:7.4g}/s  goodput "
        f"{row['goodput_per_s']:7.4g}/s  share {row['share_within_slo'] or 0:4.0%} of {row['offered']}  "
        f"p50 {row['p50_s']} s  p95 {row['p95_s']} s  p99 {row['p99_s']} s  slowdown p95 {row['p95_slowdown']}  "
        f"batch {row['mean_batch']}  refused {row['refused']}  failed {row['failed']}  "
        f"sat out {row['sat_out']}"
    )


if __name__ == "__main__":
    sys.exit(arguments.guarded(main))
