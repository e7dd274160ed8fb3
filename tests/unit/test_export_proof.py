"""The proof of an export: pictures by engine, gates, the references it rests on, the report, `verify`, `inspect`."""

from __future__ import annotations

import dataclasses
import json
import shutil
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from dressform_export import ExportError, proof, read_manifest
from dressform_export.__main__ import main
from dressform_export.capacity import MARGIN, Sample, fitted, rows_that_fit
from dressform_export.fidelity import PSNR_CEILING, psnr
from dressform_export.flops import flops
from dressform_export.graphs import Dimensions, UNet
from dressform_export.manifest import PictureRecord
from dressform_export.proof import GATES, GraphLeaves, gated
from dressform_export.random_pipeline import ARCHITECTURES
from dressform_export.reference import FILE as REFERENCE
from dressform_export.reference import read_references
from dressform_export.report import FILE as REPORT
from dressform_export.report import report
from dressform_export.trajectory import paint, proof_request
from dressform_export.verify import verify


def copied(repository: Path, folder: Path) -> Path:
    return Path(shutil.copytree(repository, folder / "out"))


def test_psnr_by_hand() -> None:
    black = np.zeros((4, 4, 3), np.uint8)
    assert psnr(black, black) == PSNR_CEILING
    assert psnr(black, black + np.uint8(255)) == 0
    assert psnr(black, black + np.uint8(1)) == pytest.approx(20 * np.log10(255))


def test_every_engine_is_proven(engines_repository: Path) -> None:
    manifest = read_manifest(engines_repository)
    assert manifest.proof is not None
    assert (manifest.proof.task, manifest.proof.steps) == ("tryon", proof.STEPS)
    pictures = {name: engine.picture for name, engine in manifest.engines.items()}
    assert all(pictures.values())
    decibels = {name: picture.psnr for name, picture in pictures.items() if picture}
    assert decibels["openvino"] < decibels["onnxruntime-fp16"] < decibels["onnxruntime"]
    assert decibels["cuda"] == decibels["onnxruntime-fp16"], "the same graphs"
    for name, picture in pictures.items():
        assert picture is not None
        assert picture.gate == GATES[manifest.engines[name].precision]  # type: ignore[index]
        assert picture.psnr >= picture.gate
    assert manifest.accepted == ()
    for engine in manifest.engines.values():
        for graph in engine.graphs.values():
            assert all(0 <= result.relative < 1 for result in graph.verification)


def test_references_are_torchs(tiny_repository: Path) -> None:
    references = read_references(tiny_repository)
    manifest = read_manifest(tiny_repository)
    assert set(references.leaves) == set(manifest.graphs)
    assert references.request.task == "inpaint"
    assert references.request.options == proof_request(manifest, proof.STEPS).options
    leaves = GraphLeaves(tiny_repository, "onnxruntime", manifest.engines["onnxruntime"])
    steps: list[None] = []
    picture = paint(references.request, tiny_repository, manifest, leaves, lambda: steps.append(None))
    assert len(steps) == proof.STEPS
    record = manifest.engines["onnxruntime"].picture
    assert record is not None
    assert psnr(picture, references.picture) == pytest.approx(record.psnr, abs=1)
    other = dataclasses.replace(references.request, prompt="something else entirely")
    assert psnr(paint(other, tiny_repository, manifest, leaves), references.picture) < record.psnr


def test_a_picture_below_its_gate_is_refused_or_written_down(tiny_repository: Path) -> None:
    manifest = read_manifest(tiny_repository)
    for value in (49.9, float("nan")):
        engine = dataclasses.replace(manifest.engines["onnxruntime"], picture=PictureRecord(value, 50.0, 1.0))
        failed = dataclasses.replace(manifest, engines={"onnxruntime": engine})
        with pytest.raises(ExportError, match=r"'onnxruntime' paints .* and fp32 must reach 50 dB"):
            gated(failed, accept=False)
        (sentence,) = gated(failed, accept=True).accepted
        assert "fp32 must reach 50 dB" in sentence
    assert gated(manifest, accept=False).accepted == ()


