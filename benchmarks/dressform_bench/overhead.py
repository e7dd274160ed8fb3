"""Where each millisecond of a request goes: ``python -m dressform_bench.overhead REPOSITORY``.

Serves an export and sends N equal requests at once. Beside it, in this process and by turns with the server, the same
graphs are called as one engine would with nothing around them: every call of one picture's trajectory, with N times its
rows, as far as the server would put them into one call. That is the floor of what is served.

What the numbers mean, for each N (*jobs*):

- *served* (s): from the call of ``client.inpaint`` to its picture, mean of all requests. *makespan*: from the first
  call to the last picture, median of the repeats.
- *bare* (s): the sum of the graphs' own calls, median of the repeats; *served / bare*: the makespan over it, median of
  the repeats' own pairs.
- the parts of *served*, means in ms. *client*: its own work, encoding pictures and decoding the answer. *transfer*:
  from there to the first stage and back, which is the network and Triton's front end. *preprocess*, *postprocess*:
  these stages. *encode*, *unet*, *decode*: inside the graphs' models (of the two encoders, which run side by side, the
  longer), from Triton's statistics. *wait*: in the graphs' queues, and before the first step. *between_steps*: the rest
  of ``denoise``: rescheduling, assembling rows, guidance, solver. *handing_over*: the rest, from stage to stage.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dressform import Client
from dressform.requests import Request
from dressform.results import Outputs
from dressform.status import ModelStatistics
from dressform.transports import Address, Settings
from dressform.transports.grpc import GrpcTransport
from dressform_bench import arguments, results
from dressform_bench.crowd import together
from dressform_bench.peers.floor import Floor
from dressform_bench.peers.request import Task, drawn_task
from dressform_bench.simulate.server import Limits
from dressform_export.errors import ExportError
from dressform_export.manifest import open_manifest
from dressform_server import Server

SETTINGS = ("engine", "steps", "repeats", "onnx_threads")
ENCODERS = ("text_encoder", "vae_encoder")
"""They run side by side."""
DECODERS = ("vae_decoder", "safety_checker")
"""They run one after the other."""


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
        transport = TimedTransport(Address.parse(server.grpc_url), Settings())
        with Client(server.grpc_url, timeout=3600, retries=0, transport=transport) as client:
            asked(client, transport, task, max(options.jobs))  # warm-up
            rows = [row(client, transport, task, jobs, floor, options.repeats) for jobs in options.jobs]
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


class TimedTransport(GrpcTransport):
    """Tells how long each request was out of the client's hands."""

    def __init__(self, address: Address, settings: Settings) -> None:
        super().__init__(address, settings)
        self.seconds: dict[str, float] = {}

    def infer(self, request: Request) -> Outputs:
        """See `Transport`."""
        began = time.perf_counter()
        outputs = super().infer(request)
        self.seconds[request.id] = time.perf_counter() - began
        return outputs


@dataclass(frozen=True)
class Answer:
    """Of one request: seconds of the call, those of them out of the client's hands, and the answer's info."""

    seconds: float
    away: float
    info: Mapping[str, Any]


def row(client: Client, transport: TimedTransport, task: Task, jobs: int, floor: Floor, repeats: int) -> dict[str, Any]:
    """The figures of ``jobs`` requests at once."""
    answers: list[Answer] = []
    spans: list[float] = []
    bare: list[float] = []
    asked(client, transport, task, jobs)  # warm-up
    floor.seconds(jobs)
    before = client.stats()
    for _ in range(repeats):
        bare.append(sum(floor.seconds(jobs).values()))
        began = time.perf_counter()
        answers += asked(client, transport, task, jobs)
        spans.append(time.perf_counter() - began)
    parts = parts_of(answers, before, client.stats())
    found = {
        "jobs": jobs,
        "served_seconds": round(statistics.mean(answer.seconds for answer in answers), 4),
        "makespan_seconds": round(statistics.median(spans), 4),
        "bare_seconds": round(statistics.median(bare), 4),
        # Of each repeat's own pair: the machine's speed drifts between repeats.
        "served_over_bare": round(statistics.median(span / alone for span, alone in zip(spans, bare)), 3),
        "parts_ms": {name: round(value, 2) for name, value in parts.items()},
    }
    print(" ".join(f"{name}={value}" for name, value in found.items()), flush=True)
    return found


def parts_of(
    answers: Sequence[Answer], before: Mapping[str, ModelStatistics], after: Mapping[str, ModelStatistics]
) -> dict[str, float]:
    """The parts (ms) of the mean request among ``answers``, which are all that came between the two statistics."""

    def mean(value: Callable[[Answer], float]) -> float:
        return statistics.mean(map(value, answers))

    def spent(stage: str) -> float:
        return mean(lambda answer: answer.info["milliseconds"][stage])

    def of_model(name: str, kind: str) -> float:
        """Milliseconds of one request in a model."""
        if name not in after:
            return 0.0
        count = after[name].succeeded - before[name].succeeded
        return 1000 * (getattr(after[name], kind) - getattr(before[name], kind)) / count if count else 0.0

    encoder = max(ENCODERS, key=lambda name: of_model(name, "queue_seconds") + of_model(name, "compute_seconds"))
    queues = of_model(encoder, "queue_seconds") + sum(of_model(name, "queue_seconds") for name in DECODERS)
    # A step is one request of the UNet for all jobs in it: each of them waits for as many as it has steps.
    unet = min(mean(lambda answer: answer.info["steps"]) * of_model("unet", "compute_seconds"), spent("denoise"))
    parts = {
        "client": 1000 * mean(lambda answer: answer.seconds - answer.away),
        "transfer": 1000 * mean(lambda answer: answer.away) - spent("total"),
        "preprocess": spent("preprocess"),
        "encode": of_model(encoder, "compute_seconds"),
        "wait": spent("wait") + queues,
        "unet": unet,
        "between_steps": spent("denoise") - unet,
        "decode": sum(of_model(name, "compute_seconds") for name in DECODERS),
        "postprocess": spent("postprocess"),
    }
    return {**parts, "handing_over": 1000 * mean(lambda answer: answer.seconds) - sum(parts.values())}


def asked(client: Client, transport: TimedTransport, task: Task, jobs: int) -> list[Answer]:
    """The answers to ``jobs`` equal requests, sent at once."""

    def ask(seed: int) -> Answer:
        began = time.perf_counter()
        result = task.seeded(seed).asked(client)
        return Answer(time.perf_counter() - began, transport.seconds.pop(result.request_id), result.info)

    return together(jobs, ask)


if __name__ == "__main__":
    sys.exit(arguments.guarded(main))
