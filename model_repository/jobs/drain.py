"""Ends a server gently: ``python3 REPOSITORY/jobs/drain.py [--server PID] [--timeout S]``.

From the first moment on the server takes no new requests (they get ``STOPPING``, which clients try again elsewhere);
what it has accepted goes on, and can be watched and cancelled. Returns when nothing is in flight (exit status 0), after
S seconds (1), or at once where a stage is dead or hangs, for then nothing ends any more (1). Then Triton may be told to
end: from SIGTERM on it refuses the calls that one model makes to another (measured on 2.51: "Error when running
inference: Server not ready"), and `denoise` makes one at every step.

Needs Python alone. Kubernetes' ``preStop`` runs it, and ``dressform serve`` at SIGTERM.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.dont_write_bytecode = True  # a folder __pycache__ in the repository would be a model without a config to Triton
sys.path.insert(0, str(Path(__file__).parents[1]))  # the repository's root

from jobs.heart import ill  # noqa: E402
from jobs.shared_file import server_path, servers  # noqa: E402
from jobs.table import JobTable  # noqa: E402

_LOOK_SECONDS = 0.1


def drained(table: JobTable, alive: Callable[[], bool], timeout: float) -> str | None:
    """Stop the server of ``table``, and wait for ``timeout`` s until nothing is in flight; else what is, and why."""
    table.stop()
    deadline = time.monotonic() + timeout
    while (left := len(table.list()) + table.unlisted) and alive():
        if (wrong := ill(table, time.monotonic_ns())) is not None:
            return f"{wrong}, so {left} requests in flight cannot end"
        if time.monotonic() > deadline:
            return f"{left} requests were in flight after {timeout:g} s"
        time.sleep(_LOOK_SECONDS)
    return None


def running(server: int | None) -> Path:
    """The job table of the server with process id ``server``, or of the only one.

    Raises:
        LookupError: if there is none, or more than one.
    """
    found = servers() if server is None else [path for path in (server_path(server),) if path.exists()]
    if len(found) != 1:
        which = "here" if server is None else f"with process id {server}"
        raise LookupError(f"{len(found) or 'no'} servers run {which}" + (": name one by --server" if found else ""))
    return found[0]


def process_of(path: Path) -> Path:
    """The folder of the server's process, which is there as long as it runs."""
    return Path("/proc") / path.name.split("-")[1]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="drain.py", description=__doc__.partition("\n")[0])
    parser.add_argument("--server", type=int, metavar="PID", help="Triton's process id (default: the only one)")
    parser.add_argument("--timeout", type=float, default=600, metavar="S", help="seconds to wait at most (600)")
    options = parser.parse_args(arguments)
    try:
        path = running(options.server)
    except LookupError as error:
        print(f"drain: {error}", file=sys.stderr)
        return 2
    table = JobTable.open(path)
    try:
        left = drained(table, process_of(path).exists, options.timeout)
        if left is None:
            return 0
        print(f"drain: {left}", file=sys.stderr)
        return 1
    finally:
        table.close()


if __name__ == "__main__":
    sys.exit(main())
