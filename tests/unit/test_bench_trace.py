"""The trace picture's pure parts: rows and cells from infos."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dressform_bench import trace
from dressform_bench.trace import Cell, busiest, interrupted, rows


def info(arrived: float, ends: list[float], sizes: list[int], ready: float, total: float) -> dict[str, Any]:
    """``arrived`` in ms of the clock; ``ends``, ``ready`` (first step possible) and ``total`` in ms after it."""
    milliseconds = {"preprocess": 1.0, "encode": ready - 1.5, "wait": 0.5, "total": total}
    return {"arrived_ns": int(arrived * 1e6), "step_ends_ms": ends, "batch_sizes": sizes, "milliseconds": milliseconds}


EARLY = info(1000, [10, 20, 30], [1, 2, 2], ready=4, total=33)
LATE = info(1005, [15, 25], [2, 2], ready=8, total=27)  # joins at the second call: 1020, 1030


def test_jobs_are_in_order_of_arrival() -> None:
    found = rows([LATE, EARLY])
    assert [row.arrived for row in found] == [1000, 1005]
    assert [row.answered for row in found] == [1033, 1032]


def test_cells_span_their_unet_calls() -> None:
    early, late = rows([EARLY, LATE])
    assert early.cells == (Cell(1004, 1010, 1), Cell(1010, 1020, 2), Cell(1020, 1030, 2))
    assert late.cells == (Cell(1013, 1020, 2), Cell(1020, 1030, 2))


def test_a_call_missed_is_a_gap() -> None:
    waiting = info(1000, [10, 40], [1, 1], ready=4, total=41)
    other = info(1002, [28], [1], ready=8, total=30)  # has the UNet alone until 1030
    first, _ = rows([waiting, other])
    assert first.cells == (Cell(1004, 1010, 1), Cell(1030, 1040, 1))
    assert interrupted(rows([waiting, other])) == 1
    assert interrupted(rows([EARLY, LATE])) == 0


def test_ends_that_differ_by_rounding_are_one_call() -> None:
    a = info(1000, [10, 20.001], [1, 2], ready=4, total=30)
    b = info(1005, [15], [2], ready=6, total=20)
    assert rows([a, b])[0].cells[1].start == pytest.approx(1010)


def test_steps_without_their_batch_size_are_refused() -> None:
    with pytest.raises(ValueError, match="has 1 for 2 steps"):
        rows([info(0, [10, 20], [1], ready=4, total=30)])


def test_the_busiest_window_holds_most_steps() -> None:
    crowd = [info(5000 + k, [10, 20, 30], [3, 3, 3], ready=5, total=35) for k in range(3)]
    found = rows([EARLY, LATE, *crowd])
    assert busiest(found, 100) == (5000, 5037)
    assert busiest(found, 20) == (5002, 5022)
    with pytest.raises(ValueError, match="no infos"):
        busiest([], 100)


def test_a_picture_comes_of_a_file(tmp_path: Path) -> None:
    lines = [{"load": 1.0, "repeat": 0, "info": EARLY}, {"load": 2.0, "repeat": 0, "info": LATE}]
    (tmp_path / "trace.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    assert trace.read(tmp_path / "trace.jsonl", load=2.0) == [LATE]
    trace.main([str(tmp_path / "trace.jsonl"), str(tmp_path / "trace.png")])
    assert (tmp_path / "trace.png").read_bytes()[:4] == b"\x89PNG"
