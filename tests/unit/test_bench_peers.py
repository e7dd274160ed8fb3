"""The comparison of peers: names, the table, and that peers of one export paint the same picture."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dressform_bench.peers.__main__ import _peer, main, of_export, table
from dressform_bench.peers.request import picture_file
from dressform_export import read_manifest


@pytest.mark.parametrize("name", ["diffusers", "served", "bare:", "optimum:onnxruntime", ""])
def test_unknown_peers_are_refused(name: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"must be one of diffusers-fp32, .*served:ENGINE, not"):
        _peer(name)


def test_an_export_gives_the_engines_that_run_here(engines_repository: Path) -> None:
    engines = ("openvino", "onnxruntime", "onnxruntime-fp16")
    peers = [f"{kind}:{engine}" for engine in engines for kind in ("bare", "served")]
    assert of_export(read_manifest(engines_repository)) == peers
    assert [_peer(peer) for peer in peers] == peers


def one(seconds: list[float], first: float, peak: int) -> dict[str, Any]:
    return {"seconds": seconds, "parts": {}, "first_image_seconds": first, "peak_bytes": peak}


def test_rows_are_medians_over_all_rounds_and_the_highest_peak(tmp_path: Path) -> None:
    runs = {
        "diffusers-fp32": [one([4.0, 5.0], 9, 10**9), one([6.0], 11, 3 * 10**9)],
        "optimum": [],
        "served:openvino": [one([2.5], 4, 2 * 10**9)],
    }
    for peer, level in (("diffusers-fp32", 100), ("served:openvino", 110)):
        Image.new("RGB", (4, 4), (level, level, level)).save(tmp_path / picture_file(peer))
    first, second = table(list(runs), runs, tmp_path)
    assert first == {
        "peer": "diffusers-fp32",
        "seconds": 5.0,
        "times_as_fast": 1.0,
        "first_image_seconds": 10.0,
        "peak_gigabytes": 3.0,
        "psnr": 100.0,
    }
    assert (second["peer"], second["times_as_fast"], second["psnr"]) == ("served:openvino", 2.0, 28.1)


def test_peers_paint_the_same_picture_and_failures_are_told(
    tiny_source: Path, tiny_repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    peers = ["diffusers-fp32", "bare:onnxruntime", "served:no-such-engine"]
    words = [str(tiny_source), str(tiny_repository), "--steps", "3", "--pictures", str(tmp_path / "pictures")]
    assert main([*words, "--peers", *peers]) == 1
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    diffusers, bare = report["rows"]
    assert (diffusers["peer"], bare["peer"]) == tuple(peers[:2])
    assert bare["psnr"] >= 50
    assert set(report["runs"]["bare:onnxruntime"][0]["parts"]) == set(read_manifest(tiny_repository).graphs)
    assert min(diffusers["seconds"], bare["seconds"]) > 0
    assert diffusers["peak_gigabytes"] > 0.1
    assert list(report["errors"]) == ["served:no-such-engine"]
    assert "no-such-engine" in report["errors"]["served:no-such-engine"]
