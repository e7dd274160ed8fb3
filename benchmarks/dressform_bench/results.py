"""Records: what every benchmark tells in one line of JSON, and the files that keep them.

A record has the keys of `header` and its benchmark's own (`forms`). Committed runs are
``benchmarks/results/DATE-NAME.jsonl``; files of other kinds beside them are no records.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import psutil

from dressform_bench.forms import problem
from dressform_bench.versions import versions
from dressform_export.capacity import machine

PACKAGES = ("dressform", "torch", "diffusers", "optimum", "onnxruntime", "openvino", "tritonclient", "locust")
"""Those whose versions are told, where they are installed."""


def header(benchmark: str, argv: Sequence[str] | None, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What every record begins with: when, where, by which command (``argv`` are its arguments), with what versions.

    ``settings`` are the options that make two runs comparable.
    """
    arguments = sys.argv[1:] if argv is None else argv
    return {
        "benchmark": benchmark,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": shlex.join(["dressform", "bench", benchmark, *arguments]),
        "machine": {
            "name": machine(),
            "cpus": os.cpu_count(),
            "memory_gigabytes": round(psutil.virtual_memory().total / 1e9, 1),
            "gpu": gpu(),
        },
        "versions": versions(PACKAGES),
        "settings": dict(settings),
    }


def write(record: Mapping[str, Any], out: Path | None) -> None:
    """Print ``record`` as the last line of stdout, and append it to ``out``."""
    line = json.dumps(record)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
    print(line, flush=True)


def read(folder: Path) -> list[dict[str, Any]]:
    """The records in the ``*.jsonl`` files of ``folder``, oldest first.

    Raises:
        ValueError: at a line that is no record, with its file and number.
    """
    records = []
    for path in sorted(folder.glob("*.jsonl")):
        for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: not JSON: {error}") from error
            wrong = problem(record)
            if wrong is not None:
                raise ValueError(f"{path}, line {number}: {wrong}")
            records.append(record)
    return sorted(records, key=created)


def created(record: Mapping[str, Any]) -> datetime:
    """When a record was made; where it does not name its time zone, that of UTC is meant."""
    at = datetime.fromisoformat(record["created"])
    return at if at.tzinfo else at.replace(tzinfo=timezone.utc)


def gpu() -> str | None:
    """The first GPU's name, as ``nvidia-smi`` tells it."""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        names = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return None
    return names[0].strip() if names else None
