"""Run a program that ends when the process that started it ends: ``python leash.py PARENT_PID PROGRAM ARG…``.

The kernel sends SIGTERM to the program when the *thread* that forked it is gone (prctl(2), PR_SET_PDEATHSIG), which
survives ``exec``. A script of its own instead of ``preexec_fn``, which is unsafe in a process with threads.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Put this process on the leash of ``arguments[0]`` and become ``arguments[1:]``."""
    parent = int(arguments[0])
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:  # it ended before the leash was on
        sys.exit(1)
    os.execv(arguments[1], arguments[1:])


if __name__ == "__main__":
    main(sys.argv[1:])
