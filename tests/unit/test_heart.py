"""Signs of life: who is dead, silent or stuck, and who is merely busy."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dressform_server.supervision import MAX_FAILURES, STEADY_SECONDS, Patience
from jobs.heart import SILENT_SECONDS, STUCK_SECONDS, STUCK_STEPS, UNMEASURED_SECONDS, Heart, ill
from jobs.table import JobTable

SECOND = 1_000_000_000


class Clock:
    def __init__(self) -> None:
        self.now = 1_000 * SECOND

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def table(tmp_path: Path, clock: Clock) -> Iterator[JobTable]:
    opened = JobTable.open(tmp_path / "table.jobs", slots=2, clock=clock)
    yield opened
    opened.close()


def test_who_beats_is_well_and_who_is_silent_is_not(table: JobTable, clock: Clock) -> None:
    place = table.enrol("preprocess")
    assert ill(table, clock.now + int(SILENT_SECONDS * SECOND)) is None
    assert ill(table, clock.now + int((SILENT_SECONDS + 1) * SECOND)) == (
        "the process of preprocess was not heard of for 16 s"
    )
    clock.now += 100 * SECOND
    table.beat_of(place)
    assert ill(table, clock.now) is None


def test_who_died_is_noticed_at_once_and_who_left_is_not_missed(table: JobTable, tmp_path: Path, clock: Clock) -> None:
    place = table.enrol("watch")
    table.leave(place)
    code = (
        "from pathlib import Path; from jobs.table import JobTable; "
        f"JobTable.open(Path({str(tmp_path / 'table.jobs')!r}), slots=2).enrol('unet')"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    assert ill(table, clock.now) == "the process of unet is dead"


def test_a_process_beats_of_itself(tmp_path: Path) -> None:
    table = JobTable.open(tmp_path / "real.jobs", slots=2)
    heart = Heart(table, "postprocess")
    (first,) = table.roll()
    deadline = time.monotonic() + 20
    while table.roll()[0].beat_ns == first.beat_ns:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert (first.name, first.pid) == ("postprocess", os.getpid())
    heart.close()
    assert not table.roll()
    table.close()


@pytest.mark.parametrize(
    ("step_ms", "allowed"),
    [(0.0, UNMEASURED_SECONDS), (50.0, STUCK_SECONDS), (190_000.0, STUCK_STEPS * 190.0)],
)
def test_a_slow_step_is_not_a_hanging_one(table: JobTable, clock: Clock, step_ms: float, allowed: float) -> None:
    table.beat(1000, step_ms, 3)
    assert ill(table, clock.now + int(allowed * SECOND)) is None
    assert "denoise has not got on for" in str(ill(table, clock.now + int((allowed + 1) * SECOND)))
    clock.now += int(allowed * SECOND)
    table.beat(900, step_ms, 3)
    assert ill(table, clock.now + int(allowed * SECOND)) is None
    table.beat(0, step_ms, 0)  # idle
    assert ill(table, clock.now + int(100 * allowed * SECOND)) is None


def test_the_roll_has_an_end(table: JobTable) -> None:
    for number in range(32):
        table.enrol(f"graph{number}")
    with pytest.raises(OSError, match="is full"):
        table.enrol("one more")


def test_patience_ends_only_with_failures_in_a_row() -> None:
    now = 0.0
    patience = Patience(lambda: now)
    assert [patience.pause() for _ in range(MAX_FAILURES + 1)] == [0, 1, 3, 7, 15, None]
    patience.ready()
    now += STEADY_SECONDS
    assert patience.pause() == 0
