"""The job table: what the stages of one server share about the requests in flight. Pure Python, no Triton.

A memory-mapped file (see `shared_file`) of ``SLOTS`` slots, one for each request. A slot is a *lease*: whoever works on
the request renews it, and when nobody does, the slot is free again; so a job that dies between stages leaks nothing.

- Claiming and cancelling take the file's lock for some microseconds. Everything else takes none: at any time one stage
  writes a slot, any number of processes read it.
- A reader never sees half a record: each has a checksum and two copies, of which the older is overwritten.
- A handle (``Slot``) carries the generation of its claim. Once the slot is another's, the old handle reads as absent
  and its writes are ignored.
- Of a request id only a digest and the first 8 characters are kept: ids are capabilities.

What ``denoise`` does (``slot = Slot.of(wire.array(request, "slot"))``, once per job; all durations in milliseconds)::

    table = JobTable.open()                                     # initialize; table.close() in finalize
    if table.cancelled(slot): table.free(slot, "cancelled")     # at admission and before each step, then CANCELLED
    table.report(slot, Progress("waiting", 0, total, position, eta_ms), lease)    # while it gets no step
    table.report(slot, Progress("running", step, total, 0, eta_ms), lease)        # after each step
    table.preview(slot, jpeg)                                   # bytes of denoise/preview.py, every preview_every steps
    table.report(slot, Progress("decoding", total, total), lease)                 # last: postprocess frees the slot
    table.free(slot, "failed")                                  # when it refuses or drops the job (DEADLINE, ENGINE, …)
    lease = table.beat(work_ms, step_ms, jobs)                  # once a round, also when idle if it can

``lease`` is `lease_ms` of the step time: a stage may be silent for a hundred steps' time (a VAE takes a few).
"""

from __future__ import annotations

import hashlib
import struct
import time
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, SupportsInt

from dressform_contract import MIN_WATCHABLE_ID
from jobs.shared_file import SharedFile, remove_left_over, server_path

State = Literal["preparing", "waiting", "running", "decoding", "done", "failed", "cancelled"]
STATES: tuple[State, ...] = ("preparing", "waiting", "running", "decoding", "done", "failed", "cancelled")
ENDED: tuple[State, ...] = ("done", "failed", "cancelled")

SLOTS = 256
PREVIEW_BYTES = 32 * 2**10 - 32
"""Largest preview, in bytes."""
READABLE_MS = 30_000
"""How long the last state of a job can be read, in milliseconds, unless its slot is needed before."""

_FIRST_LEASE_MS, _SHORTEST_LEASE_MS, _LEASE_STEPS = 120_000, 15_000, 100


class IdInUse(Exception):
    """A request with this id is in flight."""


class TableFull(Exception):
    """As many requests are in flight as are allowed."""


@dataclass(frozen=True)
class Slot:
    """A claim: slot ``number`` as long as its generation is ``generation``."""

    number: int
    generation: int

    @classmethod
    def of(cls, values: Sequence[SupportsInt]) -> Slot:
        """From the tensor ``slot``, int64 [2]."""
        number, generation = values
        return cls(int(number), int(generation))


@dataclass(frozen=True)
class Progress:
    """Where a job stands: ``position`` in the queue (0: none before it), ``eta_ms`` to its last step (-1: unknown)."""

    state: State
    step: int = 0
    total: int = 0
    position: int = 0
    eta_ms: int = -1

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self.state in ENDED


@dataclass(frozen=True)
class Entry:
    """A slot as a reader sees it. ``name`` is the id's first 8 characters; times are of the monotonic clock, in ns."""

    slot: Slot
    name: str
    task: str
    rows: int
    claimed_ns: int
    written_ns: int
    expires_ns: int
    cancelled: bool
    progress: Progress


@dataclass(frozen=True)
class Health:
    """What ``denoise`` last said: when (monotonic, ns), the estimated work before it, its step time, its jobs."""

    beat_ns: int
    work_ms: int
    step_ms: float
    jobs: int


