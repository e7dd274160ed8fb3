"""Figures in documents: blocks of Markdown between two marks, written from the records and never by hand.

A block is ``<!-- figures: HEADING: PART, PART -->`` … ``<!-- /figures -->``. HEADING is that of a section of the
report; a PART is ``finding`` (a sentence), ``command``, the name of one of its tables, or ``NAME.png``: its chart of
that name, in ``docs`` beside the document. Each chart's file carries the record that it was drawn from.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from dressform_bench.report.chart import SOURCE, png
from dressform_bench.report.contents import Run
from dressform_bench.report.section import Chart
from dressform_bench.report.summary import fenced, picture, table, text

_BLOCK = re.compile(
    r"(<!-- figures: (?P<heading>[^\n]+): (?P<parts>[^:\n]+) -->\n).*?(?P<end><!-- /figures -->)", re.DOTALL
)

CHARTS = "docs"
"""The folder of charts, beside the document."""


def filled(document: Path, runs: Sequence[Run]) -> str:
    """The text of ``document`` with its blocks written anew.

    Raises:
        ValueError: if a block names what the report does not have, or there is none.
    """
    before = document.read_text(encoding="utf-8")
    if not _BLOCK.search(before):
        raise ValueError(f"{document} has no block of figures")
    return _BLOCK.sub(lambda found: f"{found[1]}{_written(found, runs)}\n{found['end']}", before)


def drifted(document: Path, runs: Sequence[Run]) -> list[str]:
    """What in ``document`` differs from the records: headings of blocks, and files of charts."""
    now, then = (list(_BLOCK.finditer(each)) for each in (document.read_text(encoding="utf-8"), filled(document, runs)))
    blocks = [found["heading"] for found, wanted in zip(now, then, strict=True) if found[0] != wanted[0]]
    charts = [str(path) for run, _, path in _charts(document, runs) if _source(path) != run.source]
    return blocks + charts


def fill(document: Path, runs: Sequence[Run]) -> None:
    """Write the blocks of ``document``, and the charts that they show."""
    words = filled(document, runs)
    for run, chart, path in _charts(document, runs):
        png(chart, path, run.caption, run.source)
    document.write_text(words, encoding="utf-8")


def _written(found: re.Match[str], runs: Sequence[Run]) -> str:
    run = _run(found["heading"], runs)
    return "\n\n".join(_part(part.strip(), run) for part in found["parts"].split(","))


def _run(heading: str, runs: Sequence[Run]) -> Run:
    named = [run for run in runs if run.section.heading == heading]
    if not named:
        there = "; ".join(run.section.heading for run in runs)
        raise ValueError(f"the records have no section {heading!r}: there are {there}")
    if len(named) > 1:
        made = ", ".join(str(run.record["created"]) for run in named)
        raise ValueError(
            f"{len(named)} runs that cannot be compared are headed {heading!r}, of {made}: "
            "name their models apart (--model), or keep one"
        )
    return named[0]


def _part(name: str, run: Run) -> str:
    if name == "finding":
        return f"{text(run.section.finding)}."
    if name == "command":
        return fenced(run.record["command"])
    if name.endswith(".png"):
        return picture(_chart(name, run), f"{CHARTS}/{name}")
    tables = run.section.tables
    if name not in tables:
        raise ValueError(f"{run.section.heading!r} has no table {name!r}: there are {', '.join(tables)}")
    return table(tables[name])


def _chart(name: str, run: Run) -> Chart:
    charts = {f"{part.name}.png": part for part in run.section.parts if isinstance(part, Chart)}
    if name not in charts:
        raise ValueError(f"{run.section.heading!r} has no chart {name!r}: there are {', '.join(charts)}")
    return charts[name]


def _charts(document: Path, runs: Sequence[Run]) -> Iterator[tuple[Run, Chart, Path]]:
    for found in _BLOCK.finditer(document.read_text(encoding="utf-8")):
        run = _run(found["heading"], runs)
        for name in (part.strip() for part in found["parts"].split(",")):
            if name.endswith(".png"):
                yield run, _chart(name, run), document.parent / CHARTS / name


def _source(path: Path) -> str | None:
    if not path.is_file():
        return None
    with Image.open(path) as image:
        found = image.info.get(SOURCE)
        return found if isinstance(found, str) else None
