"""``report.html``: the proof of an export to look at; one file, pictures included."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from dressform_export.manifest import CapacityRecord, EngineRecord, Manifest
from dressform_export.reference import References
from dressform_export.trajectory import Pixels

FILE = "report.html"

MAGNIFIED = 8
"""Differences are shown so many times as large."""

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: .5rem 0 1.5rem }
th, td { border-bottom: 1px solid #ddd; padding: .25rem .7rem; text-align: right }
th:first-child, td:first-child { text-align: left }
figure { display: inline-block; margin: 0 1rem 1rem 0; vertical-align: top; width: 16rem }
figure img { width: 100%; image-rendering: pixelated; border: 1px solid #ddd }
.failed { color: #b00020; font-weight: bold }
"""


def write_report(repository: Path, manifest: Manifest, references: References, pictures: Mapping[str, Pixels]) -> None:
    """Write the file into ``repository``; ``pictures`` are those of the engines, by name."""
    (repository / FILE).write_text(report(manifest, references, pictures), encoding="utf-8")


def report(manifest: Manifest, references: References, pictures: Mapping[str, Pixels]) -> str:
    """The page: every engine's picture beside torch's, every graph's differences, and what this machine can do."""
    body = [
        f"<h1>{escape(manifest.source.id)}</h1>",
        f"<p>Exported {escape(manifest.created)}. {_request(manifest, references)}</p>",
        *(f'<p class="failed">Accepted all the same: {escape(sentence)}.</p>' for sentence in manifest.accepted),
        *(f"<p>Warning: {escape(sentence)}.</p>" for sentence in manifest.warnings),
        "<h2>Pictures</h2>",
        *_given(references),
        _figure("torch, fp32", references.picture),
        *(
            figure
            for name, picture in pictures.items()
            for figure in _beside(name, manifest.engines[name], picture, references.picture)
        ),
        "<h2>Engines</h2>",
        _table(
            ("engine", "precision", "run on", "PSNR, dB", "at least", "seconds"),
            [_engine_row(name, engine) for name, engine in manifest.engines.items()],
        ),
        "<h2>Graphs, against torch in fp32</h2>",
        *(_graphs(name, engine) for name, engine in manifest.engines.items()),
    ]
    measured = {name: engine.capacity for name, engine in manifest.engines.items() if engine.capacity}
    if measured:
        body += ["<h2>Capacity</h2>", *(_capacity(name, record) for name, record in measured.items())]
    title = escape(f"Proof of {manifest.source.id}")
    head = f'<meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n' + "\n".join(body) + "\n</body></html>\n"


def _request(manifest: Manifest, references: References) -> str:
    height, width, _ = references.picture.shape
    steps = references.request.options["num_inference_steps"]
    sentence = f"The proof is one {references.request.task} of {width} × {height} pixels in {steps} steps"
    prompt = f", “{references.request.prompt}”" if manifest.text else ""
    seconds = f"; torch took {manifest.proof.seconds:.1f} s in fp32" if manifest.proof else ""
    return escape(f"{sentence}{prompt}{seconds}.")


def _given(references: References) -> list[str]:
    request = references.request
    figures = [_figure("image", request.image), _figure("mask", request.mask)]
    return figures + ([] if request.garment is None else [_figure("garment", request.garment)])


def _beside(name: str, engine: EngineRecord, picture: Pixels, expected: Pixels) -> Iterable[str]:
    caption = f"{name}, {engine.precision}" + (f": {engine.picture.psnr:.1f} dB" if engine.picture else "")
    yield _figure(caption, picture)
    if picture.shape == expected.shape:
        difference = np.abs(picture.astype(np.int16) - expected.astype(np.int16)) * MAGNIFIED
        yield _figure(f"{name}: difference × {MAGNIFIED}", difference.clip(0, 255).astype(np.uint8))


def _engine_row(name: str, engine: EngineRecord) -> list[str]:
    picture = engine.picture
    where = "this engine" if engine.executed else "ONNX Runtime on the CPU, not on this engine"
    if picture is None:
        return [escape(name), engine.precision, where, "", "", ""]
    psnr = f"{picture.psnr:.1f}"
    shown = psnr if picture.psnr >= picture.gate else f'<span class="failed">{psnr}</span>'
    return [escape(name), engine.precision, where, shown, f"{picture.gate:g}", f"{picture.seconds:.1f}"]


def _graphs(name: str, engine: EngineRecord) -> str:
    rows = [
        [
            escape(leaf),
            escape(Path(graph.file).name),
            ", ".join(f"{key} {size}" for key, size in result.shapes.items()),
            f"{result.difference:.2g}",
            f"{result.relative:.2g}",
            f"{result.tolerance:.2g}",
            f"{result.reference_max:.3g}",
        ]
        for leaf, graph in engine.graphs.items()
        for result in graph.verification
    ]
    head = ("graph", "file", "sizes", "largest difference", "relative", "allowed", "largest value")
    return f"<h3>{escape(name)}</h3>" + _table(head, rows)


def _capacity(name: str, record: CapacityRecord) -> str:
    rows = [[count, f"{seconds:.3f}", f"{seconds / int(count):.3f}"] for count, seconds in record.step_seconds.items()]
    sentence = (
        f"{name} on {record.machine}, {record.width} × {record.height} pixels: {record.fixed / 2**30:.2f} GiB and "
        f"{record.per_row / 2**20:.1f} MiB a row; {record.max_rows} rows fit into {record.memory / 2**30:.1f} GiB."
    )
    return f"<p>{escape(sentence)}</p>" + _table(("rows", "seconds a step", "seconds a row"), rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An HTML table; cells are HTML already."""
    cells = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    lines = "\n".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table>\n<tr>{cells}</tr>\n{lines}\n</table>"


def _figure(caption: str, pixels: Pixels) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    data = base64.b64encode(file.getvalue()).decode()
    text = escape(caption, quote=True)
    return f'<figure><img alt="{text}" src="data:image/png;base64,{data}"><figcaption>{text}</figcaption></figure>'
