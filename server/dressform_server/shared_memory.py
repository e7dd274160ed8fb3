"""The shared memory of one Triton: named after who started it, so that what is left over can be told and removed."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path

FOLDER = Path("/dev/shm")
_OWNER = re.compile(r"dressform_(?P<pid>\d+)_(?P<started>\d+)_")


class Segments:
    """The segments of the Triton that this process is about to start.

    Making it removes those of launchers that were killed: in a container, the predecessor's.
    """

    def __init__(self, folder: Path = FOLDER) -> None:
        self._folder = folder
        self._prefix = f"dressform_{os.getpid()}_{started(os.getpid())}_{secrets.token_hex(4)}_"
        clear_left_over(folder)

    def options(self, backends: Iterable[str]) -> list[str]:
        """Triton's options by which ``backends`` (``python``, or ones written in it) name their segments."""
        return [f"--backend-config={backend},shm-region-prefix-name={self._prefix}" for backend in backends]

    def clear(self, server: int | None) -> None:
        """Remove them, and what stages that were killed have shared: files that carry the id of Triton, ``server``."""
        for segment in self._folder.glob(f"{self._prefix}*"):
            segment.unlink(missing_ok=True)
        for shared in self._folder.glob(f"dressform-{server}-*") if server is not None else ():
            if shared.is_dir():
                shutil.rmtree(shared, ignore_errors=True)
            else:
                shared.unlink(missing_ok=True)


def clear_left_over(folder: Path) -> None:
    """Remove the segments of launchers that were killed: theirs alone, by process id and start time.

    In a container every launcher may have the same id, and the folder may outlive it.
    """
    for segment in folder.glob("dressform_*"):
        owner = _OWNER.match(segment.name)
        if owner is not None and started(int(owner["pid"])) != int(owner["started"]):
            segment.unlink(missing_ok=True)


def started(pid: int) -> int | None:
    """When the process started, in the kernel's ticks; None: there is none with this id."""
    try:
        return int(Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return None
