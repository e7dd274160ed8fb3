"""A diffusers inpainting pipeline in, a deployable Triton model repository out.

``export_pipeline`` exports, ``build_random_pipeline`` makes a pipeline to export. Both are imported on first use: torch
and diffusers take seconds to load.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dressform_export.errors import ExportError
from dressform_export.manifest import Manifest, read_manifest

if TYPE_CHECKING:
    from dressform_export.exporter import export_pipeline
    from dressform_export.random_pipeline import build_random_pipeline

__all__ = ["ExportError", "Manifest", "build_random_pipeline", "export_pipeline", "read_manifest"]


def __getattr__(name: str) -> Any:
    if name == "export_pipeline":
        from dressform_export.exporter import export_pipeline

        return export_pipeline
    if name == "build_random_pipeline":
        from dressform_export.random_pipeline import build_random_pipeline

        return build_random_pipeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
