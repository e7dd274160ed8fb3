"""The comparison of peers: names, the table, and that peers of one export paint the same picture."""

from __future__ import annotations

import argparse
import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from dressform_bench import models
from dressform_bench.peers import __main__ as peers
from dressform_bench.peers import environment
from dressform_bench.peers.__main__ import _peer, main, of_export, table
from dressform_bench.peers.floor import Floor
from dressform_bench.peers.matrix import matrix_rate
from dressform_bench.peers.operations import operations, usual_height
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


def test_on_a_gpu_the_engines_for_gpus_run() -> None:
    """TensorRT runs in Triton alone."""
    manifest: Any = SimpleNamespace(engines=dict.fromkeys(["onnxruntime", "cuda", "tensorrt", "cuda-tensorrt"]))
    assert of_export(manifest, "cuda") == ["bare:cuda", "served:cuda", "served:tensorrt", "served:cuda-tensorrt"]


def test_what_runs_in_triton_alone_has_no_floor(engines_repository: Path) -> None:
    with pytest.raises(ExportError, match="engine 'tensorrt' runs in Triton alone"):
        Floor(engines_repository, "tensorrt")


def test_an_onnx_runtime_without_cuda_says_so(engines_repository: Path) -> None:
    with pytest.raises(ExportError, match="no CUDAExecutionProvider: install onnxruntime-gpu"):
        Floor(engines_repository, "cuda").painted(drawn_task(64, 64, 1))


def test_a_matrix_product_has_a_rate() -> None:
    assert 1e8 < matrix_rate("float32", seconds=0.1) < 1e16


def one(first: float, *users: tuple[int, list[float], int]) -> dict[str, Any]:
    told = [{"users": n, "round_seconds": seconds, "peak_bytes": peak} for n, seconds, peak in users]
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
    for peer, level in (("diffusers-fp32", 100), ("served:onnxruntime", 110)):
        Image.new("RGB", (4, 4), (level, level, level)).save(tmp_path / picture_file(peer))
    limit = {"flops_per_image": 10e9, "flops_per_second": {"float32": 20e9, "bfloat16": 40e9}}
    rows = table(list(runs), runs, tmp_path, [1, 8], limit, read_manifest(tiny_repository))
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


def test_who_failed_for_eight_has_a_row_for_one(tiny_repository: Path, tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / picture_file("optimum"))
    Image.new("RGB", (4, 4)).save(tmp_path / picture_file("diffusers-bf16"))
    limit = {"flops_per_image": 10e9, "flops_per_second": {"float32": 20e9}}
    runs = {
        "optimum": [one(9, (1, [4.0], 10**9))],
        "diffusers-bf16": [one(9, (1, [2.0], 10**9), (8, [8.0], 10**9))],
    }
    rows = table(list(runs), runs, tmp_path, [1, 8], limit, read_manifest(tiny_repository))
    assert [(row["peer"], row["users"], row["times_as_fast"]) for row in rows] == [
        ("optimum", 1, 1.0),
        ("diffusers-bf16", 1, 2.0),
        ("diffusers-bf16", 8, 1.0),
    ]


