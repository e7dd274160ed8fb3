"""One peer in a process of its own: ``….peers.worker PEER DEVICE SOURCE OUT FOLDER STEPS IMAGES USERS``.

It loads its pipeline, paints one picture of a single step that is not counted, then the others: for each number of
users so many rounds of one picture for each of them, asked for at once. It prints a line of JSON for the first picture
(with the versions of what paints), and for each number of users with the seconds of the rounds and the peak of the
memory that it and every process it started have held until then: the sum of the processes' own peaks, in which what
they share counts for each. The picture of the first user is written to FOLDER. If it fails, its last line is
``{"error": …}``.

A pipeline in a process paints for one user after the other, as behind a lock: it is not made for several threads.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray
from PIL import Image

from dressform_bench.crowd import together
from dressform_bench.peers.request import PROMPT, Task, picture_file, pixels
from dressform_bench.versions import versions

Picture = NDArray[np.uint8]
"""uint8 [H, W, 3]."""


@dataclass(frozen=True)
class Round:
    """What a round of pictures, one for each user, gave: the first one, and the seconds until all were there."""

    picture: Picture
    seconds: float


Paint = Callable[[Task, int], Round]
"""Paints a task for so many users, each with a seed of their own."""


@dataclass(frozen=True)
class Opening:
    """What a peer is opened from: a pipeline's folder, its export, one of the export's engines (else empty), and the
    device, cpu or cuda."""

    source: Path
    out: Path
    engine: str
    device: str


@contextmanager
def diffusers(of: Opening, dtype: str, compiled: bool = False) -> Iterator[Paint]:
    """diffusers' pipeline, eager or with its UNet and decoder compiled by torch."""
    import torch
    from diffusers import StableDiffusionInpaintPipeline

    pipeline = StableDiffusionInpaintPipeline.from_pretrained(str(of.source), torch_dtype=getattr(torch, dtype))
    pipeline.to(of.device)
    if compiled:
        pipeline.unet = torch.compile(pipeline.unet)
        pipeline.vae.decode = torch.compile(pipeline.vae.decode)
    yield _diffusers_call(pipeline)


@contextmanager
def optimum(of: Opening) -> Iterator[Paint]:
    """optimum's ONNX Runtime pipeline, of the graphs that optimum's own exporter makes; those stay beside ``out``."""
    from optimum.onnxruntime import ORTStableDiffusionInpaintPipeline

    provider = "CUDAExecutionProvider" if of.device == "cuda" else "CPUExecutionProvider"
    folder = exported_by("optimum", of.source, of.out)
    yield _diffusers_call(ORTStableDiffusionInpaintPipeline.from_pretrained(folder, provider=provider))


@contextmanager
def optimum_intel(of: Opening) -> Iterator[Paint]:
    """optimum-intel's OpenVINO pipeline, of the graphs that its own exporter makes; those stay beside ``out``."""
    from optimum.intel.openvino.modeling_diffusion import OVStableDiffusionInpaintPipeline

    folder = exported_by("optimum-intel", of.source, of.out)
    yield _diffusers_call(OVStableDiffusionInpaintPipeline.from_pretrained(folder))


EXPORTERS = {
    "optimum": ("optimum.exporters.onnx", "--task", "inpainting", "--model"),
    "optimum-intel": ("optimum.commands.optimum_cli", "export", "openvino", "--task", "inpainting", "--model"),
}
"""The peers that have exporters of their own: the arguments of Python before SOURCE and OUT."""


