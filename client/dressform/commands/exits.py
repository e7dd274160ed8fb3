"""Exit codes of the command: one table, which ``dressform --help`` prints."""

from __future__ import annotations

from dressform.errors import (
    Cancelled,
    DeadlineExceeded,
    DressformError,
    InvalidRequest,
    NotFound,
    Overloaded,
    ServerUnavailable,
)

DONE, FAILED, WRONG, OVERLOADED, LATE, CANCELLED, UNAVAILABLE, SERVER, INTERRUPTED = 0, 1, 2, 3, 4, 5, 6, 7, 130

EXIT_CODES: dict[int, str] = {
    DONE: "done",
    FAILED: "some of a batch failed, doctor found a fault, or this machine failed (a file, a missing package)",
    WRONG: "the command line or the request is wrong, or the server does not serve that: change it",
    OVERLOADED: "the server is full: try again later",
    LATE: "not finished within the deadline",
    CANCELLED: "cancelled by somebody else",
    UNAVAILABLE: "no server answers, or it is not ready",
    SERVER: "a fault of the server's own",
    INTERRUPTED: "interrupted (Ctrl-C, SIGTERM, SIGHUP); the server was told to stop",
}
"""What each exit code means. ``serve``, ``export``, ``bench`` and ``app`` end with the code of what they start."""

_BY_ERROR: tuple[tuple[type[DressformError], int], ...] = (
    (InvalidRequest, WRONG),
    (NotFound, WRONG),
    (Overloaded, OVERLOADED),
    (DeadlineExceeded, LATE),
    (Cancelled, CANCELLED),
    (ServerUnavailable, UNAVAILABLE),
)


def code_of(error: DressformError) -> int:
    """The exit code of a command that ended in ``error``."""
    return next((code for kind, code in _BY_ERROR if isinstance(error, kind)), SERVER)


def table() -> str:
    """The exit codes, a line for each."""
    return "\n".join(["exit codes:", *(f"  {code:<4} {meaning}" for code, meaning in EXIT_CODES.items())])
