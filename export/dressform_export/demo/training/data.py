"""What the pipeline is trained on: a person, a garment, a mask, captions; from the wardrobe or from a folder.

A folder has ``person/NAME.png``, ``garment/NAME.png`` and ``mask/NAME.png`` (or .jpg, .jpeg; white is repainted), and
``captions.jsonl`` with a line ``{"name": …, "caption": …, "category": …}`` for each caption; a name may have several.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image, ImageDraw

from dressform_export import stages
from dressform_export.demo.training.errors import TrainingError
from dressform_export.demo.training.rendered import Pixels, Rendered, rendered
from dressform_export.demo.wardrobe import CATEGORIES, caption
from dressform_export.progress import Progress

stages.importable()
from mask import agnostic  # noqa: E402
from preprocess.masks import binary  # noqa: E402
from preprocess.pictures import Picture, PictureError, decode, decode_mask  # noqa: E402
from preprocess.placement import placed  # noqa: E402

CAPTIONS, KEYS = "captions.jsonl", ("name", "caption", "category")
PARTS = ("person", "garment", "mask")
SUFFIXES = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True)
class Example:
    """One person in one garment, as it should come out.

    person uint8 [H, W, 3], wearing the garment; garment uint8 [H, W, 3], on white; mask uint8 [H, W], 255 where it is
    repainted and 0 elsewhere; captions: phrasings of the garment, of which each use draws one.
    """

    person: Pixels
    garment: Pixels
    mask: Pixels
    captions: tuple[str, ...]
    category: str


class Examples(Protocol):
    """Examples of one size, by number. ``identity`` changes with the content."""

    identity: str

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> Example: ...


def open_examples(spec: str, work: Path, height: int, width: int, progress: Progress) -> Examples:
    """The examples that ``spec`` names: ``wardrobe:SEEDS``, drawn into ``work``, or a folder.

    Raises:
        TrainingError: if it is neither, or something is missing in it.
    """
    seeds = wardrobe_seeds(spec)
    if seeds is not None:
        return WardrobeExamples(rendered(seeds, work, height, width, progress))
    if Path(spec).is_dir():
        return FolderExamples(Path(spec), height, width)
    raise TrainingError(f"data must be wardrobe:SEEDS, as in wardrobe:6000, or a folder; {spec} is neither")


def wardrobe_seeds(spec: str) -> int | None:
    """6000 of ``wardrobe:6000``; None of anything else."""
    name, _, count = spec.partition(":")
    return int(count) if name == "wardrobe" and count.isdecimal() else None


OVERALL, FREE_FORM = 0.25, 0.15
"""Shares of the looks that come once more, with the mask of a whole outfit or with a shape drawn at random."""


class WardrobeExamples:
    """The wardrobe's looks as examples, each at least twice.

    First with the mask of what is worn. Then as the service meets it: with the mask of the garment that was worn
    before, outside of which the picture still shows that one. Some come a third time (`OVERALL`, `FREE_FORM`).
    """

    def __init__(self, wardrobe: Rendered) -> None:
        self._wardrobe = wardrobe
        chance = np.random.default_rng(wardrobe.seeds).random(len(wardrobe))
        third = np.flatnonzero(chance < OVERALL + FREE_FORM)
        kinds = np.where(chance[third] < OVERALL, 2, 3)
        rows = np.arange(len(wardrobe))
        self._plan = [*((row, kind) for row in rows for kind in (0, 1)), *zip(third, kinds)]
        code = (Path(file).read_text(encoding="utf-8") for file in (agnostic.__file__, __file__))
        self.identity = _digest(wardrobe.identity, *code)
        self._own_mask = lru_cache(maxsize=8)(lambda row: self._masked(row, wardrobe.garment(row).category))

    def __len__(self) -> int:
        return len(self._plan)

    def __getitem__(self, number: int) -> Example:
        row, kind = (int(value) for value in self._plan[number])
        drawn, before = self._wardrobe, row ^ 1
        garment = drawn.garment(row)
        person, mask = drawn.looks[row], self._own_mask(row)
        if kind == 1:
            mask = self._own_mask(before)
            person = np.where(mask[..., None] == 255, person, drawn.looks[before])
        elif kind == 2:
            mask = self._masked(row, "overall")
        elif kind == 3:
            mask = free_form(mask, np.random.default_rng((row, kind)))
        phrasings = (caption(garment, np.random.default_rng((row, kind, k))) for k in range(4))
        return Example(
            np.asarray(person), np.asarray(drawn.flats[row]), np.asarray(mask), tuple(phrasings), garment.category
        )

    def _masked(self, row: int, category: str) -> Pixels:
        return agnostic.agnostic_mask(self._wardrobe.labels[0, row], category).astype(np.uint8) * np.uint8(255)


def free_form(mask: Pixels, rng: np.random.Generator) -> Pixels:
    """A mask of one or two boxes or ellipses within the bounds of ``mask``, as a hand would draw them."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    low = np.array([columns[0], rows[0]])
    span = np.array([columns[-1], rows[-1]]) - low
    image = Image.new("L", (mask.shape[1], mask.shape[0]), 0)
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(1, 3))):
        size = span * rng.uniform(0.35, 0.9, 2)
        corner = low + (span - size) * rng.random(2)
        shape = draw.rectangle if rng.random() < 0.5 else draw.ellipse
        shape([*corner, *(corner + size)], fill=255)
    return np.asarray(image)


