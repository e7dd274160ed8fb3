"""The same pictures by others and by us, on this machine: ``python -m dressform_bench.peers``.

Same weights, picture, mask, prompt, seeds, solver and steps. Each peer runs alone in a process of its own, one after
the other, in as many rounds as asked for, every second one backwards, so that a drift of the machine falls on all
alike; the median counts.

- ``diffusers-fp32``, ``diffusers-bf16``, ``diffusers-compile``: diffusers' pipeline, eager or through torch.compile;
  on a GPU ``diffusers-fp16`` and ``diffusers-fp16-compile``
- ``optimum``: optimum's ONNX Runtime pipeline (``ORTStableDiffusionInpaintPipeline``)
- ``optimum-intel``: optimum-intel's OpenVINO pipeline. It needs another optimum than ours, so an environment of its
  own is made for it in ``--folder`` (by uv), unless ``--python optimum-intel=PATH`` names one
- ``served:ENGINE``: the export on Triton, through the client
- ``bare:ENGINE``: the sum of that engine's own calls (UNet, VAE, text encoder) without anything around them, each with
  the rows of all users, as far as its server would put them into one call: the limit of what is served

Each row, for one user and for eight that ask at once: seconds of a picture (of a round over its pictures), times as
fast as the first peer, pictures a minute, seconds to the first picture (loading, and a picture of one step; not of
``bare``), peak memory of all its processes (the sum of their own peaks, in which what they share counts for each; not
a GPU's), PSNR to the picture of ``diffusers-fp32``. A pipeline in a process paints for one user after the other; what
is served batches them.

Beside it the limit: the floating-point operations of a picture, counted at export, over the rate of a product of two
large matrices by the fastest of the libraries here, measured before the first round and after each, of which the
highest counts; in FP32 for ``fp32`` peers, else in BF16, on a GPU in FP16. (Int8 may pass that.)

With ``--device cuda`` the pipelines run on the first GPU, and of the export the engines ``cuda`` and the like.

A peer that fails is told with its error, beside the rounds before, and the exit code is 1. ``--size`` builds random
weights of that size and their export in ``--folder``, or takes the shipped model (demo); those of one's own::

    python -m dressform_bench.peers --source PIPELINE --export REPOSITORY --steps 20
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

import dressform_bench
from dressform_bench import arguments, results
from dressform_bench.models import SIZES, built
from dressform_bench.peers.environment import REQUIREMENTS, python_of
from dressform_bench.peers.floor import has_bare
from dressform_bench.peers.matrix import matrix_rate
from dressform_bench.peers.operations import operations
from dressform_bench.peers.request import REFERENCE, drawn_task, picture_file, pixels
from dressform_bench.peers.worker import KINDS, OF_AN_ENGINE
from dressform_export.engines import ENGINES
from dressform_export.fidelity import psnr
from dressform_export.manifest import Manifest, open_manifest

OTHERS = {
    "cpu": ("diffusers-fp32", "diffusers-bf16", "diffusers-compile", "optimum", "optimum-intel"),
    "cuda": ("diffusers-fp32", "diffusers-fp16", "diffusers-fp16-compile", "optimum"),
}
"""The peers by device, beside the export's engines."""

HALF = {"cpu": "bfloat16", "cuda": "float16"}
"""What a device computes in where it need not be FP32."""

FP32 = ("diffusers-fp32", "diffusers-compile", "optimum")
"""The peers without an engine of ours that compute in FP32."""

EXPORTED = {"cpu": ("onnxruntime", "openvino", "openvino-int8"), "cuda": ("cuda",)}
"""What ``--size`` exports for."""

PACKAGES = str(Path(dressform_bench.__file__).parents[1])
"""Where a Python of another environment finds the worker."""


def main(argv: list[str] | None = None) -> int:
    """Measure and print; 1 if a peer failed."""
    options = _options(argv)
    if options.source is None:
        options.source, options.export = built(options.size, options.folder, EXPORTED[options.device])
    manifest = open_manifest(options.export)
    peers = options.peers or [*OTHERS[options.device], *of_export(manifest, options.device)]
    folder = options.pictures.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    task = drawn_task(manifest.size.width, manifest.size.height, options.steps)
    task.write(folder)
    found = measured(peers, options, folder)
    limit = {"flops_per_image": operations(task, options.export, manifest), "flops_per_second": found.rates}
    rows = table(peers, found.runs, folder, options.users, limit, manifest)
    for row in rows:
        print("".join(f"{'' if value is None else value!s:>22}" for value in row.values()))
    settings = {name: getattr(options, name) for name in ("images", "rounds")}
    record = {
        **results.header("peers", argv, settings),
        "model": options.model or options.size or manifest.source.id,
        "height": manifest.size.height,
        "width": manifest.size.width,
        "steps": options.steps,
        "limit": limit,
        "rows": rows,
        "runs": found.runs,
        "errors": found.errors,
        "interrupted": found.interrupted,
    }
    results.write(record, options.out)
    return arguments.INTERRUPTED if found.interrupted else 1 if found.errors else 0


