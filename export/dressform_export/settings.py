"""``dressform.json``: what a pipeline's folder may say about how it wants to be served."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from dressform_export.errors import ExportError
from dressform_export.manifest import SOLVERS, TRYON, Tryon

FILE = "dressform.json"


@dataclass(frozen=True)
class Settings:
    """Keys of ``dressform.json``; None means: taken from the pipeline. Sizes are in pixels."""

    tryon: Tryon = "none"
    num_inference_steps: int = 30
    solver: str | None = None
    tryon_eta: float = 0.0
    height: int | None = None
    width: int | None = None

    def __post_init__(self) -> None:
        if self.tryon not in TRYON:
            raise ExportError(f"{FILE}: tryon must be one of {', '.join(TRYON)}, not {self.tryon!r}")
        if self.solver is not None and self.solver not in SOLVERS:
            raise ExportError(f"{FILE}: solver must be one of {', '.join(SOLVERS)}, not {self.solver!r}")
        _check_number("num_inference_steps", self.num_inference_steps, 1, 150, whole=True)
        _check_number("tryon_eta", self.tryon_eta, 0, 1, whole=False)
        for name, side in (("height", self.height), ("width", self.width)):
            if side is not None:
                _check_number(name, side, 1, 16384, whole=True)


def _check_number(name: str, value: object, minimum: int, maximum: int, *, whole: bool) -> None:
    types: tuple[type, ...] = (int,) if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, types) or not minimum <= value <= maximum:  # type: ignore[operator]
        noun = "an integer" if whole else "a number"
        raise ExportError(f"{FILE}: {name} must be {noun} from {minimum} to {maximum}, not {value!r}")


def read_settings(folder: Path) -> Settings:
    """The settings in ``folder``, or the defaults where it has no ``dressform.json``.

    Raises:
        ExportError: if the file is no JSON object, has an unknown key, or a value is not allowed.
    """
    path = folder / FILE
    if not path.exists():
        return Settings()
    try:
        given: Any = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ExportError(f"{path} is not JSON: {error}") from error
    known = [field.name for field in fields(Settings)]
    if not isinstance(given, dict) or set(given) - set(known):
        odd = ", ".join(sorted(set(given) - set(known))) if isinstance(given, dict) else type(given).__name__
        raise ExportError(f"{path} has {odd}, and only these keys are known: {', '.join(known)}")
    return Settings(**given)
