"""Signs of life of a server's processes, and what they mean. No Triton here.

Triton does not restart a Python process that died, and its health endpoints go on saying 200. So each of them, stage
or graph, enrols on the job table and beats once a second from a thread of its own. The thread that Triton calls may
hang all the same: so the stages write when such a call began, and `denoise`, whose calls are rounds of steps, when it
last got on: a UNet that hangs stops it there. A probe that *infers* instead would queue behind the work, and call a
busy server dead. Whether Triton itself answers is `jobs.alive`'s to ask.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from jobs.entry import Member
from jobs.shared_file import started
from jobs.table import JobTable

BEAT_SECONDS = 1.0
SILENT_SECONDS = 15.0
"""A process that was not heard of for so long hangs: a large picture may hold Python's lock for some seconds."""
CALL_SECONDS = 120.0
"""How long a stage other than `denoise` may be at one call: `mask` waits for the parser in its own."""
STUCK_SECONDS, STUCK_STEPS, UNMEASURED_SECONDS = 60.0, 20, 900.0
"""How long `denoise` may get nowhere: so many seconds, or so many times the time of a step; before one was measured
(the first call compiles), the last."""


class Heart:
    """Beats for this process, which is ``name``, until `close`."""

    def __init__(self, table: JobTable, name: str) -> None:
        """Raises OSError if the roll is full."""
        self._table = table
        self._place = table.enrol(name)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heart", daemon=True)
        self._thread.start()

    @contextmanager
    def at_call(self) -> Iterator[None]:
        """While open, the process is at a call of Triton's."""
        self._table.calling(self._place, True)
        try:
            yield
        finally:
            self._table.calling(self._place, False)

    def close(self) -> None:
        """Leave the roll."""
        self._closed.set()
        self._thread.join(5)
        self._table.leave(self._place)

    def _beat(self) -> None:
        while not self._closed.wait(BEAT_SECONDS):
            self._table.beat_of(self._place)


def ill(table: JobTable, now_ns: int) -> str | None:
    """What is wrong with the server of ``table`` at ``now_ns`` (monotonic), in a sentence; None: it is well."""
    for member in table.roll():
        if started(member.pid) != member.started:
            return f"the process of {member.name} is dead"
        silent = (now_ns - member.beat_ns) / 1e9
        if silent > SILENT_SECONDS:
            return f"the process of {member.name} was not heard of for {silent:.0f} s"
        called = (now_ns - member.call_ns) / 1e9 if member.call_ns else 0.0
        if called > CALL_SECONDS:
            return f"{member.name} has been at one call for {called:.0f} s"
    busy, health = table.busy_ns, table.health()
    step = health.step_ms / 1000 if health is not None else 0.0
    allowed = max(STUCK_SECONDS, STUCK_STEPS * step) if step else UNMEASURED_SECONDS
    stuck = (now_ns - busy) / 1e9 if busy else 0.0
    return f"denoise has not got on for {stuck:.0f} s (a step takes {step:.3g} s)" if stuck > allowed else None


def last_heard(member: Member, now_ns: int, now: float) -> float:
    """When ``member`` last beat, as the time of day in seconds, given both clocks."""
    return now - (now_ns - member.beat_ns) / 1e9