@pytest.mark.parametrize("words", [[], ["--source", "a"], ["--size", "tiny", "--source", "a", "--export", "b"]])
def test_either_a_size_or_both_folders(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(words)
    assert "give --size, or --source and --export" in capsys.readouterr().err


def test_without_the_reference_there_is_no_psnr(tiny_repository: Path, tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / picture_file("optimum"))
    limit = {"flops_per_image": 10e9, "flops_per_second": {"float32": 20e9}}
    runs = {"optimum": [one(9, (1, [4.0], 10**9))], "diffusers-fp32": []}
    (row,) = table(list(runs), runs, tmp_path, [1], limit, read_manifest(tiny_repository))
    assert row["psnr"] is None


def test_operations_are_those_of_the_calls(tiny_repository: Path) -> None:
    """Counted without running anything, they are those of the calls that the graphs get."""
    manifest, task = read_manifest(tiny_repository), drawn_task(64, 64, 3)
    floor = Floor(tiny_repository, "onnxruntime")
    floor.painted(task)
    rows = Counter(dict.fromkeys(manifest.flops, 0))
    for name, inputs in floor._calls:
        rows[name] += len(next(iter(inputs.values())))
    assert rows["unet"] == 3 * 2
    share = 64 / manifest.vae.factor / usual_height(manifest)
    wanted = sum(manifest.flops[name] * count * (share if name == "unet" else 1) for name, count in rows.items())
    assert operations(task, tiny_repository, manifest) == pytest.approx(wanted)


def test_the_floor_has_no_more_rows_in_a_call_than_its_server(tiny_repository: Path, tmp_path: Path) -> None:
    copy = tmp_path / "export"
    shutil.copytree(tiny_repository, copy)
    for model, given, wanted in (("denoise", '"32"', '"4"'), ("vae_decoder", "size: 8", "size: 1")):
        config = copy / model / "config.pbtxt"
        text = config.read_text()
        assert given in text
        config.write_text(text.replace(given, wanted))
    shutil.rmtree(copy / "vae_decoder/configs")
    floor = Floor(copy, "onnxruntime")
    floor.painted(drawn_task(64, 64, 1))
    leaves, calls = floor._leaves, Counter[tuple[str, int]]()

    def counted(name: str, inputs: Mapping[str, Any]) -> Any:
        calls[name, len(next(iter(inputs.values())))] += 1
        return leaves(name, inputs)

    floor._leaves = counted  # type: ignore[assignment]
    assert set(floor.seconds(3)) == {"text_encoder", "vae_encoder", "vae_decoder", "unet"}
    assert {key: count for key, count in calls.items() if key[0] in ("unet", "vae_decoder")} == {
        ("unet", 4): 1,
        ("unet", 2): 1,
        ("vae_decoder", 1): 3,
    }


def test_an_inpaint_is_not_counted_as_high_as_a_tryon() -> None:
    """The manifest's operations are of the two pictures of a try-on, one above the other."""
    sizes: dict[str, Any] = {"size": SimpleNamespace(height=128), "vae": SimpleNamespace(factor=8)}
    heights = {tryon: usual_height(SimpleNamespace(tryon=tryon, **sizes)) for tryon in ("none", "concat")}  # type: ignore[arg-type]
    assert heights == {"none": 16, "concat": 32}


class Measured:
    """What `measured` calls, without any peer: seconds by peer, whose run may fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **raises: BaseException) -> None:
        self.order: list[str] = []
        self._raises = raises
        rates = iter([10.0, 10.0, 40.0, 20.0, 30.0, 30.0])
        monkeypatch.setattr(peers, "matrix_rate", lambda name, device: next(rates))
        monkeypatch.setattr(peers, "run", self.run)
        self.found = peers.measured(["a", "b"], SimpleNamespace(device="cpu", rounds=2), Path())  # type: ignore[arg-type]

    def run(self, peer: str, *_: Any) -> dict[str, Any]:
        self.order.append(peer)
        if peer in self._raises:
            raise self._raises[peer]
        return {"users": []}


def test_every_second_round_is_backwards_and_the_highest_rate_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    done = Measured(monkeypatch)
    assert done.order == ["a", "b", "b", "a"]
    assert done.found.rates == {"float32": 40.0, "bfloat16": 30.0}
    assert not done.found.interrupted


def test_a_peer_that_fails_is_not_run_again_and_an_interrupt_keeps_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    done = Measured(monkeypatch, a=RuntimeError("no"), b=KeyboardInterrupt())
    assert done.order == ["a", "b"]
    assert done.found.errors == {"a": "no"}
    assert done.found.interrupted


def test_an_error_is_told_whole(tmp_path: Path) -> None:
    """Not the last line of what a library says after it."""
    options: Any = SimpleNamespace(
        python={},
        folder=tmp_path,
        device="cpu",
        source=tmp_path / "absent",
        export=tmp_path,
        steps=1,
        images=1,
        users=[1],
    )
    drawn_task(64, 64, 1).write(tmp_path)
    with pytest.raises(RuntimeError, match=r"^\w+Error: .*absent"):
        peers.run("diffusers-fp32", options, tmp_path)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo A warning. >&2; kill -KILL $$", "it was ended by SIGKILL: the system does so where memory runs out"),
        ("echo A warning. >&2; kill -TERM $$", "it was ended by SIGTERM"),
        ("echo A library says something. >&2; exit 3", "A library says something."),
        ("exit 3", "it ended with code 3"),
    ],
)
def test_a_peer_that_tells_no_error_has_a_reason(script: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError) as caught:
        peers.run("served:x", told_by(script, tmp_path), tmp_path)
    assert str(caught.value) == words
    assert not isinstance(caught.value, peers.HalfwayError)


def told_by(script: str, folder: Path) -> Any:
    """Options of a peer that is a shell script."""
    python = folder / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    return SimpleNamespace(
        python={"served:x": str(python)}, device="cpu", source=1, export=2, steps=3, images=4, users=[1, 8]
    )


def test_what_a_peer_told_before_it_failed_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = {"first_image_seconds": 2.0}
    rounds = {"users": 1, "round_seconds": [3.0], "peak_bytes": 5}
    options = told_by(f"echo '{json.dumps(first)}'; echo '{json.dumps(rounds)}'; kill -KILL $$", tmp_path)
    monkeypatch.setattr(peers, "matrix_rate", lambda *_: 1.0)
    found = peers.measured(["served:x"], SimpleNamespace(**vars(options), rounds=2), tmp_path)  # type: ignore[arg-type]
    assert found.runs == {"served:x": [{**first, "users": [rounds]}]}
    assert found.errors["served:x"].startswith("it was ended by SIGKILL")


def test_the_environment_of_a_peer_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[Sequence[str]] = []

    def run(command: Sequence[str]) -> None:
        commands.append(command)
        if "venv" in command:
            Path(command[-1]).mkdir()

    monkeypatch.setattr(environment, "_run", run)
    monkeypatch.setattr(environment.shutil, "which", lambda *_, **__: "uv")
    paths = {environment.python_of("optimum-intel", tmp_path) for _ in range(2)}
    assert paths == {str(tmp_path / "optimum-intel.venv/bin/python")}
    assert [command[1] for command in commands] == ["venv", "pip", "pip"]
    assert environment.REQUIREMENTS["optimum-intel"].is_file()


def test_without_uv_there_is_no_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment.shutil, "which", lambda *_, **__: None)
    with pytest.raises(RuntimeError, match="pip install uv, or --python optimum-intel=PATH"):
        environment.python_of("optimum-intel", tmp_path)


def test_an_export_of_other_code_is_not_measured(tiny_repository: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny").mkdir()
    export = tmp_path / "tiny-onnxruntime"
    shutil.copytree(tiny_repository, export)
    assert models.built("tiny", tmp_path, ["onnxruntime"]) == (tmp_path / "tiny", export)
    with (export / "denoise/engine.py").open("a") as file:
        file.write("# changed\n")
    with pytest.raises(ExportError, match=r"has another denoise/engine.py than this version: remove it"):
        models.built("tiny", tmp_path, ["onnxruntime"])
