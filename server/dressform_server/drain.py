"""Waiting for the requests in flight before Triton hears of the end: the repository's own ``jobs/drain.py``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def drain(repository: Path, server: int, timeout: float) -> list[str]:
    """Have the Triton with process id ``server`` finish what it has, for at most ``timeout`` s, and take nothing new.

    Returns what went wrong, in lines; it is no reason to go on running. A repository of other models has nothing to
    drain.
    """
    script = repository / "jobs" / "drain.py"
    if not script.is_file():
        return []
    command = [sys.executable, "-I", str(script), "--server", str(server), "--timeout", str(timeout)]
    ran = subprocess.run(command, check=False, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    return ran.stderr.splitlines()