class FolderExamples:
    """A folder's pictures, placed on the canvas as the service places them; in the order of the captions' names."""

    def __init__(self, folder: Path, height: int, width: int) -> None:
        self._canvas = (height, width)
        self._texts = _read_captions(folder / CAPTIONS)
        self._files = [{part: _file_of(folder / part, name) for part in PARTS} for name in self._texts]
        stamps = [(file.stat().st_size, file.stat().st_mtime_ns) for files in self._files for file in files.values()]
        self.identity = _digest(str(folder.resolve()), str(self._canvas), json.dumps([self._texts, stamps]))

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, number: int) -> Example:
        files = self._files[number]
        person, garment = (_decoded(files[part], decode) for part in ("person", "garment"))
        mask = _decoded(files["mask"], decode_mask)
        if mask.size != person.size:
            raise TrainingError(f"{files['mask']} has {mask.size} pixels (height, width), its person {person.size}")
        placement = placed(person.size, self._canvas, "fill")
        canvas_mask = binary(placement.onto_canvas(mask.pixels))
        if not canvas_mask.any():
            raise TrainingError(f"{files['mask']} is empty: no pixel is white")
        category, captions = self._texts[files["person"].stem]
        return Example(
            placement.onto_canvas(person.pixels),
            placed(garment.size, self._canvas, "fill").onto_canvas(garment.pixels, ground=(255, 255, 255)),
            canvas_mask,
            tuple(captions),
            category,
        )


class Mirrored:
    """Examples and, after them, their mirror images."""

    def __init__(self, examples: Examples) -> None:
        self._examples = examples
        self.identity = _digest("mirrored", examples.identity)

    def __len__(self) -> int:
        return 2 * len(self._examples)

    def __getitem__(self, number: int) -> Example:
        example = self._examples[number % len(self._examples)]
        if number < len(self._examples):
            return example
        return replace(example, **{part: getattr(example, part)[:, ::-1].copy() for part in PARTS})


def write_folder(examples: Examples, folder: Path) -> None:
    """Write ``examples`` as a folder that `open_examples` reads back, pixel for pixel."""
    for part in PARTS:
        (folder / part).mkdir(parents=True)
    lines = []
    for number in range(len(examples)):
        example, name = examples[number], f"{number:06}"
        for part in PARTS:
            Image.fromarray(getattr(example, part)).save(folder / part / f"{name}.png")
        lines += [{"name": name, "caption": text, "category": example.category} for text in example.captions]
    (folder / CAPTIONS).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def _read_captions(path: Path) -> dict[str, tuple[str, list[str]]]:
    """Name → category and captions."""
    if not path.is_file():
        raise TrainingError(f"{path} is missing: a line with name, caption and category for each picture")
    found: dict[str, tuple[str, list[str]]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise TrainingError(f"line {number} of {path} is not JSON: {error}") from error
        if (
            not isinstance(entry, dict)
            or set(entry) != set(KEYS)
            or not all(isinstance(v, str) for v in entry.values())
        ):
            raise TrainingError(f"line {number} of {path} must be an object of the strings {', '.join(KEYS)}")
        if entry["category"] not in CATEGORIES:
            allowed = ", ".join(CATEGORIES)
            raise TrainingError(
                f"line {number} of {path}: category must be one of {allowed}, not {entry['category']!r}"
            )
        category, captions = found.setdefault(entry["name"], (entry["category"], []))
        if category != entry["category"]:
            raise TrainingError(f"line {number} of {path}: {entry['name']} was {category} before")
        captions.append(entry["caption"])
    if not found:
        raise TrainingError(f"{path} has no lines")
    return found


def _file_of(folder: Path, name: str) -> Path:
    for suffix in SUFFIXES:
        if (path := folder / (name + suffix)).is_file():
            return path
    raise TrainingError(f"{folder} has no picture of {name}: none of {', '.join(name + s for s in SUFFIXES)} is there")


def _decoded(path: Path, decoder: Callable[[bytes], Picture]) -> Picture:
    try:
        return decoder(path.read_bytes())
    except PictureError as error:
        raise TrainingError(f"{path} is {error}") from error


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
