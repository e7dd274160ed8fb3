"""Checks of this machine: Python, memory, disk, shared memory, ports, GPU."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from dressform.client import Client
from dressform.commands.doctor.findings import Finding, fault, note, ok
from dressform_server.errors import ServerError
from dressform_server.ports import chosen_ports

_PYTHONS = ((3, 10), (3, 13))
_MEMORY = Path("/proc/meminfo")
_SHARED_MEMORY = Path("/dev/shm")
_CGROUP = Path("/sys/fs/cgroup")
_GIB = 2**30

SHARED_MEMORY_BYTES = 64 * 2**20, _GIB
"""Free shared memory below which Triton's stages do not start, and below which large pictures may not pass: each of a
dozen stages takes some, and it grows with the largest request."""

DISK_BYTES = _GIB, 10 * _GIB
"""Free disk below which nothing can be exported, and below which Stable Diffusion 1.5 cannot (source, export, copy)."""

MEMORY_BYTES = 2 * _GIB, 12 * _GIB
"""Memory below which nothing is served, and below which Stable Diffusion 1.5 is not (11.4 GB were measured)."""


NO_GPU = ok("GPU", "none (no nvidia-smi): graphs run on the CPU")


def python() -> Finding:
    """Whether this Python is one that was tried."""
    first, last = _PYTHONS
    found = f"{platform.python_version()} at {sys.executable}"
    if not first <= sys.version_info[:2] <= last:
        return fault("Python", found, f"use Python {first[0]}.{first[1]} to {last[0]}.{last[1]}")
    return ok("Python", found)


def memory() -> Finding:
    """Whether a model fits."""
    if not _MEMORY.is_file():
        return note("memory", f"unknown: there is no {_MEMORY}")
    fields = dict(line.split(":", 1) for line in _MEMORY.read_text().splitlines())
    available = int(fields["MemAvailable"].split()[0]) * 1024
    try:  # a container's limit, where there is one
        limit = int((_CGROUP / "memory.max").read_text()) - int((_CGROUP / "memory.current").read_text())
        available = min(available, limit)
    except (OSError, ValueError):
        pass
    mend = "end other programs, or give the container more memory"
    return _enough("memory", f"{_size(available)} available", available, MEMORY_BYTES, mend)


def disk(folder: Path) -> Finding:
    """Whether an export fits."""
    free = shutil.disk_usage(folder).free
    return _enough("disk", f"{_size(free)} free at {folder}", free, DISK_BYTES, "make room, or work on another disk")


def shared_memory(folder: Path = _SHARED_MEMORY) -> Finding:
    """Whether Triton and its stages can share tensors."""
    if not folder.is_dir():
        return note("shared memory", f"there is no {folder}", "to serve, mount a tmpfs there")
    usage = shutil.disk_usage(folder)
    found = f"{_size(usage.free)} free of {_size(usage.total)} at {folder}"
    mend = f"docker run --shm-size=2g; else mount -o remount,size=2g {folder}, or remove what fills it"
    return _enough("shared memory", found, usage.free, SHARED_MEMORY_BYTES, mend)


def free_ports(host: str, ports: Mapping[str, int]) -> Iterator[Finding]:
    """Whether ``dressform serve`` can listen. Ports that a Dressform server has already are well, too."""
    taken = {}
    for name, port in ports.items():
        try:
            chosen_ports(host, {name: port})
        except ServerError as error:
            taken[name] = str(error)
    address = f"grpc://{host}:{ports['grpc']}"
    serving = "grpc" in taken and _serves(address)
    for name, port in ports.items():
        check = f"{name} port"
        if name not in taken:
            yield ok(check, f"{port} is free on {host}")
        elif serving:
            yield ok(check, f"{port} is in use; a Dressform server answers at {address}")
        else:
            found, _, mend = taken[name].partition(": ")
            yield fault(check, found, mend)


def _serves(address: str) -> bool:
    with Client(address, retries=0) as client:
        return bool(client.health(1.0))


def gpu() -> Finding:
    """Whether there is one."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return NO_GPU
    question = [program, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(question, capture_output=True, text=True, timeout=20, check=False)
    except subprocess.TimeoutExpired:
        return fault("GPU", "nvidia-smi does not answer", "look for driver faults in dmesg, or restart the machine")
    if done.returncode != 0:
        said = (done.stdout or done.stderr).strip().splitlines()
        return fault("GPU", f"nvidia-smi fails: {said[0] if said else 'no reason given'}", "mend the NVIDIA driver")
    return ok("GPU", "; ".join(done.stdout.strip().splitlines()))


def _enough(check: str, found: str, there: int, needed: tuple[int, int], mend: str) -> Finding:
    least, wanted = needed
    if there < least:
        return fault(check, f"{found}, less than {_size(least)}", mend)
    if there < wanted:
        return note(check, f"{found}; large models and pictures need {_size(wanted)}", mend)
    return ok(check, found)


def _size(count: int) -> str:
    return f"{count / _GIB:.1f} GiB" if count >= _GIB else f"{count / 2**20:.0f} MiB"
