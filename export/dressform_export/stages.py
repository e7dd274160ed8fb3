"""The Triton stages' own modules, for export code that must do the very same as they do."""

from __future__ import annotations

import sys

from dressform_export.repository import template_folder


def importable() -> None:
    """Let the modules of the ``model_repository`` be imported by their names there, as in ``mask.agnostic``."""
    folder = str(template_folder())
    if folder not in sys.path:
        sys.path.append(folder)
