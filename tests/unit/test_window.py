"""The denoiser's window on the job table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from denoise.window import TableWindow
from jobs.entry import Progress
from jobs.table import JobTable
from unit.denoise_fakes import make_job

LEASE = 10_000


@pytest.fixture
def table(tmp_path: Path) -> Iterator[JobTable]:
    opened = JobTable.open(tmp_path / "table.jobs", slots=8)
    yield opened
    opened.close()


@pytest.fixture
def window(table: JobTable) -> TableWindow:
    return TableWindow(table, np.zeros((4, 3), np.float32), "epsilon")


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
