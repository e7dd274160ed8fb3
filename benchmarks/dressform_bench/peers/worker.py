"""One peer in a process of its own: ``python -m dressform_bench.peers.worker PEER SOURCE OUT FOLDER STEPS IMAGES``.

It loads its pipeline, paints one picture of a single step that is not counted, then the others, and prints a line of
JSON for each. The last picture is written to FOLDER. Before it ends it tells the peak of the memory that it and every
process it started have held: the sum of the processes' own peaks, in which what they share counts for each.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray
from PIL import Image

from dressform_bench.peers.request import GUIDANCE, PROMPT, Task, picture_file, pixels

Painted = tuple[NDArray[np.uint8], Mapping[str, float]]
"""A picture, uint8 [H, W, 3], and seconds of its parts by name, where the peer knows them."""

Paint = Callable[[Task], Painted]


@dataclass(frozen=True)
class Opening:
    """What a peer is opened from: a pipeline's folder, its export, and one of the export's engines (else empty)."""

    source: Path
    out: Path
    engine: str


@contextmanager
def diffusers(source: Path, dtype: str, compiled: bool = False) -> Iterator[Paint]:
    """diffusers' pipeline, eager or with its UNet and decoder compiled by torch."""
    import torch
    from diffusers import StableDiffusionInpaintPipeline

    pipeline = StableDiffusionInpaintPipeline.from_pretrained(source, torch_dtype=getattr(torch, dtype))
    if compiled:
        pipeline.unet = torch.compile(pipeline.unet)
        pipeline.vae.decode = torch.compile(pipeline.vae.decode)
    yield _diffusers_call(pipeline)


@contextmanager
def optimum(source: Path, out: Path) -> Iterator[Paint]:
    """optimum's ONNX Runtime pipeline, of the graphs that optimum's own exporter makes; those stay beside ``out``."""
    from optimum.onnxruntime import ORTStableDiffusionInpaintPipeline

    yield _diffusers_call(ORTStableDiffusionInpaintPipeline.from_pretrained(_optimum_export(source, out)))


def _optimum_export(source: Path, out: Path) -> Path:
    """In a process of its own, so that it does not count as the pipeline's memory."""
    folder = out.with_name(out.name + ".optimum")
    if not folder.is_dir():
        partial = folder.with_suffix(".partial")
        command = [sys.executable, "-m", "optimum.exporters.onnx", "--task", "inpainting", "--model", str(source)]
        subprocess.run([*command, str(partial)], check=True, stdout=sys.stderr)
        partial.rename(folder)
    return folder


def _diffusers_call(pipeline: Any) -> Paint:
    import torch

    pipeline.set_progress_bar_config(disable=True)

    def paint(task: Task) -> Painted:
        width, height = task.image.size
        answer = pipeline(
            prompt=PROMPT,
            image=task.image,
            mask_image=task.mask,
            height=height,
            width=width,
            num_inference_steps=task.steps,
            guidance_scale=GUIDANCE,
            generator=torch.Generator().manual_seed(task.seed),
        )
        return pixels(answer.images[0]), {}

    return paint


@contextmanager
def served(out: Path, engine: str) -> Iterator[Paint]:
    """The export on Triton, through the client."""
    from dressform import Client
    from dressform_server import Server

    log = out.with_name(f"{out.name}.{engine}.log")
    with Server(out, engine=engine, http_port=0, grpc_port=0, metrics_port=0, log=log) as server:
        server.wait_ready(600)
        with Client(server.grpc_url, timeout=3600) as client:

            def paint(task: Task) -> Painted:
                width, height = task.image.size
                result = client.inpaint(
                    task.image,
                    task.mask,
                    PROMPT,
                    num_inference_steps=task.steps,
                    guidance_scale=GUIDANCE,
                    seed=task.seed,
                    height=height,
                    width=width,
                    composite="none",
                )
                return pixels(result.image), {name: value / 1000 for name, value in result.info["milliseconds"].items()}

            yield paint


@contextmanager
def bare(out: Path, engine: str) -> Iterator[Paint]:
    """The engine alone: the seconds of the graphs' own calls, in turn in one process, and nothing else."""
    from dressform_export.manifest import read_manifest
    from dressform_export.proof import GraphLeaves
    from dressform_export.trajectory import Request, paint

    manifest = read_manifest(out)
    leaves = GraphLeaves(out, engine, manifest.engines[engine], keep=True)

    def painted(task: Task) -> Painted:
        seconds: dict[str, float] = {}

        def timed(name: str, inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
            began = time.perf_counter()
            answer = leaves(name, inputs)
            seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - began
            return answer

        width, height = task.image.size
        options = {
            "num_inference_steps": task.steps,
            "guidance_scale": GUIDANCE,
            "seed": task.seed,
            "height": height,
            "width": width,
        }
        request = Request(pixels(task.image), np.asarray(task.mask), None, PROMPT, options)
        return paint(request, out, manifest, timed), seconds

    yield painted


KINDS: Mapping[str, Callable[[Opening], AbstractContextManager[Paint]]] = {
    "diffusers-fp32": lambda of: diffusers(of.source, "float32"),
    "diffusers-bf16": lambda of: diffusers(of.source, "bfloat16"),
    "diffusers-compile": lambda of: diffusers(of.source, "float32", compiled=True),
    "optimum": lambda of: optimum(of.source, of.out),
    "bare": lambda of: bare(of.out, of.engine),
    "served": lambda of: served(of.out, of.engine),
}
"""How the peers are opened, by name; those of an engine are followed by it, as in ``served:openvino``."""

OF_AN_ENGINE = ("bare", "served")


def main() -> None:
    """Paint and tell."""
    peer, source, out, folder, steps, images = sys.argv[1:]
    kind, _, engine = peer.partition(":")
    if kind == "optimum":
        _optimum_export(Path(source), Path(out))
    task = Task.read(Path(folder), int(steps))
    began = time.perf_counter()
    with KINDS[kind](Opening(Path(source), Path(out), engine)) as paint:
        paint(replace(task, steps=1))
        first = time.perf_counter() - began
        for _ in range(int(images)):
            began = time.perf_counter()
            picture, parts = paint(task)
            seconds = sum(parts.values()) if kind == "bare" else time.perf_counter() - began
            print(json.dumps({"seconds": seconds, "parts": dict(parts)}), flush=True)
        print(json.dumps({"first_image_seconds": first, "peak_bytes": peak()}), flush=True)
    Image.fromarray(picture).save(Path(folder) / picture_file(peer))


def peak() -> int:
    """Bytes: the sum of the peaks of this process and of those it started."""
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return sum(_peak(process.pid) for process in processes)


def _peak(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


if __name__ == "__main__":
    main()
