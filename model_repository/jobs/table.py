"""The job table: what the stages of one server share about the requests in flight. Pure Python, no Triton.

A memory-mapped file (see `shared_file`) of ``SLOTS`` slots, one for each request. A slot is a *lease*: whoever works on
the request renews it, and when nobody does, the slot is free again; so a job that dies between stages leaks nothing.

- Claiming and cancelling take the file's lock, for well under a millisecond. Nothing else takes one: at any time one
  stage writes a slot's progress, and any number of processes read it (see `records`).
- A handle (``Slot``) carries the generation of its claim. Once the slot is another's, the old handle reads as absent
  and what it writes is ignored.
- Of a request id only a digest and the first 8 characters are kept: ids are capabilities.

What ``denoise`` does, with ``slot = Slot.of(wire.array(request, "slot"))`` kept on the job (times in milliseconds)::

    table = JobTable.open()                                     # initialize; table.close() in finalize
    lease = table.beat(work_ms, step_ms, jobs, latent_us)       # once a round
    if table.cancelled(slot): table.free(slot, "cancelled")     # at admission and before each step; then CANCELLED
    table.report(slot, Progress("waiting", 0, total, position, eta_ms), lease)    # while it gets no step
    table.report(slot, Progress("running", step, total, 0, eta_ms), lease)        # after each step
    table.preview(slot, picture)                                # of denoise/preview.py, every preview_every steps
    table.report(slot, Progress("decoding", total, total, 0, 0), lease)           # with its answer
    table.free(slot, "failed")                                  # where it refuses or drops the job otherwise

``preprocess`` claims the slot, ``postprocess`` frees it with "done". A job that nobody reports within its lease reads
as failed; the lease is `lease_ms` of the step time, so that it outlasts the encoders and the decoder, too.
"""

from __future__ import annotations

import hashlib
import os
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from dressform_contract import MIN_WATCHABLE_ID
from jobs.entry import ENDED, STATES, Entry, Health, IdInUse, Member, Progress, Slot, State, TableFull, lease_ms
from jobs.records import CHECKSUM, Records, checked, summed
from jobs.shared_file import SharedFile, remove_left_over, server_path, started

SLOTS = 256
PREVIEW_BYTES = 2**15 - 32
PREVIEW_MEDIA = "image/jpeg"
"""Largest preview, in bytes, and what it is."""
READABLE_MS = 30_000
"""How long the last state of a job can be read, in milliseconds, unless its slot is needed before."""

# The file: a header (magic, cursor, claims, stopping, busy, unlisted, health), the roll, the slots, the previews. A
# slot: its owner (generation, digest of the id, beginning of the id, task, rows, time of the claim), the generation
# that was cancelled, and its progress.
_HEALTH = struct.Struct("@qqqdqd")  # 0, time written, work, step time, jobs, least time for a latent
_OWNER = struct.Struct("@q16s8s8sqq")
_PROGRESS = struct.Struct("@qqqqqqqq")  # generation, time written, time it expires, step, total, position, eta, state
_PREVIEW = struct.Struct("@qqq")  # generation, time written, length; the picture follows the checksum
_MEMBER = struct.Struct("@24sqqqq")  # name, process id, its start (kernel's ticks), last beat, begin of its call
_PID, _BEAT, _CALL = 24, 40, 48
_ROLL_AT, _MEMBERS = 256, 32
_HEADER, _HEALTH_AT, _SLOT, _PREVIEW_SLOT = _ROLL_AT + _MEMBERS * _MEMBER.size, 64, 256, 2**15
_MARK = _OWNER.size + CHECKSUM.size
_PROGRESS_AT = _MARK + 8
_MAGIC_WORD, _CURSOR_WORD, _CLAIMS_WORD, _STOPPING_WORD, _BUSY_WORD, _UNLISTED_WORD = 0, 1, 2, 3, 4, 5
_MAGIC = int.from_bytes(b"DRESSJ03", "little")
_ANONYMOUS = bytes(16)


