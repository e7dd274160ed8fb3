"""The exported model repository, looked at before Triton is."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from dressform_server.errors import RepositoryError

MANIFEST_FORMAT = 1

_EXPORT_HINT = "Make one with: dressform-export SOURCE OUT"


@dataclass(frozen=True)
class Repository:
    """A folder that ``dressform-export`` wrote, and the names of its models."""

    path: Path
    models: tuple[str, ...]
    engine: str

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
        return cls(path.resolve(), models, str(manifest["engine"]))

    def check_engine(self, available: frozenset[str], instead: str) -> None:
        """Refuse a repository whose graphs need an engine that is not among ``available``.

        Raises:
            RepositoryError: with the sentence ``instead``, which says what can serve it.
        """
        if self.engine not in available:
            raise RepositoryError(
                f"{self.path} was exported for the engine {self.engine!r}; the embedded server runs "
                f"{', '.join(sorted(available))}. {instead}"
            )

    def check_config_name(self, name: str) -> None:
        """Refuse a configuration name that no model has: Triton would silently use the default ones.

        Raises:
            RepositoryError: naming the configurations there are.
        """
        known = sorted({file.stem for file in self.path.glob("*/configs/*.pbtxt")})
        if name not in known:
            have = f"it has {', '.join(known)}" if known else "it has none"
            raise RepositoryError(f"no model of {self.path} has a configuration named {name!r}; {have}")


def _manifest(file: Path) -> dict[str, object]:
    if not file.is_file():
        raise RepositoryError(f"{file.parent} is not an exported repository: it has no {file.name}. {_EXPORT_HINT}")
    try:
        manifest = json.loads(file.read_bytes())
    except ValueError as error:
        raise RepositoryError(f"{file} is not JSON: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != MANIFEST_FORMAT or "engine" not in manifest:
        found = manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
        raise RepositoryError(
            f"{file} must have format {MANIFEST_FORMAT} and an engine, but has format {found!r}; "
            "export it again with this version of dressform"
        )
    return manifest
