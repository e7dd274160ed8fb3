"""The benchmarks on the real Triton, as short as can be: what they measure is there, and adds up."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from dressform_bench import openloop, overhead, results, step_overhead
from dressform_bench.load import __main__ as load_main
from dressform_bench.peers import __main__ as peers
from dressform_bench.report import openloop as openloop_report
from dressform_export import read_manifest


@pytest.fixture
def recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a benchmark: its exit code and its record, the same in the file and on the last line of stdout."""

    def run(main: Any, *words: object) -> tuple[int, dict[str, Any]]:
        code = main([*map(str, words), "--out", str(tmp_path / "out.jsonl")])
        (record,) = results.read(tmp_path)
        assert record == json.loads(capsys.readouterr().out.splitlines()[-1])
        return code, record

    return run


def test_peers_paint_the_same_picture_and_failures_are_told(
    recorded: Any, tiny_source: Path, tiny_repository: Path, tmp_path: Path
) -> None:
    names = ["diffusers-fp32", "bare:onnxruntime", "served:onnxruntime", "served:no-such-engine"]
    words = ["--source", tiny_source, "--export", tiny_repository, "--steps", 3, "--users", 1, 2, "--rounds", 1]
    code, record = recorded(peers.main, *words, "--pictures", tmp_path / "pictures", "--peers", *names)
    assert code == 1
    assert [(row["peer"], row["users"]) for row in record["rows"]] == [(name, n) for n in (1, 2) for name in names[:3]]
    assert min(row["psnr"] for row in record["rows"]) >= 50
    assert min(row["seconds"] for row in record["rows"]) > 0
    assert min(row["peak_gigabytes"] for row in record["rows"]) > 0.1
    assert len({row["limit_seconds"] for row in record["rows"]}) == 1
    counted = read_manifest(tiny_repository).flops
    assert record["limit"]["flops_per_image"] > 6 * counted["unet"]
    assert list(record["errors"]) == ["served:no-such-engine"]
    assert "no-such-engine" in record["errors"]["served:no-such-engine"]


def test_overhead(recorded: Any, tiny_repository: Path) -> None:
    code, record = recorded(overhead.main, tiny_repository, "--jobs", 1, 3, "--steps", 4, "--repeats", 2)
    assert code == 0
    assert [row["jobs"] for row in record["rows"]] == [1, 3]
    for row in record["rows"]:
        assert row["bare_seconds"] > 0
        assert row["makespan_seconds"] > 0
        assert row["served_over_bare"] > 0
        assert min(row["parts_ms"].values()) > -1  # milliseconds are rounded
        assert sum(row["parts_ms"].values()) == pytest.approx(1000 * row["served_seconds"], rel=0.01)
    assert record["settings"]["engine"] == "onnxruntime"


def test_openloop(recorded: Any, tiny_repository: Path, tmp_path: Path) -> None:
    words = [
        "--repository",
        tiny_repository,
        "--loads",
        0.3,
        6,
        "--seconds",
        3,
        "--requests",
        1,
        "--repeats",
        1,
        "--refine",
        1,
        "--steps",
        2,
        6,
    ]
    infos = tmp_path / "infos"
    infos.mkdir()
    (infos / "step.jsonl").write_text("of an earlier run\n")
    code, record = recorded(openloop.main, *words, "--infos", infos, "--pattern", "burst")
    assert code == 0
    manifest = read_manifest(tiny_repository)
    assert record["model"] == manifest.source.id
    assert (record["settings"]["engine"], record["settings"]["pixels"]) == ("onnxruntime", [64, 64])
    section = openloop_report.section(record)
    assert section.heading == f"Open loop: {manifest.source.id}, onnxruntime, arrivals in bursts"
    assert "requests/s" in section.finding
    assert {row["mode"] for row in record["rows"]} == {"step", "request"}
    assert all(row["offered"] == row["answered"] + row["refused"] for row in record["rows"])
    assert all(row["sat_out"] == 0 for row in record["rows"] if row["mode"] == "request")
    assert record["slo_rate_per_s"].keys() == {"step", "request"}
    assert len((infos / "step.jsonl").read_text().splitlines()) == sum(
        row["answered"] for row in record["rows"] if row["mode"] == "step"
    )


def test_openloop_keeps_what_was_measured_until_ctrl_c(tiny_repository: Path, tmp_path: Path) -> None:
    """With a trace replayed, steps of one's own, and a load that would take minutes after one of a second."""
    (tmp_path / "trace.jsonl").write_text('{"at": 3}\n{"at": 3.1}\n{"at": 3.4}\n')
    out = tmp_path / "runs" / "out.jsonl"
    words = ["--repository", tiny_repository, "--batching", "step", "--steps", 2, "--loads", 2, 0.01, "--repeats", 1]
    words += ["--replay", tmp_path / "trace.jsonl", "--seconds", 1, "--requests", 5, "--infos", tmp_path, "--out", out]
    process = subprocess.Popen(
        [sys.executable, "-m", "dressform_bench.openloop", *map(str, words)], stderr=subprocess.PIPE, text=True
    )
    end = time.monotonic() + 120
    while not (tmp_path / "step.jsonl").is_file():  # made when the first load is about to be offered
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.1)
    time.sleep(5)  # in the midst of the second
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    (record,) = results.read(out.parent)
    assert record["interrupted"] is True
    assert [kind["kind"] for kind in record["kinds"]] == ["2 ddim 7.5"]
    assert [row["load"] for row in record["rows"]] == [2.0]
    assert record["rows"][0]["offered"] > 0


def test_step_overhead(recorded: Any) -> None:
    code, record = recorded(step_overhead.main, "--steps", 4, "--repeats", 1)
    assert code == 0
    assert [row["jobs"] for row in record["rows"]] == [1, 4, 16]
    for row in record["rows"]:
        assert row["step_ms"] > row["bare_ms"] > 0
        assert row["overhead_ms"] == pytest.approx(row["step_ms"] - row["bare_ms"], abs=0.002)


def test_load(recorded: Any, tiny_repository: Path) -> None:
    users = ["--headless", "-u", 4, "-r", 4, "-t", "8s", "--sample-seconds", 1]
    code, record = recorded(load_main.main, "--repository", tiny_repository, *users, "--mix", "inpaint")
    assert code == 0
    assert record["summary"]["failures"] == 0
    assert {row["protocol"] for row in record["by_name"]} == {"grpc", "http"}
    assert record["summary"]["batch"] >= 1
    last = record["series"][-1]
    assert last["memory_gigabytes"] > 0.1, "the server's"
    assert {"tritonserver", "preprocess", "denoise", "unet", "vae_decoder"} <= last["memory_by_process"].keys()
    assert sum(last["memory_by_process"].values()) == pytest.approx(last["memory_gigabytes"], abs=1e-3)
    assert record["model"] == read_manifest(tiny_repository).source.id
    assert record["settings"] == {"engine": "onnxruntime", "arguments": [*map(str, users), "--mix", "inpaint"]}