class JobTable:
    """See the module. ``clock`` gives monotonic nanoseconds."""

    def __init__(self, file: SharedFile, slots: int, clock: Callable[[], int]) -> None:
        self._file = file
        self._memory = file.memory
        self._words = memoryview(file.memory).cast("q")  # 8 bytes, read and written in one piece
        self._progress = Records(_PROGRESS, self._memory, self._words)
        self._health = Records(_HEALTH, self._memory, self._words)
        self._slots = slots
        self._clock = clock
        with file.turn():
            if self._words[_MAGIC_WORD] not in (0, _MAGIC):
                raise OSError(f"{file.path} is no job table of this version")
            self._words[_MAGIC_WORD] = _MAGIC

    @classmethod
    def open(
        cls, path: Path | None = None, slots: int = SLOTS, clock: Callable[[], int] = time.monotonic_ns
    ) -> JobTable:
        """Open the table at ``path``, or make it. None: that of this stage's server, and tables left over are removed.

        Raises:
            OSError: if it cannot be made or is another version's.
        """
        if path is None:
            path = server_path()
            with suppress(OSError):
                remove_left_over(path.parent)
        return cls(SharedFile(path, _HEADER + slots * (_SLOT + _PREVIEW_SLOT)), slots, clock)

    def close(self) -> None:
        """Leave the table; the last process to leave removes the file."""
        self._words.release()
        self._file.close()

    # Claims and cancel marks, under the lock.

    def claim(
        self, request_id: str, lease: int, *, task: str = "", rows: int = 1, total: int = 0, limit: int | None = None
    ) -> Slot:
        """A slot for a request of ``rows`` UNet rows and ``total`` steps, leased for ``lease`` ms, state preparing.

        An id too short to be watched gets a slot that nobody finds. ``limit`` bounds the jobs in flight; cancelled ones
        do not count.

        Raises:
            IdInUse: a request with this id is in flight.
            TableFull: ``limit`` jobs are in flight, or no slot is free.
        """
        name = request_id[:8].encode("ascii", "replace") if _watchable(request_id) else b""
        digest = _digest(request_id)
        with self._file.turn():
            now = self._clock()
            number = self._numbered(digest)
            if number is not None and self._in_flight(number, now):
                raise IdInUse
            if limit is not None and self._count(now) >= limit:
                raise TableFull
            if number is None:  # an id has one slot at most
                number = self._free_number(now)
            start = self._start(number)
            generation = max(now, self._words[start >> 3] + 1)
            owner = _OWNER.pack(generation, digest, name, task.encode()[:8], rows, now)
            self._memory[start : start + _MARK] = summed(owner)
            self._progress.write(start + _PROGRESS_AT, generation, now, now + lease * 1_000_000, 0, total, 0, -1, 0)
            self._words[_CLAIMS_WORD] += 1  # last: who sees it sees the claim
        return Slot(number, generation)

    def cancel(self, request_id: str) -> bool:
        """Mark the request for its end; False if no request with this id is in flight."""
        with self._file.turn():
            number = self._numbered(_digest(request_id))
            if number is None or not self._in_flight(number, self._clock()):
                return False
            start = self._start(number)
            self._words[(start + _MARK) >> 3] = self._words[start >> 3]
            return True

    def cancelled(self, slot: Slot) -> bool:
        """Whether the job was marked."""
        return self._is_of(slot) and self._marked(slot.number)

    # Progress, by the stage that has the job.

    def report(self, slot: Slot, progress: Progress, lease: int) -> bool:
        """Say where the job stands, and renew its lease by ``lease`` ms; False if the slot is no longer this job's."""
        words, start = self._words, self._start(slot.number) + _PROGRESS_AT
        if not self._is_of(slot):
            return False
        newer = self._progress.newer(start) >> 3
        if words[newer] == slot.generation and words[newer + 7] >= _FIRST_END:
            return False  # it has ended
        clock = self._clock()
        written = max(clock, words[newer + 1] + 1)  # always later than the copy before
        fields = (progress.step, progress.total, progress.position, progress.eta_ms, STATES.index(progress.state))
        self._progress.write(start, slot.generation, written, clock + lease * 1_000_000, *fields)
        return True

    def renew(self, slot: Slot, lease: int) -> bool:
        """Renew the lease by ``lease`` ms; False if the slot is no longer this job's."""
        record = self._record(slot)
        return record is not None and self.report(slot, _progress(record), lease)

    def free(self, slot: Slot, state: State) -> bool:
        """End the job with ``state``, one of ``ENDED``. The slot is free; its last state can be read for a while."""
        if state not in ENDED:
            raise ValueError(f"a job ends as one of {', '.join(ENDED)}, not {state!r}")
        record = self._record(slot)
        if record is None:
            return False
        last = _progress(record)
        return self.report(slot, Progress(state, last.step, last.total, 0, 0), 0)

    def preview(self, slot: Slot, picture: bytes) -> bool:
        """Keep ``picture`` (at most ``PREVIEW_BYTES``) as the job's newest; False if it is too large or stale."""
        if not self._is_of(slot) or len(picture) > PREVIEW_BYTES:
            return False
        start = self._preview_start(slot.number)
        record = summed(_PREVIEW.pack(slot.generation, self._clock(), len(picture)) + picture, at=_PREVIEW.size)
        self._memory[start : start + len(record)] = record
        return True

    # What readers see.

    def find(self, request_id: str) -> Entry | None:
        """The job in flight with this id, or the last state of one that ended at most ``READABLE_MS`` ago.

        A job whose lease ran out reads as failed.
        """
        number = self._numbered(_digest(request_id))
        found = None if number is None else self._entry(number)
        late = found is not None and self._clock() - found.expires_ns > READABLE_MS * 1_000_000
        return None if late else found

    def entry(self, slot: Slot) -> Entry | None:
        """The job of ``slot``; None if the slot is another's by now."""
        found = self._entry(slot.number) if self._is_of(slot) else None
        return found if found is not None and found.slot == slot else None

    def preview_of(self, slot: Slot) -> tuple[int, bytes] | None:
        """When the job's newest preview was written (monotonic, ns), and the preview."""
        start = self._preview_start(slot.number)
        generation, written, length = _PREVIEW.unpack_from(self._memory, start)
        if generation != slot.generation or not 0 < length <= PREVIEW_BYTES:
            return None
        size = _PREVIEW.size + CHECKSUM.size + length
        content = checked(self._memory[start : start + size], at=_PREVIEW.size)
        return None if content is None else (written, content[_PREVIEW.size :])

    @property
    def claims(self) -> int:
        """How many claims there ever were: a cheap look at whether there is a new one."""
        return self._words[_CLAIMS_WORD]

    @property
    def stopping(self) -> bool:
        """Whether the server is to finish what is in flight and to take nothing new."""
        return bool(self._words[_STOPPING_WORD])

    def stop(self) -> None:
        """From now on the server is `stopping`."""
        self._words[_STOPPING_WORD] = 1

    @property
    def unlisted(self) -> int:
        """How many requests without a slot are in flight: those of the model ``mask``."""
        return self._words[_UNLISTED_WORD]

    @contextmanager
    def unlisted_request(self) -> Iterator[None]:
        """While open, one more of them is."""
        with self._file.turn():
            self._words[_UNLISTED_WORD] += 1
        try:
            yield
        finally:
            with self._file.turn():
                self._words[_UNLISTED_WORD] -= 1

    def preparing(self) -> list[Slot]:
        """The jobs in flight that no stage has reported on yet."""
        slots = [Slot(number, self._words[self._start(number) >> 3]) for number in range(self._slots)]
        return [slot for slot in slots if self.is_preparing(slot)]

    def is_preparing(self, slot: Slot) -> bool:
        """Whether the job is in flight, and no stage has reported on it yet."""
        record = self._record(slot)
        return record is not None and record[7] == _PREPARING and record[2] > self._clock()

    def list(self) -> list[Entry]:
        """The jobs in flight, oldest first."""
        entries = [found for number in range(self._slots) if (found := self._entry(number)) is not None]
        return sorted((e for e in entries if not e.progress.ended), key=lambda entry: entry.claimed_ns)

    def beat(self, work_ms: float, step_ms: float, jobs: int, latent_us: float = 0) -> int:
        """Say that ``denoise`` lives, and what it has before it (see `Health`); returns the lease that fits, in ms.

        A ``step_ms`` or ``latent_us`` of 0 means that there is no new measurement: the last one stays.
        """
        last = self.health()
        if last is not None:
            step_ms, latent_us = step_ms or last.step_ms, latent_us or last.latent_us
        self.busy(jobs > 0)
        self._health.write(_HEALTH_AT, 0, self._clock(), int(work_ms), float(step_ms), jobs, float(latent_us))
        return lease_ms(step_ms)

    def health(self) -> Health | None:
        """What ``denoise`` said last, or None."""
        record = self._health.read(_HEALTH_AT)
        return None if record is None else Health(*record[1:])

    def busy(self, work: bool) -> None:
        """Say that ``denoise`` is at a round, or (False) that it has no work."""
        self._words[_BUSY_WORD] = self._clock() if work else 0

    @property
    def busy_ns(self) -> int:
        """When ``denoise`` last got on with its work (monotonic, ns); 0: it has none."""
        return self._words[_BUSY_WORD]

    # The roll: the processes of the server. Each writes its own beat.

    def enrol(self, name: str) -> int:
        """A place on the roll for this process, which is stage or graph ``name``.

        Raises:
            OSError: if there is none left.
        """
        with self._file.turn():
            for number in range(_MEMBERS):
                at = _ROLL_AT + number * _MEMBER.size
                if not self._words[(at + _PID) >> 3]:
                    pid = os.getpid()
                    member = _MEMBER.pack(name.encode()[:24], pid, started(pid) or 0, self._clock(), 0)
                    self._memory[at : at + _MEMBER.size] = member
                    return number
        raise OSError(f"the roll of {self._file.path} is full")

    def beat_of(self, number: int) -> None:
        """The process at place ``number`` lives."""
        self._words[(_ROLL_AT + number * _MEMBER.size + _BEAT) >> 3] = self._clock()

    def calling(self, number: int, begun: bool) -> None:
        """The process at place ``number`` has begun a call of Triton's (a batch of requests), or ended it."""
        self._words[(_ROLL_AT + number * _MEMBER.size + _CALL) >> 3] = self._clock() if begun else 0

    def leave(self, number: int) -> None:
        """The process at place ``number`` ends as it should."""
        self._words[(_ROLL_AT + number * _MEMBER.size + _PID) >> 3] = 0

    def roll(self) -> Sequence[Member]:
        """The processes of the server."""
        places = (_ROLL_AT + number * _MEMBER.size for number in range(_MEMBERS))
        members = [_MEMBER.unpack_from(self._memory, at) for at in places]
        return [Member(_text(name), pid, *marks) for name, pid, *marks in members if pid]

    def lease(self) -> int:
        """The lease that fits this server, in ms."""
        health = self.health()
        return lease_ms(health.step_ms if health is not None else 0)

    # Slots in memory.

    def _start(self, number: int) -> int:
        return _HEADER + number * _SLOT

    def _preview_start(self, number: int) -> int:
        return _HEADER + self._slots * _SLOT + number * _PREVIEW_SLOT

    def _is_of(self, slot: Slot) -> bool:
        known = 0 <= slot.number < self._slots and slot.generation > 0
        return known and self._words[self._start(slot.number) >> 3] == slot.generation

    def _marked(self, number: int) -> bool:
        start = self._start(number)
        return self._words[(start + _MARK) >> 3] == self._words[start >> 3]

    def _numbered(self, digest: bytes) -> int | None:
        """The slot that belongs to an id, or did last."""
        if digest == _ANONYMOUS:
            return None
        at = self._memory[_HEADER : self._start(self._slots)].find(digest)
        return None if at < 0 else at // _SLOT

    def _free_number(self, now: int) -> int:
        """The next free slot, round and round, so that last states stay readable for as long as can be."""
        first = self._words[_CURSOR_WORD]
        for number in ((first + ahead) % self._slots for ahead in range(self._slots)):
            if not self._in_flight(number, now):
                self._words[_CURSOR_WORD] = number + 1
                return number
        raise TableFull

    def _count(self, now: int) -> int:
        return sum(self._in_flight(number, now) and not self._marked(number) for number in range(self._slots))

    def _in_flight(self, number: int, now: int) -> bool:
        record = self._record(Slot(number, self._words[self._start(number) >> 3]))
        return record is not None and record[7] < _FIRST_END and record[2] > now

    def _record(self, slot: Slot) -> tuple[int, ...] | None:
        """The job's progress as it lies in memory; None if the slot is another's."""
        if not self._is_of(slot):
            return None
        record = self._progress.read(self._start(slot.number) + _PROGRESS_AT)
        return record if record is not None and record[0] == slot.generation else None

    def _entry(self, number: int) -> Entry | None:
        start = self._start(number)
        owner = checked(self._memory[start : start + _MARK])
        if owner is None:
            return None
        generation, _, name, task, rows, claimed = _OWNER.unpack(owner)
        slot = Slot(number, generation)
        marked, record = self._marked(number), self._record(slot)
        if record is None:
            return None
        progress, written, expires = _progress(record), record[1], record[2]
        if not progress.ended and expires <= self._clock():
            progress = Progress("failed", progress.step, progress.total, 0, 0)
        return Entry(slot, _text(name), _text(task), rows, claimed, written, expires, marked, progress)


_FIRST_END = STATES.index(ENDED[0])
_PREPARING = STATES.index("preparing")


def _progress(record: tuple[int, ...]) -> Progress:
    return Progress(STATES[record[7]], *record[3:7])


def _watchable(request_id: str) -> bool:
    return len(request_id) >= MIN_WATCHABLE_ID


def _digest(request_id: str) -> bytes:
    if not _watchable(request_id):
        return _ANONYMOUS
    return hashlib.blake2b(request_id.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _text(field: bytes) -> str:
    return field.rstrip(b"\0").decode("ascii", "replace")