def test_a_failed_gate_stops_the_export(
    tiny_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(proof, "GATES", {"fp32": PSNR_CEILING + 1})
    assert main([str(tiny_source), str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "fp32 must reach 101 dB" in error
    assert "--accept-failed-gates" in error
    assert not list(tmp_path.iterdir())
    assert main([str(tiny_source), str(tmp_path / "out"), "--accept-failed-gates"]) == 0
    (sentence,) = read_manifest(tmp_path / "out").accepted
    assert "fp32 must reach 101 dB" in sentence
    assert escape(sentence) in (tmp_path / "out" / REPORT).read_text()


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_report_is_one_whole_file(engines_repository: Path) -> None:
    page = _Page()
    page.feed((engines_repository / REPORT).read_text())
    assert page.open == []
    # image, mask, garment, torch's picture; each engine's with its difference
    assert len(page.sources) == 4 + 2 * len(read_manifest(engines_repository).engines)
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)


def test_the_report_trusts_nobodys_names(tiny_repository: Path) -> None:
    manifest = read_manifest(tiny_repository)
    source = dataclasses.replace(manifest.source, id="<script>alert(1)</script>")
    references = read_references(tiny_repository)
    assert "<script>" not in report(dataclasses.replace(manifest, source=source), references, {})


def test_the_full_size_unet_has_its_known_operations() -> None:
    """1.607 TFLOP for two rows of 64 × 64 latents."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(in_channels=9, out_channels=4, **ARCHITECTURES["sd15"].unet)
    unet = unet.to_empty(device="cpu")  # never touched, so no memory is taken
    leaf = UNet(Dimensions(9, 4, 8, 77, 768, 49408))
    assert 2 * flops(leaf, leaf.module(unet), leaf.usual(512, 512)) == pytest.approx(1.607e12, rel=2e-3)


def test_memory_is_a_line_through_the_peaks_that_rise() -> None:
    line = [Sample(rows, 1.0, 1000 + 50 * rows) for rows in (1, 2, 4, 8)]
    assert fitted(line) == (1000, 50)
    hidden = [Sample(1, 1.0, 1200), Sample(2, 1.0, 1200), Sample(4, 1.0, 1200), Sample(8, 1.0, 1400)]
    assert fitted(hidden) == (1000, 50)
    assert fitted([Sample(4, 1.0, 1000)]) == (0, 250)
    assert fitted([Sample(1, 1.0, 1000), Sample(2, 1.0, 1000)]) == (0, 500)


def test_rows_that_fit_keep_a_margin() -> None:
    assert rows_that_fit(2000, 1000, 50, 64) == (MARGIN * 2000 - 1000) // 50
    assert rows_that_fit(10**9, 1000, 50, 64) == 64
    assert rows_that_fit(10, 1000, 50, 64) == 1


def test_verify_measures_and_writes(engines_repository: Path, tmp_path: Path) -> None:
    out = copied(engines_repository, tmp_path)
    before = read_manifest(out)
    manifest = verify(out, engines=["openvino", "cuda"], rows=[1, 2], memory=10**11)
    assert read_manifest(out) == manifest
    assert manifest.engines["onnxruntime"] == before.engines["onnxruntime"]
    assert manifest.engines["cuda"].capacity is None, "not run on its own engine"
    capacity = manifest.engines["openvino"].capacity
    assert capacity is not None
    assert set(capacity.step_seconds) == {"1", "2"}
    assert min(capacity.step_seconds.values()) > 0
    assert 10**7 < capacity.fixed + capacity.per_row < 10**11
    assert 1 <= capacity.max_rows <= 64
    assert (capacity.height, capacity.width) == (before.size.height, before.size.width)
    written = {
        path.stem: text_format.Parse(path.read_text(), ModelConfig()).parameters["max_rows"].string_value
        for path in (*(out / "denoise" / "configs").iterdir(), out / "denoise" / "config.pbtxt")
    }
    measured = dict.fromkeys(("openvino", "config"), str(capacity.max_rows))
    assert written == dict.fromkeys(("cuda", "onnxruntime", "onnxruntime-fp16"), "32") | measured
    assert not list((out / "denoise").rglob("*.partial"))
    assert "rows fit into" in (out / REPORT).read_text()


def test_verify_finds_a_changed_graph(
    tiny_repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = copied(tiny_repository, tmp_path)
    graph = out / "unet" / "1" / "model.onnx"
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.write_bytes(content)
    assert main(["verify", str(out)]) == 2
    assert "is not what was exported: its SHA-256 differs" in capsys.readouterr().err.splitlines()[-1]
    graph.unlink()
    assert main(["verify", str(out)]) == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith("model.onnx is missing")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "has no reference.npz to verify it by: export it again"),
        (["--engine", "openvino"], "was exported for onnxruntime, not for openvino"),
    ],
)
def test_verify_refuses(
    tiny_repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    out = copied(tiny_repository, tmp_path)
    (out / REFERENCE).unlink()
    assert main(["verify", str(out), *arguments]) == 2
    assert capsys.readouterr().err.strip().endswith(sentence)


@pytest.mark.parametrize("command", ["verify", "inspect"])
def test_what_is_no_export_is_refused(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, str(tmp_path)]) == 2
    assert "is no export: it has no manifest.json" in capsys.readouterr().err


def test_inspect_tells_what_there_is(engines_repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = read_manifest(engines_repository)
    assert main(["inspect", str(engines_repository), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert list(told["engines"]) == list(manifest.engines)
    assert told["source"]["sha256"] == dict(manifest.source.sha256)
    assert all(told["flops"][leaf] > 0 for leaf in manifest.graphs)
    for name, engine in manifest.engines.items():
        sizes = [(engines_repository / graph.file).stat().st_size for graph in engine.graphs.values()]
        assert told["engines"][name]["bytes"] >= sum(sizes)
    assert main(["inspect", str(engines_repository)]) == 0
    table = capsys.readouterr().out
    for word in ("onnxruntime-fp16", "GFLOP", manifest.graphs["unet"].sha256[:12]):
        assert word in table.replace("\n", "")
