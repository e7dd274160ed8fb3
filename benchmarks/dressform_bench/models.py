"""Models to measure where nobody gave one: the shipped one, or random weights of a size. Made once, and kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from dressform_export import build_random_pipeline, export_pipeline
from dressform_export.demo import MODEL

Size = Literal["demo", "tiny", "sd15"]
SIZES: tuple[Size, ...] = ("demo", "tiny", "sd15")


def built(size: Size, folder: Path, engines: Sequence[str]) -> tuple[Path, Path]:
    """The pipeline of a size and its export for ``engines``, made where they are not there yet."""
    source = MODEL if size == "demo" else folder / size
    export = folder / "-".join([size, *engines])
    if size != "demo" and not source.is_dir():
        build_random_pipeline(size, source)
    if not export.is_dir():
        export_pipeline(source, export, engines=engines)
    return source, export
