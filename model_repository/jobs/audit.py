"""The audit log: requests and what people thought of them, one JSON object on a line. No Triton here."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

KEPT_FILES = 5
"""How many full files are kept, the newest as FILE.1."""


def line(event: str, facts: Mapping[str, Any], now: datetime) -> str:
    """A line of the log."""
    entry = {"time": now.isoformat(timespec="milliseconds"), "event": event, **facts}
    return json.dumps(entry) + "\n"  # in ASCII: no sign of any script ends a line or turns it


class AuditLog:
    """The file at ``path``, renamed when it would grow beyond ``max_bytes`` (0: never); ``path`` None: there is no log.

    One process writes it, from any thread: the stage ``jobs`` of one server.

    Raises:
        OSError: if the file cannot be appended to.
    """

    def __init__(self, path: str | None, max_bytes: int = 0) -> None:
        self._path = Path(path) if path else None
        self._max_bytes = max_bytes
        self._turn = threading.Lock()
        if self._path is not None:
            self._append("")

    @property
    def kept(self) -> bool:
        """Whether there is a log."""
        return self._path is not None

    def record(self, event: str, facts: Mapping[str, Any]) -> None:
        """Append a line about ``event``; nothing where there is no log.

        Raises:
            OSError: if it cannot be written.
        """
        if self._path is not None:
            self._append(line(event, facts, datetime.now(timezone.utc)))

    def _append(self, text: str) -> None:
        """Opened for each line, so that the file may be moved away at any time; one write, so that lines stay whole."""
        assert self._path is not None
        with self._turn:
            if self._max_bytes and self._path.exists() and self._path.stat().st_size + len(text) > self._max_bytes:
                self._rotate(self._path)
            with self._path.open("ab", buffering=0) as file:
                file.write(text.encode())

    @staticmethod
    def _rotate(path: Path) -> None:
        names = [path, *(path.with_name(f"{path.name}.{number}") for number in range(1, KEPT_FILES + 1))]
        for older, newer in zip(reversed(names), reversed(names[:-1])):
            if newer.exists():
                newer.replace(older)
