"""The simulation beside a real server whose UNet sleeps."""

from __future__ import annotations

from pathlib import Path

import pytest

from dressform_bench import results
from dressform_bench.simulate.__main__ import main


def test_a_simulation_is_validated_by_a_server(
    tiny_repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--validate", str(tiny_repository), "--device", "0.01", "0.001", "--validate-loads", "1"]
    arguments += ["--validate-seconds", "3", "--servers", "1", "--loads", "1", "--requests", "20", "--rates"]
    assert main([*arguments, "--out", str(tmp_path / "run.jsonl")]) == 0
    (record,) = results.read(tmp_path)
    steps = record["step_time_model"]["step_seconds"]
    assert 0.01 < steps["2"] < 0.1, "what the device takes, and what the server adds"
    (row,) = record["validation"]
    assert (row["measured"]["failed"], row["measured"]["refused"]) == (0, 0)
    assert abs(row["own_error"]["p50_s"]) < 1, "on a busy machine; a quiet one gives a tenth of it"
    assert "own times" in capsys.readouterr().out
