"""The export, from a pipeline to a repository that any Triton can load.

Work happens in a hidden folder beside OUT, which is renamed into place at the very end: OUT is there and whole, or not
there at all.
"""

from __future__ import annotations

import datetime
import gc
import importlib.metadata
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import groupby
from pathlib import Path

from dressform_export import repository
from dressform_export.calibration import Calibration
from dressform_export.catvton import PREFIX, open_attention
from dressform_export.engines import DEFAULT, ENGINES, Engine, chosen, graphs_needed
from dressform_export.errors import ExportError
from dressform_export.flops import flops
from dressform_export.graphs import LEAVES, LEAVES_WITHOUT_TEXT, Leaf, UNet
from dressform_export.latent_colours import latent_to_rgb
from dressform_export.manifest import (
    FILE as MANIFEST_FILE,
)
from dressform_export.manifest import (
    CalibrationRecord,
    DefaultsRecord,
    EngineRecord,
    Manifest,
    SizeRecord,
    SourceRecord,
    TextRecord,
    UNetRecord,
    VaeRecord,
)
from dressform_export.onnx_file import ExportedLeaf, converted, export_leaf, weights_of
from dressform_export.parser import Parser, ParserSource, open_parser
from dressform_export.progress import Progress, Silence
from dressform_export.proof import STEPS, TorchLeaves, gated, proven, referenced
from dressform_export.report import write_report
from dressform_export.safety import open_safety_checker
from dressform_export.scheduler import checked_scheduler, solver_of
from dressform_export.source import SAFETY_CHECKER, Source, open_source
from dressform_export.tensorrt import complete_tensorrt
from dressform_export.trajectory import proof_request

SMALLEST_SIDE, LARGEST_SIDE = 64, 1024
"""Bounds of a picture's side in pixels, widened where the pipeline's own size lies outside."""

DISTRIBUTIONS = (
    "dressform",
    "torch",
    "diffusers",
    "transformers",
    "optimum",
    "optimum-onnx",
    "onnx",
    "onnxruntime",
    "openvino",
    "nncf",
)


def export_pipeline(
    source: str | Path,
    out: str | Path,
    *,
    revision: str | None = None,
    parser: str | None = None,
    tryon: str | None = None,
    safety_checker: bool = True,
    engines: Sequence[str] = (),
    calibration: Calibration | None = None,
    accept_failed_gates: bool = False,
    force: bool = False,
    progress: Progress | None = None,
) -> Manifest:
    """Export the pipeline ``source`` (a ``save_pretrained`` folder or a hub id) to the folder ``out``.

    ``parser`` is a Segformer for automatic masks: a folder, a hub id, or "none"; by default the ``parser`` folder of
    the source, where it has one. ``tryon`` is ``catvton=PATH``, a CatVTON checkpoint to put over the source's UNet; by
    default the source's own ``dressform.json`` says what it can. ``safety_checker`` false leaves the source's out.
    ``engines`` are names of `dressform_export.engines.ENGINES`, by default ONNX Runtime alone; the first is served
    unless another is asked for. ``calibration`` is for ``openvino-int8``, by default a part of the demonstration's
    wardrobe. Each engine paints a picture, and one that is too far from torch's stops the export unless
    ``accept_failed_gates``. ``force`` replaces an earlier export at ``out``.

    Raises:
        ExportError: if the source cannot be exported, ``out`` cannot be written, or a graph or a picture differs
            from torch by more than is allowed.
    """
    progress = progress or Silence()
    wanted = chosen(engines)
    calibration = _checked(calibration, wanted)
    target = _admitted(Path(out), force)
    with progress.stage(f"inspect {source}"):
        attention = None if tryon is None else open_attention(_checkpoint(tryon))
        pipeline = open_source(str(source), revision, attention=attention, safety_checker=safety_checker)
        segmenter = open_parser(parser, pipeline.folder)
        checker = open_safety_checker(pipeline)
        _check_disk(pipeline, segmenter, wanted, target.parent)
    leaves: list[Leaf] = [leaf(pipeline.dimensions) for leaf in (LEAVES if pipeline.has_text else LEAVES_WITHOUT_TEXT)]
    leaves += [checker] if checker else []
    leaves += [Parser(segmenter)] if segmenter else []
    with _staging(target) as staging:
        repository.copy_models(repository.template_folder(), staging, [leaf.name for leaf in leaves])
        exported, operations = _export_graphs(leaves, pipeline, segmenter, wanted, staging, progress)
        with progress.stage("fit preview colours"):
            colours = latent_to_rgb(staging, pipeline.dimensions.vae_factor, pipeline.scaling_factor)
        with progress.stage("write tokenizer and scheduler"):
            if pipeline.has_text:
                repository.write_tokenizer(staging, pipeline.tokenizer)
            repository.write_scheduler(staging, checked_scheduler(pipeline.scheduler)[0])
        calibrated = None
        if calibration is not None:
            plain = _manifest(pipeline, segmenter, _engine_records([ENGINES[DEFAULT]], exported), operations, colours)
            calibrated = _quantise(plain, leaves, exported, staging, calibration, progress)
        manifest = _manifest(pipeline, segmenter, _engine_records(wanted, exported), operations, colours)
        manifest = replace(manifest, calibration=calibrated)
        manifest = _prove(manifest, leaves, pipeline, exported, staging, progress, accept=accept_failed_gates)
        manifest.write(staging)
        _remove_unused(staging, wanted, exported)
        complete_tensorrt(staging, manifest)
        _move_into_place(staging, target)
    return manifest


