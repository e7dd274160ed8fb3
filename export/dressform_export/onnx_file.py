"""One leaf: traced and validated by optimum, turned into the graphs its engines need, each verified at other sizes."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import onnx
from optimum.exporters.error_utils import AtolError, OutputMatchError, ShapeError
from optimum.exporters.onnx.convert import export, validate_model_outputs
from torch import nn

from dressform_export.engines import FILES, Engine, GraphKind, graphs_needed
from dressform_export.errors import ExportError
from dressform_export.graphs import OPSET, Leaf
from dressform_export.half import to_half
from dressform_export.manifest import GraphRecord, Verification
from dressform_export.progress import Progress
from dressform_export.repository import VERSION, complete_leaf
from dressform_export.source import sha256
from dressform_export.verification import Runner, onnxruntime_runner, verify_graph

LARGEST_FILE = 1_500_000_000
"""Bytes above which the weights go into a file of their own (protobuf ends at 2 GiB)."""


def export_leaf(
    leaf: Leaf, module: nn.Module, repository: Path, engines: Sequence[Engine], progress: Progress
) -> dict[GraphKind, GraphRecord]:
    """Write the graphs of ``leaf`` that ``engines`` need into ``repository``, and its Triton configs.

    The FP32 graph, from which the others are made, is always among them.

    Raises:
        ExportError: if optimum's validation or ours finds a difference.
    """
    folder = repository / leaf.name / VERSION
    path = folder / FILES["fp32"]
    records: dict[GraphKind, GraphRecord] = {"fp32": _export_fp32(leaf, module, path, repository, progress)}
    needed = graphs_needed(engines, leaf.name)
    if "fp16" in needed:
        target = folder / FILES["fp16"]
        with progress.stage(f"fp16 weights of {leaf.name}"), _quiet():
            save_model(to_half(path), target)
        records["fp16"] = _verified(leaf, module, onnxruntime_runner(target), "fp16", target, repository, progress)
    if "openvino" in needed:
        from dressform_export import openvino_graph  # an extra: imported where it is asked for

        target = folder / FILES["openvino"]
        with progress.stage(f"convert {leaf.name} for OpenVINO"):
            openvino_graph.write_openvino(path, target)
        runner = openvino_graph.runner(target)
        records["openvino"] = _verified(leaf, module, runner, "bf16", target, repository, progress)
    complete_leaf(repository, leaf.name, path, engines)
    return records


def _export_fp32(leaf: Leaf, module: nn.Module, path: Path, repository: Path, progress: Progress) -> GraphRecord:
    with progress.stage(f"export {leaf.name}"), _quiet():
        export(module.eval(), leaf, path, opset=OPSET)
        move_weights_out(path)
    record = _verified(leaf, module, onnxruntime_runner(path), "fp32", path, repository, progress)
    try:
        # Of labels optimum is to check the shape alone: it would not allow one to differ.
        tolerance = float("inf") if leaf.labels else max(result.tolerance for result in record.verification)
        sizes = asdict(leaf.probes[0])
        with _quiet():
            validate_model_outputs(leaf, module, path, list(leaf.outputs), tolerance, sizes, use_subprocess=False)
    except (AtolError, OutputMatchError, ShapeError) as error:
        raise ExportError(f"optimum's validation of the {leaf.name} graph failed: {error}") from error
    return record


def _verified(
    leaf: Leaf, module: nn.Module, run: Runner, precision: str, path: Path, repository: Path, progress: Progress
) -> GraphRecord:
    with progress.stage(f"verify {leaf.name} in {precision}"), _quiet():
        verification = verify_graph(leaf, module, run, precision)
    worst = max(verification, key=lambda result: result.difference / result.tolerance)
    what = "share of labels that differ" if leaf.labels else "largest difference"
    progress.note(f"           {what} from torch {worst.difference:.2g} (allowed {worst.tolerance:.2g})")
    return _record(path, repository, verification)


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
