"""Ending a server gently: the job table's mark, and ``jobs/drain.py`` as Kubernetes and the launcher run it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs import drain
from jobs.shared_file import server_path
from jobs.table import JobTable
from waiting import wait_until

ROOT = Path(__file__).parents[2]


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """As it lies in an export."""
    shutil.copytree(ROOT / "model_repository" / "jobs", tmp_path / "jobs", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "client" / "dressform_contract.py", tmp_path)
    return tmp_path / "jobs" / "drain.py"


@pytest.fixture
def table(tmp_path: Path) -> Iterator[JobTable]:
    opened = JobTable.open(tmp_path / "table.jobs", slots=4)
    yield opened
    opened.close()


def test_a_server_stops_for_all_who_share_the_table(table: JobTable, tmp_path: Path) -> None:
    other = JobTable.open(tmp_path / "table.jobs", slots=4)
    assert not other.stopping
    table.stop()
    assert other.stopping
    other.close()


def test_it_waits_for_what_is_in_flight(table: JobTable) -> None:
    slot = table.claim("", 60_000)
    waiting = threading.Thread(target=lambda: drain.drained(table, lambda: True, 60))
    waiting.start()
    wait_until(lambda: table.stopping, 10)
    time.sleep(0.3)
    assert waiting.is_alive()
    table.free(slot, "done")
    waiting.join(10)
    assert not waiting.is_alive()


def test_it_waits_no_longer_than_it_may_and_not_for_the_dead(table: JobTable) -> None:
    table.claim("", 60_000)
    assert drain.drained(table, lambda: True, 0.2) == "1 requests were in flight after 0.2 s"
    assert drain.drained(table, lambda: False, 60) is None


def test_it_does_not_wait_for_what_a_dead_stage_had(table: JobTable) -> None:
    table.claim("", 60_000)
    stage = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    began = time.monotonic()
    place = enrolled(table, stage.pid)
    assert table.roll()[place].name == "denoise"
    stage.communicate(b"")
    left = drain.drained(table, lambda: True, 60)
    assert left == "the process of denoise is dead, so 1 requests in flight cannot end"
    assert time.monotonic() - began < 30


def enrolled(table: JobTable, pid: int) -> int:
    """Have the process ``pid`` on the roll as ``denoise``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "getpid", lambda: pid)
        return table.enrol("denoise")


def test_it_waits_for_requests_without_a_slot(table: JobTable) -> None:
    with table.unlisted_request():
        assert drain.drained(table, lambda: True, 0.2) is not None
    assert drain.drained(table, lambda: True, 0.2) is None


@pytest.mark.parametrize(("claimed", "status"), [(False, 0), (True, 1)])
def test_the_script_needs_python_alone(script: Path, claimed: bool, status: int) -> None:
    table = JobTable.open(server_path(os.getpid()))
    if claimed:
        table.claim("", 60_000)
    try:
        command = [sys.executable, "-I", "-S", script, "--server", str(os.getpid()), "--timeout", "0.3"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == status
        assert done.stderr == ("drain: 1 requests were in flight after 0.3 s\n" if claimed else "")
        assert table.stopping
        assert not list(script.parents[1].rglob("__pycache__"))
    finally:
        table.close()


def test_a_server_that_is_not_there_is_named(script: Path) -> None:
    done = subprocess.run([sys.executable, script, "--server", "1"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "drain: no servers run with process id 1\n")