def _checked(calibration: Calibration | None, engines: Sequence[Engine]) -> Calibration | None:
    """What int8 is to be calibrated on; None where no engine is int8."""
    if ENGINES["openvino-int8"] in engines:
        calibration = calibration or Calibration()
        calibration.check()
    elif calibration is not None:
        raise ExportError("calibration is for engine 'openvino-int8', which is not among those asked for")
    return calibration


def _checkpoint(tryon: str) -> str:
    """The path in ``catvton=PATH``."""
    path = tryon.removeprefix(PREFIX)
    if not path or path == tryon:
        raise ExportError(f"--tryon must be {PREFIX}PATH, the folder of a CatVTON checkpoint, not {tryon!r}")
    return path


def _admitted(out: Path, force: bool) -> Path:
    """``out`` as an absolute path, if it may be written."""
    target = out.expanduser().absolute()
    occupied = target.exists() and (not target.is_dir() or any(target.iterdir()))
    if occupied and not force:
        raise ExportError(f"{out} exists already: name another folder, or replace it with --force")
    if occupied and not (target / MANIFEST_FILE).is_file():
        raise ExportError(f"{out} exists already and is no export of ours, so --force does not replace it")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(f"{target.parent} cannot be made: {error.strerror}") from error
    return target


def _check_disk(pipeline: Source, segmenter: ParserSource | None, engines: Sequence[Engine], folder: Path) -> None:
    """Refuse before the work where the graphs would not fit: all in FP32, the largest twice while it is gathered.

    Each other graph has half weights, or smaller ones.
    """
    sizes = [4 * pipeline.parameters(component) for component in pipeline.weights]
    sizes += [4 * segmenter.parameters] if segmenter else []
    others = len({kind for engine in engines for kind in (engine.graph, *engine.special.values())} - {"fp32"})
    needed, free = int(sum(sizes) * (1 + others / 2)) + max(sizes) + 2**26, shutil.disk_usage(folder).free
    if free < needed:
        raise ExportError(f"the export needs {needed / 1e9:.1f} GB in {folder}, and {free / 1e9:.1f} GB are free")


