"""``step-overhead``: what lies between two UNet calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import FigureBase

from dressform_bench.report.chart import BLUE, GREY, in_a_row
from dressform_bench.report.section import Chart, Column, Section, columns, counted, listed, short

Row = Mapping[str, Any]

_COLUMNS: Sequence[Column] = (
    ("jobs at once", "jobs", str),
    ("rows of a UNet call", "unet_rows", str),
    ("jobs in a UNet call", "mean_batch", short),
    ("from step to step, ms", "step_ms", short),
    ("the graph alone, ms", "bare_ms", short),
    ("overhead, ms", "overhead_ms", short),
)


def section(record: Mapping[str, Any]) -> Section:
    """The section of a run."""
    rows = sorted(record["rows"], key=lambda row: int(row["jobs"]))
    note = (
        "A UNet that only copies, with tensors of true size: Triton handing the jobs over, our stage assembling rows, "
        "the call and the solver are all that a step takes. Medians over all jobs and steps."
    )
    chart = Chart(
        "step-overhead",
        finding(record),
        "For each number of jobs at once, a bar: milliseconds of the copying graph alone, and what lies around it.",
        lambda figure, _: _draw(figure, rows),
        (8, 0.9 + 0.45 * len(rows)),
        (4.3, 1.1 + 0.45 * len(rows)),
    )
    table = columns("steps", "From one step to the next", _COLUMNS, rows)
    return Section(f"Between two UNet calls: {record['model']}", finding(record), (note,), (chart, table))


def finding(record: Mapping[str, Any]) -> str:
    """What lies between two UNet calls, by jobs."""
    rows = sorted(record["rows"], key=lambda row: int(row["jobs"]))
    told = [f"{short(row['overhead_ms'])} ms with {counted(row['jobs'], 'job')} at once" for row in rows]
    return f"Between two UNet calls lie {listed(told)}"


def _draw(figure: FigureBase, rows: Sequence[Row]) -> None:
    axes = in_a_row(figure, 1, True)[0]
    names = [counted(row["jobs"], "job") for row in rows]
    bare = [row["bare_ms"] for row in rows]
    axes.barh(names, bare, color=GREY, label="the copying graph alone")
    bars = axes.barh(names, [row["overhead_ms"] for row in rows], left=bare, color=BLUE, label="all around it")
    axes.bar_label(bars, [f"{short(row['step_ms'])} ms" for row in rows], padding=3, fontsize=8.5)
    axes.invert_yaxis()
    axes.set(xlabel="ms from one step to the next", xlim=(0, 1.18 * max(row["step_ms"] for row in rows)))
    axes.grid(visible=False, axis="y")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=2)
