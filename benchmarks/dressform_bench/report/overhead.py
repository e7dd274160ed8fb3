"""``overhead``: where each millisecond of a request goes, as a waterfall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import FigureBase
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from dressform_bench.report.chart import BLUE, GREY, INK, ORANGE, in_a_row
from dressform_bench.report.section import (
    Chart,
    Column,
    Section,
    Table,
    columns,
    counted,
    listed,
    percent,
    seconds,
    short,
)

Row = Mapping[str, Any]

ENGINE = ("encode", "unet", "decode")
"""Parts in which the graphs run."""
WAITING = ("wait",)

_COLUMNS: Sequence[Column] = (
    ("jobs at once", "jobs", str),
    ("a request, s", "served_seconds", short),
    ("all served, s", "makespan_seconds", short),
    ("bare engine, s", "bare_seconds", short),
    ("served / bare", "served_over_bare", "{:.3f}".format),
)


def section(record: Mapping[str, Any]) -> Section:
    """The section of a run."""
    rows = sorted(record["rows"], key=lambda row: row["jobs"])
    parts: list[Chart | Table] = []
    if rows:
        names = list(dict.fromkeys(name for row in rows for name in row["parts_ms"]))
        height = 0.7 + 0.28 * len(names)
        parts = [
            Chart(
                "overhead",
                finding(record),
                "A waterfall for each number of jobs: a request's parts, each beginning where the one before ended.",
                lambda figure, narrow: _draw(figure, narrow, rows, names),
                (10.5, height + 0.6),
                (4.3, len(rows) * height + 0.9),
            ),
            columns("ratio", "Served beside the bare engine", _COLUMNS, rows),
            _parts(rows, names),
        ]
    steps = record["settings"].get("steps")
    what = [record["model"] or "a model", *([counted(steps, "step")] if steps else [])]
    what += [str(record["settings"]["engine"])] if record["settings"].get("engine") else []
    note = (
        "The bare engine makes the calls of one picture's trajectory with as many times its rows as there are jobs, "
        "with nothing around them. A request's time and parts are means; the ratio is the median of those of each "
        "repeat's own pair. The graphs' parts are the times inside their models, from Triton's statistics."
    )
    return Section(f"Overhead: {', '.join(what)}", finding(record), (note,), tuple(parts))


def finding(record: Mapping[str, Any]) -> str:
    """Served time over the bare engine's, and the share of a request in which no graph runs."""
    rows = sorted(record["rows"], key=lambda row: row["jobs"])
    if not rows:
        return "Nothing was measured"
    ratios = [f"{row['served_over_bare']:.2f} × for {counted(row['jobs'], 'job')}" for row in rows]
    parts = rows[0]["parts_ms"]
    around = sum(value for name, value in parts.items() if name not in ENGINE)
    alone = f"; of a request alone {short(around)} ms ({percent(around / sum(parts.values()))}) are not the graphs'"
    longer = sum(parts.values()) - around - 1000 * rows[0]["bare_seconds"]
    if longer > 0:
        alone += f", which themselves take {short(longer)} ms longer than bare"
    return f"Served takes {listed(ratios)} of the bare engine's time" + (alone if rows[0]["jobs"] == 1 else "")


def _parts(rows: Sequence[Row], names: Sequence[str]) -> Table:
    totals = [sum(row["parts_ms"].values()) for row in rows]
    head = ("part", *(f"{counted(row['jobs'], 'job')}, {unit}" for row in rows for unit in ("ms", "share")))
    cells = [
        (
            name.replace("_", " "),
            *(
                text
                for row, total in zip(rows, totals)
                for text in (short(row["parts_ms"].get(name)), percent(row["parts_ms"].get(name, 0) / total))
            ),
        )
        for name in names
    ]
    cells.append(("all", *(text for total in totals for text in (short(total, 4), ""))))
    return Table("parts", "Where the time of a request goes", head, tuple(cells))


def _draw(figure: FigureBase, narrow: bool, rows: Sequence[Row], names: Sequence[str]) -> None:
    for axes, row in zip(in_a_row(figure, len(rows), narrow, sharey=True), rows):
        total = sum(row["parts_ms"].values())
        in_seconds = total >= 2000
        unit = 1000 if in_seconds else 1
        longest = max(total, 1000 * row["bare_seconds"]) / unit
        begun = 0.0
        for place, name in enumerate(names):
            value = row["parts_ms"].get(name, 0.0) / unit
            axes.barh(place, value, left=begun, height=0.7, color=_colour(name), edgecolor=_colour(name), linewidth=0.8)
            if place:
                axes.plot([begun, begun], [place - 0.65, place - 0.35], color=GREY, linewidth=0.8)
            _label(
                axes, f"{short(value * unit, 2 if value * unit < 10 else 3)} ms", place, begun, begun + value, longest
            )
            begun += value
        axes.axvline(1000 * row["bare_seconds"] / unit, color=INK, linestyle="--", linewidth=1.2)
        axes.set(xlim=(0, 1.06 * longest), xlabel=f"{'s' if in_seconds else 'ms'} from the call")
        axes.set(yticks=range(len(names)), yticklabels=[name.replace("_", " ") for name in names])
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_title(f"{counted(row['jobs'], 'job')}: {seconds(total / 1000)}")
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
    handles: list[Patch | Line2D] = [
        Patch(color=BLUE, label="the graphs"),
        Patch(color=GREY, label="waiting"),
        Patch(color=ORANGE, label="all around them"),
        Line2D([], [], color=INK, linestyle="--", linewidth=1.2, label="bare engine, all jobs"),
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=2 if narrow else 4, columnspacing=1.2)


def _label(axes: Any, text: str, place: int, begun: float, ended: float, longest: float) -> None:
    """Beside its bar, on the side where there is room; within a bar that leaves none."""
    # On white, so that the line of the bare engine does not run through the figures.
    white = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
    options: dict[str, Any] = {"textcoords": "offset points", "va": "center", "size": 8.5}
    if ended < 0.62 * longest:
        axes.annotate(text, (ended, place), (4, 0), ha="left", bbox=white, **options)
    elif begun > 0.38 * longest:
        axes.annotate(text, (begun, place), (-4, 0), ha="right", bbox=white, **options)
    else:
        axes.annotate(text, ((begun + ended) / 2, place), (0, 0), ha="center", color="white", weight="bold", **options)


def _colour(name: str) -> str:
    return BLUE if name in ENGINE else GREY if name in WAITING else ORANGE
