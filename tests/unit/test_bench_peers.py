"""The comparison of peers: names, the table, and that peers of one export paint the same picture."""

from __future__ import annotations

import argparse
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dressform_bench.peers.__main__ import _peer, main, of_export, table
from dressform_bench.peers.floor import Floor
from dressform_bench.peers.matrix import matrix_rate
from dressform_bench.peers.request import drawn_task, picture_file
from dressform_export import ExportError, read_manifest


@pytest.mark.parametrize("name", ["diffusers", "served", "bare:", "optimum:onnxruntime", ""])
def test_unknown_peers_are_refused(name: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"must be one of diffusers-fp32, .*served:ENGINE, not"):
        _peer(name)


def test_an_export_gives_the_engines_that_run_here(engines_repository: Path) -> None:
    engines = ("openvino", "onnxruntime", "onnxruntime-fp16")
    peers = [f"{kind}:{engine}" for engine in engines for kind in ("bare", "served")]
    assert of_export(read_manifest(engines_repository), "cpu") == peers
    assert [_peer(peer) for peer in peers] == peers


def test_on_a_gpu_the_engines_for_gpus_run(engines_repository: Path) -> None:
    assert of_export(read_manifest(engines_repository), "cuda") == ["bare:cuda", "served:cuda"]


def test_an_onnx_runtime_without_cuda_says_so(engines_repository: Path) -> None:
    with pytest.raises(ExportError, match="no CUDAExecutionProvider: install onnxruntime-gpu"):
        Floor(engines_repository, "cuda", gpu=True).painted(drawn_task(64, 64, 1))


def test_a_matrix_product_has_a_rate() -> None:
    assert 1e8 < matrix_rate("float32", seconds=0.1) < 1e16


def one(first: float, *users: tuple[int, list[float], int]) -> dict[str, Any]:
    told = [{"users": n, "round_seconds": seconds, "flops": None, "peak_bytes": peak} for n, seconds, peak in users]
    return {"first_image_seconds": first, "users": told}


def test_rows_are_medians_over_all_rounds_and_the_highest_peak(tiny_repository: Path, tmp_path: Path) -> None:
    runs = {
        "diffusers-fp32": [
            one(9, (1, [4.0, 5.0], 10**9), (8, [40.0, 40.0], 10**9)),
            one(11, (1, [6.0], 3 * 10**9), (8, [32.0], 10**9)),
        ],
        "optimum": [],
        "served:onnxruntime": [one(4, (1, [2.5], 2 * 10**9), (8, [8.0], 3 * 10**9))],
    }
    runs["served:onnxruntime"][0]["users"][0]["flops"] = 10e9
    for peer, level in (("diffusers-fp32", 100), ("served:onnxruntime", 110)):
        Image.new("RGB", (4, 4), (level, level, level)).save(tmp_path / picture_file(peer))
    rates = {"float32": 20e9, "bfloat16": 40e9}
    rows = table(list(runs), runs, tmp_path, [1, 8], rates, read_manifest(tiny_repository))
    assert rows[0] == {
        "peer": "diffusers-fp32",
        "users": 1,
        "seconds": 5.0,
        "images_per_minute": 12.0,
        "times_as_fast": 1.0,
        "first_image_seconds": 10.0,
        "peak_gigabytes": 3.0,
        "psnr": 100.0,
        "limit_seconds": 0.5,
        "share_of_limit": 0.1,
    }
    assert [(row["peer"], row["users"], row["seconds"], row["times_as_fast"]) for row in rows[1:]] == [
        ("served:onnxruntime", 1, 2.5, 2.0),
        ("diffusers-fp32", 8, 5.0, 1.0),
        ("served:onnxruntime", 8, 1.0, 5.0),
    ]
    assert rows[1]["psnr"] == 28.1


@pytest.mark.parametrize("words", [[], ["--source", "a"], ["--size", "tiny", "--source", "a", "--export", "b"]])
def test_either_a_size_or_both_folders(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(words)
    assert "give --size, or --source and --export" in capsys.readouterr().err


def test_an_inpaint_is_not_counted_as_high_as_a_tryon() -> None:
    """The manifest's operations are of the two pictures of a try-on, one above the other."""
    sizes = {"size": SimpleNamespace(height=128), "vae": SimpleNamespace(factor=8)}
    counts = {"unet": 1000, "vae_decoder": 10}
    unet, decoder = {"sample": np.zeros((2, 9, 16, 12))}, {"latents": np.zeros((1, 4, 16, 12))}
    calls = [("unet", unet)] * 3 + [("vae_decoder", decoder)]
    told = {}
    for tryon in ("inpaint", "concat"):
        manifest = SimpleNamespace(flops=counts, tryon=tryon, **sizes)
        told[tryon] = Floor.flops.fget(SimpleNamespace(_manifest=manifest, _calls=calls))  # type: ignore[attr-defined]
    assert told == {"inpaint": 3 * 2 * 1000 + 10, "concat": 3 * 2 * 500 + 10}