@dataclass
class Found:
    """What was measured until now: runs and errors by peer, the highest rates of a matrix product by type (FLOP/s)."""

    runs: dict[str, list[dict[str, Any]]]
    errors: dict[str, str] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    interrupted: bool = False

    def rate(self, device: str) -> None:
        """Measure the rates once more."""
        for name in ("float32", HALF[device]):
            self.rates[name] = max(self.rates.get(name, 0.0), matrix_rate(name, device))


class HalfwayError(RuntimeError):
    """A peer failed after some of its rounds; ``told`` is what `run` returns, of those."""

    def __init__(self, reason: str, told: dict[str, Any]) -> None:
        super().__init__(reason)
        self.told = told


def measured(peers: Sequence[str], options: argparse.Namespace, folder: Path) -> Found:
    """Every peer in every round, until one is interrupted."""
    found = Found({peer: [] for peer in peers})
    try:
        found.rate(options.device)
        for number in range(options.rounds):
            for peer in peers if number % 2 == 0 else reversed(peers):
                if peer not in found.errors:
                    try:
                        found.runs[peer].append(run(peer, options, folder))
                    except RuntimeError as error:
                        found.errors[peer] = str(error)
                        if isinstance(error, HalfwayError):
                            found.runs[peer].append(error.told)
                        print(f"{peer}: {error}", file=sys.stderr, flush=True)
            found.rate(options.device)
    except KeyboardInterrupt:
        found.interrupted = True
        arguments.tell_interrupted()
    return found


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m dressform_bench.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--size", choices=SIZES, help="the shipped model, or random weights of this size")
    parser.add_argument("--folder", type=Path, default=Path(".bench"), help="where things are built, once (.bench)")
    parser.add_argument("--source", type=Path, metavar="PIPELINE", help="a pipeline's folder, instead of --size")
    parser.add_argument("--export", type=Path, metavar="REPOSITORY", help="its export, with the engines to be served")
    parser.add_argument("--device", choices=tuple(OTHERS), default="cpu", help="that all run on (default cpu)")
    parser.add_argument("--steps", type=arguments.count, default=20, help="of a picture (default 20)")
    parser.add_argument(
        "--users", type=arguments.count, nargs="+", default=[1, 8], help="that ask at once (default 1 8)"
    )
    parser.add_argument(
        "--images", type=arguments.count, default=1, help="timed rounds of each peer in its process (default 1)"
    )
    parser.add_argument(
        "--rounds", type=arguments.count, default=2, help="of all peers, one after the other (default 2)"
    )
    parser.add_argument(
        "--peers",
        nargs="+",
        type=_peer,
        help=f"default {', '.join(OTHERS['cpu'])}, then bare and served of every engine",
    )
    parser.add_argument(
        "--python", action="append", default=[], metavar="PEER=PATH", help="the Python that a peer runs in"
    )
    parser.add_argument("--pictures", type=Path, help="folder for the pictures (default peers in --folder)")
    parser.add_argument("--model", help="its name in the record; default the size, or what the manifest says")
    parser.add_argument("--out", type=Path, metavar="FILE.jsonl", help="file that the record is appended to")
    options = parser.parse_args(argv)
    options.pictures = options.pictures or options.folder / "peers"
    if (options.source is None) != (options.export is None) or (options.size is None) == (options.source is None):
        parser.error("give --size, or --source and --export")
    try:
        options.python = dict(pair.split("=", 1) for pair in options.python)
    except ValueError:
        parser.error(f"--python must be PEER=PATH, not {' '.join(options.python)}")
    return options


def _peer(name: str) -> str:
    kind, _, engine = name.partition(":")
    if kind not in KINDS or (kind in OF_AN_ENGINE) != bool(engine):
        allowed = ", ".join(f"{kind}:ENGINE" if kind in OF_AN_ENGINE else kind for kind in KINDS)
        raise argparse.ArgumentTypeError(f"must be one of {allowed}, not {name!r}")
    return name


