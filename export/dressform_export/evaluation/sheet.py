"""Contact sheets: labelled pictures in columns, a row for each case."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dressform_export.evaluation.sizing import Pixels, Region

INK, PAPER = "#202020", "white"
GAP, LINE, TEXT = 12, 22, 16


@dataclass(frozen=True)
class Row:
    """One case: its pictures uint8 [H, W, 3], one for each column, and the lines below them."""

    pictures: Sequence[Pixels]
    lines: Sequence[str] = ()


def contact_sheet(
    columns: Sequence[str], rows: Sequence[Row], *, cell: tuple[int, int], across: int = 1
) -> Image.Image:
    """``rows`` under their ``columns``' names, ``across`` cases side by side, read left to right.

    Args:
        cell: height and width in pixels into which each picture is fitted (LANCZOS), its shape kept.

    Raises:
        ValueError: if a row has not one picture for each column.
    """
    height, width = cell
    font = ImageFont.load_default(TEXT)
    lines = max((len(row.lines) for row in rows), default=0)
    block = len(columns) * (width + GAP) + 2 * GAP
    pitch = height + lines * LINE + GAP
    downwards = -(-len(rows) // across)
    sheet = Image.new("RGB", (across * block - GAP, LINE + 2 * GAP + downwards * pitch), PAPER)
    draw = ImageDraw.Draw(sheet)
    for i in range(min(across, len(rows))):
        for j, name in enumerate(columns):
            draw.text((GAP + i * block + j * (width + GAP), GAP), name, INK, font)
    for i, row in enumerate(rows):
        if len(row.pictures) != len(columns):
            raise ValueError(f"a row has {len(row.pictures)} pictures for {len(columns)} columns")
        left, top = GAP + i % across * block, LINE + 2 * GAP + i // across * pitch
        for j, pixels in enumerate(row.pictures):
            fitted = _fitted(pixels, cell)
            sheet.paste(fitted, (left + j * (width + GAP) + (width - fitted.width) // 2, top))
        for j, line in enumerate(row.lines):
            draw.text((left, top + height + j * LINE + 2), line, INK, font)
    return sheet


def hole_shown(pixels: Pixels, mask: Region) -> Pixels:
    """``pixels`` [H, W, 3], red where ``mask`` bool [H, W] is true, so that what lies below is still seen."""
    tinted = (pixels.astype(np.uint16) + np.array((255, 40, 40), np.uint16)) // 2
    return np.where(mask[..., None], tinted.astype(np.uint8), pixels)


def _fitted(pixels: Pixels, cell: tuple[int, int]) -> Image.Image:
    scale = min(cell[0] / pixels.shape[0], cell[1] / pixels.shape[1])
    size = (round(pixels.shape[1] * scale), round(pixels.shape[0] * scale))
    return Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)
