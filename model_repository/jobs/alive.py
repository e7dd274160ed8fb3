"""Whether a server is alive: ``python3 REPOSITORY/jobs/alive.py [--server PID] [--watch]``.

Exit status 0: it is; 1, with a sentence on stderr: it is not (see `jobs.heart`), or there is none. With ``--watch``
it looks every second, and returns when the server is ill (1) or has ended (0).

Needs Python alone. Kubernetes' liveness probe runs it, and ``dressform serve``, which starts an ill server anew.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.dont_write_bytecode = True  # a folder __pycache__ in the repository would be a model without a config to Triton
sys.path.insert(0, str(Path(__file__).parents[1]))  # the repository's root

from jobs.drain import process_of, running  # noqa: E402
from jobs.heart import ill  # noqa: E402
from jobs.table import JobTable  # noqa: E402

_LOOK_SECONDS = 1.0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="alive.py", description=__doc__.partition("\n")[0])
    parser.add_argument("--server", type=int, metavar="PID", help="Triton's process id (default: the only one)")
    parser.add_argument("--watch", action="store_true", help="go on until it is ill, or ends")
    options = parser.parse_args(arguments)
    try:
        path = running(options.server)
    except LookupError as error:
        print(f"alive: {error}", file=sys.stderr)
        return 1
    table = JobTable.open(path)
    try:
        while True:
            wrong = ill(table, time.monotonic_ns())
            ended = options.watch and not process_of(path).exists()
            if wrong is not None and not ended:
                print(f"alive: {wrong}", file=sys.stderr)
                return 1
            if ended or not options.watch:
                return 0
            time.sleep(_LOOK_SECONDS)
    finally:
        table.close()


if __name__ == "__main__":
    sys.exit(main())
