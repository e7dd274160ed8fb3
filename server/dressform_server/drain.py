"""Waiting for the requests in flight before Triton hears of the end: the repository's own ``jobs/drain.py``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def drain(repository: Path, server: int, timeout: float) -> None:
    """Have the Triton with process id ``server`` finish what it has, for at most ``timeout`` s, and take nothing new.

    What is wrong is said on stderr, and no reason to go on running. A repository of other models has nothing to drain.
    """
    script = repository / "jobs" / "drain.py"
    if script.is_file():
        command = [sys.executable, "-I", str(script), "--server", str(server), "--timeout", str(timeout)]
        subprocess.run(command, check=False, stdin=subprocess.DEVNULL)
