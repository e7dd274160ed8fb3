"""``dressform-export inspect OUT``: what an export holds, as a table or as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from dressform_export.manifest import EngineRecord, Manifest

SHOWN = 12
"""Digits of a hash in the table."""


def summary(manifest: Manifest) -> dict[str, Any]:
    """Sources, engines and graphs with their sizes, hashes and operations, as plain values."""
    return {
        "source": {"id": manifest.source.id, "revision": manifest.source.revision, "sha256": manifest.source.sha256},
        "parser": manifest.parser and {"id": manifest.parser.id, "sha256": manifest.parser.sha256},
        "attention": manifest.attention and {"id": manifest.attention.id, "sha256": manifest.attention.sha256},
        "calibration": manifest.calibration and asdict(manifest.calibration),
        "created": manifest.created,
        "tryon": manifest.tryon,
        "size": {"height": manifest.size.height, "width": manifest.size.width},
        "engine": manifest.engine,
        "flops": dict(manifest.flops),
        "engines": {name: _engine(engine) for name, engine in manifest.engines.items()},
        "accepted": list(manifest.accepted),
        "warnings": list(manifest.warnings),
    }


def _engine(engine: EngineRecord) -> dict[str, Any]:
    return {
        "backend": engine.backend,
        "precision": engine.precision,
        "executed": engine.executed,
        "bytes": sum(graph.bytes for graph in engine.graphs.values()),
        "psnr": engine.picture and engine.picture.psnr,
        "max_rows": engine.capacity and engine.capacity.max_rows,
        "graphs": {
            leaf: {
                "file": graph.file,
                "bytes": graph.bytes,
                "sha256": graph.sha256,
                "data_sha256": graph.data_sha256,
                "difference": max((result.difference for result in graph.verification), default=None),
            }
            for leaf, graph in engine.graphs.items()
        },
    }


def show(manifest: Manifest, console: Console) -> None:
    """Print the tables of `summary`."""
    told = summary(manifest)
    console.print(_sources(told))
    console.print(_engines(told))
    console.print(_graphs(told))
    for kind in ("accepted", "warnings"):
        for sentence in told[kind]:
            console.print(f"{kind.removesuffix('s')}: {sentence}", markup=False, soft_wrap=True)


def _sources(told: Mapping[str, Any]) -> Table:
    table = _table("sources", ("what", "id", "file", "sha256"))
    for kind in ("source", "parser", "attention"):
        if (entry := told[kind]) is not None:
            hashes = entry["sha256"] if isinstance(entry["sha256"], Mapping) else {"": entry["sha256"]}
            for file, digest in hashes.items():
                table.add_row(kind, str(entry["id"]), file, digest[:SHOWN])
    return table


def _engines(told: Mapping[str, Any]) -> Table:
    table = _table("engines", ("engine", "backend", "precision", "MB", "PSNR, dB", "max rows"))
    for name, engine in told["engines"].items():
        table.add_row(
            f"{name} (default)" if name == told["engine"] else name,
            engine["backend"],
            engine["precision"],
            f"{engine['bytes'] / 1e6:.1f}",
            "" if engine["psnr"] is None else f"{engine['psnr']:.1f}",
            "" if engine["max_rows"] is None else str(engine["max_rows"]),
        )
    return table


def _graphs(told: Mapping[str, Any]) -> Table:
    size = f"{told['size']['width']} × {told['size']['height']}"
    table = _table("graphs", ("file", "MB", f"GFLOP a row, {size}", "difference", "engines", "sha256"))
    engines: dict[str, list[str]] = {}
    for name, engine in told["engines"].items():
        for graph in engine["graphs"].values():
            engines.setdefault(graph["file"], []).append(name)
    rows = {graph["file"]: (leaf, graph) for e in told["engines"].values() for leaf, graph in e["graphs"].items()}
    for file, (leaf, graph) in sorted(rows.items()):
        table.add_row(
            file,
            f"{graph['bytes'] / 1e6:.1f}",
            f"{told['flops'][leaf] / 1e9:.3g}" if leaf in told["flops"] else "",
            "" if graph["difference"] is None else f"{graph['difference']:.2g}",
            ", ".join(engines[file]),
            graph["sha256"][:SHOWN],
        )
    return table


def _table(title: str, columns: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
