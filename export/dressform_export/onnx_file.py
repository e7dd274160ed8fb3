"""One graph: traced and validated by optimum, its weights moved out where large, then verified at other sizes."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import onnx
from optimum.exporters.error_utils import AtolError, OutputMatchError, ShapeError
from optimum.exporters.onnx.convert import export, validate_model_outputs
from torch import nn

from dressform_export.attention import fuse_attention
from dressform_export.errors import ExportError
from dressform_export.graphs import OPSET, Leaf
from dressform_export.manifest import GraphRecord, Verification
from dressform_export.progress import Progress
from dressform_export.repository import VERSION, complete_leaf
from dressform_export.source import sha256
from dressform_export.verification import verify_graph

GRAPH, DATA = "model.onnx", "model.onnx.data"
LARGEST_FILE = 1_500_000_000
"""Bytes above which the weights go into a file of their own (protobuf ends at 2 GiB)."""


def export_graph(leaf: Leaf, module: nn.Module, repository: Path, progress: Progress) -> GraphRecord:
    """Write the graph of ``leaf`` into ``repository``, complete its Triton config, and return its record.

    Raises:
        ExportError: if optimum's validation or ours finds a difference.
    """
    path = repository / leaf.name / VERSION / GRAPH
    with progress.stage(f"export {leaf.name}"), _quiet():
        export(module.eval(), leaf, path, opset=OPSET)
        _fuse(path)
        move_weights_out(path)
    with progress.stage(f"verify {leaf.name}"), _quiet():
        verification = verify_graph(leaf, module, path)
        try:
            # Of labels optimum is to check the shape alone: it would not allow one to differ.
            tolerance = float("inf") if leaf.labels else max(result.tolerance for result in verification)
            sizes = asdict(leaf.probes[0])
            validate_model_outputs(leaf, module, path, list(leaf.outputs), tolerance, sizes, use_subprocess=False)
        except (AtolError, OutputMatchError, ShapeError) as error:
            raise ExportError(f"optimum's validation of the {leaf.name} graph failed: {error}") from error
        complete_leaf(repository, leaf.name, path)
    worst = max(verification, key=lambda result: result.difference / result.tolerance)
    what = "share of labels that differ" if leaf.labels else "largest difference"
    progress.note(f"           {what} from torch {worst.difference:.2g} (allowed {worst.tolerance:.2g})")
    return _record(path, repository, verification)


def _fuse(path: Path) -> None:
    """Rewrite the graph at ``path`` with its attention fused."""
    model = onnx.load(str(path), load_external_data=False)
    if fuse_attention(model):
        onnx.save(model, str(path))


def move_weights_out(path: Path) -> None:
    """Put the weights of a graph larger than ``LARGEST_FILE`` into ``model.onnx.data`` beside it.

    Above 2 GB optimum has done so already, under another name.
    """
    model = onnx.load(str(path), load_external_data=False)
    tensors = [*model.graph.initializer, *(a.t for node in model.graph.node for a in node.attribute if a.HasField("t"))]
    locations = [entry for tensor in tensors for entry in tensor.external_data if entry.key == "location"]
    if locations:
        (path.parent / locations[0].value).rename(path.parent / DATA)
        for entry in locations:
            entry.value = DATA
        onnx.save(model, str(path))
    elif path.stat().st_size > LARGEST_FILE:
        onnx.save(model, str(path), save_as_external_data=True, location=DATA, size_threshold=1024)


def _record(path: Path, repository: Path, verification: tuple[Verification, ...]) -> GraphRecord:
    data = path.parent / DATA
    outside = data if data.is_file() else None
    return GraphRecord(
        file=path.relative_to(repository).as_posix(),
        sha256=sha256(path),
        data_sha256=sha256(data) if outside else None,
        bytes=path.stat().st_size + (data.stat().st_size if outside else 0),
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
