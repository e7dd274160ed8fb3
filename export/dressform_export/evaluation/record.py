"""What an evaluation's report says of the export, the software and the machine."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
from dataclasses import replace
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from dressform_export.evaluation.errors import EvaluationError
from dressform_export.manifest import FILE, read_manifest

PACKAGES = ("dressform", "numpy", "onnxruntime", "pillow", "scikit-image", "torch", "torchmetrics", "tritonclient")
DIGITS = 5


def environment() -> dict[str, Any]:
    """When, with which versions and on what machine."""
    return {
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
        "machine": {"system": f"{platform.system()} {platform.machine()}", "cpus": os.cpu_count(), "cpu": _processor()},
    }


def exported(repository: Path | None, engine: str | None = None) -> dict[str, Any] | None:
    """The export that was evaluated; None where it is unknown, since a server was named by its address alone.

    ``engine`` is the one that was served, None for the export's default.

    ``manifest_sha256`` is that of the whole manifest, which holds the date of the export; ``graphs`` and ``source`` say
    whether two exports hold the same weights.

    Raises:
        EvaluationError: where the repository has no manifest, or one that cannot be read; or an engine comes alone.
        ExportError: where it was not exported for that engine.
    """
    if repository is None:
        if engine is not None:
            raise EvaluationError(f"--engine {engine} is one of an export: name it with --repository")
        return None
    try:
        manifest = read_manifest(repository)
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{repository} is no exported repository: {error}") from error
    if engine is not None:
        manifest.require_engines(repository, [engine])
        manifest = replace(manifest, engine=engine)
    return {
        "manifest_sha256": hashlib.sha256((repository / FILE).read_bytes()).hexdigest(),
        "source": {
            "id": _portable(manifest.source.id),
            "revision": manifest.source.revision,
            "sha256": manifest.source.sha256,
        },
        "parser": None if manifest.parser is None else {"sha256": manifest.parser.sha256},
        "graphs": {name: graph.sha256 for name, graph in manifest.graphs.items()},
        "tryon": manifest.tryon,
        "engine": manifest.engine,
        "precision": manifest.precision,
        "created": manifest.created,
    }


def write(report: dict[str, Any], path: Path) -> None:
    """Write ``report`` as JSON, figures rounded to `DIGITS` digits after the point.

    Raises:
        ValueError: if a figure is not finite.
    """
    text = json.dumps(_rounded(report), indent=1, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return round(value, DIGITS) if isinstance(value, float) and math.isfinite(value) else value


def _portable(source: str) -> str:
    """A hub id as it is; of a folder the last part, for the rest is about one machine."""
    return Path(source).name if Path(source).is_absolute() else source


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    """The processor's model, as Linux names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