def exported_by(exporter: str, source: Path, out: Path) -> Path:
    """The folder of a peer's own export, made where there is none.

    In a process of its own, so that it does not count as the pipeline's memory.
    """
    folder = out.with_name(f"{out.name}.{exporter}")
    if not folder.is_dir():
        partial = folder.with_name(f"{folder.name}.partial")
        command = [sys.executable, "-m", *EXPORTERS[exporter], str(source), str(partial)]
        done = subprocess.run(command, check=False, stdout=sys.stderr, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            raise RuntimeError(f"{shlex.join(command)}: {(done.stderr.strip().splitlines() or ['no word'])[-1]}")
        partial.rename(folder)
    return folder


def _diffusers_call(pipeline: Any) -> Paint:
    import torch

    pipeline.set_progress_bar_config(disable=True)

    def paint(task: Task, users: int) -> Round:
        began, pictures = time.perf_counter(), []
        for user in range(users):
            options = task.seeded(task.seed + user).options
            generator = torch.Generator().manual_seed(options.pop("seed"))
            answer = pipeline(prompt=PROMPT, image=task.image, mask_image=task.mask, generator=generator, **options)
            pictures.append(pixels(answer.images[0]))
        return Round(pictures[0], time.perf_counter() - began)

    return paint


@contextmanager
def served(of: Opening) -> Iterator[Paint]:
    """The export on Triton, through the client."""
    from dressform import Client
    from dressform_server import Server

    log = of.out.with_name(f"{of.out.name}.{of.engine}.log")
    with Server(of.out, engine=of.engine, http_port=0, grpc_port=0, metrics_port=0, log=log) as server:
        server.wait_ready(600)
        with Client(server.grpc_url, timeout=3600) as client:

            def paint(task: Task, users: int) -> Round:
                began = time.perf_counter()
                answers = together(users, lambda user: task.seeded(task.seed + user).asked(client))
                return Round(pixels(answers[0].image), time.perf_counter() - began)

            yield paint


@contextmanager
def bare(of: Opening) -> Iterator[Paint]:
    """The engine alone: the seconds of the graphs' own calls, in turn in one process, all users' rows together."""
    from dressform_bench.peers.floor import Floor

    floor = Floor(of.out, of.engine)

    def paint(task: Task, users: int) -> Round:
        picture = floor.painted(task)
        return Round(picture, sum(floor.seconds(users).values()))

    yield paint


KINDS: Mapping[str, Callable[[Opening], AbstractContextManager[Paint]]] = {
    "diffusers-fp32": lambda of: diffusers(of, "float32"),
    "diffusers-bf16": lambda of: diffusers(of, "bfloat16"),
    "diffusers-fp16": lambda of: diffusers(of, "float16"),
    "diffusers-compile": lambda of: diffusers(of, "float32", compiled=True),
    "diffusers-fp16-compile": lambda of: diffusers(of, "float16", compiled=True),
    "optimum": optimum,
    "optimum-intel": optimum_intel,
    "bare": bare,
    "served": served,
}
"""How the peers are opened, by name; those of an engine are followed by it, as in ``served:openvino``."""

OF_AN_ENGINE = ("bare", "served")


PACKAGES = ("torch", "diffusers", "transformers", "optimum", "optimum-onnx", "optimum-intel", "onnxruntime", "openvino")
"""Those whose versions are told, where the peer's environment has them."""


def main() -> int:
    """Paint and tell; 1 if that failed."""
    told_to = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is not what is told

    def tell(what: Mapping[str, Any]) -> None:
        print(json.dumps(what), file=told_to, flush=True)

    try:
        painted(tell, *sys.argv[1:])
    except Exception as error:
        traceback.print_exc()
        tell({"error": f"{type(error).__name__}: {error}"})
        return 1
    return 0


def painted(
    tell: Callable[[Mapping[str, Any]], None],
    peer: str,
    device: str,
    source: str,
    out: str,
    folder: str,
    steps: str,
    images: str,
    *users: str,
) -> None:
    """What the module says, with its arguments."""
    kind, _, engine = peer.partition(":")
    if kind in EXPORTERS:
        exported_by(kind, Path(source), Path(out))
    task = Task.read(Path(folder), int(steps))
    began = time.perf_counter()
    with KINDS[kind](Opening(Path(source), Path(out), engine, device)) as paint:
        paint(replace(task, steps=1), 1)
        first = None if kind == "bare" else time.perf_counter() - began  # which makes every call twice
        tell({"first_image_seconds": first, "versions": versions(PACKAGES)})
        for count in map(int, users):
            if count > 1 and kind in OF_AN_ENGINE:  # what works on all together meets new shapes
                paint(replace(task, steps=1), count)
            rounds = [paint(task, count) for _ in range(int(images))]
            Image.fromarray(rounds[-1].picture).save(Path(folder) / picture_file(peer))
            tell({"users": count, "round_seconds": [each.seconds for each in rounds], "peak_bytes": peak()})


def peak() -> int:
    """Bytes: the sum of the peaks of this process and of those it started."""
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return sum(_peak(process.pid) for process in processes)


def _peak(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    except OSError:  # it has just ended
        return 0
    return 1024 * next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), 0)


if __name__ == "__main__":
    sys.exit(main())
