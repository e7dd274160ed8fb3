"""Fleets of servers under load, simulated: ``python -m dressform_bench.simulate``.

The scheduler is the code that serves (``denoise.engine`` and ``denoise.policy``); the UNet, and the work around the
denoising, take the time that a step-time model says. It is one of

- ``--repository EXPORT``: as ``dressform-export verify`` measured the export's engine (its manifest),
- ``--table FILE``: a JSON object, for a GPU say, with ``name``, ``step_seconds`` (by rows: ``{"1": 0.021, "8": 0.11}``)
  and, where they are known, ``before_seconds`` and ``after_seconds`` (work on a request before and after its
  denoising), ``answer_seconds`` (to and from the client), ``between_steps_seconds``, ``overlap`` (share of the work
  around that delays the denoiser: 0 to 1) and ``source``. A record's ``step_time_model`` is such an object,
- ``--affine A B``: a step of r rows takes A + B × r seconds, and there is nothing else,
- ``--validate EXPORT``: measured now, on this machine. The export is served on Triton, and arrivals at three rates go
  both to it and to the simulation, which must tell what it does. With ``--device A B`` its UNet sleeps for A + B × rows
  seconds instead of computing, as if on a device of its own: neighbours on this machine's cores then matter less.

Requests are those of ``dressform_bench.openloop``: six kinds or ``--steps``, Poisson arrivals, drawn ``--seeds`` times.
What the numbers mean:

- *load*: the rate asked for over the fleet's solo capacity, servers / the mean of the mix's solo times. *offered*
  (requests/s): what the schedules really held.
- *goodput* (requests/s): those answered within the SLO, ``--slo`` × the solo time of their own kind; its limit is the
  offered rate. *share*: of all; refused requests (a full server's; nobody tries another) are not within it.
- *p50, p95, p99* (s): latency of answered requests. *batch*: mean jobs in a UNet call.
- *servers needed*: the fewest, up to 256, that keep the SLO for ``--kept`` of the requests: the median over the seeds,
  with the least and the most; and of how many requests that many servers keep it, over all seeds.
- *error*: simulated / measured - 1, with step times from other arrivals than those compared; *own times*: with those
  that the server had in the very runs compared, which leaves what the simulation itself gets wrong; *spread*: two runs
  of the server with the same arrivals, higher / lower - 1, which is the machine's doing. Where a server is overloaded,
  goodput is next to nothing, and its error says little.

Simplified: pictures of one size, no deadlines, cancellations or previews; one request at a time before and after the
denoising (the server batches graphs there); no network between router and servers. ``--out`` appends the record (also
the last line of stdout) to a file.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dressform_bench import arguments, results
from dressform_bench.schedule import mix_of
from dressform_bench.simulate.events import ROUTING
from dressform_bench.simulate.fleet import Study
from dressform_bench.simulate.server import BATCHING, Limits
from dressform_bench.simulate.step_times import StepTimes, affine, read_manifest, read_table
from dressform_export.errors import ExportError

SETTINGS = ("batching", "steps", "servers", "loads", "slo", "kept", "seconds", "requests", "seed", "seeds")
"""The options that make runs comparable."""

OF_VALIDATION = ("validate_loads", "validate_seconds", "device", "pixels", "onnx_threads", "engine")
"""And those of a validation."""

MEAN_SOLOS = 50
"""Mean solo times that the arrivals of a row last, if nothing else is asked for."""


def main(argv: Sequence[str] | None = None) -> int:
    """Simulate, print, and write."""
    parser = _parser()
    options = parser.parse_args(argv)
    validation = None
    if options.device is not None and options.validate is None:
        parser.error("--device is the UNet's of --validate")
    try:
        limits = Limits.of(options.validate or options.repository, options.engine)
        if options.max_rows is not None:
            limits = replace(limits, max_rows=options.max_rows)
        if options.validate is not None:
            from dressform_bench.simulate.validation import validated  # brings the server and the client

            times, validation = validated(options.validate, options)
        else:
            times = _times(options)
        study = _study(times, limits, options)
        figures = _figures(study, options)
    except (ValueError, ExportError) as error:
        parser.error(str(error))
    options.seconds = study.seconds
    names = SETTINGS if validation is None else SETTINGS + OF_VALIDATION
    settings = {name: getattr(options, name) for name in names} | vars(limits)
    record = {
        **results.header("simulate", argv, settings),
        "model": options.model or times.name,
        "step_time_model": times.record(),
        "routing": options.routing,
        "slo": f"{options.slo:g} x the solo time of the kind",
        "solo_capacity_per_s": round(study.capacity, 4),
        **figures,
        "kept_share": options.kept,
        "validation": validation,
    }
    for row in validation or ():
        print(_validation_lines(row))
    results.write(record, options.out)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dressform_bench.simulate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--repository", type=Path, metavar="EXPORT", help="step times of its manifest")
    source.add_argument("--table", type=Path, metavar="FILE", help="step times of a JSON file")
    source.add_argument("--affine", type=float, nargs=2, metavar=("A", "B"), help="step times A + B × rows, in seconds")
    source.add_argument(
        "--validate", type=Path, metavar="EXPORT", help="step times measured on a server of it, and errors"
    )
    parser.add_argument(
        "--servers", type=arguments.count, nargs="+", default=[1, 4, 16, 64, 256], help="sizes of the fleets"
    )
    parser.add_argument(
        "--loads", type=arguments.positive, nargs="+", default=[0.5, 1, 2], help="rates / solo capacity"
    )
    parser.add_argument("--routing", choices=ROUTING, nargs="+", default=list(ROUTING), help="of requests to servers")
    parser.add_argument("--batching", choices=BATCHING, default="step", help="how the servers batch")
    parser.add_argument(
        "--rates", type=arguments.positive, nargs="*", help="requests/s to find the number of servers for"
    )
    parser.add_argument(
        "--slo", type=arguments.positive, default=2.0, help="time limit of a request / its kind's solo time"
    )
    parser.add_argument(
        "--kept", type=arguments.share, default=0.95, help="share of the requests that makes the SLO kept"
    )
    parser.add_argument(
        "--seconds",
        type=arguments.positive,
        help=f"of arrivals in a row, at least, of each seed ({MEAN_SOLOS} mean solo times)",
    )
    parser.add_argument(
        "--requests", type=arguments.count, default=1000, help="in a row, at least, of each seed (default 1000)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the arrivals, the first")
    parser.add_argument("--seeds", type=arguments.count, default=5, help="how many times they are drawn (default 5)")
    parser.add_argument(
        "--steps", type=arguments.count, nargs="+", help="of the requests, equally many of each; default the mix"
    )
    parser.add_argument("--max-rows", type=arguments.count, help="rows of a UNet call; default the export's")
    parser.add_argument("--engine", help="of the export; default its own default")
    parser.add_argument("--validate-loads", type=arguments.positive, nargs="+", default=[0.5, 1, 1.5], metavar="LOAD")
    parser.add_argument(
        "--validate-seconds", type=arguments.positive, default=60.0, help="of arrivals, for each load, twice"
    )
    parser.add_argument(
        "--device",
        type=arguments.seconds,
        nargs=2,
        metavar=("A", "B"),
        help="validate with a UNet asleep for A + B × rows s",
    )
    parser.add_argument(
        "--pixels",
        type=arguments.pixels,
        metavar="WIDTHxHEIGHT",
        help="of the pictures that validate; default the export's own size",
    )
    parser.add_argument("--onnx-threads", type=arguments.count, default=1, help="of the server that validates")
    parser.add_argument("--model", help="its name in the record")
    parser.add_argument("--out", type=Path, metavar="FILE.jsonl", help="file that the record is appended to")
    return parser


def _times(options: argparse.Namespace) -> StepTimes:
    if options.table is not None:
        return read_table(options.table)
    if options.repository is not None:
        return read_manifest(options.repository, options.engine)
    return affine(*options.affine)


def _study(times: StepTimes, limits: Limits, options: argparse.Namespace) -> Study:
    study = Study(
        times,
        limits,
        mix_of(options.steps),
        options.batching,
        options.slo,
        options.kept,
        1.0,
        options.requests,
        range(options.seed, options.seed + options.seeds),
    )
    return replace(study, seconds=options.seconds or round(MEAN_SOLOS / study.capacity, 3))


def _figures(study: Study, options: argparse.Namespace) -> dict[str, Any]:
    """The rows and the servers needed, printed as they come."""
    rates = options.rates if options.rates is not None else [count * study.capacity for count in (1, 10, 100)]
    print(
        f"{study.times.name}: {study.capacity:.4g} requests/s without batching (solo capacity of a server)", flush=True
    )
    rows, needed = [], []
    for servers in options.servers:
        for load in options.loads:
            for routing in options.routing:
                started = time.perf_counter()
                row = study.row(servers, routing, load * servers * study.capacity)
                rows.append(row | {"load": load, "simulated_in_s": round(time.perf_counter() - started, 2)})
                print(_line(rows[-1]), flush=True)
    for rate in rates:
        for routing in options.routing:
            needed.append(study.needed(rate, routing))
            print(_needed_line(needed[-1]), flush=True)
    return {"rows": rows, "servers_needed": needed}


def _line(row: Mapping[str, Any]) -> str:
    return (
        f"{row['servers']:4} servers  {row['routing']:12}  load {row['load']:<4g}  "
        f"offered {row['offered_per_s']:7.4g}/s  goodput {row['goodput_per_s']:7.4g}/s  "
        f"share {row['share_within_slo'] or 0:4.0%}  p50 {row['p50_s']} s  p95 {row['p95_s']} s  p99 {row['p99_s']} s  "
        f"batch {row['mean_batch']}  refused {row['refused']}"
    )


def _needed_line(row: Mapping[str, Any]) -> str:
    middle, low, high = ("more" if count is None else str(count) for count in (row["servers"], *row["servers_range"]))
    return (
        f"{row['offered_per_s']:10.4g} requests/s  {row['routing']:12}  needs {middle} servers ({low} to {high})  "
        f"share {row['share_within_slo']:.1%}"
    )


def _validation_lines(row: Mapping[str, Any]) -> str:
    lines = [f"load {row['load']:<4g}  rate {row['rate_per_s']:.4g}/s"]
    for name in row["error"]:
        error, own, spread = (_percent(row[key][name]) for key in ("error", "own_error", "spread"))
        figures = f"measured {row['measured'][name]}  simulated {row['simulated'][name]}"
        lines.append(f"{name:13}  {figures}  error {error}  own times {own}  spread {spread}")
    return "\n    ".join(lines)


def _percent(value: float | None) -> str:
    return "none" if value is None else f"{value:+.0%}"


if __name__ == "__main__":
    sys.exit(arguments.guarded(main))
