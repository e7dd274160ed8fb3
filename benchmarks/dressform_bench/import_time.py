"""What ``import dressform`` costs: ``python -m dressform_bench.import_time``.

A new Python for each run. Each row: what is done, CPU seconds and wall seconds (medians over the runs), both less those
of a Python that does nothing. The limit is 0.5 s of wall time on an idle machine; on a busy one read the CPU seconds.
The last line of stdout is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

LIMIT_SECONDS = 0.5
PROGRAMS = {
    "import dressform": "import dressform",
    "a gRPC client": "from dressform import Client; Client('grpc://127.0.0.1:1')",
    "an HTTP client": "from dressform import Client; Client('http://127.0.0.1:1')",
    "the help of tryon": "from dressform.commands import parser_of; parser_of('tryon').format_help()",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure."""
    parser = argparse.ArgumentParser(
        prog="python -m dressform_bench.import_time",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--runs", type=int, default=9)
    runs = parser.parse_args(argv).runs
    measured("pass", 1)  # Python itself comes from the disk once
    bare = measured("pass", runs)
    print(f"limit {LIMIT_SECONDS:.3f} s\n{'':<20}{'CPU s':>8}{'wall s':>8}")
    figures = {}
    for name, program in PROGRAMS.items():
        measured(program, 1)
        cpu, wall = (whole - base for whole, base in zip(measured(program, runs), bare))
        figures[name] = {"cpu_seconds": round(cpu, 4), "wall_seconds": round(wall, 4)}
        print(f"{name:<20}{cpu:>8.3f}{wall:>8.3f}")
    print(
        json.dumps({"limit_seconds": LIMIT_SECONDS, "runs": runs, "python": sys.version.split()[0], "figures": figures})
    )


def measured(program: str, runs: int) -> tuple[float, float]:
    """CPU and wall seconds of a Python that runs ``program``, medians."""
    cpu, wall = [], []
    for _ in range(runs):
        before, began = os.times(), time.perf_counter()
        subprocess.run([sys.executable, "-c", program], check=True)
        wall.append(time.perf_counter() - began)
        after = os.times()
        used = after.children_user + after.children_system - before.children_user - before.children_system
        cpu.append(used)
    return statistics.median(cpu), statistics.median(wall)


if __name__ == "__main__":
    main()
