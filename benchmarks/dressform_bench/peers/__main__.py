"""The same pictures by others and by us, on this machine: ``python -m dressform_bench.peers SOURCE OUT``.

Same weights, picture, mask, prompt, seed, solver and steps. Each peer runs alone in a process of its own, one after the
other, in as many rounds as asked for; the median counts.

- ``diffusers-fp32``, ``diffusers-bf16``, ``diffusers-compile``: diffusers' pipeline, eager or through torch.compile
- ``optimum``: optimum's ONNX Runtime pipeline (``ORTStableDiffusionInpaintPipeline``)
- ``served:ENGINE``: the export OUT on Triton, through the client
- ``bare:ENGINE``: the sum of that engine's own calls (UNet, VAE, text encoder) without anything around them: the limit
  of what is served

Each row: seconds of a picture, times as fast as the first peer, seconds to the first picture (loading, and a picture of
one step), peak memory of all its processes (the sum of their own peaks, in which what they share counts for each), PSNR
to the first peer's picture. A peer that fails is told with its error, and the exit code is 1. The last line of stdout
is JSON. At the size of Stable Diffusion 1.5::

    dressform-export random sd15 source
    dressform-export source out --engine onnxruntime openvino openvino-int8
    python -m dressform_bench.peers source out --steps 20
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from PIL import Image

from dressform_bench.peers.request import Task, picture_file, pixels
from dressform_bench.peers.worker import KINDS, OF_AN_ENGINE
from dressform_export.capacity import machine
from dressform_export.demo.wardrobe import HELD_OUT, sample
from dressform_export.fidelity import psnr
from dressform_export.manifest import Manifest, open_manifest

OTHERS = ("diffusers-fp32", "diffusers-bf16", "optimum")


def main(argv: list[str] | None = None) -> int:
    """Measure and print; 1 if a peer failed."""
    options = _options(argv)
    manifest = open_manifest(options.out)
    peers = options.peers or [*OTHERS, *of_export(manifest)]
    folder = options.pictures.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    task(manifest, options.steps).write(folder)
    runs: dict[str, list[dict[str, Any]]] = {peer: [] for peer in peers}
    errors: dict[str, str] = {}
    for _ in range(options.rounds):
        for peer in peers:
            if peer not in errors:
                try:
                    runs[peer].append(run(peer, options, folder))
                except RuntimeError as error:
                    errors[peer] = str(error)
                    print(f"{peer}: {error}", file=sys.stderr, flush=True)
    rows = table(peers, runs, folder)
    for row in rows:
        print("".join(f"{'' if value is None else value!s:>22}" for value in row.values()))
    size = manifest.size
    report = {
        "benchmark": "peers",
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": manifest.versions,
        "source": manifest.source.id,
        "height": size.height,
        "width": size.width,
        "steps": options.steps,
        "rows": rows,
        "runs": runs,
        "errors": errors,
    }
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report))
    return 1 if errors else 0


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m dressform_bench.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", type=Path, help="the pipeline's folder")
    parser.add_argument("out", type=Path, help="its export, for the engines that are to be served")
    parser.add_argument("--steps", type=int, default=20, help="of a picture (default 20)")
    parser.add_argument("--images", type=int, default=1, help="timed pictures of each peer in a round (default 1)")
    parser.add_argument("--rounds", type=int, default=1, help="of all peers, one after the other (default 1)")
    parser.add_argument(
        "--peers", nargs="+", type=_peer, help=f"default {', '.join(OTHERS)}, then bare and served of every engine"
    )
    parser.add_argument("--pictures", type=Path, default=Path("peers"), help="folder for the pictures (default peers)")
    parser.add_argument("--json", type=Path, help="file for the report")
    return parser.parse_args(argv)


def _peer(name: str) -> str:
    kind, _, engine = name.partition(":")
    if kind not in KINDS or (kind in OF_AN_ENGINE) != bool(engine):
        allowed = ", ".join(f"{kind}:ENGINE" if kind in OF_AN_ENGINE else kind for kind in KINDS)
        raise argparse.ArgumentTypeError(f"must be one of {allowed}, not {name!r}")
    return name


def of_export(manifest: Manifest) -> list[str]:
    """The peers that an export gives: of each engine that runs on this machine, bare and served."""
    engines = [name for name, engine in manifest.engines.items() if engine.executed]
    return [f"{kind}:{engine}" for engine in engines for kind in OF_AN_ENGINE]


def task(manifest: Manifest, steps: int) -> Task:
    """A drawn person whose upper garment is repainted, at the export's default size."""
    drawn = sample(HELD_OUT, "upper", 256, 192)
    size = (manifest.size.width, manifest.size.height)
    image = Image.fromarray(drawn.look.image).resize(size, Image.Resampling.LANCZOS)
    return Task(image, Image.fromarray(drawn.mask()).resize(size, Image.Resampling.NEAREST), steps)


def run(peer: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """What a peer's process told, in one object.

    Raises:
        RuntimeError: with the last line of its standard error, if it failed.
    """
    command = [sys.executable, "-m", "dressform_bench.peers.worker", peer, str(options.source), str(options.out)]
    done = subprocess.run(
        [*command, str(folder), str(options.steps), str(options.images)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"])[-1]
        raise RuntimeError(reason)
    *pictures, rest = map(json.loads, done.stdout.splitlines())
    seconds = [picture["seconds"] for picture in pictures]
    found = {"seconds": seconds, "parts": pictures[-1]["parts"], **rest}
    print(f"{peer}: {statistics.median(seconds):.2f} s a picture", file=sys.stderr, flush=True)
    return found


def table(peers: list[str], runs: dict[str, list[dict[str, Any]]], folder: Path) -> list[dict[str, Any]]:
    """A row for each peer that painted."""
    painted = [peer for peer in peers if runs[peer]]
    seconds = {peer: statistics.median(value for one in runs[peer] for value in one["seconds"]) for peer in painted}
    pictures = {peer: pixels(Image.open(folder / picture_file(peer))) for peer in painted}
    return [
        {
            "peer": peer,
            "seconds": round(seconds[peer], 3),
            "times_as_fast": round(seconds[painted[0]] / seconds[peer], 2),
            "first_image_seconds": round(statistics.median(one["first_image_seconds"] for one in runs[peer]), 1),
            "peak_gigabytes": round(max(one["peak_bytes"] for one in runs[peer]) / 1e9, 2),
            "psnr": round(psnr(pictures[painted[0]], pictures[peer]), 1),
        }
        for peer in painted
    ]


if __name__ == "__main__":
    sys.exit(main())
