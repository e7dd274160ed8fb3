"""``reference.npz``: what torch answered in FP32, beside the export, so that `verify` needs neither source nor hub."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dressform_export.errors import ExportError
from dressform_export.trajectory import Pixels, Request
from dressform_export.verification import Reference

FILE = "reference.npz"


@dataclass(frozen=True)
class References:
    """By leaf its answers at every probe; and the request of the proof with torch's picture of it."""

    leaves: Mapping[str, tuple[Reference, ...]]
    request: Request
    picture: Pixels

    def write(self, repository: Path) -> None:
        """Write the file into ``repository``."""
        about = {
            "prompt": self.request.prompt,
            "options": dict(self.request.options),
            "leaves": {
                leaf: [{"sizes": dict(one.sizes), "labels": one.labels} for one in references]
                for leaf, references in self.leaves.items()
            },
        }
        np.savez_compressed(repository / FILE, about=np.array(json.dumps(about)), **dict(self._arrays()))

    def _arrays(self) -> Iterator[tuple[str, NDArray[Any]]]:
        for leaf, references in self.leaves.items():
            for number, one in enumerate(references):
                yield f"{leaf}/{number}", one.expected
                for name, array in one.inputs.items():
                    yield f"{leaf}/{number}/{name}", array
        yield "picture", self.picture
        yield "image", self.request.image
        yield "mask", self.request.mask
        if self.request.garment is not None:
            yield "garment", self.request.garment


def read_references(repository: Path) -> References:
    """The references in ``repository``.

    Raises:
        ExportError: if it has none, or they cannot be read.
    """
    path = repository / FILE
    if not path.is_file():
        raise ExportError(f"{repository} has no {FILE} to verify it by: export it again")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file.items())
        about = json.loads(arrays["about"].item())
        leaves = {
            leaf: tuple(_reference(arrays, f"{leaf}/{number}", one) for number, one in enumerate(references))
            for leaf, references in about["leaves"].items()
        }
        request = Request(arrays["image"], arrays["mask"], arrays.get("garment"), about["prompt"], about["options"])
        return References(leaves, request, arrays["picture"])
    except (OSError, ValueError, KeyError) as error:
        raise ExportError(f"{path} cannot be read: {error}") from error


def _reference(arrays: Mapping[str, NDArray[Any]], key: str, about: Mapping[str, Any]) -> Reference:
    inputs = {name.removeprefix(f"{key}/"): array for name, array in arrays.items() if name.startswith(f"{key}/")}
    return Reference(about["sizes"], inputs, arrays[key], about["labels"])
