"""Who watches which request, and what each is told: events when something changed, and one end. No Triton here."""

from __future__ import annotations

import base64
from collections import Counter, deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Protocol

from dressform_contract import Fault
from jobs.entry import Entry, Slot
from jobs.table import PREVIEW_MEDIA, JobTable

EARLY_SECONDS = 5.0
"""How long a watcher may come before its request."""
LIFE_SECONDS = 3600.0
LARGEST_AUDIENCE = 128
LARGEST_AUDIENCE_OF_ONE = 8
"""Most watchers, and most of one request."""
PREVIEW_BUDGET = 2**20
"""Bytes of previews for one watcher: nobody knows whether it reads, and what it does not read is kept in memory."""
_LOOK_SECONDS = 1.0

Event = Mapping[str, object]


class Viewer(Protocol):
    """The other end."""

    def send(self, event: Event, last: bool) -> None:
        """Hand over one event."""

    def end(self, fault: Fault | None) -> None:
        """Close, with an error where there is one."""

    def gone(self) -> bool:
        """Whether nobody is there any more."""


class AudienceFull(Exception):
    """There are too many watchers; the message says of what."""


@dataclass
class Watcher:
    """One stream. ``slot`` is known from the first event on."""

    request_id: str
    viewer: Viewer
    since: float
    looked: float
    slot: Slot | None = None
    told: tuple[object, ...] | None = None
    preview_ns: int = 0
    preview_bytes: int = 0


class Audience:
    """All watchers of a server. ``add`` may be called from any thread, ``poll`` from one; ``clock`` gives seconds."""

    def __init__(self, table: JobTable, clock: Callable[[], float]) -> None:
        self._table = table
        self._clock = clock
        self._arrivals: deque[Watcher] = deque()
        self._watchers: list[Watcher] = []

    def __len__(self) -> int:
        return len(self._watchers) + len(self._arrivals)

    def add(self, request_id: str, viewer: Viewer) -> None:
        """Let ``viewer`` watch a request.

        Raises:
            AudienceFull: if there are too many.
        """
        of_one = Counter(watcher.request_id for watcher in [*self._watchers, *self._arrivals])[request_id]
        if len(self) >= LARGEST_AUDIENCE:
            raise AudienceFull(f"{LARGEST_AUDIENCE} watchers are here already")
        if of_one >= LARGEST_AUDIENCE_OF_ONE:
            raise AudienceFull(f"{LARGEST_AUDIENCE_OF_ONE} watch this request already")
        now = self._clock()
        self._arrivals.append(Watcher(request_id, viewer, now, now))

    def poll(self) -> None:
        """Tell every watcher what is new to it, and let go of those that have seen the end."""
        while self._arrivals:
            self._watchers.append(self._arrivals.popleft())
        self._watchers = [watcher for watcher in self._watchers if self._stays(watcher)]

    def close(self) -> None:
        """Send everybody away."""
        self.poll()
        for watcher in self._watchers:
            watcher.viewer.end(Fault("CANCELLED", "the server stops"))
        self._watchers = []

    def _stays(self, watcher: Watcher) -> bool:
        try:
            return self._told(watcher)
        except Exception as error:  # its stream is broken: nobody else's affair
            with suppress(Exception):
                watcher.viewer.end(Fault("INTERNAL", f"{type(error).__name__}: {error}"))
            return False

    def _told(self, watcher: Watcher) -> bool:
        """Send what is new; False when it was the last."""
        now = self._clock()
        if now - watcher.looked >= _LOOK_SECONDS:
            watcher.looked = now
            if watcher.viewer.gone() or now - watcher.since > LIFE_SECONDS:
                watcher.viewer.end(None)
                return False
        entry = self._table.entry(watcher.slot) if watcher.slot else self._table.find(watcher.request_id)
        if entry is None:
            if watcher.slot is None and now - watcher.since < EARLY_SECONDS:
                return True
            watcher.viewer.end(Fault("NOT_FOUND", "no request with this id is in flight"))
            return False
        watcher.slot = entry.slot
        event = self._news(watcher, entry)
        ended = entry.progress.ended
        if event or ended:
            watcher.viewer.send(event, ended)
        return not ended

    def _news(self, watcher: Watcher, entry: Entry) -> Event:
        """What this watcher has not seen; steps in between two polls are skipped, not queued."""
        event: dict[str, object] = asdict(entry.progress)
        told = (entry.progress.state, entry.progress.step, entry.progress.position)
        preview = self._table.preview_of(entry.slot)
        fresh = preview is not None and preview[0] > watcher.preview_ns
        if preview is not None and fresh and watcher.preview_bytes + len(preview[1]) <= PREVIEW_BUDGET:
            watcher.preview_ns, picture = preview
            watcher.preview_bytes += len(picture)
            event["preview"] = f"data:{PREVIEW_MEDIA};base64,{base64.b64encode(picture).decode()}"
        elif told == watcher.told:
            return {}
        watcher.told = told
        return event
