"""The story of each request in one record, whichever stage it ended in. No Triton here.

Each stage tells what it knows (`jobs.post`): ``preprocess`` who asked for what, ``denoise`` the steps, the stage where
the request ends how it ended. A request that dies between stages (a graph that fails outside the denoiser, a process
that is killed) is missed by nobody: its slot of the job table expires, and it is closed as failed, code LOST. One that
was marked, or had all its steps, is closed as cancelled: its sender has left.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from jobs.entry import Slot
from jobs.table import JobTable

OUTCOMES = ("done", "failed", "cancelled", "refused")
STAGES = {
    "preprocess": ("started", "prepared"),
    "encode": ("prepared", "admitted"),
    "wait": ("admitted", "first_step"),
    "denoise": ("first_step", "finished"),
    "decode": ("finished", "decoded"),
    "postprocess": ("decoded", "ended"),
}
"""A request's stages in their order, and the marks between which they lie. ``encode`` and ``decode`` are the graphs
around the denoiser with the way there, ``wait`` is for the first step."""
SETTLE_NS = 500_000_000
"""How long after a request's end the others' word about it is waited for."""
LOST, ABANDONED = "LOST", "ABANDONED"
"""The codes of a request that no stage saw end, and of one that got all its steps and was not answered: its sender
broke the call off (Triton's ensemble then stops between stages), or, which Triton counts, the decoder failed."""
_REMEMBERED = 1024


@dataclass
class Account:
    """What is known of a request. Of its prompts and pictures: nothing.

    ``size`` is height x width of the canvas, "512x384"; ``marks`` are monotonic times in ns, see ``STAGES``;
    ``compute_seconds`` is its share (rows of all rows) of the UNet calls; ``code`` that of the error, or empty;
    ``traceparent`` as it came (W3C Trace Context), ``trace_steps`` whether each step gets a span.
    """

    id: str = ""
    task: str = ""
    category: str = ""
    size: str = ""
    client: str = ""
    traceparent: str = ""
    trace_steps: bool = False
    steps: int = 0
    unet_rows: int = 0
    compute_seconds: float = 0.0
    batch_sizes: list[int] = field(default_factory=list)
    step_ends_ns: list[int] = field(default_factory=list)
    marks: dict[str, int] = field(default_factory=dict)
    outcome: str = ""
    code: str = ""

    def learn(self, news: Mapping[str, Any]) -> None:
        """Take over what a stage tells."""
        for name in _FIELDS & set(news):
            setattr(self, name, {**self.marks, **news["marks"]} if name == "marks" else news[name])

    @property
    def short_id(self) -> str:
        """What logs and traces tell of it, as the list of jobs does: an id is what watching and cancelling ask for."""
        return self.id[:8]

    @property
    def seconds(self) -> float:
        """From its arrival to its end."""
        return (self.marks["ended"] - self.marks["started"]) / 1e9

    def spans(self) -> dict[str, tuple[int, int]]:
        """Begin and end of each stage that it reached; the one that it ended in lasts until then."""
        found = {}
        for stage, (begin, end) in STAGES.items():
            if begin not in self.marks:
                break
            found[stage] = self.marks[begin], self.marks.get(end, self.marks["ended"])
            if end not in self.marks:
                break
        return found


_FIELDS = {each.name for each in fields(Account)}


class Ledger:
    """The accounts of the requests in flight on ``table``; ``clock`` gives monotonic nanoseconds."""

    def __init__(self, table: JobTable, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._table = table
        self._clock = clock
        self._open: dict[Slot, Account] = {}
        self._ending: dict[Slot, int] = {}
        self._closed: list[Account] = []
        self._recent: deque[Slot] = deque(maxlen=_REMEMBERED)

    def hear(self, news: Mapping[str, Any]) -> None:
        """Take in a message."""
        if news["slot"] is None:
            account = Account()
            account.learn(news)
            self._closed.append(account)
            return
        slot = Slot.of(news["slot"])
        if slot in self._recent:
            return
        self._open.setdefault(slot, Account()).learn(news)
        if "outcome" in news:
            self._ending.setdefault(slot, self._clock())

    def sweep(self) -> None:
        """Note the requests that ended without a word; call it once a second or so."""
        for slot, account in self._open.items():
            if slot not in self._ending and (end := self._ended(slot, account)) is not None:
                now = self._ending[slot] = self._clock()
                account.learn({"outcome": end[0], "code": end[1], "marks": {"ended": now}})

    def _ended(self, slot: Slot, account: Account) -> tuple[str, str] | None:
        """Outcome and code of the job by the table; None if it is in flight."""
        entry = self._table.entry(slot)
        if entry is not None:  # else its slot is another's by now
            if not entry.progress.ended:
                return None
            if entry.progress.state == "done":
                return "done", ""
            if entry.cancelled or entry.progress.state == "cancelled":
                return "cancelled", "CANCELLED"
        return ("cancelled", ABANDONED) if "finished" in account.marks else ("failed", LOST)

    def closed(self, everything: bool = False) -> list[Account]:
        """The requests that are over since the last call and settled (see ``SETTLE_NS``), or ``everything`` over."""
        now = self._clock()
        for slot in [slot for slot, since in self._ending.items() if everything or now - since >= SETTLE_NS]:
            del self._ending[slot]
            self._closed.append(self._open.pop(slot))
            self._recent.append(slot)
        found, self._closed = self._closed, []
        return [account for account in found if "started" in account.marks]  # else its beginning was lost