def lease_ms(step_ms: float) -> int:
    """How long a stage may be silent about a job, given the time of a step (0: not measured yet)."""
    return _FIRST_LEASE_MS if step_ms <= 0 else int(_SHORTEST_LEASE_MS + _LEASE_STEPS * step_ms)


# A slot: its owner (generation, digest of the id, id's beginning, task, rows, time of the claim), the generation that
# was cancelled, and two copies of its progress. All in the machine's own byte order; every struct is 8-byte aligned.
_OWNER = struct.Struct("@q16s8s8sqq")
_PROGRESS = struct.Struct("@qqqqqqqq")  # generation, time written, time it expires, step, total, position, eta, state
_HEALTH = struct.Struct("@qqqdq")  # 0, time written, work, step time, jobs
_PREVIEW = struct.Struct("@qqq")  # generation, time written, length; the picture follows the checksum
_SUM = struct.Struct("@Q")
_MARK = _OWNER.size + _SUM.size
_COPIES = _MARK + 8
_STRIDE = 256
_HEADER = 256
_PREVIEW_STRIDE = 2**15
_MAGIC = int.from_bytes(b"DRESSJ01", "little")
_MAGIC_WORD, _CURSOR_WORD, _HEALTH_AT = 0, 1, 64
_ANONYMOUS = bytes(16)


