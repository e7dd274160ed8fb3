"""Watchers: early, late, many, deaf and gone; with a table of their own and a clock set by hand."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from dressform_contract import Fault
from jobs.entry import Progress, Slot
from jobs.table import JobTable
from watch import audience as module
from watch.audience import Audience, AudienceFull, Event

ID = "w" * 32
LEASE = 10_000


class Recorder:
    """A viewer that writes down what it is told."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.ends: list[Fault | None] = []
        self.left = False
        self.broken = False

    def send(self, event: Event, last: bool) -> None:
        if self.broken:
            raise ConnectionError("stream is closed")
        self.events.append(event)
        if last:
            self.ends.append(None)

    def end(self, fault: Fault | None) -> None:
        self.ends.append(fault)

    def gone(self) -> bool:
        return self.left

    @property
    def states(self) -> list[tuple[object, object]]:
        return [(event["state"], event["step"]) for event in self.events]


class Stage:
    """An audience, its table, and the time."""

    def __init__(self, folder: Path) -> None:
        self.now = 1000.0
        self.table = JobTable.open(folder / "table.jobs", slots=4, clock=lambda: int(self.now * 1e9))
        self.audience = Audience(self.table, lambda: self.now)

    def watcher(self, request_id: str = ID) -> Recorder:
        viewer = Recorder()
        self.audience.add(request_id, viewer)
        return viewer

    def poll(self, seconds: float = 0.01) -> None:
        self.now += seconds
        self.audience.poll()

    def step(self, slot: Slot, step: int) -> None:
        self.table.report(slot, Progress("running", step, 10, 0, 100), LEASE)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path)
    yield made
    made.table.close()


def test_each_change_is_told_once_and_the_end_ends(stage: Stage) -> None:
    slot = stage.table.claim(ID, LEASE)
    viewer = stage.watcher()
    for step in range(1, 4):
        stage.poll()
        stage.poll()
        stage.step(slot, step)
    stage.poll()
    stage.table.free(slot, "done")
    stage.poll()
    assert viewer.states == [("preparing", 0), ("running", 1), ("running", 2), ("running", 3), ("done", 3)]
    assert viewer.ends == [None]
    assert len(stage.audience) == 0


def test_steps_between_two_polls_are_skipped(stage: Stage) -> None:
    slot = stage.table.claim(ID, LEASE)
    viewer = stage.watcher()
    for step in range(1, 8):
        stage.step(slot, step)
    stage.poll()
    assert viewer.states == [("running", 7)]


def test_an_early_watcher_waits_and_a_stranger_is_told_in_the_end(stage: Stage) -> None:
    early, stranger = stage.watcher(), stage.watcher("s" * 32)
    stage.poll(module.EARLY_SECONDS / 2)
    assert early.ends == stranger.ends == []
    slot = stage.table.claim(ID, LEASE)
    stage.poll(module.EARLY_SECONDS)
    assert early.states == [("preparing", 0)]
    assert [fault.code for fault in stranger.ends if fault] == ["NOT_FOUND"]
    stage.table.free(slot, "cancelled")
    stage.poll()
    assert early.ends == [None]


def test_a_late_watcher_sees_the_end(stage: Stage) -> None:
    stage.table.free(stage.table.claim(ID, LEASE), "failed")
    viewer = stage.watcher()
    stage.poll()
    assert viewer.states == [("failed", 0)]
    assert viewer.ends == [None]


def test_two_watchers_are_independent(stage: Stage) -> None:
    slot = stage.table.claim(ID, LEASE)
    first = stage.watcher()
    stage.step(slot, 1)
    stage.poll()
    second = stage.watcher()
    first.broken = True
    stage.step(slot, 2)
    stage.poll()
    stage.table.free(slot, "done")
    stage.poll()
    assert first.states == [("running", 1)]
    assert [fault.code for fault in first.ends if fault] == ["INTERNAL"]
    assert second.states == [("running", 2), ("done", 2)]


def test_who_has_gone_is_let_go(stage: Stage) -> None:
    stage.table.claim(ID, LEASE)
    viewer = stage.watcher()
    stage.poll()
    viewer.left = True
    stage.poll(2)
    assert len(stage.audience) == 0
    assert viewer.ends == [None]


def test_nobody_watches_for_ever(stage: Stage) -> None:
    slot = stage.table.claim(ID, LEASE)
    viewer = stage.watcher()
    for _ in range(5):
        stage.table.renew(slot, int(module.LIFE_SECONDS * 1000))
        stage.poll(module.LIFE_SECONDS / 4)
    assert viewer.ends == [None]
    assert len(stage.audience) == 0


def test_a_job_that_dies_is_told_as_failed(stage: Stage) -> None:
    stage.table.claim(ID, LEASE)
    viewer = stage.watcher()
    stage.poll()
    stage.poll(LEASE / 1000)
    assert viewer.states == [("preparing", 0), ("failed", 0)]
    assert viewer.ends == [None]


def test_previews_come_once_and_within_the_budget(stage: Stage) -> None:
    slot = stage.table.claim(ID, LEASE)
    viewer = stage.watcher()
    stage.table.preview(slot, b"one")
    stage.poll()
    stage.poll()
    stage.table.preview(slot, b"two")
    stage.poll()
    shown = [event["preview"] for event in viewer.events]
    assert shown == [f"data:image/jpeg;base64,{base64.b64encode(text).decode()}" for text in (b"one", b"two")]
    large = bytes(2**15 - 32)
    for step in range(100):
        stage.step(slot, step)
        stage.table.preview(slot, large)
        stage.poll()
    assert sum(len(str(event.get("preview", ""))) for event in viewer.events) <= module.PREVIEW_BUDGET * 1.4
    assert viewer.states[-1] == ("running", 99), "steps are told all the same"


def test_the_audience_is_bounded(stage: Stage) -> None:
    for _ in range(module.LARGEST_AUDIENCE_OF_ONE):
        stage.watcher()
    with pytest.raises(AudienceFull, match="this request"):
        stage.watcher()
    for number in range(module.LARGEST_AUDIENCE - module.LARGEST_AUDIENCE_OF_ONE):
        stage.watcher(f"{number:032d}")
    with pytest.raises(AudienceFull, match=f"{module.LARGEST_AUDIENCE} watchers"):
        stage.watcher("n" * 32)


def test_closing_sends_everybody_away(stage: Stage) -> None:
    viewer = stage.watcher()
    stage.audience.close()
    assert [fault.code for fault in viewer.ends if fault] == ["CANCELLED"]