@contextmanager
def _staging(target: Path) -> Iterator[Path]:
    """A new hidden folder beside ``target`` that is gone after the block, whatever happens."""
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
    try:
        yield staging
    except OSError as error:
        raise ExportError(f"writing the export failed: {error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _open_to_readers(staging: Path) -> None:
    """Give everything the usual permissions: temporary folders and large weight files are made private."""
    umask = os.umask(0)
    os.umask(umask)
    for path in (staging, *staging.rglob("*")):
        path.chmod((0o777 if path.is_dir() or path.suffix == ".sh" else 0o666) & ~umask)


def _move_into_place(staging: Path, target: Path) -> None:
    _open_to_readers(staging)
    if not (target / MANIFEST_FILE).is_file():
        staging.rename(target)
        return
    replaced = staging.with_suffix(".replaced")
    target.rename(replaced)
    try:
        staging.rename(target)
    except OSError:
        replaced.rename(target)
        raise
    shutil.rmtree(replaced, ignore_errors=True)


def _export_graphs(
    leaves: list[Leaf],
    pipeline: Source,
    segmenter: ParserSource | None,
    engines: Sequence[Engine],
    staging: Path,
    progress: Progress,
) -> tuple[dict[str, ExportedLeaf], dict[str, int]]:
    """All graphs by leaf, one component in memory at a time; and the operations of a row of the default size."""
    exported: dict[str, ExportedLeaf] = {}
    operations: dict[str, int] = {}
    height, width = pipeline.size
    for component, group in groupby(leaves, key=_component):
        with progress.stage(f"load {component}"):
            own = segmenter is not None and component == Parser.component
            model = segmenter.load() if segmenter and own else pipeline.load(component)
        for leaf in group:
            module = leaf.module(model)
            exported[leaf.name] = export_leaf(leaf, module, staging, engines, progress)
            stacked = 2 if leaf.name == UNet.name and pipeline.settings.tryon == "concat" else 1
            operations[leaf.name] = flops(leaf, module, leaf.usual(stacked * height, width))
        del model, module
        gc.collect()
    return exported, operations


def _quantise(
    manifest: Manifest,
    leaves: Sequence[Leaf],
    exported: dict[str, ExportedLeaf],
    staging: Path,
    calibration: Calibration,
    progress: Progress,
) -> CalibrationRecord:
    """Add the UNet's int8 graph to ``exported``; ``manifest`` is that of the FP32 graphs in ``staging``."""
    from dressform_export.int8 import write_int8  # an extra: imported where it is asked for

    calls, record = calibration.collected(manifest, staging, progress)
    leaf = next(leaf for leaf in leaves if leaf.name == UNet.name)
    plain, convert = exported[leaf.name], partial(write_int8, calls=calls)
    graph = converted(leaf, plain.references, staging, "openvino_int8", convert, progress)
    exported[leaf.name] = replace(plain, graphs={**plain.graphs, "openvino_int8": graph})
    return record


def _prove(
    manifest: Manifest,
    leaves: Sequence[Leaf],
    pipeline: Source,
    exported: Mapping[str, ExportedLeaf],
    staging: Path,
    progress: Progress,
    *,
    accept: bool,
) -> Manifest:
    """The ``manifest`` with the proof of every engine's picture; references and report are written to ``staging``."""
    answers = {leaf: one.references for leaf, one in exported.items()}
    request = proof_request(manifest, STEPS)
    torch_leaves = TorchLeaves(leaves, pipeline.load)
    manifest, references = referenced(answers, request, staging, manifest, torch_leaves, progress)
    del torch_leaves
    gc.collect()
    manifest, pictures = proven(manifest, staging, references, progress)
    manifest = gated(manifest, accept=accept)
    references.write(staging)
    write_report(staging, manifest, references, pictures)
    return manifest


def _engine_records(engines: Sequence[Engine], exported: Mapping[str, ExportedLeaf]) -> dict[str, EngineRecord]:
    return {
        engine.name: EngineRecord(
            engine.backend,
            engine.precision,
            executed=not engine.gpu,
            graphs={leaf: one.graphs[engine.graph_of(leaf)] for leaf, one in exported.items()},
        )
        for engine in engines
    }


def _remove_unused(staging: Path, engines: Sequence[Engine], exported: Mapping[str, ExportedLeaf]) -> None:
    """Remove the graphs that others were made from and no engine runs."""
    for leaf, one in exported.items():
        for kind in one.graphs.keys() - graphs_needed(engines, leaf):
            path = staging / one.graphs[kind].file
            path.unlink()
            weights_of(path).unlink(missing_ok=True)


def _component(leaf: Leaf) -> str:
    return leaf.component


def _manifest(
    pipeline: Source,
    segmenter: ParserSource | None,
    engines: dict[str, EngineRecord],
    operations: dict[str, int],
    colours: tuple[tuple[float, ...], ...],
) -> Manifest:
    scheduler, warnings = checked_scheduler(pipeline.scheduler)
    if pipeline.has_safety_checker and SAFETY_CHECKER not in pipeline.components:
        warnings += ("the pipeline's safety_checker is left out: pictures are served unchecked",)
    d, settings = pipeline.dimensions, pipeline.settings
    height, width = pipeline.size
    try:
        return Manifest(
            source=SourceRecord(pipeline.id, pipeline.revision, pipeline.hashes()),
            created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            versions={name: _version(name) for name in DISTRIBUTIONS},
            tryon=settings.tryon,
            unet=UNetRecord(d.in_channels, d.latent_channels, scheduler["prediction_type"]),
            vae=VaeRecord(d.vae_factor, d.latent_channels, pipeline.scaling_factor),
            text=_text_record(pipeline) if pipeline.has_text else None,
            size=SizeRecord(height, width, min(SMALLEST_SIDE, height, width), max(LARGEST_SIDE, height, width)),
            defaults=DefaultsRecord(
                settings.num_inference_steps, settings.solver or solver_of(scheduler), float(settings.tryon_eta)
            ),
            engines=engines,
            engine=next(iter(engines)),
            flops=operations,
            latent_to_rgb=colours,
            parser=segmenter.record if segmenter else None,
            safety_checker=SAFETY_CHECKER in pipeline.components,
            attention=pipeline.attention.record if pipeline.attention else None,
            warnings=warnings,
        )
    except ValueError as error:
        raise ExportError(f"the pipeline cannot be described: {error}") from error


def _text_record(pipeline: Source) -> TextRecord:
    d, tokenizer = pipeline.dimensions, pipeline.tokenizer
    return TextRecord(
        d.text_length, d.text_width, tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id
    )


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"  # not needed, or run from a checkout that is not installed
