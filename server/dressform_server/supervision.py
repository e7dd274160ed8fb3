"""Supervision: whether a server is alive, by the repository's own ``jobs/alive.py``, and when to start it anew."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from dressform_server.server import Server

STEADY_SECONDS = 120.0
"""A server that ran for so long is not failing in a row."""
MAX_FAILURES = 5
"""In a row; then the command ends, and tells who started it."""
_ALIVE, _ILL, _SAYS = 0, 1, "alive: "


class Watch:
    """Looks after one run of a server, in a process of its own that ends with the server, or with this."""

    def __init__(self, repository: Path, server: int, http_address: str) -> None:
        """Watch the Triton with process id ``server`` that answers at ``http_address``.

        A repository of other models is not watched.
        """
        script = (repository / "jobs" / "alive.py").absolute()
        command = [sys.executable, "-I", str(script), "--server", str(server), "--http", http_address, "--watch"]
        self._process: subprocess.Popen[str] | None = None
        if script.is_file():
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def verdict(self) -> str | None:
        """What is wrong with the server, if that is known by now."""
        if self._process is None or self._process.poll() in (None, _ALIVE):
            return None
        assert self._process.stderr is not None
        said = self._process.stderr.read().strip()
        judged = self._process.returncode == _ILL and said.startswith(_SAYS)  # else the script itself has failed
        return said.removeprefix(_SAYS) if judged else None

    def close(self) -> None:
        """Look no more."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stderr is not None
            self._process.stderr.close()


class Patience:
    """How often a server may fail: ``MAX_FAILURES`` times in a row, with growing pauses."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures = 0
        self._since: float | None = None

    def ready(self) -> None:
        """The server has come up."""
        self._since = self._clock()

    def pause(self) -> float | None:
        """Seconds to wait before it is started anew after a failure; None: it failed too often."""
        steady = self._since is not None and self._clock() - self._since >= STEADY_SECONDS
        self._since = None
        self._failures = 1 if steady else self._failures + 1
        return None if self._failures > MAX_FAILURES else 2.0 ** (self._failures - 1) - 1


def fault(server: Server, watch: Watch) -> str | None:
    """What ended ``server``, or must end it."""
    return ended_by_itself(server) if server.pid is None else watch.verdict()


def ended_by_itself(server: Server) -> str:
    """What is said of a server whose Triton is gone."""
    return f"Triton ended by itself with status {server.wait()}"
