"""One leaf: traced and validated by optimum, turned into the graphs its engines need, each verified at other sizes."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import onnx
from optimum.exporters.error_utils import AtolError, OutputMatchError, ShapeError
from optimum.exporters.onnx.convert import export, validate_model_outputs
from torch import nn

from dressform_export.attention import fuse_attention
from dressform_export.engines import FILES, PRECISIONS, Engine, GraphKind, graphs_needed
from dressform_export.errors import ExportError
from dressform_export.graphs import OPSET, Leaf
from dressform_export.half import to_half
from dressform_export.manifest import GraphRecord, Verification
from dressform_export.progress import Progress
from dressform_export.repository import VERSION, complete_leaf
from dressform_export.runner import runner
from dressform_export.source import sha256
from dressform_export.verification import Reference, references, verify_graph

LARGEST_FILE = 1_500_000_000
"""Bytes above which the weights go into a file of their own (protobuf ends at 2 GiB)."""


@dataclass(frozen=True)
class ExportedLeaf:
    """The graphs of a leaf, and torch's answers that they were held against."""

    graphs: Mapping[GraphKind, GraphRecord]
    references: tuple[Reference, ...]


def export_leaf(
    leaf: Leaf, module: nn.Module, repository: Path, engines: Sequence[Engine], progress: Progress
) -> ExportedLeaf:
    """Write the graphs of ``leaf`` that ``engines`` need into ``repository``, and its Triton configs.

    The FP32 graph, from which the others are made, is always among them.

    Raises:
        ExportError: if optimum's validation or ours finds a difference, or torch gives values that are not finite.
    """
    folder = repository / leaf.name / VERSION
    traced = folder / FILES["fp32"]
    with progress.stage(f"export {leaf.name}"), _quiet():
        export(module.eval(), leaf, traced, opset=OPSET)
        move_weights_out(traced)
        answers = references(leaf, module)
    needed = graphs_needed(engines, leaf.name) | {"fp32"}
    records = {
        kind: converted(leaf, answers, repository, kind, convert, progress)
        for kind, convert in _CONVERSIONS.items()
        if kind in needed
    }
    _validate(leaf, module, traced, records["fp32"].verification)
    complete_leaf(repository, leaf.name, traced, engines)
    return ExportedLeaf(records, answers)


def converted(
    leaf: Leaf,
    answers: Sequence[Reference],
    repository: Path,
    kind: GraphKind,
    convert: Callable[[Path, Path], None],
    progress: Progress,
) -> GraphRecord:
    """Make the graph ``kind`` of ``leaf`` by ``convert`` from the FP32 one, and hold it against torch's ``answers``.

    Raises:
        ExportError: if it cannot be made, or differs.
    """
    folder = repository / leaf.name / VERSION
    path = folder / FILES[kind]
    with progress.stage(f"{leaf.name}: {path.name}"), _quiet():
        convert(folder / FILES["fp32"], path)
        verification = verify_graph(leaf.name, answers, runner(path, PRECISIONS[kind]), PRECISIONS[kind])
    _tell(leaf, verification, progress)
    return _record(path, repository, verification)


def _to_half(source: Path, target: Path) -> None:
    save_model(to_half(source), target)


def _to_openvino(source: Path, target: Path) -> None:
    from dressform_export.openvino_graph import write_openvino  # an extra: imported where it is asked for

    write_openvino(source, target)


def _fuse(path: Path, _: Path) -> None:
    """Rewrite the graph at ``path`` with its attention fused."""
    model = onnx.load(str(path), load_external_data=False)
    if fuse_attention(model):
        onnx.save(model, str(path))


_CONVERSIONS: Mapping[GraphKind, Callable[[Path, Path], None]] = {
    "fp16_plain": _to_half,
    "fp32": _fuse,
    "fp16": _to_half,
    "openvino": _to_openvino,
}
"""How each graph is made from the FP32 one; in this order, for that one is as traced until its attention is fused.

The int8 graph needs all others of the pipeline before it can be calibrated (`dressform_export.int8`).
"""


def _validate(leaf: Leaf, module: nn.Module, path: Path, verification: Sequence[Verification]) -> None:
    """optimum's own comparison of the graph at ``path`` with torch."""
    # Of labels optimum is to check the shape alone: it would not allow one to differ.
    tolerance = float("inf") if leaf.labels else max(result.tolerance for result in verification)
    sizes = asdict(leaf.probes[0])
    try:
        with _quiet():
            validate_model_outputs(leaf, module, path, list(leaf.outputs), tolerance, sizes, use_subprocess=False)
    except (AtolError, OutputMatchError, ShapeError) as error:
        raise ExportError(f"optimum's validation of the {leaf.name} graph failed: {error}") from error


def _tell(leaf: Leaf, verification: Sequence[Verification], progress: Progress) -> None:
    worst = max(verification, key=lambda result: result.difference / result.tolerance)
    what = "share of labels that differ" if leaf.labels else "largest difference"
    progress.note(f"           {what} from torch {worst.difference:.2g} (allowed {worst.tolerance:.2g})")


def move_weights_out(path: Path) -> None:
    """Put the weights of a graph larger than ``LARGEST_FILE`` into a ``.data`` file beside it.

    Above 2 GB optimum has done so already, under another name.
    """
    model = onnx.load(str(path), load_external_data=False)
    tensors = [*model.graph.initializer, *(a.t for node in model.graph.node for a in node.attribute if a.HasField("t"))]
    locations = [entry for tensor in tensors for entry in tensor.external_data if entry.key == "location"]
    if locations:
        (path.parent / locations[0].value).rename(weights_of(path))
        for entry in locations:
            entry.value = weights_of(path).name
        onnx.save(model, str(path))
    elif path.stat().st_size > LARGEST_FILE:
        save_model(onnx.load(str(path)), path)


def save_model(model: onnx.ModelProto, path: Path) -> None:
    """Write ``model`` to ``path``, its weights beside it where it is larger than ``LARGEST_FILE``."""
    if model.ByteSize() > LARGEST_FILE:
        name = weights_of(path).name
        onnx.save(model, str(path), save_as_external_data=True, location=name, size_threshold=1024)
    else:
        onnx.save(model, str(path))


def weights_of(path: Path) -> Path:
    """Where the weights of the graph at ``path`` are, if not inside: ``.bin`` of IR, ``.onnx.data`` of ONNX."""
    return path.with_suffix(".bin") if path.suffix == ".xml" else path.with_name(f"{path.name}.data")


def _record(path: Path, repository: Path, verification: tuple[Verification, ...]) -> GraphRecord:
    outside = weights_of(path)
    return GraphRecord(
        file=path.relative_to(repository).as_posix(),
        sha256=sha256(path),
        data_sha256=sha256(outside) if outside.is_file() else None,
        bytes=path.stat().st_size + (outside.stat().st_size if outside.is_file() else 0),
        opset=OPSET,
        verification=verification,
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the tracer's and optimum's chatter away: what matters is verified and reported."""
    loggers = [logging.getLogger(name) for name in ("optimum", "torch.onnx", "transformers", "diffusers")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
