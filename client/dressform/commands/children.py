"""Programs that a command starts and waits for."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress

_OWN_SECONDS = 2.0
_TERM_SECONDS = 30.0


def ended(command: Sequence[str], environment: Mapping[str, str] | None = None) -> int:
    """The exit code of a program, which has ``environment`` besides ours.

    A terminal's Ctrl-C reaches it as well as us. It has some time to end by itself, then it is told to, then killed.
    """
    with subprocess.Popen(command, env={**os.environ, **(environment or {})}) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            for stop, seconds in ((process.terminate, _OWN_SECONDS), (process.kill, _TERM_SECONDS)):
                with suppress(subprocess.TimeoutExpired):
                    process.wait(seconds)
                    break
                stop()
            raise
