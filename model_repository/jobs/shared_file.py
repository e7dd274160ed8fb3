"""A small file that the processes of one server map into memory, and that goes with the last of them.

Two kinds of kernel locks, both released when a process dies, however it dies:

- *presence*: a shared ``flock``, held as long as the file is open. A file on which nobody holds one is left over, and
  may be removed.
- *turn*: an exclusive ``lockf`` for the few changes that need one (``turn``); a ``threading.Lock`` beside it, because
  the threads of a process share the other. Open a file once per process: closing it gives up both.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SUFFIX, POST_SUFFIX = ".jobs", ".post"
"""Of the file, and of the socket beside it (see `jobs.post`)."""
_SHARED_MEMORY = Path("/dev/shm")


def server_path(server: int | None = None) -> Path:
    """The file of the server with process id ``server``: by default this process's parent, as for a Triton stage.

    The process's start time is part of the name: ids come again, and containers may share /dev/shm.
    """
    pid = os.getppid() if server is None else server
    ticks = started(pid) or 0
    folder = _SHARED_MEMORY if os.access(_SHARED_MEMORY, os.W_OK) else Path(tempfile.gettempdir())
    return folder / f"dressform-{pid}-{ticks}{SUFFIX}"


def started(pid: int) -> int | None:
    """When the process began, in the kernel's ticks; None if there is none with this id, or it has died."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else int(fields[18])


def servers(folder: Path = _SHARED_MEMORY) -> list[Path]:
    """The files in ``folder`` of servers that run, when those that were left over are removed."""
    remove_left_over(folder)
    return sorted(folder.glob(f"dressform-*{SUFFIX}"))


def remove_left_over(folder: Path) -> None:
    """Remove the files in ``folder`` that no process has open (servers that were killed)."""
    for path in folder.glob(f"dressform-*{SUFFIX}"):
        with suppress(OSError):
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                _remove_if_left(fd, path)
            finally:
                os.close(fd)


def _remove_if_left(fd: int, path: Path) -> None:
    with suppress(OSError):  # somebody is there
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _names(path, fd):
            path.unlink()
            path.with_suffix(POST_SUFFIX).unlink(missing_ok=True)


def _names(path: Path, fd: int) -> bool:
    """Whether ``path`` still leads to the open file ``fd``."""
    try:
        return os.path.samestat(path.stat(follow_symlinks=False), os.fstat(fd))
    except FileNotFoundError:
        return False


class SharedFile:
    """``size`` bytes at ``path``, zero at first, readable and writable by this user alone."""

    def __init__(self, path: Path, size: int) -> None:
        """Open the file, or make it.

        Raises:
            OSError: if it cannot be made, is another user's, or has another size.
        """
        self.path = path
        self._fd = _opened(path)
        self._threads = threading.Lock()
        try:
            with self.turn():
                self._check(size)
            self.memory = mmap.mmap(self._fd, size)
        except BaseException:
            os.close(self._fd)
            raise

    def _check(self, size: int) -> None:
        status = os.fstat(self._fd)
        if status.st_uid != os.geteuid():
            raise PermissionError(f"{self.path} belongs to user {status.st_uid}, not to {os.geteuid()}")
        if status.st_size == 0:
            # Reserved now, or a full /dev/shm would kill the process at the first write to the mapping.
            os.posix_fallocate(self._fd, 0, size)
        elif status.st_size != size:
            raise OSError(f"{self.path} has {status.st_size} bytes, not {size}: another version's?")

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Alone among all threads and processes; keep it to microseconds."""
        with self._threads:
            fcntl.lockf(self._fd, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.lockf(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Leave; whoever is last removes the file."""
        self.memory.close()
        fcntl.flock(self._fd, fcntl.LOCK_UN)
        _remove_if_left(self._fd, self.path)
        os.close(self._fd)


def _opened(path: Path) -> int:
    """A descriptor with a shared ``flock`` on the file that ``path`` names (not on one that was just removed)."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        fcntl.flock(fd, fcntl.LOCK_SH)
        if _names(path, fd):
            return fd
        os.close(fd)
