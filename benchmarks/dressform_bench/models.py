"""Models to measure where nobody gave one: the shipped one, or random weights of a size. Made once, and kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import dressform_export
from dressform_export.demo import MODEL
from dressform_export.errors import ExportError
from dressform_export.repository import template_folder

Size = Literal["demo", "tiny", "sd15"]
SIZES: tuple[Size, ...] = ("demo", "tiny", "sd15")


def built(size: Size, folder: Path, engines: Sequence[str]) -> tuple[Path, Path]:
    """The pipeline of a size and its export for ``engines``, made where they are not there yet.

    Raises:
        ExportError: at an export whose stages are not today's, for what it would tell is of other code.
    """
    source = MODEL if size == "demo" else folder / size
    export = folder / "-".join([size, *engines])
    if size != "demo" and not source.is_dir():
        dressform_export.build_random_pipeline(size, source)
    if not export.is_dir():
        dressform_export.export_pipeline(source, export, engines=engines)
    changed = differing(export)
    if changed is not None:
        raise ExportError(f"{export} has another {changed} than this version: remove it, and it is made anew")
    return source, export


def differing(export: Path) -> Path | None:
    """A file of the stages that differs between ``export`` and this version's, if there is one."""
    template = template_folder()
    names = (file.relative_to(template) for file in sorted(template.rglob("*.py")))
    there = (name for name in names if (export / name).is_file())
    return next((name for name in there if (export / name).read_bytes() != (template / name).read_bytes()), None)
