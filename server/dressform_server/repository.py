"""The exported model repository, looked at before Triton is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dressform_server.errors import RepositoryError

MANIFEST_FORMAT = 1

_EXPORT_HINT = "Make one with: dressform-export SOURCE OUT"


@dataclass(frozen=True)
class Repository:
    """A folder that ``dressform-export`` wrote, and the names of its models."""

    path: Path
    models: tuple[str, ...]
    engines: Mapping[str, str]
    """Triton's backend by engine that the repository was exported for."""
    engine: str
    """The one that is served unless another is asked for."""

    @classmethod
    def read(cls, path: Path) -> Repository:
        """The repository at ``path``.

        Raises:
            RepositoryError: if it is missing, has no manifest, or a manifest of another format.
        """
        if not path.is_dir():
            what = "is a file" if path.exists() else "does not exist"
            raise RepositoryError(f"the model repository {path} {what}; a folder is needed. {_EXPORT_HINT}")
        manifest = _manifest(path / "manifest.json")
        models = tuple(sorted(config.parent.name for config in path.glob("*/config.pbtxt")))
        if not models:
            raise RepositoryError(f"{path} has a manifest but no model (no */config.pbtxt). {_EXPORT_HINT}")
        engines = {name: str(record["backend"]) for name, record in manifest["engines"].items()}
        return cls(path.resolve(), models, engines, str(manifest["engine"]))

    def backend(self, engine: str | None, available: frozenset[str], instead: str) -> str:
        """Triton's backend of ``engine`` (None: the repository's first).

        Raises:
            RepositoryError: if it was not exported for that engine, or the backend is not among ``available``; then
                with the sentence ``instead``, which says what can serve it.
        """
        name = self.engine if engine is None else engine
        if name not in self.engines:
            raise RepositoryError(f"{self.path} was exported for {', '.join(self.engines)}, not for {name!r}")
        backend = self.engines[name]
        if backend not in available:
            raise RepositoryError(
                f"engine {name!r} needs Triton's backend {backend}; the embedded server has "
                f"{', '.join(sorted(available))}. {instead}"
            )
        return backend


def _manifest(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise RepositoryError(f"{file.parent} is not an exported repository: it has no {file.name}. {_EXPORT_HINT}")
    try:
        manifest = json.loads(file.read_bytes())
    except ValueError as error:
        raise RepositoryError(f"{file} is not JSON: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != MANIFEST_FORMAT or "engines" not in manifest:
        found = manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
        raise RepositoryError(
            f"{file} must have format {MANIFEST_FORMAT} and engines, but has format {found!r}; "
            "export it again with this version of dressform"
        )
    return manifest
