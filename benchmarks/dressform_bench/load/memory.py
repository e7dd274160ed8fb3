"""What a server and its stages hold in memory."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import psutil

STUB = "triton_python_backend_stub"
"""The program in which Triton runs a Python model."""


def memory(pid: int) -> dict[str, float] | None:
    """The gigabytes that a server and its stages hold, by `process_name`; pages that are shared are shared out (PSS).

    None if there is no such process.
    """
    if not pid:
        return None
    held: Counter[str] = Counter()
    try:
        for each in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
            held[process_name(each.cmdline())] += each.memory_full_info().pss
    except psutil.Error:
        return None
    return {name: round(held[name] / 1e9, 5) for name in sorted(held)}


def process_name(command: Sequence[str]) -> str:
    """The model whose process a ``command`` began, as in ``denoise``; of other processes the program's name."""
    if not command:
        return "ended"
    program = Path(command[0]).name
    if program != STUB:
        return program
    return re.sub(r"(_\d+)+$", "", command[-2])  # the last but one is its instance, as in denoise_0_0
