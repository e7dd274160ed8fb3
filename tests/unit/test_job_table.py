"""The job table: against a model of it, among processes, and among processes that are killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from dressform_contract import MIN_WATCHABLE_ID
from jobs import shared_file
from jobs.entry import ENDED, STATES, IdInUse, Progress, Slot, State, TableFull, lease_ms
from jobs.table import PREVIEW_BYTES, READABLE_MS, JobTable

LEASE = 10_000
IDS = [letter * MIN_WATCHABLE_ID for letter in "abcd"]
SPAWN = multiprocessing.get_context("spawn")


class Clock:
    """A clock that is set by hand; nanoseconds."""

    def __init__(self) -> None:
        self.now = 10**12

    def __call__(self) -> int:
        return self.now

    def pass_ms(self, milliseconds: int) -> None:
        self.now += milliseconds * 1_000_000


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def table(tmp_path: Path, clock: Clock) -> Iterator[JobTable]:
    opened = JobTable.open(tmp_path / "table.jobs", slots=4, clock=clock)
    yield opened
    opened.close()


def claim(table: JobTable, request_id: str = IDS[0], lease: int = LEASE, limit: int | None = None) -> Slot:
    return table.claim(request_id, lease, task="inpaint", rows=2, total=30, limit=limit)


def test_a_job_from_claim_to_end(table: JobTable) -> None:
    slot = claim(table)
    entry = table.find(IDS[0])
    assert entry is not None
    assert (entry.slot, entry.name, entry.task, entry.rows) == (slot, "a" * 8, "inpaint", 2)
    assert entry.progress == Progress("preparing", 0, 30)
    assert table.report(slot, Progress("running", 7, 30, 2, 900), LEASE)
    assert [e.progress for e in table.list()] == [Progress("running", 7, 30, 2, 900)]
    assert table.free(slot, "done")
    assert table.list() == []
    last = table.find(IDS[0])
    assert last is not None
    assert last.progress == Progress("done", 7, 30, 0, 0)


def test_an_ended_job_stays_ended_and_readable_for_a_while(table: JobTable, clock: Clock) -> None:
    slot = claim(table)
    table.free(slot, "failed")
    assert not table.report(slot, Progress("running", 1, 30), LEASE)
    assert not table.free(slot, "done")
    clock.pass_ms(READABLE_MS)
    found = table.find(IDS[0])
    assert found is not None
    assert found.progress.state == "failed"
    clock.pass_ms(1)
    assert table.find(IDS[0]) is None


def test_last_states_outlive_the_next_claims(table: JobTable) -> None:
    table.free(claim(table), "done")
    for request_id in IDS[1:]:
        table.free(claim(table, request_id), "done")
    assert table.find(IDS[0]) is not None
    claim(table, "e" * MIN_WATCHABLE_ID)
    assert table.find(IDS[0]) is None, "its slot was the oldest"


def test_an_id_in_flight_is_refused_and_short_ids_are_nobodys(table: JobTable) -> None:
    claim(table)
    with pytest.raises(IdInUse):
        claim(table)
    short = "x" * (MIN_WATCHABLE_ID - 1)
    first, second = claim(table, short), claim(table, short)
    assert first != second
    assert table.find(short) is None
    assert not table.cancel(short)
    assert {entry.name for entry in table.list()} == {"a" * 8, ""}


def test_ids_are_not_in_the_file(table: JobTable, tmp_path: Path) -> None:
    claim(table, "01234567-the-rest-is-secret")
    content = (tmp_path / "table.jobs").read_bytes()
    assert b"01234567" in content
    assert b"01234567-" not in content
    assert b"secret" not in content


def test_a_full_table_refuses(table: JobTable, clock: Clock) -> None:
    slots = [claim(table, request_id) for request_id in IDS]
    assert len({slot.number for slot in slots}) == 4
    with pytest.raises(TableFull):
        claim(table, "e" * MIN_WATCHABLE_ID)
    clock.pass_ms(LEASE)
    assert table.list() == []
    claim(table, "e" * MIN_WATCHABLE_ID)


def test_the_limit_does_not_count_cancelled_jobs(table: JobTable) -> None:
    claim(table, IDS[0], limit=2)
    claim(table, IDS[1], limit=2)
    with pytest.raises(TableFull):
        claim(table, IDS[2], limit=2)
    assert table.cancel(IDS[0])
    claim(table, IDS[2], limit=2)


def test_a_lease_is_renewed_or_runs_out(table: JobTable, clock: Clock) -> None:
    slot = claim(table)
    clock.pass_ms(LEASE - 1)
    assert table.renew(slot, LEASE)
    clock.pass_ms(LEASE - 1)
    assert len(table.list()) == 1
    clock.pass_ms(1)
    assert table.list() == []
    found = table.find(IDS[0])
    assert found is not None
    assert found.progress.state == "failed", "who watches it is told"
    assert claim(table) != slot, "the id is free again"


def test_a_stale_handle_is_harmless(table: JobTable, clock: Clock) -> None:
    old = claim(table)
    table.preview(old, b"old")
    table.cancel(IDS[0])
    clock.pass_ms(LEASE)
    new = claim(table)
    assert new.number == old.number
    assert not table.cancelled(old)
    assert not table.cancelled(new), "the mark was the old job's"
    for wrote in (
        table.report(old, Progress("running", 5, 30), LEASE),
        table.renew(old, LEASE),
        table.free(old, "done"),
        table.preview(old, b"stale"),
    ):
        assert not wrote
    assert table.entry(old) is None
    assert table.preview_of(new) is None
    entry = table.entry(new)
    assert entry is not None
    assert entry.progress == Progress("preparing", 0, 30)


@pytest.mark.parametrize("slot", [Slot(0, 0), Slot(-1, 5), Slot(4, 1), Slot(2**40, 1), Slot(0, 1)])
def test_a_handle_from_nowhere_is_harmless(table: JobTable, slot: Slot) -> None:
    assert not table.report(slot, Progress("running"), LEASE)
    assert not table.renew(slot, LEASE)
    assert not table.free(slot, "done")
    assert not table.preview(slot, b"x")
    assert not table.cancelled(slot)
    assert table.entry(slot) is None


def test_what_is_claimed_is_prepared_until_somebody_reports_on_it(table: JobTable, clock: Clock) -> None:
    before = table.claims
    first, second, third = (table.claim(f"{n}" * 32, 1000) for n in range(3))
    assert table.claims == before + 3
    assert table.preparing() == [first, second, third]
    table.report(first, Progress("running", 1, 4), 1000)
    table.free(second, "failed")
    assert table.preparing() == [third]
    clock.pass_ms(2000)
    assert table.preparing() == [], "its lease is over"


def test_previews(table: JobTable, clock: Clock) -> None:
    slot = claim(table)
    assert table.preview_of(slot) is None
    table.preview(slot, b"first, and longer")
    clock.pass_ms(1)
    assert table.preview(slot, b"second")
    assert table.preview_of(slot) == (clock.now, b"second")
    assert table.preview(slot, bytes(PREVIEW_BYTES))
    assert not table.preview(slot, bytes(PREVIEW_BYTES + 1))
    newest = table.preview_of(slot)
    assert newest is not None
    assert len(newest[1]) == PREVIEW_BYTES


def test_health(table: JobTable, clock: Clock) -> None:
    assert table.health() is None
    assert table.lease() == lease_ms(0)
    for beat in range(3):
        clock.pass_ms(5)
        assert table.beat(1234.5, 20.0, beat) == lease_ms(20.0) == table.lease()
        health = table.health()
        assert health is not None
        assert (health.beat_ns, health.work_ms, health.step_ms, health.jobs) == (clock.now, 1234, 20.0, beat)
    assert table.beat(0, 0, 0) == lease_ms(20.0), "an idle server is as fast as it was"


def test_states_are_checked(table: JobTable) -> None:
    with pytest.raises(ValueError, match="preparing, waiting"):
        Progress("asleep")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="done, failed, cancelled"):
        table.free(claim(table), "running")


def test_a_torn_record_is_not_read(table: JobTable, tmp_path: Path) -> None:
    """Whichever byte of the newer copy is wrong, the older one is read (a writer may be killed there)."""
    slot = claim(table)
    table.report(slot, Progress("running", 1, 30), LEASE)
    before = (tmp_path / "table.jobs").read_bytes()
    table.report(slot, Progress("running", 2, 30), LEASE)
    after = (tmp_path / "table.jobs").read_bytes()
    places = [at for at in range(len(before)) if before[at] != after[at]]
    assert len(places) >= 5
    for torn in range(places[0], places[-1] + 1):
        with (tmp_path / "table.jobs").open("r+b") as file:
            file.write(before[:torn] + after[torn:])
        entry = table.entry(slot)
        assert entry is not None, torn
        assert entry.progress.step in (1, 2), torn


# --- the file ---


def test_the_file_is_private_and_goes_with_the_last(tmp_path: Path) -> None:
    path = tmp_path / "table.jobs"
    one, two = JobTable.open(path), JobTable.open(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    one.close()
    assert path.exists()
    two.close()
    assert not path.exists()


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "short.jobs").write_bytes(b"something else")
    with pytest.raises(OSError, match="14 bytes"):
        JobTable.open(tmp_path / "short.jobs")
    JobTable.open(tmp_path / "a.jobs", slots=4)._file.memory.close()
    size = (tmp_path / "a.jobs").stat().st_size
    (tmp_path / "old.jobs").write_bytes(b"DRESSJ00" + bytes(size - 8))
    with pytest.raises(OSError, match="of this version"):
        JobTable.open(tmp_path / "old.jobs", slots=4)
    (tmp_path / "link.jobs").symlink_to(tmp_path / "target")
    with pytest.raises(OSError):  # noqa: PT011 - the system's own words
        JobTable.open(tmp_path / "link.jobs")


def test_only_files_that_nobody_has_open_are_left_over(tmp_path: Path) -> None:
    (tmp_path / "dressform-1-2.jobs").touch()
    (tmp_path / "other.jobs").touch()
    live = JobTable.open(tmp_path / "dressform-3-4.jobs")
    shared_file.remove_left_over(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"dressform-3-4.jobs", "other.jobs"}
    live.close()


def test_the_path_is_the_servers() -> None:
    mine = shared_file.server_path(os.getpid())
    assert mine == shared_file.server_path(os.getpid())
    assert mine.name.startswith(f"dressform-{os.getpid()}-")
    shown = subprocess.run(
        [sys.executable, "-c", "from jobs.shared_file import server_path; print(server_path())"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.strip() == str(mine), "a stage finds its parent's"


# --- several processes ---


def _work(path: Path, worker: int, jobs: int) -> None:
    """Claims, steps and frees ``jobs`` jobs; any reader must see each of them whole."""
    table = JobTable.open(path, slots=3)
    for job in range(jobs):
        request_id = f"{worker:04d}-{job:04d}-{'x' * MIN_WATCHABLE_ID}"
        while True:
            try:
                slot = table.claim(request_id, 60_000, rows=worker, total=job)
                break
            except TableFull:
                time.sleep(0)
        for step in range(20):
            # Every number of a record is the same function of the step: a reader that mixes two records sees it.
            assert table.report(slot, Progress("running", step, 3 * step, 5 * step, 7 * step), 60_000)
            table.preview(slot, bytes([step]) * (100 + 50 * step))
            assert not table.cancelled(slot)
        assert table.free(slot, "done")
    table.close()


def test_processes_share_it(tmp_path: Path) -> None:
    path = tmp_path / "table.jobs"
    table = JobTable.open(path, slots=3)
    workers = [SPAWN.Process(target=_work, args=(path, worker, 60)) for worker in range(4)]
    for worker in workers:
        worker.start()
    seen = previews = 0
    while any(worker.is_alive() for worker in workers):
        entries = table.list()
        assert len({entry.slot.number for entry in entries}) == len(entries) <= 3
        for entry in entries:
            step, total, position, eta = (getattr(entry.progress, f) for f in ("step", "total", "position", "eta_ms"))
            if entry.progress.state == "running":
                assert (total, position, eta) == (3 * step, 5 * step, 7 * step)
                seen += 1
            preview = table.preview_of(entry.slot)
            if preview is not None:
                assert preview[1] == preview[1][:1] * (100 + 50 * preview[1][0])
                previews += 1
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert seen > 100
    assert previews > 100
    assert table.list() == []
    table.close()


def _hold_the_lock(path: Path, ready: Connection) -> None:
    file = shared_file.SharedFile(path, 4096)
    with file.turn():
        ready.send(None)
        time.sleep(60)


def test_the_lock_keeps_others_out_and_goes_with_its_holder(tmp_path: Path) -> None:
    file = shared_file.SharedFile(tmp_path / "file.jobs", 4096)
    ready, theirs = SPAWN.Pipe()
    holder = SPAWN.Process(target=_hold_the_lock, args=(file.path, theirs))
    holder.start()
    ready.recv()
    entered = threading.Event()

    def enter() -> None:
        with file.turn():
            entered.set()

    thread = threading.Thread(target=enter)
    thread.start()
    assert not entered.wait(0.2)
    assert holder.pid is not None
    os.kill(holder.pid, signal.SIGKILL)
    assert entered.wait(1)
    thread.join()
    holder.join()
    file.close()
    assert not file.path.exists(), "presence goes with the process, too"


def _claim_for_ever(path: Path, ready: Connection) -> None:
    table = JobTable.open(path, slots=8)
    ready.send(None)
    for job in range(10**9):
        slot = table.claim(f"{os.getpid()}-{job:030d}", 200)
        table.report(slot, Progress("running", job), 200)
        table.cancel(f"{os.getpid()}-{job:030d}")
        if job % 2:
            table.free(slot, "cancelled")


def test_a_killed_process_blocks_nobody(tmp_path: Path) -> None:
    """Killed wherever it happens to be, the lock included; what it held comes free with its lease."""
    path = tmp_path / "table.jobs"
    table = JobTable.open(path, slots=8)
    for round_ in range(6):
        ready, theirs = SPAWN.Pipe()
        victim = SPAWN.Process(target=_claim_for_ever, args=(path, theirs))
        victim.start()
        ready.recv()
        time.sleep(0.01 + 0.007 * round_)
        assert victim.pid is not None
        os.kill(victim.pid, signal.SIGKILL)
        victim.join()
        started = time.monotonic()
        table.cancel(IDS[0])
        assert time.monotonic() - started < 5, "the lock went with the process"
        deadline = time.monotonic() + 5
        while table.list() and time.monotonic() < deadline:
            time.sleep(0.01)
        slots = [table.claim(f"{round_}-{number}-{'y' * MIN_WATCHABLE_ID}", 60_000) for number in range(8)]
        for slot in slots:
            assert table.free(slot, "done")
    table.close()


# --- against a model ---


@dataclass
class Modelled:
    """What the table must say of one claim."""

    request_id: str
    slot: Slot
    expires: int
    progress: Progress
    cancelled: bool = False
    preview: bytes | None = None


class JobTableMachine(RuleBasedStateMachine):
    """Any order of calls, over two openings of the file, against a dict of what each call means."""

    slots = Bundle("slots")

    @initialize()
    def open(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.clock = Clock()
        path = Path(self.folder.name, "table.jobs")
        self.tables = [JobTable.open(path, slots=3, clock=self.clock) for _ in range(2)]
        self.held: dict[int, Modelled] = {}  # by slot number

    def teardown(self) -> None:
        for table in getattr(self, "tables", []):
            table.close()
        if hasattr(self, "folder"):
            self.folder.cleanup()

    def live(self) -> list[Modelled]:
        return [m for m in self.held.values() if not m.progress.ended and m.expires > self.clock.now]

    def owned(self, slot: Slot) -> Modelled | None:
        """The claim of a handle, where it is still the slot's and has not ended."""
        modelled = self.held.get(slot.number)
        if modelled is None or modelled.slot != slot or modelled.progress.ended:
            return None
        return modelled

    @rule(
        target=slots,
        request_id=st.sampled_from([*IDS, "", "short"]),
        lease=st.integers(1, 100),
        which=st.integers(0, 1),
        limit=st.none() | st.integers(1, 3),
    )
    def claim(self, request_id: str, lease: int, which: int, limit: int | None) -> object:
        watchable = len(request_id) >= MIN_WATCHABLE_ID
        in_use = watchable and any(m.request_id == request_id for m in self.live())
        counted = sum(not m.cancelled for m in self.live())
        full = len(self.live()) == 3 or (limit is not None and counted >= limit)
        try:
            slot = self.tables[which].claim(request_id, lease, total=9, limit=limit)
        except IdInUse:
            assert in_use
            return multiple()
        except TableFull:
            assert full
            assert not in_use
            return multiple()
        assert not in_use
        assert not full
        assert slot.number not in {m.slot.number for m in self.live()}
        expires = self.clock.now + lease * 1_000_000
        self.held[slot.number] = Modelled(request_id, slot, expires, Progress("preparing", 0, 9))
        return slot

    @rule(
        slot=slots,
        state=st.sampled_from(STATES[:4]),
        numbers=st.tuples(*[st.integers(0, 2**40)] * 4),
        lease=st.integers(1, 100),
        which=st.integers(0, 1),
    )
    def report(self, slot: Slot, state: State, numbers: tuple[int, int, int, int], lease: int, which: int) -> None:
        progress, modelled = Progress(state, *numbers), self.owned(slot)
        assert self.tables[which].report(slot, progress, lease) == (modelled is not None)
        if modelled is not None:
            modelled.progress, modelled.expires = progress, self.clock.now + lease * 1_000_000

    @rule(slot=slots, lease=st.integers(1, 100), which=st.integers(0, 1))
    def renew(self, slot: Slot, lease: int, which: int) -> None:
        modelled = self.owned(slot)
        assert self.tables[which].renew(slot, lease) == (modelled is not None)
        if modelled is not None:
            modelled.expires = self.clock.now + lease * 1_000_000

    @rule(slot=consumes(slots), state=st.sampled_from(ENDED), which=st.integers(0, 1))
    def free(self, slot: Slot, state: State, which: int) -> None:
        modelled = self.owned(slot)
        assert self.tables[which].free(slot, state) == (modelled is not None)
        if modelled is not None:
            last = modelled.progress
            modelled.progress, modelled.expires = Progress(state, last.step, last.total, 0, 0), self.clock.now

    @rule(slot=slots, picture=st.binary(min_size=1, max_size=50), which=st.integers(0, 1))
    def preview(self, slot: Slot, picture: bytes, which: int) -> None:
        modelled = self.held.get(slot.number)
        owned = modelled is not None and modelled.slot == slot
        assert self.tables[which].preview(slot, picture) == owned
        if owned and modelled is not None:
            modelled.preview = picture

    @rule(request_id=st.sampled_from([*IDS, "", "short"]), which=st.integers(0, 1))
    def cancel(self, request_id: str, which: int) -> None:
        watchable = len(request_id) >= MIN_WATCHABLE_ID
        marked = [m for m in self.live() if watchable and m.request_id == request_id]
        assert self.tables[which].cancel(request_id) == bool(marked)
        for modelled in marked:
            modelled.cancelled = True

    @rule(milliseconds=st.sampled_from([0, 1, 50, 101, READABLE_MS + 1]))
    def time_passes(self, milliseconds: int) -> None:
        self.clock.pass_ms(milliseconds)

    @invariant()
    def both_openings_agree_with_the_model(self) -> None:
        if not hasattr(self, "tables"):
            return
        expected = {(m.slot, m.progress, m.cancelled) for m in self.live()}
        for table in self.tables:
            assert {(entry.slot, entry.progress, entry.cancelled) for entry in table.list()} == expected
            for modelled in self.held.values():
                assert table.cancelled(modelled.slot) == modelled.cancelled
                preview = table.preview_of(modelled.slot)
                assert (None if preview is None else preview[1]) == modelled.preview
            for request_id in IDS:
                self._check_found(table, request_id)

    def _check_found(self, table: JobTable, request_id: str) -> None:
        known = [m for m in self.held.values() if m.request_id == request_id]
        assert len(known) <= 1, "an id has one slot at most"
        readable = [m for m in known if self.clock.now - m.expires <= READABLE_MS * 1_000_000]
        entry = table.find(request_id)
        assert (entry is not None) == bool(readable)
        if entry is not None:
            (modelled,) = readable
            state = modelled.progress.state
            lost = not modelled.progress.ended and modelled.expires <= self.clock.now
            assert entry.progress.state == ("failed" if lost else state)


JobTableMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestJobTable = JobTableMachine.TestCase
