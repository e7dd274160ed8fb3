"""One report from the records of all benchmarks: ``python -m dressform_bench.report FOLDER``.

FOLDER holds ``*.jsonl`` files as the benchmarks write them with ``--out``. Of runs of the same benchmark, model,
machine and settings the newest counts; earlier ones are listed with their findings. What is written:

- ``--html FILE``: one file that needs no other, charts included, for a desktop and a phone
- ``--markdown FILE``: findings, tables and commands; with ``--charts`` its charts too
- ``--charts FOLDER``: each chart as a PNG, its finding above it

- ``--fill DOCUMENT``: the blocks of figures in a Markdown file (`report.blocks`), and the charts in them; with
  ``--check`` it writes nothing, and tells with exit code 1 what differs from the records

Without any of them the Markdown is printed.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from dressform_bench import results
from dressform_bench.report.blocks import drifted, fill
from dressform_bench.report.chart import png
from dressform_bench.report.contents import Run, runs
from dressform_bench.report.page import page
from dressform_bench.report.section import Chart
from dressform_bench.report.summary import summary


def main(argv: Sequence[str] | None = None) -> int:
    """Write; 1 if a document differs from the records, 2 if those or its blocks are wrong."""
    options = _options(argv)
    try:
        found = runs(results.read(options.folder))
    except (OSError, ValueError) as error:
        print(f"report: {error}", file=sys.stderr)
        return 2
    if not found:
        print(f"report: there are no records (*.jsonl) in {options.folder}", file=sys.stderr)
        return 2
    charts = drawn(found, options.charts) if options.charts is not None else {}
    if options.html is not None:
        _write(options.html, page(found))
    if options.markdown is not None:
        beside = options.markdown.absolute().parent
        links = {key: Path(os.path.relpath(path.absolute(), beside)).as_posix() for key, path in charts.items()}
        _write(options.markdown, summary(found, links))
    if options.fill is not None:
        return _fill(options.fill, found, options.check)
    if (options.html, options.markdown, options.charts) == (None, None, None):
        print(summary(found, {}), end="")
    return 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m dressform_bench.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="with the records")
    parser.add_argument("--html", type=Path, metavar="FILE", help="the page")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="the summary")
    parser.add_argument("--charts", type=Path, metavar="FOLDER", help="where to put the charts as PNG")
    parser.add_argument("--fill", type=Path, metavar="DOCUMENT", help="a Markdown file with blocks of figures")
    parser.add_argument("--check", action="store_true", help="only compare the document of --fill")
    options = parser.parse_args(argv)
    if options.check and options.fill is None:
        parser.error("--check is of --fill")
    return options


def _fill(document: Path, found: Sequence[Run], check: bool) -> int:
    try:
        if not check:
            fill(document, found)
            return 0
        differing = drifted(document, found)
    except (OSError, ValueError) as error:
        print(f"report: {error}", file=sys.stderr)
        return 2
    for what in differing:
        print(f"{document}: {what}: differs from the records (--fill writes it anew)", file=sys.stderr)
    return 1 if differing else 0


def drawn(found: Sequence[Run], folder: Path) -> dict[tuple[int, str], Path]:
    """Write the charts; their files by run (from 0) and name."""
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[tuple[int, str], Path] = {}
    for number, run in enumerate(found):
        stem = re.sub(r"[^a-z0-9]+", "-", f"{run.record['benchmark']} {run.record['model']}".lower()).strip("-")
        for chart in (part for part in run.section.parts if isinstance(part, Chart)):
            name = stem if chart.name == run.record["benchmark"] else f"{stem}-{chart.name}"
            path = folder / f"{name}.png"
            again = 1
            while path in files.values():
                again += 1
                path = folder / f"{name}-{again}.png"
            png(chart, path, run.caption, run.source)
            files[number, chart.name] = path
    return files


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
