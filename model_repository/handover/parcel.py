"""Conditioning, handed to the denoiser once instead of at every step.

Triton copies a job's inputs to the denoiser at each of its steps; at Stable Diffusion 1.5's size that is 0.6 MB a job.
So the encoders' outputs go into a file in shared memory instead, named by the job's slot, and the denoiser gets the
slot.

A file begins with a line of JSON (generation, options, names and shapes), the float32 arrays follow. It is removed when
it is taken; one whose job died is overwritten by the slot's next.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.entry import Slot
from jobs.shared_file import SUFFIX as TABLE_SUFFIX
from jobs.shared_file import server_path

SUFFIX = ".handover"
Floats = NDArray[np.float32]


class LostParcel(LookupError):
    """Nothing lies ready for this slot."""


def open_counter(folder: Path | None = None) -> Path:
    """The folder of this stage's server, made if need be; folders of servers that are gone are removed."""
    if folder is None:
        folder = server_path().with_suffix(SUFFIX)
        for other in folder.parent.glob(f"dressform-*{SUFFIX}"):
            if other != folder and not other.with_suffix(TABLE_SUFFIX).exists():
                shutil.rmtree(other, ignore_errors=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def put(folder: Path, slot: Slot, options: Mapping[str, Any], arrays: Mapping[str, Floats]) -> None:
    """Lay ready what belongs to ``slot``."""
    shapes = {name: array.shape for name, array in arrays.items()}
    head = {"generation": slot.generation, "options": dict(options), "shapes": shapes}
    with (folder / str(slot.number)).open("wb") as file:
        file.write(json.dumps(head).encode() + b"\n")
        for array in arrays.values():
            np.ascontiguousarray(array, np.float32).tofile(file)


def take(folder: Path, slot: Slot) -> tuple[dict[str, Any], dict[str, Floats]]:
    """What was laid ready for ``slot``, once: options and arrays (read-only).

    Raises:
        LostParcel: if there is nothing of this generation.
    """
    path = folder / str(slot.number)
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise LostParcel(f"nothing was handed over for slot {slot.number}") from error
    end = data.index(b"\n") + 1
    head = json.loads(data[:end])
    if head["generation"] != slot.generation:
        raise LostParcel(f"slot {slot.number} is another job's by now")
    with suppress(FileNotFoundError):
        path.unlink()
    arrays = {}
    for name, shape in head["shapes"].items():
        count = int(np.prod(shape))
        arrays[name] = np.frombuffer(data, np.float32, count, end).reshape(shape)
        end += 4 * count
    return head["options"], arrays
