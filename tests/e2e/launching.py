"""``dressform serve`` as a process of its own."""

from __future__ import annotations

import atexit
import os
import re
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import psutil
import pytest


def launch(repository: Path, *arguments: str, log: Path | None = None) -> subprocess.Popen[bytes]:
    """``dressform serve`` as a process of its own, on free ports where ``arguments`` name none; it says in ``log``."""
    command = [sys.executable, "-m", "dressform_server", str(repository)]
    command += ["--http-port", "0", "--grpc-port", "0", "--metrics-port", "0", *arguments]
    # A launcher that is killed cannot remove its temporary folder: let it be within the test's.
    environment = {"PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(repository.parent)}
    with log.open("wb") if log is not None else nullcontext() as said:
        launched = subprocess.Popen(command, env=os.environ | environment, stderr=said)
    atexit.register(launched.kill)  # of a test that failed: Triton goes with its launcher
    return launched


def launched_ready(
    repository: Path, capfd: pytest.CaptureFixture[str], *arguments: str, protocol: str = "grpc"
) -> tuple[subprocess.Popen[bytes], str]:
    """A launched server that is ready, and the address of its endpoint of ``protocol`` (grpc or http)."""
    launched = launch(repository, *arguments)
    shown = ""
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline and launched.poll() is None:
        shown += capfd.readouterr().err
        if match := re.search(rf"ready: .*?\b{protocol}://(\S+)", shown):
            return launched, match[1]
        time.sleep(0.05)
    launched.kill()
    raise AssertionError(f"not ready: {shown}")


def gone(processes: list[psutil.Process], within: float) -> bool:
    """Whether all ``processes`` end within some seconds (a zombie that nobody reaps has ended)."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes):
            return True
        time.sleep(0.05)
    return False


def segments(launched: subprocess.Popen[bytes]) -> list[Path]:
    """The shared-memory segments of a launched server."""
    return list(Path("/dev/shm").glob(f"dressform_{launched.pid}_*"))


def stub_of(launched: subprocess.Popen[bytes], stage: str) -> psutil.Process:
    """The process of a stage or graph: Triton names it in the stub's arguments."""
    family = psutil.Process(launched.pid).children(recursive=True)
    (found,) = [process for process in family if any(f"/{stage}/1/" in word for word in process.cmdline()[1:])]
    return found
