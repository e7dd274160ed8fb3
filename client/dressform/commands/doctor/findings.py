"""What a check of ``doctor`` finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "note", "fault"]


@dataclass(frozen=True)
class Finding:
    """One check: ok, note (works, but may not be what is wanted) or fault; what was found; how to mend it."""

    check: str
    state: State
    found: str
    mend: str = ""


def ok(check: str, found: str) -> Finding:
    """All is well."""
    return Finding(check, "ok", found)


def note(check: str, found: str, mend: str = "") -> Finding:
    """It works, but may not be what is wanted."""
    return Finding(check, "note", found, mend)


def fault(check: str, found: str, mend: str) -> Finding:
    """It does not work."""
    return Finding(check, "fault", found, mend)
