"""What the demonstration shows: people and garments that were never trained on, dressed and repainted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from dressform import Client
from dressform_export.demo.wardrobe import HELD_OUT, sample
from dressform_export.evaluation.sheet import Row, contact_sheet, hole_shown
from dressform_export.evaluation.sizing import Pixels

MASK_BLUR = 1
"""The seam, in pixels: the contract's 4 are for larger pictures, and as wide as an arm in these of 128 × 96."""

CELL = (256, 192)
"""Height and width of a picture on the sheet."""


@dataclass(frozen=True)
class Scene:
    """One case: ``paint`` asks the server and returns the pictures for the group's columns; ``line`` goes below."""

    name: str
    line: str
    paint: Callable[[Client], Sequence[Pixels]]


@dataclass(frozen=True)
class Group:
    """Cases that show the same columns."""

    columns: tuple[str, ...]
    scenes: tuple[Scene, ...]


def groups() -> tuple[Group, ...]:
    """Four try-ons, two outfits, two prompt edits."""
    first = HELD_OUT + 9000
    return (
        Group(
            ("person", "garment", "mask (automatic)", "try-on"),
            (
                _tryon(first, "upper"),
                _tryon(first + 1, "upper"),
                _tryon(first + 2, "lower"),
                _tryon(first + 3, "overall"),
            ),
        ),
        Group(("person", "first", "then", "outfit"), (_outfit(first + 4), _outfit(first + 5))),
        Group(
            ("picture", "mask", "prompt 1", "prompt 2"),
            (
                _edits(first + 6, "a red and white striped t-shirt", "a yellow t-shirt with a blue star"),
                _edits(first + 7, "a purple long-sleeved shirt", "a green tank top with white dots"),
            ),
        ),
    )


def sheet(found: Sequence[tuple[Group, Sequence[Sequence[Pixels]]]]) -> Image.Image:
    """All pictures on one sheet, two cases side by side."""
    parts = []
    for group, pictures in found:
        rows = [Row(shown, (scene.line,)) for scene, shown in zip(group.scenes, pictures)]
        parts.append(contact_sheet(group.columns, rows, cell=CELL, across=2))
    whole = Image.new("RGB", (max(part.width for part in parts), sum(part.height for part in parts)), "white")
    for i, part in enumerate(parts):
        whole.paste(part, (0, sum(above.height for above in parts[:i])))
    return whole


def _tryon(seed: int, category: str) -> Scene:
    drawn = sample(seed, category)

    def paint(client: Client) -> list[Pixels]:
        person, garment = drawn.other_look.image, drawn.flat.image
        result = client.tryon(person, garment, seed=seed, mask_blur=MASK_BLUR)
        return [person, garment, hole_shown(person, np.asarray(result.mask_used) >= 128), np.asarray(result.image)]

    return Scene(f"tryon-{seed % 10}-{category}", drawn.garment.caption, paint)


def _outfit(seed: int) -> Scene:
    drawn, lower = sample(seed, "upper"), sample(seed + 500, "lower")

    def paint(client: Client) -> list[Pixels]:
        person, garments = drawn.other_look.image, [drawn.flat.image, lower.flat.image]
        result = client.tryon(person, garments, seed=seed, mask_blur=MASK_BLUR)
        return [person, *garments, np.asarray(result.image)]

    return Scene(f"outfit-{seed % 10}", f"{drawn.garment.caption}, then {lower.garment.caption}", paint)


def _edits(seed: int, *prompts: str) -> Scene:
    drawn = sample(seed, "upper")

    def paint(client: Client) -> list[Pixels]:
        person = drawn.other_look.image
        mask = client.mask(person, category="upper").mask_used
        results = [client.inpaint(person, mask, prompt, seed=seed, mask_blur=MASK_BLUR).image for prompt in prompts]
        return [person, hole_shown(person, np.asarray(mask) >= 128), *map(np.asarray, results)]

    return Scene(f"edit-{seed % 10}", "  |  ".join(prompts), paint)
