"""``dressform-export verify OUT``: the proof of an export again, on the machine that is to serve it.

It needs the export alone: torch's answers lie in it (`reference`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dressform_export import repository as layout
from dressform_export.capacity import ROWS, free_memory, measured
from dressform_export.engines import ENGINES, PRECISIONS, chosen
from dressform_export.errors import ExportError
from dressform_export.manifest import EngineRecord, GraphRecord, Manifest, open_manifest
from dressform_export.onnx_file import weights_of
from dressform_export.progress import Progress, Silence
from dressform_export.proof import gated, proven
from dressform_export.reference import References, read_references
from dressform_export.report import write_report
from dressform_export.runner import runner
from dressform_export.source import sha256
from dressform_export.triton_config import config_text
from dressform_export.verification import verify_graph

MAX_ROWS = "max_rows"
"""Parameter of the denoiser's config: rows of one UNet call, at most."""


def verify(
    out: str | Path,
    *,
    engines: Sequence[str] = (),
    rows: Sequence[int] = ROWS,
    memory: int | None = None,
    accept_failed_gates: bool = False,
    progress: Progress | None = None,
) -> Manifest:
    """Prove the export ``out`` again and measure its ``engines`` (by default all) with UNet calls of these ``rows``.

    Every graph is held against its hash and against torch's answers, and every engine's picture against torch's. Of
    engines that run on this machine's CPU, memory and time by rows are measured, and the rows that fit into ``memory``
    bytes (by default what is free) written as the denoiser's ``max_rows`` for that engine. Manifest and report are
    written anew.

    Raises:
        ExportError: if ``out`` is no export, has changed, or differs from torch by more than is allowed.
    """
    progress = progress or Silence()
    repository = Path(out).expanduser().absolute()
    manifest = open_manifest(repository)
    names = list(engines) or list(manifest.engines)
    manifest.require_engines(Path(out), names)
    chosen(names, making=False)
    references = read_references(repository)
    wanted = {name: manifest.engines[name] for name in names}
    checked = _graphs_verified(repository, wanted, references, progress)
    part, pictures = proven(replace(manifest, engines=checked, engine=names[0]), repository, references, progress)
    part = gated(part, accept=accept_failed_gates)
    free = free_memory() if memory is None else memory
    most, (height, width, _) = _most_rows(repository), references.picture.shape
    measures = {
        name: replace(engine, capacity=measured(repository, name, (height, width), free, rows, most, progress))
        if engine.executed
        else engine
        for name, engine in part.engines.items()
    }
    manifest = replace(manifest, engines={**manifest.engines, **measures}, accepted=part.accepted)
    _write_max_rows(repository, manifest)
    write_report(repository, manifest, references, pictures)
    manifest.write(repository)
    return manifest


def _graphs_verified(
    repository: Path, engines: dict[str, EngineRecord], references: References, progress: Progress
) -> dict[str, EngineRecord]:
    """The records of ``engines`` with their graphs verified anew, each graph once."""
    done: dict[str, GraphRecord] = {}
    for name, engine in engines.items():
        for leaf, graph in engine.graphs.items():
            if graph.file not in done:
                with progress.stage(f"verify {graph.file}"):
                    _check_hashes(repository, graph)
                    precision = PRECISIONS[ENGINES[name].graph_of(leaf)]
                    run = runner(repository / graph.file, precision)
                    results = verify_graph(leaf, references.leaves[leaf], run, precision)
                done[graph.file] = replace(graph, verification=results)
    return {
        name: replace(engine, graphs={leaf: done[graph.file] for leaf, graph in engine.graphs.items()})
        for name, engine in engines.items()
    }


def _check_hashes(repository: Path, graph: GraphRecord) -> None:
    path = repository / graph.file
    for file, expected in ((path, graph.sha256), (weights_of(path), graph.data_sha256)):
        if expected is not None and not file.is_file():
            raise ExportError(f"{file} is missing")
        if expected is not None and sha256(file) != expected:
            raise ExportError(f"{file} is not what was exported: its SHA-256 differs from the manifest's")


def _most_rows(repository: Path) -> int:
    """The rows of one call that the UNet's config allows."""
    return int(layout.config_for(repository, "unet", None).max_batch_size)


def _write_max_rows(repository: Path, manifest: Manifest) -> None:
    """Write the denoiser's config for each engine, with the rows that fit where it was measured, else as it was.

    That of the default engine is also the one without a name.
    """
    denoise = repository / "denoise"
    default = denoise / layout.CONFIG
    (denoise / layout.CONFIGS).mkdir(exist_ok=True)
    configs = {name: layout.config_for(repository, "denoise", name) for name in manifest.engines}
    for name, config in configs.items():
        capacity = manifest.engines[name].capacity
        if capacity is not None:
            config.parameters[MAX_ROWS].string_value = str(capacity.max_rows)
        named = denoise / layout.CONFIGS / f"{name}.pbtxt"
        for path in (named, *([default] if name == manifest.engine else [])):
            partial = path.with_suffix(".partial")
            partial.write_text(config_text(config, name, "dressform-export verify"), encoding="utf-8")
            os.replace(partial, path)
