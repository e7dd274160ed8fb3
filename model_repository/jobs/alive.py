"""Whether a server is alive: ``python3 REPOSITORY/jobs/alive.py [--server PID] [--http HOST:PORT] [--watch]``.

Exit status 0: it is; 1, with a sentence on stderr: it is not (see `jobs.heart`), or there is none. With ``--http``
Triton itself must answer there, too. With ``--watch`` it looks every second, and returns when the server is ill (1) or
has ended (0).

Needs Python alone. Kubernetes' liveness probe runs it, and ``dressform serve``, which starts an ill server anew.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from http.client import HTTPConnection, HTTPException
from pathlib import Path

sys.dont_write_bytecode = True  # a folder __pycache__ in the repository would be a model without a config to Triton
sys.path.insert(0, str(Path(__file__).parents[1]))  # the repository's root

from jobs.drain import process_of, running  # noqa: E402
from jobs.heart import ill  # noqa: E402
from jobs.table import JobTable  # noqa: E402

_LOOK_SECONDS = 1.0
ANSWER_SECONDS = 2.0
"""Triton may take so long to say that it lives; it says so beside the work, not after it."""
MISSES = 3
"""In a row, at least, before that means anything: a machine may have been busy, or asleep."""
PATIENCE_SECONDS, PATIENCE_ONCE_SECONDS = 15.0, 6.0
"""How long Triton may not answer: to who watches; to who is asked once, as by a probe that counts failures itself."""


class Triton:
    """Whether Triton itself answers: ``ask`` asks it. The stages' processes go on beating while it hangs."""

    def __init__(self, ask: Callable[[], bool], patience: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._ask, self._patience, self._clock = ask, patience, clock
        self._heard = clock()
        self.misses = 0

    def ill(self) -> str | None:
        """Ask once; what is wrong, if so much is known by now."""
        if self._ask():
            self._heard, self.misses = self._clock(), 0
            return None
        self.misses += 1
        silent = self._clock() - self._heard
        certain = self.misses >= MISSES and silent >= self._patience
        return f"Triton has not answered for {silent:.0f} s" if certain else None


def fault(triton: Triton, table: JobTable, now_ns: int) -> str | None:
    """What is wrong with a server at ``now_ns`` (monotonic), in a sentence; None: nothing, or it is not known yet.

    The stages are judged while Triton answers: `jobs`, which hands it metrics, waits for it and beats no more.
    """
    hangs = triton.ill()
    return hangs if triton.misses else ill(table, now_ns)


def answers(address: str) -> bool:
    """Whether the Triton at ``address`` says that it lives. This asks the server, no model."""
    connection = HTTPConnection(address, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", "/v2/health/live")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="alive.py", description=__doc__.partition("\n")[0])
    parser.add_argument("--server", type=int, metavar="PID", help="Triton's process id (default: the only one)")
    parser.add_argument("--http", metavar="HOST:PORT", help="where Triton itself must answer (default: not asked)")
    parser.add_argument("--watch", action="store_true", help="go on until it is ill, or ends")
    options = parser.parse_args(arguments)
    try:
        path = running(options.server)
    except LookupError as error:
        print(f"alive: {error}", file=sys.stderr)
        return 1
    patience = PATIENCE_SECONDS if options.watch else PATIENCE_ONCE_SECONDS
    triton = Triton(lambda: options.http is None or answers(options.http), patience)
    table = JobTable.open(path)
    try:
        while True:
            wrong = fault(triton, table, time.monotonic_ns())
            ended = options.watch and not process_of(path).exists()
            if wrong is not None and not ended:
                print(f"alive: {wrong}", file=sys.stderr)
                return 1
            if ended or not (options.watch or triton.misses):
                return 0
            time.sleep(_LOOK_SECONDS)
    finally:
        table.close()


if __name__ == "__main__":
    sys.exit(main())
