"""The denoiser's window on the job table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from denoise.window import TableWindow
from dressform_contract import Fault
from jobs.entry import Progress
from jobs.post import Mailbox, Post
from jobs.table import JobTable
from unit.denoise_fakes import make_job

LEASE = 10_000


@pytest.fixture
def table(tmp_path: Path) -> Iterator[JobTable]:
    opened = JobTable.open(tmp_path / "table.jobs", slots=8)
    yield opened
    opened.close()


@pytest.fixture
def mailbox(tmp_path: Path) -> Iterator[Mailbox]:
    opened = Mailbox(print, tmp_path / "table.post")
    yield opened
    opened.close()


@pytest.fixture
def window(table: JobTable, mailbox: Mailbox, tmp_path: Path) -> Iterator[TableWindow]:
    post = Post(pytest.fail, tmp_path / "table.post")
    yield TableWindow(table, post, np.zeros((4, 3), np.float32), "epsilon")
    post.close()


def test_who_was_claimed_is_expected_until_the_denoiser_has_it(table: JobTable, window: TableWindow) -> None:
    job = make_job(seed=1)
    assert not window.expecting([])
    job.slot = table.claim("a" * 32, LEASE)
    assert window.expecting([])
    assert window.expecting([])
    assert not window.expecting([job])
    table.claim("b" * 32, LEASE)
    assert window.expecting([job])


def test_who_is_refused_on_the_way_is_expected_no_more(table: JobTable, window: TableWindow) -> None:
    slot = table.claim("a" * 32, LEASE)
    assert window.expecting([])
    table.free(slot, "failed")
    assert not window.expecting([])


def test_others_who_are_being_decoded_are_not_expected(table: JobTable, window: TableWindow) -> None:
    table.report(table.claim("a" * 32, LEASE), Progress("decoding", 4, 4), LEASE)
    assert not window.expecting([])


@pytest.mark.parametrize(
    ("code", "outcome"), [("CANCELLED", "cancelled"), ("DEADLINE", "failed"), ("ENGINE", "failed")]
)
def test_a_job_that_must_end_is_told_with_its_steps(
    table: JobTable, window: TableWindow, mailbox: Mailbox, code: str, outcome: str
) -> None:
    job = make_job(seed=1)
    job.slot = table.claim("a" * 32, LEASE)
    job.admitted_ns, job.first_step_ns, job.finished_ns, job.step, job.step_ends_ns = 1, 2, 9, 2, [4, 8]
    job.rows_run, job.compute_seconds, job.batch_sizes = 4, 0.5, [1, 3]
    window.ended(job, Fault(code, "why"))
    heard = mailbox.messages(5)
    while len(heard) < 2:
        heard += mailbox.messages(5)
    place = [job.slot.number, job.slot.generation]
    assert heard == [
        {
            "slot": place,
            "steps": 2,
            "unet_rows": 4,
            "compute_seconds": 0.5,
            "batch_sizes": [1, 3],
            "step_ends_ns": [4, 8],
            "marks": {"admitted": 1, "first_step": 2, "ended": 9},
        },
        {"slot": place, "outcome": outcome, "code": code},
    ]
    entry = table.find("a" * 32)
    assert entry is not None
    assert entry.progress.state == outcome


def test_a_finished_job_is_told_and_stays_in_flight(table: JobTable, window: TableWindow, mailbox: Mailbox) -> None:
    job = make_job(seed=1)
    job.slot = table.claim("a" * 32, LEASE)
    window.ended(job, None)
    (heard,) = mailbox.messages(5)
    assert "outcome" not in heard
    assert set(heard["marks"]) == {"admitted", "finished"}
    assert [entry.slot for entry in table.list()] == [job.slot]
