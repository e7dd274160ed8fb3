"""The benchmarks on the real Triton, as short as can be: what they measure is there, and adds up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dressform_bench import openloop, overhead, results
from dressform_bench.load import __main__ as load_main
from dressform_bench.peers import __main__ as peers
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
    ]
    code, record = recorded(openloop.main, *words, "--infos", tmp_path / "infos", "--pattern", "burst")
    assert code == 0
    assert {row["mode"] for row in record["rows"]} == {"step", "request"}
    assert all(row["offered"] == row["answered"] + row["refused"] for row in record["rows"])
    assert all(row["interrupted"] == 0 for row in record["rows"] if row["mode"] == "request")
    assert record["slo_rate_per_s"].keys() == {"step", "request"}
    infos = (tmp_path / "infos" / "step.jsonl").read_text().splitlines()
    assert len(infos) == sum(row["answered"] for row in record["rows"] if row["mode"] == "step")


def test_load(recorded: Any, tiny_repository: Path) -> None:
    users = ["--headless", "-u", 4, "-r", 4, "-t", "8s", "--sample-seconds", 1]
    code, record = recorded(load_main.main, "--repository", tiny_repository, *users, "--mix", "inpaint")
    assert code == 0
    assert record["summary"]["failures"] == 0
    assert {row["protocol"] for row in record["by_name"]} == {"grpc", "http"}
    assert record["summary"]["batch"] >= 1
    assert max(row["memory_gigabytes"] for row in record["series"]) > 0.1, "the server's"
