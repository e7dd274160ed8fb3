"""The processes of one Triton: a group of their own, on a leash, with their shared memory and temporary files."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dressform_server.errors import StartFailed
from dressform_server.flags import common, patience, variables
from dressform_server.installation import Installation, backends
from dressform_server.journal import Journal
from dressform_server.repository import Repository
from dressform_server.settings import Settings, usable_cores
from dressform_server.shared_memory import Segments

_LEASH = Path(__file__).parent / "leash.py"
_NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
UNLOAD_SECONDS = 15.0  # beyond the drain, for Triton to unload its models
_LAST_BREATH_SECONDS = 2.0


class TritonProcess:
    """Triton and its stubs, from the moment they start until nothing of them is left.

    A thread of its own starts Triton, because the kernel's leash (see `leash`) hangs on the starting thread; it waits
    for the end, and then removes what is left: stubs, shared memory, the folder of backends.
    """

    def __init__(
        self,
        settings: Settings,
        repository: Repository,
        installation: Installation,
        ports: dict[str, int],
        journal: Journal,
    ) -> None:
        """Start Triton on ``ports``.

        Raises:
            StartFailed: if the program cannot be run at all.
        """
        self.repository = repository
        self.journal = journal
        self.ready = False
        self._settings = settings
        self._installation = installation
        self._ports = ports
        self._segments = Segments()
        self._child: subprocess.Popen[str] | None = None
        self._failure: OSError | None = None
        self._reaping = threading.RLock()  # re-entered where a signal handler kills in mid-stop
        self._started = threading.Event()
        self._ended = threading.Event()
        threading.Thread(target=self._live, name="triton-guard", daemon=True).start()
        self._started.wait()
        if self._failure is not None:
            raise StartFailed(f"Triton could not be started: {self._failure}") from self._failure

    @property
    def pid(self) -> int:
        """Process id of Triton and id of its process group."""
        assert self._child is not None
        return self._child.pid

    @property
    def alive(self) -> bool:
        """Whether anything of it is left."""
        return not self._ended.is_set()

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait for the end; the exit status (negative: the signal), or None after ``timeout`` seconds."""
        self._ended.wait(timeout)
        return self._child.returncode if self._child is not None and self._ended.is_set() else None

    def stop(self, timeout: float) -> None:
        """End Triton; kill it where it is not ready yet, or not gone ``timeout`` s later and some to unload."""
        if self.ready:
            self._signal_group(signal.SIGTERM)
            self._ended.wait(timeout + UNLOAD_SECONDS)
        self.kill()
        self._ended.wait()

    def kill(self) -> None:
        """End Triton and its stubs at once."""
        self._signal_group(signal.SIGKILL)

    def _live(self) -> None:
        try:
            with _temporary_folder() as folder:
                self._child = self._spawn(folder)
                assert self._child.stdout is not None
                self.journal.follow(self._child.stdout)
                self._started.set()
                # Not reaped yet, so that its id still names its group when the group is killed.
                os.waitid(os.P_PID, self._child.pid, os.WEXITED | os.WNOWAIT)
                self._signal_group(signal.SIGKILL)
                with self._reaping:
                    self._child.wait()
                _await_empty_group(self._child.pid)
        except OSError as error:
            self._failure = error
        finally:
            self._segments.clear(self._child.pid if self._child is not None else None)
            self.journal.finish()
            self._ended.set()
            self._started.set()

    def _spawn(self, folder: Path) -> subprocess.Popen[str]:
        self._installation.fill(folder)
        threads = self._settings.onnx_threads or usable_cores()
        environment = self._installation.environment(folder, threads) | variables(self._settings)
        leash = [sys.executable, "-I", "-S", str(_LEASH), str(os.getpid())]
        return subprocess.Popen(
            leash + self._command(folder / "backends"),
            cwd=folder,  # the stubs have it on sys.path: nothing of the caller's folder may shadow a module
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
            errors="replace",
        )

    def _command(self, backend_directory: Path) -> list[str]:
        settings, written_in_python = self._settings, ["python", *sorted(backends())]
        command = [
            str(self._installation.binary),
            *common(settings, self.repository.path, self._ports),
            f"--backend-directory={backend_directory}",
            f"--cache-directory={self._installation.caches}",
            *self._segments.options(written_in_python),
            *patience(written_in_python),
        ]
        if not _NVIDIA_DRIVER.exists():
            command += ["--allow-gpu-metrics=false", "--pinned-memory-pool-byte-size=0"]
        return [*command, *settings.triton_options]

    def _signal_group(self, number: signal.Signals) -> None:
        # Only ever before the leader is reaped: afterwards its id may be another's.
        with self._reaping, suppress(ProcessLookupError):
            if self._child is not None and self._child.returncode is None:
                os.killpg(self._child.pid, number)


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="dressform-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _await_empty_group(group: int) -> None:
    """Wait until no process of ``group`` is left; as a container's first process, reap those that become ours."""
    deadline = time.monotonic() + _LAST_BREATH_SECONDS
    while time.monotonic() < deadline:
        with suppress(ChildProcessError):
            os.waitpid(-group, os.WNOHANG)
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.01)