def of_export(manifest: Manifest, device: str) -> list[str]:
    """The peers that an export gives: of each engine that runs on the device, bare and served.

    What TensorRT builds has no bare peer: outside Triton nothing here runs it.
    """
    if device == "cuda":
        gpus = [ENGINES[name] for name in manifest.engines if ENGINES[name].gpu]
        return [f"{kind}:{one.name}" for one in gpus for kind in (OF_AN_ENGINE if has_bare(one) else ("served",))]
    return [f"{kind}:{name}" for name, one in manifest.engines.items() if one.executed for kind in OF_AN_ENGINE]


def run(peer: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """What a peer's process told: its first picture, and its rounds by number of users.

    Raises:
        RuntimeError: with its error, if it failed; a `HalfwayError` where it had told rounds before.
    """
    python = options.python.get(peer) or (python_of(peer, options.folder) if peer in REQUIREMENTS else sys.executable)
    words = [peer, options.device, *map(str, (options.source, options.export, folder, options.steps, options.images))]
    done = subprocess.run(
        [python, "-m", "dressform_bench.peers.worker", *words, *map(str, options.users)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [PACKAGES, os.environ.get("PYTHONPATH")]))},
    )
    try:
        told = [json.loads(line) for line in done.stdout.splitlines()]
    except ValueError:
        raise RuntimeError(f"it told no figures, but {done.stdout[:200]!r}") from None
    by_users = [each for each in told[1:] if "users" in each]
    for each in by_users:
        seconds = statistics.median(each["round_seconds"]) / each["users"]
        print(f"{peer}, {each['users']} users: {seconds:.2f} s a picture", file=sys.stderr, flush=True)
    if (done.returncode or not told) and not by_users:
        raise RuntimeError(_reason(done, told))
    known = {**told[0], "users": by_users}
    if done.returncode:
        raise HalfwayError(_reason(done, told), known)
    return known


def _reason(done: subprocess.CompletedProcess[str], told: Sequence[Mapping[str, Any]]) -> str:
    """Why a peer's process failed."""
    if told and "error" in told[-1]:
        return str(told[-1]["error"])
    if done.returncode < 0:
        hint = ": the system does so where memory runs out" if -done.returncode == signal.SIGKILL else ""
        return f"it was ended by {signal.Signals(-done.returncode).name}{hint}"
    return (done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"])[-1]


def table(
    peers: Sequence[str],
    runs: Mapping[str, Sequence[Mapping[str, Any]]],
    folder: Path,
    users: Sequence[int],
    limit: Mapping[str, Any],
    manifest: Manifest,
) -> list[dict[str, Any]]:
    """A row for each number of users and each peer that painted.

    ``limit`` has the operations of a picture, and the rates (FLOP/s) in FP32 and in a faster type.
    """
    pictures = {peer: pixels(Image.open(folder / picture_file(peer))) for peer in peers if runs[peer]}
    truth = pictures.get(REFERENCE)
    rates = limit["flops_per_second"]
    rows = []
    for place, count in enumerate(users):
        found = {peer: [one["users"][place] for one in runs[peer] if place < len(one["users"])] for peer in pictures}
        seconds = {
            peer: statistics.median(value for each in of_peer for value in each["round_seconds"]) / count
            for peer, of_peer in found.items()
            if of_peer
        }
        for peer in seconds:
            least = limit["flops_per_image"] / (rates["float32"] if exact(peer, manifest) else max(rates.values()))
            rows.append(
                {
                    "peer": peer,
                    "users": count,
                    "seconds": round(seconds[peer], 3),
                    "images_per_minute": round(60 / seconds[peer], 3),
                    "times_as_fast": round(next(iter(seconds.values())) / seconds[peer], 2),
                    "first_image_seconds": first_image(runs[peer]),
                    "peak_gigabytes": round(max(each["peak_bytes"] for each in found[peer]) / 1e9, 2),
                    "psnr": None if truth is None else round(psnr(truth, pictures[peer]), 1),
                    "limit_seconds": round(least, 3),
                    "share_of_limit": round(least / seconds[peer], 3),
                }
            )
    return rows


def first_image(runs: Sequence[Mapping[str, Any]]) -> float | None:
    """Seconds to the first picture; None for peers that are not asked for one."""
    known = [one["first_image_seconds"] for one in runs if one["first_image_seconds"] is not None]
    return round(statistics.median(known), 1) if known else None


def exact(peer: str, manifest: Manifest) -> bool:
    """Whether a peer computes in FP32."""
    _, _, engine = peer.partition(":")
    return manifest.engines[engine].precision == "fp32" if engine in manifest.engines else peer in FP32


if __name__ == "__main__":
    sys.exit(arguments.guarded(main))
