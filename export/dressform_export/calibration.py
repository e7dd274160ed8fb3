"""What int8 is calibrated on: the UNet's inputs along real denoising trajectories.

Examples (a person, a garment, a mask, captions) become requests, for each task that the export serves in turn, and the
stages' own code runs them on the FP32 graphs (`dressform_export.trajectory`): guidance rows, garment latents and
timesteps are those that a server sends. Of each trajectory a few rows are kept, at steps drawn at random: many examples
calibrate better than many steps of few (the demonstration's model, 12 held-out pictures, PSNR to FP32: 16 rows of 8
trajectories 32.0 dB, of 4 trajectories 27.9; 64 whole calls of 8 trajectories 32.2). Trajectories are short, because
each call costs a step of the FP32 graph, and of different lengths, so that the timesteps of one fall between those of
another.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dressform_export.demo.training.data import Example, Examples, open_examples, wardrobe_seeds
from dressform_export.errors import ExportError
from dressform_export.manifest import CalibrationRecord, Manifest
from dressform_export.progress import Progress, Silence
from dressform_export.runner import Runner, runner
from dressform_export.trajectory import Request, paint

Call = dict[str, NDArray[np.float32]]
"""Inputs of one row of a UNet call by name, as its graph takes them."""

DATA, SAMPLES = "wardrobe:16", 16
"""What is calibrated on where nothing else is asked for."""

LARGEST = 1000
"""Rows, at most: they are kept in memory, 0.4 MB each at Stable Diffusion 1.5's sizes."""

STEPS = (3, 6)
"""Steps of a trajectory, at least and at most; never more than the export's own default. Twice as many gave
the same pictures."""

KEPT = 2
"""Rows that are kept of a trajectory, each of another step; fewer where it has fewer steps."""


@dataclass(frozen=True)
class Calibration:
    """What to calibrate on.

    ``data`` is ``wardrobe:SEEDS`` or a folder of examples (`dressform_export.demo.training.data`), ``samples`` the
    number of UNet rows, ``seed`` what examples, captions, steps, noise and rows are drawn by.

    Raises:
        ExportError: if a number is out of range.
    """

    data: str = DATA
    samples: int = SAMPLES
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.samples <= LARGEST:
            raise ExportError(f"calibration takes from 1 to {LARGEST} samples, not {self.samples}")
        if self.seed < 0:
            raise ExportError(f"the seed of the calibration must be 0 or more, not {self.seed}")

    def check(self) -> None:
        """Refuse data that is not there, before any time is spent.

        Raises:
            TrainingError: in that case.
        """
        if wardrobe_seeds(self.data) is None:
            with tempfile.TemporaryDirectory() as work:
                open_examples(self.data, Path(work), 64, 64, Silence())

    def collected(
        self, manifest: Manifest, repository: Path, progress: Progress
    ) -> tuple[list[Call], CalibrationRecord]:
        """The rows, run by the graphs in ``repository`` that ``manifest`` names, and what is to be told of them.

        Raises:
            TrainingError: if an example cannot be read, or the wardrobe not be drawn.
        """
        height, width = manifest.size.height, manifest.size.width
        if wardrobe_seeds(self.data) is not None:
            height, width = drawn_size(height)
        with tempfile.TemporaryDirectory() as work:
            examples = open_examples(self.data, Path(work), height, width, progress)
            runners = {leaf: runner(repository / manifest.graphs[leaf].file) for leaf in called(manifest)}
            kept: list[Call] = []
            rng = np.random.default_rng(self.seed)
            with progress.bar("trajectories to calibrate on", -(-self.samples // KEPT)) as advance:
                for request in requests(examples, manifest, rng):
                    kept += drawn_rows(trajectory(request, manifest, repository, runners), rng)
                    advance()
                    if len(kept) >= self.samples:
                        break
            record = CalibrationRecord(self.data, examples.identity, self.samples, self.seed)
        return kept[: self.samples], record


def trajectory(request: Request, manifest: Manifest, repository: Path, runners: Mapping[str, Runner]) -> list[Call]:
    """What the UNet is given along the trajectory of ``request``, call by call. Its picture is not decoded."""
    calls: list[Call] = []

    def leaves(name: str, inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        if name == "vae_decoder":
            return np.zeros((1, 1, 0, 0, 3), np.uint8)
        if name == "unet":
            calls.append({key: values.copy() for key, values in inputs.items()})
        return runners[name](inputs)

    paint(request, repository, manifest, leaves)
    return calls


def drawn_rows(calls: Sequence[Call], rng: np.random.Generator) -> list[Call]:
    """`KEPT` rows of a trajectory's ``calls``, of different ones, in their order."""
    kept = min(KEPT, len(calls))
    numbers = ((np.arange(kept) + rng.random(kept)) * len(calls) / kept).astype(int)
    rows = ((calls[number], int(rng.integers(len(calls[number]["timestep"])))) for number in numbers)
    return [{name: values[row : row + 1] for name, values in call.items()} for call, row in rows]


def requests(examples: Examples, manifest: Manifest, rng: np.random.Generator) -> Iterator[Request]:
    """Requests without end: the examples in random order, again and again, the export's tasks in turn."""
    tasks = tasks_of(manifest)
    least, most = (min(steps, manifest.defaults.num_inference_steps) for steps in STEPS)
    number = 0
    while True:
        for chosen in rng.permutation(len(examples)):
            options = {
                "num_inference_steps": int(rng.integers(least, most + 1)),
                "seed": int(rng.integers(2**32)),
                "resize_mode": "fill",
            }
            yield request(examples[int(chosen)], tasks[number % len(tasks)], options, rng)
            number += 1


def called(manifest: Manifest) -> tuple[str, ...]:
    """The leaves that a trajectory runs before its picture is decoded."""
    return ("text_encoder", "vae_encoder", "unet") if manifest.text else ("vae_encoder", "unet")


def tasks_of(manifest: Manifest) -> tuple[str, ...]:
    """What the UNet was made for: prompts where there is a text encoder, garments where it reads them."""
    served = {"inpaint": manifest.text is not None, "tryon": manifest.tryon == "concat"}
    return tuple(task for task, is_served in served.items() if is_served)


def request(example: Example, task: str, options: Mapping[str, Any], rng: np.random.Generator) -> Request:
    """``example`` as a client sends it: a prompt, of the captions one that ``rng`` draws, or a garment."""
    garment = example.garment if task == "tryon" else None
    prompt = str(rng.choice(example.captions)) if task == "inpaint" else ""
    return Request(example.person, example.mask, garment, prompt, options)


def drawn_size(height: int) -> tuple[int, int]:
    """Height and width in pixels at which the wardrobe is drawn for pictures of ``height``: 4:3, a multiple of 32."""
    drawn = max(height // 32, 2) * 32
    return drawn, drawn * 3 // 4
