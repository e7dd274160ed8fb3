"""What people thought of their pictures, and the audit log that keeps it: one JSON object on a line. No Triton here."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from preprocess.errors import RequestError, UnsupportedError

RATINGS = ("up", "down")
MAX_ID = 200
MAX_COMMENT = 500
"""Longest id and comment, in characters."""


@dataclass(frozen=True)
class Feedback:
    """A rating of the picture that the request ``id`` made; ``comment`` may be empty.

    Raises:
        RequestError: at anything that is not allowed.
    """

    id: str
    rating: str
    comment: str = ""

    def __post_init__(self) -> None:
        if self.rating not in RATINGS:
            raise RequestError(f"rating must be one of {', '.join(RATINGS)}, not {self.rating!r:.60}")
        for name, text, most in (("id", self.id, MAX_ID), ("comment", self.comment, MAX_COMMENT)):
            if len(text) > most:
                raise RequestError(f"{name} must have at most {most} characters, not {len(text)}")
            controls = [character for character in text if unicodedata.category(character) == "Cc"]
            if controls:
                raise RequestError(f"{name} must have no control characters; there is {controls[0]!r}")

    def line(self, now: datetime) -> str:
        """The line of the audit log."""
        entry = {"time": now.isoformat(timespec="milliseconds"), "event": "feedback", **vars(self)}
        return json.dumps(entry) + "\n"  # in ASCII: no sign of any script ends a line or turns it


class AuditLog:
    """The file at ``path``; None: there is no log.

    Raises:
        OSError: if the file cannot be appended to.
    """

    def __init__(self, path: str | None) -> None:
        self._path = Path(path) if path else None
        if self._path is not None:
            self._append("")

    @property
    def kept(self) -> bool:
        """Whether there is a log."""
        return self._path is not None

    def record(self, feedback: Feedback) -> None:
        """Append ``feedback``.

        Raises:
            UnsupportedError: if there is no log.
            OSError: if it cannot be written.
        """
        if self._path is None:
            raise UnsupportedError(
                "this server keeps no audit log, so feedback is not recorded: "
                "start it with dressform serve --audit-log FILE (or set DRESSFORM_AUDIT_LOG)"
            )
        self._append(feedback.line(datetime.now(timezone.utc)))

    def _append(self, line: str) -> None:
        """Opened for each line, so that the file may be moved away at any time; one write, so that lines stay whole."""
        assert self._path is not None
        with self._path.open("ab", buffering=0) as file:
            file.write(line.encode())
