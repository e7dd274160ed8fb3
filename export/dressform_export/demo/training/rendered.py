"""The wardrobe's training seeds, drawn once in parallel processes and kept as memory-mapped arrays."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import shutil
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dressform_export.demo import wardrobe
from dressform_export.demo.training.errors import TrainingError
from dressform_export.demo.wardrobe import HELD_OUT, Garment, sample
from dressform_export.progress import Progress

Pixels = NDArray[np.uint8]

_ARRAYS = ("pictures", "labels")
_SEEDS_AT_ONCE = 16


class Rendered:
    """The seeds 0 to ``seeds`` - 1, two rows for each: row 2 s in the sample's garment, row 2 s + 1 in its other one.

    ``pictures`` is uint8 [2, rows, H, W, 3], looks and flats, ``labels`` uint8 [2, rows, H, W] their ATR numbers; both
    are read as they are used.
    """

    def __init__(self, folder: Path, seeds: int) -> None:
        self.seeds = seeds
        self.identity = folder.name
        self.pictures, self.labels = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in _ARRAYS)
        self.looks, self.flats = self.pictures

    def __len__(self) -> int:
        return 2 * self.seeds

    def garment(self, row: int) -> Garment:
        """What is worn in ``row``, and lies flat there."""
        drawn = sample(row // 2)
        return drawn.other if row % 2 else drawn.garment


def as_tensor(pictures: Pixels) -> Tensor:
    """uint8 [n, H, W, 3] → float32 [n, 3, H, W] in [-1, 1]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


def rendered(seeds: int, work: Path, height: int, width: int, progress: Progress) -> Rendered:
    """The wardrobe's first ``seeds`` seeds, drawn at ``height`` × ``width`` unless a folder in ``work`` has them.

    Raises:
        TrainingError: if ``seeds`` reaches into the held-out ones, or the wardrobe cannot be drawn at that size.
    """
    if not 0 < seeds <= HELD_OUT:
        raise TrainingError(f"the wardrobe has from 1 to {HELD_OUT} training seeds, not {seeds}")
    try:
        sample(0, height=height, width=width)
    except ValueError as error:
        raise TrainingError(str(error)) from error
    folder = work / f"wardrobe-{seeds}-{height}x{width}-{_fingerprint()}"
    if not folder.is_dir():
        with progress.stage(f"draw {seeds} seeds of the wardrobe"):
            _draw(seeds, folder, height, width)
    return Rendered(folder, seeds)


def _draw(seeds: int, folder: Path, height: int, width: int) -> None:
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    planes = (2, 2 * seeds, height, width)
    for name, shape in zip(_ARRAYS, ((*planes, 3), planes)):
        np.lib.format.open_memmap(part / f"{name}.npy", "w+", np.uint8, shape)  # type: ignore[no-untyped-call]
    chunks = [range(first, min(first + _SEEDS_AT_ONCE, seeds)) for first in range(0, seeds, _SEEDS_AT_ONCE)]
    workers = min(os.cpu_count() or 1, len(chunks))
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        for _ in pool.map(partial(_draw_seeds, part, height, width), chunks):
            pass
    part.rename(folder)


def _draw_seeds(folder: Path, height: int, width: int, seeds: Iterable[int]) -> None:
    pictures, labels = (np.load(folder / f"{name}.npy", mmap_mode="r+") for name in _ARRAYS)
    for seed in seeds:
        drawn = sample(seed, height=height, width=width)
        for other in (False, True):
            row = 2 * seed + other
            look, flat = (drawn.other_look, drawn.other_flat) if other else (drawn.look, drawn.flat)
            pictures[:, row] = look.image, flat.image
            labels[:, row] = look.labels, flat.labels


def _fingerprint() -> str:
    """Of the wardrobe's code: another wardrobe has other pictures."""
    digest = hashlib.sha256()
    for path in sorted(Path(wardrobe.__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
