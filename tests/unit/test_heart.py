"""Signs of life: who is dead, silent or stuck, and who is merely busy."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from dressform_server.supervision import MAX_FAILURES, STEADY_SECONDS, Patience
from jobs.alive import ANSWER_SECONDS, MISSES, Triton, answers, fault
from jobs.heart import CALL_SECONDS, SILENT_SECONDS, STUCK_SECONDS, STUCK_STEPS, UNMEASURED_SECONDS, Heart, ill
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


def test_a_call_that_does_not_end_is_noticed_though_the_process_beats(table: JobTable, clock: Clock) -> None:
    place = table.enrol("postprocess")
    table.calling(place, True)
    clock.now += int(CALL_SECONDS * SECOND)
    table.beat_of(place)
    assert ill(table, clock.now) is None
    assert ill(table, clock.now + SECOND) == "postprocess has been at one call for 121 s"
    table.calling(place, False)
    assert ill(table, clock.now + SECOND) is None


def test_a_stage_is_at_a_call_until_it_ends_however_it_ends(table: JobTable, clock: Clock) -> None:
    heart = Heart(table, "postprocess")
    with suppress(ZeroDivisionError), heart.at_call():
        assert table.roll()[0].call_ns == clock.now
        raise ZeroDivisionError
    assert table.roll()[0].call_ns == 0
    heart.close()


def test_triton_must_miss_several_times_and_for_long() -> None:
    now, says = 0.0, True
    triton = Triton(lambda: says, 15.0, lambda: now)
    assert triton.ill() is None
    says, now = False, 100.0  # the machine was asleep: one miss is none
    assert [triton.ill() for _ in range(MISSES - 1)] == [None] * (MISSES - 1)
    assert triton.ill() == "Triton has not answered for 100 s"
    says = True
    assert triton.ill() is None
    says, now = False, 114.0
    assert [triton.ill() for _ in range(10)] == [None] * 10, "not for long"
    now = 116.0
    assert triton.ill() == "Triton has not answered for 16 s"


def test_what_hangs_with_triton_is_not_blamed(table: JobTable, clock: Clock) -> None:
    says = True
    triton = Triton(lambda: says, 15.0, lambda: clock.now / SECOND)
    table.enrol("jobs")
    assert fault(triton, table, clock.now) is None
    says = False
    clock.now += 16 * SECOND
    assert fault(triton, table, clock.now) is None, "silent, but Triton has missed once: it may be that"
    assert fault(triton, table, clock.now) is None
    assert fault(triton, table, clock.now) == "Triton has not answered for 16 s"
    says = True
    assert fault(triton, table, clock.now) == "the process of jobs was not heard of for 16 s", "Triton is well"


@pytest.mark.parametrize(("status", "lives"), [(200, True), (400, False)])
def test_triton_lives_if_it_says_so(status: int, lives: bool) -> None:
    asked = []

    class Live(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Live) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        assert answers(f"127.0.0.1:{server.server_port}") is lives
    assert asked == ["/v2/health/live"]


def test_who_hears_and_says_nothing_does_not_live() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # as the kernel does for a stopped process
        began = time.monotonic()
        assert not answers(f"127.0.0.1:{deaf.getsockname()[1]}")
        assert time.monotonic() - began >= ANSWER_SECONDS
        address = f"127.0.0.1:{deaf.getsockname()[1]}"
    assert not answers(address), "nobody is there"


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