class JobTable:
    """See the module. ``clock`` gives monotonic nanoseconds."""

    def __init__(self, file: SharedFile, slots: int, clock: Callable[[], int]) -> None:
        self._file = file
        self._memory = file.memory
        self._words = memoryview(file.memory).cast("q")
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
        return cls(SharedFile(path, _HEADER + slots * (_STRIDE + _PREVIEW_STRIDE)), slots, clock)

    def close(self) -> None:
        """Leave the table; the last process to leave removes the file."""
        self._words.release()
        self._file.close()

    # The owner of a slot: claims and cancel marks, under the lock.

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
        digest, name = _digest(request_id), request_id[:8] if _watchable(request_id) else ""
        with self._file.turn():
            now = self._clock()
            number = self._numbered(digest)
            if number is not None and self._in_flight(number, now):
                raise IdInUse
            if limit is not None and self._count(now) >= limit:
                raise TableFull
            if number is None:  # an id has one slot at most
                number = self._free_number(now)
            generation = max(now, self._words[self._word(number)] + 1)
            start = self._start(number)
            owner = (generation, digest, name.encode("ascii", "replace"), task.encode()[:8], rows, now)
            self._memory[start : start + _MARK] = _summed(_OWNER.pack(*owner))
            slot = Slot(number, generation)
            self._write(slot, now, now + lease * 1_000_000, Progress("preparing", 0, total))
        return slot

    def _free_number(self, now: int) -> int:
        """The next free slot, round and round, so that last states stay readable as long as can be."""
        first = self._words[_CURSOR_WORD]
        for ahead in range(self._slots):
            number = (first + ahead) % self._slots
            if not self._in_flight(number, now):
                self._words[_CURSOR_WORD] = (number + 1) % self._slots
                return number
        raise TableFull

    def _count(self, now: int) -> int:
        return sum(self._in_flight(number, now) and not self._marked(number) for number in range(self._slots))

    def cancel(self, request_id: str) -> bool:
        """Mark the request for its end; False if no request with this id is in flight."""
        with self._file.turn():
            number = self._numbered(_digest(request_id))
            if number is None or not self._in_flight(number, self._clock()):
                return False
            self._words[self._word(number, _MARK)] = self._words[self._word(number)]
            return True

    def cancelled(self, slot: Slot) -> bool:
        """Whether the job was marked."""
        return self._is_of(slot) and self._words[self._word(slot.number, _MARK)] == slot.generation

    # Progress: by the stage that has the job, without a lock.

    def report(self, slot: Slot, progress: Progress, lease: int) -> bool:
        """Say where the job stands, and renew its lease by ``lease`` ms; False if the slot is no longer this job's."""
        if not self._is_of(slot):
            return False
        now = self._clock()
        return self._write(slot, now, now + lease * 1_000_000, progress)

    def renew(self, slot: Slot, lease: int) -> bool:
        """Renew the lease by ``lease`` ms; False if the slot is no longer this job's."""
        entry = self.entry(slot)
        return entry is not None and self.report(slot, entry.progress, lease)

    def free(self, slot: Slot, state: State) -> bool:
        """End the job with ``state``, one of ``ENDED``. The slot is free; its last state can be read for a while."""
        if state not in ENDED:
            raise ValueError(f"a job ends as one of {', '.join(ENDED)}, not {state!r}")
        entry = self.entry(slot)
        if entry is None:
            return False
        last = entry.progress
        return self.report(slot, Progress(state, last.step, last.total, 0, 0), 0)

    def preview(self, slot: Slot, picture: bytes) -> bool:
        """Keep ``picture`` (at most ``PREVIEW_BYTES``) as the job's newest; False if it is too large or stale."""
        if not self._is_of(slot) or len(picture) > PREVIEW_BYTES:
            return False
        start = self._preview_start(slot.number)
        summed = _summed(_PREVIEW.pack(slot.generation, self._clock(), len(picture)) + picture, at=_PREVIEW.size)
        self._memory[start : start + len(summed)] = summed
        return True

    # What readers see.

    def preview_of(self, slot: Slot) -> tuple[int, bytes] | None:
        """When the job's newest preview was written (monotonic, ns), and the preview."""
        start = self._preview_start(slot.number)
        generation, written, length = _PREVIEW.unpack_from(self._memory, start)
        if generation != slot.generation or not 0 < length <= PREVIEW_BYTES:
            return None
        size = _PREVIEW.size + _SUM.size + length
        content = _checked(self._memory[start : start + size], at=_PREVIEW.size)
        return None if content is None else (written, content[_PREVIEW.size :])

    def entry(self, slot: Slot) -> Entry | None:
        """The job of ``slot``; None if the slot is another's by now."""
        found = self._entry(slot.number) if 0 <= slot.number < self._slots else None
        return found if found is not None and found.slot == slot else None

    def find(self, request_id: str) -> Entry | None:
        """The job in flight with this id, or the last state of one that ended at most ``READABLE_MS`` ago.

        A job whose lease ran out reads as failed.
        """
        number = self._numbered(_digest(request_id))
        found = None if number is None else self._entry(number)
        if found is None or self._clock() - found.expires_ns > READABLE_MS * 1_000_000:
            return None
        return found

    def list(self) -> list[Entry]:
        """The jobs in flight, oldest first."""
        entries = [found for number in range(self._slots) if (found := self._entry(number)) is not None]
        return sorted((e for e in entries if not e.progress.ended), key=lambda entry: entry.claimed_ns)

    def _entry(self, number: int) -> Entry | None:
        start = self._start(number)
        owner, record = _checked(self._memory[start : start + _MARK]), self._record(number)
        if owner is None or record is None:
            return None
        generation, _, name, task, rows, claimed = _OWNER.unpack(owner)
        if record[0] != generation:
            return None
        _, written, expires, step, total, position, eta, state = record
        progress = Progress(STATES[state], step, total, position, eta)
        if not progress.ended and expires <= self._clock():
            progress = Progress("failed", step, total, 0, 0)
        slot, mark = Slot(number, generation), self._words[self._word(number, _MARK)] == generation
        return Entry(slot, _text(name), _text(task), rows, claimed, written, expires, mark, progress)

    # The server's health: written by denoise alone.

    def beat(self, work_ms: float, step_ms: float, jobs: int) -> int:
        """Say that ``denoise`` lives, and what it has before it; returns the lease that fits, in ms."""
        packed = _summed(_HEALTH.pack(0, self._clock(), int(work_ms), step_ms, jobs))
        self._store(_HEALTH_AT, packed)
        return lease_ms(step_ms)

    def health(self) -> Health | None:
        """What ``denoise`` said last, or None."""
        content = self._newest(_HEALTH_AT, _HEALTH.size + _SUM.size)
        return None if content is None else Health(*_HEALTH.unpack(content)[1:])

    def lease(self) -> int:
        """The lease that fits this server, in ms."""
        health = self.health()
        return lease_ms(health.step_ms if health is not None else 0)

    # Memory.

    def _start(self, number: int) -> int:
        return _HEADER + number * _STRIDE

    def _word(self, number: int, offset: int = 0) -> int:
        """Index of the 8-byte word at ``offset`` bytes of a slot; such words are read and written in one piece."""
        return (_HEADER + number * _STRIDE + offset) >> 3

    def _preview_start(self, number: int) -> int:
        return _HEADER + self._slots * _STRIDE + number * _PREVIEW_STRIDE

    def _is_of(self, slot: Slot) -> bool:
        return 0 <= slot.number < self._slots and self._words[self._word(slot.number)] == slot.generation

    def _marked(self, number: int) -> bool:
        return self._words[self._word(number, _MARK)] == self._words[self._word(number)]

    def _numbered(self, digest: bytes) -> int | None:
        """The slot that belongs to an id or did last."""
        if digest == _ANONYMOUS:
            return None
        at = self._memory[_HEADER : self._start(self._slots)].find(digest)
        return None if at < 0 else at // _STRIDE

    def _in_flight(self, number: int, now: int) -> bool:
        record = self._record(number)
        if record is None or record[0] != self._words[self._word(number)]:
            return False
        return STATES[record[7]] not in ENDED and record[2] > now

    def _record(self, number: int) -> tuple[int, ...] | None:
        content = self._newest(self._start(number) + _COPIES, _PROGRESS.size + _SUM.size)
        return None if content is None else _PROGRESS.unpack(content)

    def _write(self, slot: Slot, now: int, expires: int, progress: Progress) -> bool:
        last = self._record(slot.number)
        if last is not None and last[0] == slot.generation:
            if STATES[last[7]] in ENDED:
                return False
            now = max(now, last[1] + 1)
        state = STATES.index(progress.state)
        fields = (progress.step, progress.total, progress.position, progress.eta_ms, state)
        packed = _PROGRESS.pack(slot.generation, now, expires, *fields)
        self._store(self._start(slot.number) + _COPIES, _summed(packed))
        return True

    def _store(self, start: int, record: bytes) -> None:
        """Overwrite the older of two copies; records begin with generation and time."""
        size, words, first = len(record), self._words, start >> 3
        second = first + (size >> 3)
        if (words[second], words[second + 1]) < (words[first], words[first + 1]):
            start += size
        self._memory[start : start + size] = record

    def _newest(self, start: int, size: int) -> bytes | None:
        """The newer one of two copies that is whole."""
        both = [_checked(self._memory[at : at + size]) for at in (start, start + size)]
        return max((copy for copy in both if copy is not None), key=_AGE.unpack_from, default=None)


_AGE = struct.Struct("@qq")


def _summed(content: bytes, at: int | None = None) -> bytes:
    """``content`` with its checksum put in at ``at`` (by default at its end)."""
    at = len(content) if at is None else at
    return content[:at] + _SUM.pack(zlib.crc32(content) + 1) + content[at:]  # never 0, as fresh memory is


def _checked(summed: bytes, at: int | None = None) -> bytes | None:
    """The content, or None if it is not whole."""
    at = len(summed) - _SUM.size if at is None else at
    content = summed[:at] + summed[at + _SUM.size :]
    return content if _SUM.unpack_from(summed, at)[0] == zlib.crc32(content) + 1 else None


def _watchable(request_id: str) -> bool:
    return len(request_id) >= MIN_WATCHABLE_ID


def _digest(request_id: str) -> bytes:
    if not _watchable(request_id):
        return _ANONYMOUS
    return hashlib.blake2b(request_id.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _text(field: bytes) -> str:
    return field.rstrip(b"\0").decode("ascii", "replace")
